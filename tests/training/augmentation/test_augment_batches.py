"""Batches of images in memory: augmented as images one by one are, whoever asks for them and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from skimage.data import astronaut
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from fbnetv3_zoo.preprocess import Interpolation, Preprocess
from fbnetv3_zoo.recipes import SGD, Augmentation, RandAugment, Recipe
from fbnetv3_zoo.training import Execution
from fbnetv3_zoo.training.augmentation import Augmenter, BatchAugmenter
from fbnetv3_zoo.training.augmentation.batches import NUMBERS, _crops, draw_numbers
from fbnetv3_zoo.training.augmentation.images import _draw_box
from fbnetv3_zoo.training.data import Example, Examples
from fbnetv3_zoo.training.data.arrays import ArrayImages, ArrayReader
from fbnetv3_zoo.training.data.dataset import Names
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.loader import Batch, TrainingBatches, _Gathered

SIDE = 32
PREPROCESS = Preprocess(SIDE, SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))
OPTIONS = {
    "nothing": Augmentation(),
    "flip": Augmentation(flip=0.5),
    "shift": Augmentation(shift=True),
    "crop": Augmentation(crop_area=0.3),
    "erasing": Augmentation(erasing=0.5),
    "all": Augmentation(crop_area=0.3, flip=0.5, shift=True, erasing=0.5, repeats=2),
}
RECIPE = Recipe(3, 12, SGD(), 0.1, OPTIONS["all"], seed=7)


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _photos(count: int, side: int = SIDE, *, gray: bool = False) -> npt.NDArray[np.uint8]:
    """Different parts of a photograph."""
    whole = Image.fromarray(astronaut()).resize((8 * SIDE, 8 * SIDE), Image.Resampling.BICUBIC)
    whole = whole.convert("L") if gray else whole
    boxes = ((5 * n % 200, 11 * n % 200) for n in range(count))
    return np.stack([np.asarray(whole.crop((x, y, x + side, y + side))) for x, y in boxes])


def _examples(count: int = 40, side: int = SIDE, *, gray: bool = False) -> Examples:
    images = _photos(count, side, gray=gray)
    return Examples(Names.of(map(str, range(count))), np.arange(count), np.arange(count), ArrayImages(images))


def _augmented(
    augmentation: Augmentation, images: npt.NDArray[np.uint8], numbers: npt.NDArray[np.float64]
) -> np.ndarray:
    fill = [round(255 * mean) for mean in PREPROCESS.mean]
    return BatchAugmenter(augmentation, SIDE, fill)(images, numbers).movedim(1, -1).numpy()


def _middling(count: int) -> npt.NDArray[np.float64]:
    """Numbers that change nothing: of an image that is shifted, neither angle nor size nor place."""
    return np.full((count, NUMBERS), 0.5)


def test_nothing_changes_nothing() -> None:
    images = _photos(5)
    numbers = draw_numbers(0, 0, 0, 5)
    assert np.array_equal(_augmented(Augmentation(), images, numbers), images)
    assert np.array_equal(_augmented(Augmentation(shift=True), images, _middling(5)), images)
    whole = _middling(5)
    whole[:, 10] = 1 - 1e-12  # all of the area, at a ratio of 1
    assert np.array_equal(_augmented(Augmentation(crop_area=0.5), images, whole), images)


def test_flips() -> None:
    images, numbers = _photos(40), draw_numbers(0, 0, 0, 40)
    for augmentation in (Augmentation(flip=0.5), Augmentation(flip=0.5, shift=True)):
        still = _middling(40)
        still[:, 0] = numbers[:, 0]
        found = _augmented(augmentation, images, still)
        flipped = [np.array_equal(one, other[:, ::-1]) for one, other in zip(found, images, strict=True)]
        unchanged = [np.array_equal(one, other) for one, other in zip(found, images, strict=True)]
        assert flipped == [not same for same in unchanged] == (numbers[:, 0] < 0.5).tolist()
        assert 10 < sum(flipped) < 30


def test_shifts_are_torchvisions() -> None:
    """As its affine transformation of an image, but for how values are rounded."""
    images, numbers = _photos(30), draw_numbers(1, 0, 0, 30)
    found = _augmented(Augmentation(shift=True), images, numbers)
    for image, shifted, drawn in zip(images, found, numbers, strict=True):
        angle, scale = 16 * drawn[2] - 8, 0.9 + 0.2 * drawn[3]
        moved = [round(0.08 * SIDE * (2 * number - 1)) for number in drawn[4:6]]
        expected = reference.affine(
            Image.fromarray(image), angle, moved, scale, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR
        )
        difference = np.abs(shifted.astype(int) - np.asarray(expected))
        assert np.median(difference) <= 1
        assert (difference > 8).mean() < 0.03  # where its edge is elsewhere


def test_crops_are_pillows_but_for_their_edges() -> None:
    images, numbers = _photos(30), draw_numbers(2, 0, 0, 30)
    found = _augmented(Augmentation(crop_area=0.3), images, numbers)
    for image, crop, (left, top, right, bottom) in zip(images, found, _boxes(numbers, SIDE, SIDE, 0.3), strict=True):
        expected = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, right, bottom))
        difference = np.abs(crop.astype(int) - np.asarray(expected))
        assert difference[2:-2, 2:-2].max() <= 1


def _boxes(numbers: npt.NDArray[np.float64], height: int, width: int, area: float) -> npt.NDArray[np.float64]:
    """Left, top, right and bottom of the crops, in pixels."""
    middle, scale = _crops(numbers, (height, width), area)
    size = np.array([width, height])
    return np.concatenate([(middle + 1 - scale) * size / 2, (middle + 1 + scale) * size / 2], 1)


@pytest.mark.parametrize(("height", "width", "area"), [(32, 32, 0.08), (20, 32, 0.35), (2, 32, 0.5)])
def test_crops_are_drawn_as_those_of_one_by_one(height: int, width: int, area: float) -> None:
    boxes = _boxes(draw_numbers(5, 0, 0, 2000), height, width, area)
    assert np.allclose(boxes, boxes.round())
    others = np.array([_draw_box(width, height, area) for _ in range(2000)])
    for measure in (_area, lambda box: box[:, 0], lambda box: box[:, 1], lambda box: box[:, 2] - box[:, 0]):
        assert ks_2samp(measure(boxes.round()), measure(others)).pvalue > 1e-4


def _area(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def test_erasing_is_torchvisions() -> None:
    """As often, as large, and anywhere."""
    images = np.zeros((3000, SIDE, SIDE, 3), np.uint8)
    found = _augmented(Augmentation(erasing=0.5), images, draw_numbers(3, 0, 0, 3000))
    erased = found[..., 0] > 0
    assert (found[erased] == [102, 128, 153]).all()
    share = erased.any((1, 2)).mean()
    assert 0.47 < share < 0.53
    augment = Augmenter(PREPROCESS, Augmentation(erasing=0.5))
    image = Example(ArrayReader(images[0]), 0)
    other = np.stack([augment(image).numpy()[..., 0] > 0 for _ in range(3000)])
    for mask in (erased, other):
        sizes = mask.sum((1, 2))[mask.any((1, 2))] / SIDE**2
        assert (sizes.min(), sizes.max(), np.median(sizes)) == pytest.approx((0.02, 0.33, 0.165), abs=0.02)
    assert np.abs(erased.mean(0) - other.mean(0)).max() < 0.05


@pytest.mark.parametrize("name", OPTIONS)
def test_images_are_on_average_those_of_one_by_one(name: str) -> None:
    (image,) = _photos(1, gray=True)[..., None]
    gray = Preprocess(SIDE, SIDE, mean=(0.5,), std=(0.2,))
    numbers = draw_numbers(4, 0, 0, 2000)
    many = BatchAugmenter(OPTIONS[name], SIDE, [128])(np.stack([image] * 2000), numbers).double()
    augment, example = Augmenter(gray, OPTIONS[name]), Example(ArrayReader(image[..., 0]), 0)
    single = torch.stack([augment(example) for _ in range(2000)]).movedim(-1, 1).double()
    error = (single.var(0) / 2000 + many.var(0) / 2000).sqrt() + 0.7
    assert ((many.mean(0) - single.mean(0)).abs() / error).max() < 5
    assert (many.std(0).mean() - single.std(0).mean()).abs() < 2


# --- what decides a batch ---


def _parts(batches: TrainingBatches, epoch: int = 0, first_step: int = 0) -> list[Batch]:
    return [part for step in batches.epoch(epoch, first_step=first_step) for part in step]


def _same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_what_a_batch_is() -> None:
    examples = _examples()
    assert _Gathered.of(examples, PREPROCESS, RECIPE) is not None
    for batch in _parts(TrainingBatches(examples, PREPROCESS, replace(RECIPE, augmentation=Augmentation()))):
        assert batch.images.shape == (12, 3, SIDE, SIDE)
        assert (batch.images.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)
        assert batch.images.movedim(1, -1).is_contiguous()
        for image, label in zip(batch.images, batch.labels, strict=True):
            assert np.array_equal(image.movedim(0, -1).numpy(), np.asarray(examples[int(label)].read()))


@pytest.mark.parametrize("gray", [False, True])
def test_the_batch_changes_nothing(*, gray: bool) -> None:
    """An image alone is augmented to the same pixels, bit for bit."""
    examples = _examples(gray=gray)
    preprocess = PREPROCESS if not gray else Preprocess(SIDE, SIDE, mean=(0.5,), std=(0.2,))
    whole = _parts(TrainingBatches(examples, preprocess, RECIPE), 1)
    single = _parts(TrainingBatches(examples, preprocess, RECIPE, execution=Execution(accumulation=6)), 1)
    assert torch.equal(torch.cat([b.images for b in whole]), torch.cat([b.images for b in single]))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    examples = _examples()
    helped = TrainingBatches(examples, PREPROCESS, RECIPE, execution=Execution(workers=workers))
    for epoch in (0, 1):
        assert _same(_parts(TrainingBatches(examples, PREPROCESS, RECIPE), epoch), _parts(helped, epoch))


def test_an_epoch_can_begin_anywhere() -> None:
    batches = TrainingBatches(_examples(), PREPROCESS, RECIPE)
    whole = _parts(batches, 1)
    for first in range(4):
        assert _same(_parts(batches, 1, first_step=first), whole[first:])


@pytest.mark.parametrize(("size", "accumulation"), [(2, 1), (3, 2)])
def test_processes_share_what_one_would_take(size: int, accumulation: int) -> None:
    examples, execution = _examples(), Execution(accumulation=accumulation)
    worlds = [World(rank=rank, size=size) for rank in range(size)]
    shared = [
        list(TrainingBatches(examples, PREPROCESS, RECIPE, world=w, execution=execution).epoch(2)) for w in worlds
    ]
    for n, (whole,) in enumerate(TrainingBatches(examples, PREPROCESS, RECIPE).epoch(2)):
        parts = [shared[rank][n][part] for part in range(accumulation) for rank in range(size)]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)


def test_every_place_of_every_epoch_and_seed_is_drawn_anew() -> None:
    numbers = [draw_numbers(seed, epoch, 0, 20) for seed in (0, 1) for epoch in (0, 1)]
    assert len(np.unique(np.concatenate(numbers))) == 4 * 20 * NUMBERS
    assert np.array_equal(draw_numbers(1, 1, 7, 5), numbers[3][7:12])


def test_other_sizes_are_resized_as_in_evaluation() -> None:
    for side, resize in ((24, SIDE), (40, SIDE), (SIDE, 36)):
        examples, preprocess = _examples(20, side), replace(PREPROCESS, resize=resize)
        for batch in _parts(TrainingBatches(examples, preprocess, replace(RECIPE, augmentation=Augmentation()))):
            for image, label in zip(batch.images, batch.labels, strict=True):
                expected = np.asarray(preprocess.crop(examples[int(label)].read()))
                assert np.array_equal(image.movedim(0, -1).numpy(), expected)


def test_which_images_are_augmented_one_by_one() -> None:
    examples, crop = _examples(20), replace(RECIPE, augmentation=OPTIONS["crop"])
    policy = replace(RECIPE, augmentation=Augmentation(policy=RandAugment()))
    gray = Preprocess(SIDE, SIDE, mean=(0.5,), std=(0.2,))
    for some, preprocess, recipe in (
        (list(examples), PREPROCESS, RECIPE),
        (examples, PREPROCESS, policy),
        (examples, gray, RECIPE),
        (_examples(20, 40), PREPROCESS, crop),
        (examples, replace(PREPROCESS, interpolation=Interpolation.BICUBIC), crop),
    ):
        assert _Gathered.of(some, preprocess, recipe) is None
        (batch, *_) = _parts(TrainingBatches(some, preprocess, recipe))
        assert batch.images.shape[1] == len(preprocess.mean)
    assert _Gathered.of(_examples(20, 24), PREPROCESS, crop) is not None
