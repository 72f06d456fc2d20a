"""Training batches whose order and contents depend only on seed, epoch and position.

Neither the number of worker processes nor an interruption changes them, and several training processes together see the
same images as one alone.
"""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..errors import ZooError, in_short
from ..preprocess import Preprocess
from ..recipes import Recipe
from ..utils.log import LOG
from .augmentation import Augmenter, BatchAugmenter
from .augmentation.batches import draw_numbers
from .data import Example, Examples
from .data.dataset import ArraySource, Integers, labels_of
from .data.gathered import gathered
from .distributed import World
from .execution import SKIPPING, Execution, OnBadImage

Value = TypeVar("Value")
_TRIES = 50
"""Number of consecutive unreadable images after which the run fails."""


def seed_of(*numbers: int) -> int:
    """A 63-bit seed derived from ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def worker_init() -> Callable[[int], None]:
    """The ``worker_init_fn`` of a DataLoader whose workers live as long as this process wants them.

    They do not outlive it, though torch's own look only from a moment after their start. Those that are not forked
    leave the process group, as forked ones do (:class:`~.preemption.Termination`): a SIGTERM to the whole group must
    not end them before the step in work is finished and a checkpoint written.
    """
    return partial(_init_worker, os.getpid())


def _init_worker(parent: int, worker: int) -> None:
    started_by, method = multiprocessing.parent_process(), multiprocessing.get_start_method(allow_none=True)
    if method in ("spawn", "forkserver") and hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if method == "forkserver":  # to the system, the server is the parent
        orphaned = started_by is not None and not started_by.is_alive()
    else:
        orphaned = os.getppid() != parent
    if orphaned:
        os._exit(1)


def worker_count(workers: int, batches: int) -> int:
    """How many of ``workers`` processes to start for ``batches``: none that would never be given a batch.

    Besides being of no use, such a worker's queue has no thread until the loader is shut down. If the garbage collector
    does that, after an error, queue and thread may both close the same file descriptor.
    """
    return min(workers, batches)


def unless_worker_dies(loader: Iterable[Value], advice: str = "") -> Iterator[Value]:
    """What a DataLoader gives; if one of its workers dies, :class:`ZooError` with ``advice`` at its end."""
    try:
        yield from loader
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker (pid"):
            raise ZooError(f"a worker process that loads images has died ({in_short(error)}){advice}") from None
        raise


def fitted(recipe: Recipe, images: int, *, tell: bool = True, rate_given: bool = False) -> Recipe:
    """``recipe`` adapted to ``images`` training images (:meth:`Recipe.for_images`), with a warning if it changes.

    ``rate_given``: the warning leaves out the recipe's learning rate, since another one will be used.
    """
    adapted = recipe.for_images(images)
    if tell and adapted != recipe:
        batches = f"{images:,} training images are fewer than a batch of {recipe.batch_size:,}: "
        batches += f"using batches of {adapted.batch_size:,}"
        rates = f", and the recipe's learning rate of {recipe.learning_rate:.4g} becomes {adapted.learning_rate:.4g}"
        LOG.warning("%s", batches if rate_given else batches + rates)
    return adapted


class AnyPart(Protocol):
    """What a process computes at once: a batch, or a part of one.

    ``bad`` has the key and the error of every unreadable image, which is replaced by the next one; ``images`` is empty
    if too many in a row are unreadable.
    """

    @property
    def images(self) -> Sized: ...  # noqa: D102

    @property
    def bad(self) -> tuple[tuple[str, str], ...]: ...  # noqa: D102

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a file."""
        ...


AnyBatch = TypeVar("AnyBatch", bound=AnyPart)


@dataclass(frozen=True, slots=True)
class Batch:
    """Images (uint8: images, channels, height, width) with labels (int64: images), and ``bad`` of :class:`AnyPart`."""

    images: Tensor
    labels: Tensor
    bad: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, values: Sequence[tuple[Tensor, int]], bad: tuple[tuple[str, str], ...]) -> Batch:
        """The batch of images (height, width, channels) with their labels."""
        if not values:
            return cls(torch.empty(0), torch.empty(0), bad)
        images = torch.stack([pixels for pixels, _ in values]).movedim(-1, 1)  # channels-last
        return cls(images, torch.tensor([label for _, label in values]), bad)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies faster."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.bad)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a file."""
        return {"images": self.images.contiguous(), "labels": self.labels}


