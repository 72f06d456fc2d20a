"""Training batches: the same whatever the workers, processes and interruptions; bad images; workers that die."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from waiting import PATIENCE, gone, until

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import LeastSize, Preprocess
from fbnetv3_zoo.recipes import SGD, Augmentation, RandAugment, Recipe
from fbnetv3_zoo.training.data import Example
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.execution import Execution, OnBadImage
from fbnetv3_zoo.training.loader import Batch, TrainingBatches, seed_of

# Python 3.12 and later warn whenever a process with threads forks; torch's workers are forked before they use any.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

PREPROCESS = Preprocess(8, 8, mean=(0.5,), std=(0.25,))
EVERYTHING = Augmentation(crop_area=0.3, flip=0.5, shift=True, policy=RandAugment(), erasing=0.5)
PLAIN = Recipe(2, 6, SGD(), 0.1)
RECIPE = replace(PLAIN, augmentation=EVERYTHING)


@dataclass(frozen=True)
class Gray:
    """An image that tells which it is by how bright it is; some cannot be read."""

    number: int
    bad: bool = False

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        if self.bad:
            raise ZooError(f"{self.number}.png: is broken")
        pixels = np.random.default_rng(self.number).integers(0, 100, (12, 16))
        return Image.fromarray((pixels + self.number).astype(np.uint8))


@dataclass(frozen=True)
class Ending:
    """A reader that ends its process."""

    how: str

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        if self.how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def _examples(count: int, bad: Sequence[int] = ()) -> list[Example]:
    return [Example(Gray(n, bad=n in bad), n, key=f"{n}.png") for n in range(count)]


def _batches(
    count: int = 20, recipe: Recipe = RECIPE, *, bad: Sequence[int] = (), world: World = World(), **execution: object
) -> TrainingBatches:
    chosen = Execution(**execution)  # type: ignore[arg-type]
    return TrainingBatches(_examples(count, bad), PREPROCESS, recipe, execution=chosen, world=world)


def _parts(batches: TrainingBatches, epoch: int = 0, first_step: int = 0) -> list[Batch]:
    return [part for step in batches.epoch(epoch, first_step=first_step) for part in step]


def _same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.bad == b.bad
        for a, b in zip(one, other, strict=True)
    )


def _told(batches: TrainingBatches) -> str:
    """What an epoch is refused with. Keeps no traceback, which would keep the workers."""
    try:
        _parts(batches)
    except ZooError as error:
        return str(error)
    raise AssertionError("not refused")


def _labels(parts: Sequence[Batch]) -> list[int]:
    return [int(label) for part in parts for label in part.labels]


# --- what decides order and contents ---


def test_what_a_batch_is() -> None:
    batches = _batches()
    assert (batches.steps, batches.batch_size) == (3, 6)
    steps = list(batches.epoch(0))
    assert [len(parts) for parts in steps] == [1, 1, 1]
    for (batch,) in steps:
        assert batch.images.shape == (6, 1, 8, 8)
        assert (batch.images.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)
        assert batch.images.movedim(1, -1).is_contiguous()
        assert batch.bad == ()


def test_images_keep_their_labels() -> None:
    parts = _parts(_batches(recipe=PLAIN))
    for part in parts:
        for pixels, label in zip(part.images, part.labels, strict=True):
            expected = np.asarray(PREPROCESS.crop(Gray(int(label))()))
            assert np.array_equal(pixels[0].numpy(), expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    alone, helped = _batches(bad=(3,), on_bad_image=OnBadImage.SKIP), _batches(
        bad=(3,), on_bad_image=OnBadImage.SKIP, workers=workers
    )  # fmt: skip
    for epoch in (0, 1):
        assert _same(_parts(alone, epoch), _parts(helped, epoch))
    assert _same(_parts(alone, 1, first_step=2), _parts(helped, 1, first_step=2))


def test_every_epoch_and_seed_has_its_own_order_and_crops() -> None:
    orders = {
        (seed, epoch): _parts(_batches(recipe=replace(RECIPE, seed=seed)), epoch) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len({tuple(_labels(parts)) for parts in orders.values()}) == 4
    pictures = [_by_label(parts) for parts in orders.values()]
    for n, one in enumerate(pictures):
        for other in pictures[:n]:
            shared = one.keys() & other.keys()
            assert len(shared) > 10
            assert sum(one[label] == other[label] for label in shared) <= 1
    for (seed, epoch), parts in orders.items():
        assert _same(_parts(_batches(recipe=replace(RECIPE, seed=seed)), epoch), parts)  # without epochs before it


def _by_label(parts: Sequence[Batch]) -> dict[int, bytes]:
    return {
        int(label): pixels.numpy().tobytes()
        for part in parts
        for pixels, label in zip(part.images, part.labels, strict=True)
    }


def test_every_place_of_every_epoch_and_seed_is_drawn_anew() -> None:
    """One image, taken again and again, is never augmented the same way twice."""
    same, seen = [Example(Gray(0), 0)] * 18, []
    for seed in (0, 1):
        batches = TrainingBatches(same, PREPROCESS, replace(RECIPE, seed=seed))
        seen += [
            pixels.numpy().tobytes() for epoch in (0, 1) for part in _parts(batches, epoch) for pixels in part.images
        ]
    assert len(seen) == 72
    assert len(set(seen)) >= 70


@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_epoch_can_begin_anywhere(accumulation: int) -> None:
    batches = _batches(accumulation=accumulation)
    whole = _parts(batches, 1)
    for first in range(4):
        assert _same(_parts(batches, 1, first_step=first), whole[first * accumulation :])


def test_an_epoch_left_early_changes_no_other() -> None:
    batches, expected = _batches(workers=1), _parts(_batches(), 1)
    left = batches.epoch(0)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert _same(_parts(batches, 1), expected)


@pytest.mark.parametrize(("size", "accumulation"), [(2, 1), (3, 1), (1, 3), (2, 2), (3, 2)])
def test_processes_and_parts_share_what_one_would_take(size: int, accumulation: int) -> None:
    recipe = replace(RECIPE, batch_size=12)
    alone = list(_batches(40, recipe).epoch(2))
    worlds = [World(rank=rank, size=size) for rank in range(size)]
    shared = [list(_batches(40, recipe, world=world, accumulation=accumulation).epoch(2)) for world in worlds]
    assert len(alone) == 3
    for n, (whole,) in enumerate(alone):
        parts = [shared[rank][n][part] for part in range(accumulation) for rank in range(size)]
        assert {len(part.images) for part in parts} == {12 // size // accumulation}
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)


@pytest.mark.parametrize("count", [6, 20, 23, 24])
def test_every_image_at_most_once_an_epoch(count: int) -> None:
    batches = _batches(count, PLAIN)
    for epoch in range(3):
        labels = _labels(_parts(batches, epoch))
        assert len(labels) == len(set(labels)) == 6 * batches.steps == count - count % 6


def test_what_one_epoch_leaves_out_others_take() -> None:
    batches = _batches(23, PLAIN)
    assert set(_labels([part for epoch in range(12) for part in _parts(batches, epoch)])) == set(range(23))


def test_fewer_images_than_a_batch() -> None:
    batches = _batches(4, replace(PLAIN, batch_size=100))
    assert (batches.batch_size, batches.steps) == (4, 1)
    assert sorted(_labels(_parts(batches))) == [0, 1, 2, 3]


@pytest.mark.parametrize("repeats", [2, 3])
def test_repeated_augmentation(repeats: int) -> None:
    """Fewer images, each so often and each time otherwise, in as many steps."""
    recipe = replace(RECIPE, augmentation=replace(EVERYTHING, repeats=repeats))
    batches = _batches(24, recipe)
    assert batches.steps == 4
    parts = _parts(batches)
    assert Counter(Counter(_labels(parts)).values()) == {repeats: 24 // repeats}
    images = {pixels.numpy().tobytes() for part in parts for pixels in part.images}
    assert len(images) >= 23
    assert len(set(_labels(_parts(batches, 1)) + _labels(parts))) > 24 // repeats


def test_the_callers_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
    for workers in (0, 1):
        _parts(_batches(workers=workers))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]


def test_the_callers_random_numbers_do_not_matter() -> None:
    with torch.random.fork_rng(devices=[]):
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(_parts(_batches()))
    assert _same(*found)


def test_seeds() -> None:
    seeds = {seed_of(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    assert seed_of(1, 2, 3) == seed_of(1, 2, 3)


# --- what cannot be divided ---


@pytest.mark.parametrize(
    ("count", "batch_size", "size", "accumulation", "taken", "multiple", "example"),
    [
        (20, 6, 4, 1, 6, 4, 8),
        (20, 6, 1, 4, 6, 4, 8),
        (20, 6, 3, 2, 6, 6, 12),
        (20, 15, 2, 2, 15, 4, 12),
        (5, 100, 2, 1, 5, 2, 4),
    ],
)
def test_batches_that_cannot_be_divided(
    count: int, batch_size: int, size: int, accumulation: int, taken: int, multiple: int, example: int
) -> None:
    recipe, world = replace(PLAIN, batch_size=batch_size), World(size=size)
    assert refusal(lambda: _batches(count, recipe, world=world, accumulation=accumulation)) == (
        f"batches of {taken} images cannot be divided into {size} processes x {accumulation} parts of at least 2 "
        f"images; use a multiple of {multiple}, such as {example}"
    )
    divisible = replace(PLAIN, batch_size=example)
    assert _batches(20, divisible, world=world, accumulation=accumulation).batch_size == example


# --- images that cannot be read ---


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_replaced_and_told(workers: int) -> None:
    batches = _batches(18, PLAIN, bad=(4, 5, 17), workers=workers, on_bad_image=OnBadImage.SKIP)
    parts = _parts(batches)
    told = Counter(entry for part in parts for entry in part.bad)
    assert told == {
        ("4.png", "4.png: is broken"): 1,
        ("5.png", "5.png: is broken"): 2,  # in its own place and after 4
        ("17.png", "17.png: is broken"): 1,
    }
    expected = Counter(range(18)) - Counter((4, 5, 17)) + Counter((6, 6, 0))  # the next one; after the last, the first
    assert Counter(_labels(parts)) == expected
    for part in parts:
        assert part.images.shape == (6, 1, 8, 8)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_known_to_be_bad_are_not_tried(workers: int) -> None:
    """However many there are in a row."""
    wrong = range(10, 120)
    batches = _batches(130, PLAIN, bad=wrong, workers=workers, on_bad_image=OnBadImage.SKIP)
    batches.leave_out({n: f"{n}.png: is broken" for n in wrong})
    parts = _parts(batches)
    assert {int(label) for part in parts for label in part.labels}.isdisjoint(wrong)
    assert {entry for part in parts for entry in part.bad} <= {(f"{n}.png", f"{n}.png: is broken") for n in wrong}


def test_images_beside_a_bad_one_stay_as_they_were() -> None:
    parts, without = _parts(_batches(bad=(3,), on_bad_image=OnBadImage.SKIP)), _parts(_batches())
    for part, whole in zip(parts, without, strict=True):
        sound = whole.labels != 3
        assert torch.equal(part.images[sound], whole.images[sound])
        assert torch.equal(part.labels[sound], whole.labels[sound])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_ends_the_run_where_it_shall(workers: int) -> None:
    batches = _batches(18, PLAIN, bad=(4,), workers=workers)
    assert _told(batches) == (
        "4.png: is broken; with --on-bad-image skip (on_bad_image=OnBadImage.SKIP) such images are replaced and counted"
    )


@pytest.mark.parametrize(
    ("on_bad_image", "workers"), [(OnBadImage.SKIP, 0), (OnBadImage.SKIP, 1), (OnBadImage.RAISE, 0)]
)
def test_fifty_bad_images_in_a_row(on_bad_image: OnBadImage, workers: int) -> None:
    batches = _batches(60, PLAIN, bad=range(60), on_bad_image=on_bad_image, workers=workers)
    order = np.random.default_rng([0, 0]).permutation(60)
    told = f"50 images in a row cannot be read, the first: {order[0]}.png: is broken"
    assert _told(batches) == told


def test_forty_nine_bad_images_in_a_row_are_bridged() -> None:
    batches = _batches(60, replace(PLAIN, batch_size=60), bad=range(49), on_bad_image=OnBadImage.SKIP)
    (part,) = _parts(batches)
    assert set(_labels([part])) == set(range(49, 60))


def test_all_of_a_few_bad_images() -> None:
    batches = _batches(3, replace(PLAIN, batch_size=3), bad=range(3), on_bad_image=OnBadImage.SKIP)
    assert re.fullmatch(r"3 images in a row cannot be read, the first: [012]\.png: is broken", _told(batches))


# --- processes ---


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_worker_that_dies(how: str) -> None:
    examples = [*_examples(11), Example(Ending(how), 11, key="end")]
    batches = TrainingBatches(examples, PREPROCESS, PLAIN, execution=Execution(workers=1))
    worker = r"DataLoader worker \(pid(\(s\))? \d+\) .*"
    pattern = rf"a worker process that loads images has died \({worker}\); resume the run"
    assert re.fullmatch(pattern, _told(batches))


def test_workers_end_with_their_batches() -> None:
    """At once: the batches are in no circle of references, which would end their pipes before they are told."""
    batches = _batches(workers=1)
    _parts(batches)
    (worker,) = multiprocessing.active_children()
    gone = weakref.ref(batches)
    del batches
    assert gone() is None
    assert worker.exitcode == 0  # a worker that was not told is terminated


KILLED = """
import os, signal, time
from fbnetv3_zoo.training.evaluation_images import EvaluationImages
from test_loader import PREPROCESS, _batches as in_training, _examples

