"""What a training image goes through: crops like torchvision's, every option, mixed batches."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import beta, binom, kstest
from skimage.data import astronaut, chelsea
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2

from fbnetv3_zoo.preprocess import Interpolation, LeastSize, Preprocess, decode_image
from fbnetv3_zoo.recipes import Augmentation, AutoAugment, PolicyData, RandAugment
from fbnetv3_zoo.training.augmentation import Augmenter, build_mixer
from fbnetv3_zoo.training.data import Example

GRAY = Preprocess(36, 32, mean=(0.5,), std=(0.25,))
COLOR = Preprocess(36, 32)
OPTIONS = {
    "nothing": Augmentation(),
    "crop": Augmentation(crop_area=0.1),
    "flip": Augmentation(flip=0.5),
    "shift": Augmentation(shift=True),
    "imagenet": Augmentation(policy=AutoAugment()),
    "cifar10": Augmentation(policy=AutoAugment(PolicyData.CIFAR10)),
    "rand": Augmentation(policy=RandAugment()),
    "rand, hard": Augmentation(policy=RandAugment(5, 30)),
    "erasing": Augmentation(erasing=1.0),
    "all": Augmentation(
        crop_area=0.1, flip=0.5, shift=True, policy=RandAugment(), erasing=0.5, mixup=0.2, cutmix=0.2, repeats=2
    ),
}


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Reading:
    """Reads a file in memory as those on a disk are read, and notes in what size."""

    def __init__(self, data: bytes) -> None:
        self.data, self.sizes = data, list[tuple[int, int]]()

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        image = decode_image(io.BytesIO(self.data), "memory", at_least=at_least)
        self.sizes.append(image.size)
        return image


class Whole(Reading):
    """The same, always in full size."""

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        return super().__call__(None)


def _jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _photo(width: int = 640, height: int = 480) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(chelsea())).resize((width, height), Image.Resampling.BICUBIC)


def _example(image: Image.Image) -> Example:
    return Example(lambda at_least=None: image, 0)


def _many(augmentation: Augmentation, image: Image.Image, preprocess: Preprocess, count: int) -> Tensor:
    """So many augmented images in floats, (images, height, width, channels)."""
    augment = Augmenter(preprocess, augmentation)
    return torch.stack([augment(_example(image)) for _ in range(count)]).double()


# --- every option ---


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("preprocess", [GRAY, COLOR], ids=["gray", "color"])
@pytest.mark.parametrize("name", OPTIONS)
def test_augmented_images_fit_the_network(name: str, preprocess: Preprocess, mode: str) -> None:
    image = _photo(60, 40).convert(mode)
    found = [Augmenter(preprocess, OPTIONS[name])(_example(image)) for _ in range(6)]
    for pixels in found:
        assert pixels.shape == (32, 32, len(preprocess.mean))
        assert pixels.dtype == torch.uint8
    distinct = len({pixels.numpy().tobytes() for pixels in found})
    assert distinct == 1 if name == "nothing" else distinct > 1


@pytest.mark.parametrize("preprocess", [GRAY, COLOR], ids=["gray", "color"])
def test_without_augmentation_training_sees_what_evaluation_sees(preprocess: Preprocess) -> None:
    image = _photo(60, 40)
    pixels = Augmenter(preprocess, Augmentation())(_example(image))
    assert np.array_equal(pixels.numpy().squeeze(), np.asarray(preprocess.crop(image)))


@pytest.mark.parametrize("name", OPTIONS)
def test_torchs_seed_decides(name: str) -> None:
    image, augment = _photo(60, 40), Augmenter(COLOR, OPTIONS[name])
    found = []
    for seed in (1, 1, 2, 3):
        torch.manual_seed(seed)
        found.append([augment(_example(image)).numpy().tobytes() for _ in range(3)])
    assert found[0] == found[1]
    assert name == "nothing" or len({tuple(row) for row in found}) == 3


@pytest.mark.parametrize("name", OPTIONS)
def test_it_goes_to_other_processes(name: str) -> None:
    """Where processes are spawned, not forked (macOS, Windows), the whole of it is pickled."""
    image, augment = _photo(60, 40), Augmenter(COLOR, OPTIONS[name])
    again = pickle.loads(pickle.dumps(augment))
    torch.manual_seed(5)
    expected = augment(_example(image))
    torch.manual_seed(5)
    assert torch.equal(again(_example(image)), expected)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_how_often_images_are_mirrored(probability: float) -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1)))
    preprocess = replace(GRAY, resize=32)
    found = _many(Augmentation(flip=probability), ramp, preprocess, 300)
    straight = torch.from_numpy(np.array(ramp)).double()[..., None]
    mirrored = int((found == straight.flip(1)).all((1, 2, 3)).sum())
    assert mirrored + int((found == straight).all((1, 2, 3)).sum()) == 300
    low, high = binom.interval(0.9999, 300, probability)
    assert low <= mirrored <= high


def test_shift_never_mirrors_and_keeps_the_content_in_view() -> None:
    dot = np.zeros((32, 32), np.uint8)
    dot[12:20, 8:16] = 255
    found = _many(Augmentation(shift=True), Image.fromarray(dot), replace(GRAY, resize=32), 200)[..., 0] / 255
    brightness = found.sum((1, 2))
    assert brightness.min() >= 64 * 0.9**2 * 0.95
    assert brightness.max() <= 64 * 1.1**2 * 1.05
    across = (found * torch.arange(32.0)).sum((1, 2)) / brightness
    assert across.min() >= 11.5 - 0.08 * 32 - 1.5
    assert across.max() <= 11.5 + 0.08 * 32 + 1.5  # a mirrored dot would lie at 19.5
    assert across.std() > 0.5


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_erasing_makes_a_rectangle_gray(probability: float) -> None:
    """Of the mean that normalization takes away, so that the network sees zeros."""
    gray = [124, 116, 104]  # 255 x ImageNet's mean
    white = Image.new("RGB", (32, 32), "white")
    found = _many(Augmentation(erasing=probability), white, replace(COLOR, resize=32), 200)
    erased = (found == torch.tensor(gray)).all(-1)
    assert (erased | (found == 255).all(-1)).all()
    low, high = binom.interval(0.9999, 200, probability)
    assert low <= int(erased.any((1, 2)).sum()) <= high
    for mask in erased[erased.any((1, 2))]:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns
        assert 0.015 <= rows * columns / 1024 <= 0.35


def test_policies_differ() -> None:
    """Each is torchvision's, with the recipe's arguments, for the same seed."""
    image, preprocess = _photo(32, 32), replace(COLOR, resize=32)
    published = v2.AutoAugmentPolicy
    expected = {
        AutoAugment(): v2.AutoAugment(published.IMAGENET),
        AutoAugment(PolicyData.CIFAR10): v2.AutoAugment(published.CIFAR10),
        RandAugment(): v2.RandAugment(2, 9),
        RandAugment(1, 25): v2.RandAugment(1, 25),
    }
    seen = set()
    for policy, transform in expected.items():
        augment = Augmenter(preprocess, Augmentation(policy=policy))
        torch.manual_seed(7)
        ours = [augment(_example(image)).numpy() for _ in range(8)]
        torch.manual_seed(7)
        assert all(np.array_equal(pixels, np.asarray(transform(image))) for pixels in ours)
        seen.add(b"".join(pixels.tobytes() for pixels in ours))
    assert len(seen) == len(expected)


# --- the random crop ---


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (300, 20), (20, 300), (37, 37), (1, 50)])
@pytest.mark.parametrize("area", [0.08, 0.5, 0.95])
def test_crops_are_torchvisions(area: float, size: tuple[int, int]) -> None:
    """The same boxes for the same seed, cut and resized by torchvision; also where no draw fits.

    Nearest neighbor shows where every pixel comes from; with a filter, torchvision's does not see beyond the box.
    """
    width, height = size
    places = np.stack([*np.meshgrid(np.arange(width) % 256, np.arange(height) % 256)], -1)
    image = Image.fromarray(np.concatenate([places, places[..., :1]], -1).astype(np.uint8))
    augment = Augmenter(replace(COLOR, interpolation=Interpolation.NEAREST), Augmentation(crop_area=area))
    theirs = RandomResizedCrop(32, (area, 1.0), (3 / 4, 4 / 3), v2.InterpolationMode.NEAREST)
    for seed in range(20):
        torch.manual_seed(seed)
        ours = augment(_example(image)).numpy().astype(int)
        torch.manual_seed(seed)
        assert np.abs(ours - np.asarray(theirs(image)).astype(int)).max() <= 1


@pytest.mark.parametrize("interpolation", [Interpolation.BILINEAR, Interpolation.BICUBIC])
def test_crops_are_resized_as_torchvision_does(interpolation: Interpolation) -> None:
    image = _photo(200, 150)
    augment = Augmenter(replace(COLOR, interpolation=interpolation), Augmentation(crop_area=0.3))
    theirs = v2.RandomResizedCrop(32, (0.3, 1.0), (3 / 4, 4 / 3), v2.InterpolationMode(interpolation.value))
    for seed in range(20):
        torch.manual_seed(seed)
        ours = augment(_example(image)).numpy().astype(int)
        torch.manual_seed(seed)
        apart = np.abs(ours - np.asarray(theirs(image)).astype(int))
        assert apart[2:-2, 2:-2].max() <= 1
        assert apart.mean() < 1  # the outermost pixels take a share of what lies beyond the box


def test_how_much_of_a_jpeg_is_decoded_depends_on_the_crop() -> None:
    reading = Reading(_jpeg(_photo(1024, 768)))
    augment = Augmenter(replace(COLOR, resolution=96, resize=96), Augmentation(crop_area=0.08))
    for _ in range(60):
        augment(Example(reading, 0))
    assert {size[0] for size in reading.sizes} == {512, 256}
    again = Reading(_jpeg(_photo(128, 96)))
    for _ in range(10):
        augment(Example(again, 0))
    assert set(again.sizes) == {(128, 96)}  # enlarged, never reduced


@pytest.mark.parametrize("size", [(1024, 768), (500, 375), (301, 1003), (97, 2001)])
@pytest.mark.parametrize("side", [32, 96, 224])
def test_a_smaller_jpeg_never_has_fewer_pixels_than_the_crop_needs(size: tuple[int, int], side: int) -> None:
    width, height = size
    reading, frame = Reading(_jpeg(Image.new("L", size))), torch.empty(1, height, width)
    augment = Augmenter(replace(GRAY, resize=side, resolution=side), Augmentation(crop_area=0.08))
    for seed in range(30):
        torch.manual_seed(seed)
        augment(Example(reading, 0))
        torch.manual_seed(seed)
        _, _, h, w = RandomResizedCrop.get_params(frame, [0.08, 1.0], [3 / 4, 4 / 3])
        if (decoded := reading.sizes[-1]) != size:
            assert w / width * decoded[0] >= side - 1e-6
            assert h / height * decoded[1] >= side - 1e-6


def test_a_smaller_jpeg_gives_nearly_the_same_crop() -> None:
    data = _jpeg(Image.fromarray(np.ascontiguousarray(astronaut())).resize((1024, 1024)))
    augment = Augmenter(replace(COLOR, resize=96, resolution=96), Augmentation(crop_area=0.08))
    smaller, whole = Reading(data), Whole(data)
    for seed in range(40):
        torch.manual_seed(seed)
        ours = augment(Example(smaller, 0)).double()
        torch.manual_seed(seed)
        expected = augment(Example(whole, 0)).double()
        apart = (ours - expected).abs().mean()
        assert apart < 3 if smaller.sizes[-1] != whole.sizes[-1] else apart == 0
    assert len(set(smaller.sizes)) >= 3


def test_turned_jpegs_are_cropped_upright() -> None:
    """A photograph on its side with the tag that says so, as cameras write it, gives the crops of the upright one."""
    photo = _photo(800, 600)
    tag = Image.Exif()
    tag[0x0112] = 6
    lying = Reading(_jpeg(photo.transpose(Image.Transpose.ROTATE_90), exif=tag))
    upright = Reading(_jpeg(photo))
    augment = Augmenter(replace(COLOR, resize=64, resolution=64), Augmentation(crop_area=0.08))
    for seed in range(20):
        torch.manual_seed(seed)
        ours = augment(Example(lying, 0)).double()
        torch.manual_seed(seed)
        expected = augment(Example(upright, 0)).double()
        assert lying.sizes[-1] == upright.sizes[-1]
        assert (ours - expected).abs().mean() < 3
    assert len(set(lying.sizes)) >= 3


# --- mixed batches ---


def _mixed(augmentation: Augmentation, seed: int, count: int = 8) -> tuple[Tensor, Tensor]:
    """A mixed batch whose image ``n`` is all 2**n and of class ``n``."""
    torch.manual_seed(seed)
    values = 2.0 ** torch.arange(count)
    images = values[:, None, None, None].expand(count, 3, 16, 16).clone()
    mixed, labels = build_mixer(augmentation, num_classes=count)(images, torch.arange(count))
    return mixed, labels


def _partner(labels: Tensor, n: int) -> int:
    others = [int(other) for other in labels[n].nonzero().flatten() if other != n]
    return others[0] if others else n


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_mixes_images_as_it_mixes_labels(alpha: float) -> None:
    for seed in range(20):
        images, labels = _mixed(Augmentation(mixup=alpha), seed)
        torch.testing.assert_close(labels.sum(1), torch.ones(8))
        assert len({round(float(share), 5) for share in labels.diagonal()}) == 1  # one share a batch
        for n in range(8):
            own, other = float(labels[n, n]), _partner(labels, n)
            expected = own * 2.0**n + (1 - own) * 2.0**other
            torch.testing.assert_close(images[n], torch.full((3, 16, 16), expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmix_replaces_a_rectangle_as_large_as_the_labels_say(alpha: float) -> None:
    for seed in range(20):
        images, labels = _mixed(Augmentation(cutmix=alpha), seed)
        torch.testing.assert_close(labels.sum(1), torch.ones(8))
        for n in range(8):
            own, other = float(labels[n, n]), _partner(labels, n)
            replaced = images[n, 0] != 2.0**n
            assert (images[n, :, replaced] == 2.0**other).all()
            assert float(replaced.double().mean()) == pytest.approx(1 - own, abs=1e-6)
            assert replaced.sum() == replaced.any(0).sum() * replaced.any(1).sum()


def test_one_or_the_other() -> None:
    """Each batch is mixed one way, by an even chance."""
    cut = 0
    for seed in range(200):
        images, _ = _mixed(Augmentation(mixup=1.0, cutmix=1.0), seed)
        powers = (images.log2() % 1 == 0).all((1, 2, 3)) & torch.tensor([len(image.unique()) <= 2 for image in images])
        cut += bool(powers.all())
    low, high = binom.interval(0.9999, 200, 0.5)
    assert low <= cut <= high


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    shares = []
    for seed in range(400):
        images, _ = _mixed(Augmentation(mixup=alpha), seed, count=2)
        shares.append(float(2 - images[0, 0, 0, 0]))  # image 0 is 1 and its partner 2
    expected = beta(alpha, alpha)
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * expected.std() / np.sqrt(400))
    assert np.var(shares) == pytest.approx(expected.var(), rel=0.25)
    assert kstest(shares, expected.cdf).pvalue > 1e-3


def test_the_seed_decides_the_mixing() -> None:
    both = Augmentation(mixup=0.5, cutmix=0.5)
    for seed in range(5):
        first, again, other = _mixed(both, seed), _mixed(both, seed), _mixed(both, seed + 100)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert not torch.equal(first[1], other[1])


def test_without_mixing_nothing_changes() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    found = build_mixer(Augmentation(), num_classes=10)(images, labels)
    assert found[0] is images
    assert found[1] is labels