@dataclass(frozen=True, slots=True)
class Turn:
    """When an image is used: its ``index`` in the data, the epoch, and its ``position`` in the epoch (both from 0)."""

    index: int
    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class _Sample(Generic[Value]):
    value: Value | None
    bad: tuple[tuple[str, str], ...]


class Samples(ABC, TorchDataset[_Sample[Value]], Generic[Value]):
    """Training images, prepared; an unreadable one is replaced by the next readable one.

    ``unusable``: the reasons why some cannot be used, by index; they are not tried.
    """

    unusable: Mapping[int, str] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def load(self, index: int, turn: Turn) -> Value:
        """Image ``index``, prepared for ``turn``. Raises :class:`ZooError` if it cannot be read."""

    @abstractmethod
    def key(self, index: int) -> str:
        """The name of image ``index``."""

    def __getitem__(self, turn: Turn) -> _Sample[Value]:
        bad: list[tuple[str, str]] = []
        tried = 0
        for offset in range(len(self)):
            index = (turn.index + offset) % len(self)
            try:
                if index in self.unusable:
                    raise ZooError(self.unusable[index])
                tried += 1
                return _Sample(self.load(index, turn), tuple(bad))
            except ZooError as error:
                bad.append((self.key(index), str(error)))
            if tried == _TRIES:
                break
        return _Sample(None, tuple(bad))


def images_at_once(batch_size: int, processes: int, parts: int, *, least: int) -> int:
    """How many images of a batch each process computes at once. Raises :class:`ZooError` unless it divides evenly."""
    shares = processes * parts
    images = batch_size // shares
    if batch_size % shares or images < least:
        raise ZooError(
            f"batches of {batch_size} images cannot be divided into {processes} processes x {parts} parts of at least "
            f"{least} images; use a multiple of {shares}, such as {max(least, images) * shares}"
        )
    return images


class Batches(Generic[AnyBatch]):
    """The batches of a run for this process of ``world``.

    Every step takes ``batch_size`` images over all processes (or all images, if there are fewer), in
    ``execution.accumulation`` parts of at least ``least`` images. An incomplete batch at the end of an epoch is
    dropped. ``batch_of`` builds a batch from the values of ``samples`` and the unreadable images.
    """

    def __init__(
        self, samples: Samples[Value], batch_of: Callable[[Sequence[Value], tuple[tuple[str, str], ...]], AnyBatch],
        recipe: Recipe, *, execution: Execution, world: World, least: int = 1,
    ) -> None:  # fmt: skip
        self._execution, count = execution, len(samples)
        self.batch_size = min(recipe.batch_size, count)
        part = images_at_once(self.batch_size, world.size, execution.accumulation, least=least)
        self.steps = count // self.batch_size
        self._order = _Order(count, part, self.steps, recipe, execution.accumulation, world)
        workers = worker_count(execution.workers, self.steps * execution.accumulation)
        self._loader: DataLoader[AnyBatch] = DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=self._order,
            collate_fn=partial(_collate, batch_of=batch_of),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=world.device.type == "cuda",
            generator=torch.Generator(),  # otherwise the loader would use the caller's
            worker_init_fn=worker_init(),
        )

    def leave_out(self, unusable: Mapping[int, str]) -> None:
        """Replace the images ``unusable``, of which the reason is told, without trying to read them."""
        self._loader.dataset.unusable = unusable  # type: ignore[attr-defined]

    def epoch(self, number: int, *, first_step: int = 0) -> Iterator[list[AnyBatch]]:
        """The parts of each step of epoch ``number`` (from 0) for this process, starting at ``first_step``."""
        self._order.epoch, self._order.first_step = number, first_step
        parts: list[AnyBatch] = []
        for batch in unless_worker_dies(self._loader, "; resume the run"):
            if not len(batch.images):
                raise ZooError(f"{len(batch.bad)} images in a row cannot be read, the first: {batch.bad[0][1]}")
            if batch.bad and self._execution.on_bad_image is OnBadImage.RAISE:
                raise ZooError(f"{batch.bad[0][1]}; {SKIPPING} such images are replaced and counted")
            parts.append(batch)
            if len(parts) == self._execution.accumulation:
                yield parts
                parts = []


def _collate(
    samples: list[_Sample[Value]] | AnyBatch, *,
    batch_of: Callable[[Sequence[Value], tuple[tuple[str, str], ...]], AnyBatch],
) -> AnyBatch:  # fmt: skip
    if not isinstance(samples, list):
        return samples
    if missing := next((sample for sample in samples if sample.value is None), None):
        return batch_of([], missing.bad)
    values = [sample.value for sample in samples if sample.value is not None]
    return batch_of(values, tuple(image for sample in samples for image in sample.bad))