fork, parent = os.fork, os.getpid()

def start():
    if child := fork():
        print(child, flush=True)
        os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.001)
    return child

os.fork = start
next({iterator})
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(
    "iterator", ["in_training(workers=1).epoch(0)", "iter(EvaluationImages(_examples(2), PREPROCESS, workers=1))"]
)
def test_workers_end_with_a_process_that_is_killed(iterator: str) -> None:
    """Even where it dies before torch looks after it; a worker that it looks after ends within five seconds."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED.format(iterator=iterator)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    worker = int(done.stdout)
    until(lambda: gone(worker))


def test_errors_of_the_caller_pass_through() -> None:
    """What goes wrong in a training step is not mistaken for a worker that died."""

    def step() -> None:
        for _ in _batches(workers=1).epoch(0):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        step()


@pytest.fixture(params=["spawn", "forkserver"])
def started_otherwise(request: pytest.FixtureRequest) -> Iterator[None]:
    method = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(method, force=True)


@pytest.mark.usefixtures("started_otherwise")
def test_workers_that_are_not_forked_change_nothing() -> None:
    """As on macOS and Windows, and with Python 3.14 on Linux: all that a worker needs is pickled."""
    helped = _batches(12, bad=(3,), on_bad_image=OnBadImage.SKIP, workers=1)
    assert _same(_parts(helped, 1), _parts(_batches(12, bad=(3,), on_bad_image=OnBadImage.SKIP), 1))