class TrainingBatches(Batches[Batch]):
    """The batches of a classifier's run; batch norm needs at least two images in every part."""

    def __init__(
        self, examples: Sequence[Example], preprocess: Preprocess, recipe: Recipe, *,
        execution: Execution = Execution(), world: World = World(),
    ) -> None:  # fmt: skip
        gathered = _Gathered.of(examples, preprocess, recipe)
        samples = gathered or _Augmented(examples, Augmenter(preprocess, recipe.augmentation), recipe.seed)
        super().__init__(samples, Batch.of, recipe, execution=execution, world=world, least=2)


class _Augmented(Samples[tuple[Tensor, int]]):
    def __init__(self, examples: Sequence[Example], augmenter: Augmenter, seed: int) -> None:
        self._examples, self._augmenter, self._seed = examples, augmenter, seed

    def __len__(self) -> int:
        return len(self._examples)

    def key(self, index: int) -> str:
        return self._examples[index].key

    def load(self, index: int, turn: Turn) -> tuple[Tensor, int]:
        with torch.random.fork_rng(devices=[]):
            seed = seed_of(self._seed, turn.epoch, turn.position)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would look for GPUs every time
            example = self._examples[index]
            return self._augmenter(example), example.label


class _Gathered(Samples[tuple[Tensor, int]]):
    """Images in memory, of which batches are taken and augmented as a whole; ``rows`` are those of ``examples``."""

    def __init__(
        self, examples: Examples, source: ArraySource, rows: Integers, augmenter: BatchAugmenter, seed: int
    ) -> None:
        self._examples, self._source, self._rows = examples, source, rows
        self._augmenter, self._seed = augmenter, seed

    @classmethod
    def of(cls, examples: Sequence[Example], preprocess: Preprocess, recipe: Recipe) -> _Gathered | None:
        """The samples, if ``examples`` are in memory and can be augmented so; otherwise None."""
        if not isinstance(examples, Examples) or not isinstance(source := examples.origin, ArraySource):
            return None
        augmentation, side = recipe.augmentation, preprocess.resolution
        if not BatchAugmenter.suits(augmentation, max(source.shape[:2]), preprocess):
            return None
        found = gathered(examples, preprocess, cropped=augmentation.crop_area == 1)
        if found is None:
            return None
        augmenter = BatchAugmenter(augmentation, side, [round(255 * mean) for mean in preprocess.mean])
        return cls(examples, *found, augmenter, recipe.seed)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, turns: Sequence[Turn]) -> Batch:
        indices = np.array([turn.index for turn in turns])
        first = turns[0]  # positions follow one another
        numbers = draw_numbers(self._seed, first.epoch, first.position, len(turns))
        images = self._augmenter(self._source.gather(self._rows[indices]), numbers)
        return Batch(images, torch.from_numpy(labels_of(self._examples.at(indices)).astype(np.int64)))

    def load(self, index: int, turn: Turn) -> tuple[Tensor, int]:
        batch = self.__getitems__([replace(turn, index=index)])
        return batch.images[0].movedim(0, -1), int(batch.labels[0])

    def key(self, index: int) -> str:
        return self._examples[index].key


class _Order:
    """Turns of the images of this process in ``epoch``, part by part, starting at ``first_step``.

    The loader iterates over it once per epoch. It has no reference to the batches: a reference cycle with the loader
    would keep the workers from being shut down (torch waits five seconds for them).
    """

    def __init__(self, count: int, part: int, steps: int, recipe: Recipe, accumulation: int, world: World) -> None:
        self._count, self._part, self._steps, self._recipe = count, part, steps, recipe
        self._accumulation, self._world = accumulation, world
        self.epoch = self.first_step = 0

    def __iter__(self) -> Iterator[list[Turn]]:
        repeats, epoch = self._recipe.augmentation.repeats, self.epoch
        order = np.random.default_rng([self._recipe.seed, epoch]).permutation(self._count)
        if repeats > 1:
            order = np.repeat(order, repeats)[: self._count]
        for n in range(self.first_step * self._accumulation, self._steps * self._accumulation):
            start = (n * self._world.size + self._world.rank) * self._part
            yield [Turn(int(order[at]), epoch, at) for at in range(start, start + self._part)]
