"""Training batches whose order and contents depend only on seed, epoch and position.

Neither the number of worker processes nor an interruption changes them, and several training processes together see the
same images as one alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..errors import ZooError, in_short
from ..preprocess import Preprocess
from ..recipes import Recipe
from ..utils.log import LOG
from .augment import Augmenter
from .data import Example
from .distributed import World
from .execution import Execution, OnBadImage

_TRIES = 50
"""Number of consecutive unreadable images after which the run fails."""


def seed_of(*numbers: int) -> int:
    """A 63-bit seed derived from ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def no_orphans() -> Callable[[int], None]:
    """A ``worker_init_fn`` that keeps a DataLoader's workers from outliving this process.

    torch's workers notice only if their parent dies after they have started to watch it.
    """
    return partial(_end_orphan, os.getpid())


def _end_orphan(parent: int, worker: int) -> None:
    if os.getppid() != parent:
        os._exit(1)


def tell_of_statistics(weights: Preprocess, data: Preprocess) -> None:
    """Log a warning if the data is normalised otherwise than the images that the weights were trained on."""
    before, now = ((tuple(round(x, 3) for x in values) for values in (one.mean, one.std)) for one in (weights, data))
    (old_mean, old_std), (mean, std) = before, now
    if (old_mean, old_std) != (mean, std):
        LOG.warning(
            "images are normalised with mean %s and standard deviation %s, not with %s and %s as before",
            mean, std, old_mean, old_std,
        )  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class Batch:
    """Images (uint8: images, channels, height, width) with labels (int64: images).

    ``bad`` has the key and the error of every unreadable image, which is replaced by the next one; ``images`` is empty
    if too many in a row are unreadable.
    """

    images: Tensor
    labels: Tensor
    bad: tuple[tuple[str, str], ...] = ()

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies faster."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.bad)


class TrainingBatches:
    """The batches of a run for this process of ``world``.

    Every step takes ``batch_size`` images over all processes (or all images, if there are fewer), in
    ``execution.accumulation`` parts. An incomplete batch at the end of an epoch is dropped.
    """

    def __init__(
        self, examples: Sequence[Example], preprocess: Preprocess, recipe: Recipe, *,
        execution: Execution = Execution(), world: World = World(),
    ) -> None:  # fmt: skip
        self._execution, count = execution, len(examples)
        self.batch_size = min(recipe.batch_size, count)
        shares = world.size * execution.accumulation
        part = self.batch_size // shares
        if self.batch_size % shares or part < 2:
            raise ZooError(
                f"batches of {self.batch_size} images cannot be divided into {world.size} processes x "
                f"{execution.accumulation} parts of at least 2 images; use a multiple of {shares}, such as "
                f"{max(2, part) * shares}"
            )
        self.steps = count // self.batch_size
        self._order = _Order(count, part, self.steps, recipe, execution.accumulation, world)
        self._loader: DataLoader[Batch] = DataLoader(
            _Samples(examples, Augmenter(preprocess, recipe.augmentation)),  # type: ignore[arg-type]
            batch_sampler=self._order,
            collate_fn=_collate,
            num_workers=execution.workers,
            persistent_workers=execution.workers > 0,
            pin_memory=world.device.type == "cuda",
            generator=torch.Generator(),  # otherwise the loader would use the caller's
            worker_init_fn=no_orphans(),
        )

    def epoch(self, number: int, *, first_step: int = 0) -> Iterator[list[Batch]]:
        """The parts of each step of epoch ``number`` (from 0) for this process, starting at ``first_step``."""
        self._order.epoch, self._order.first_step = number, first_step
        parts: list[Batch] = []
        for batch in self._guarded():
            if not len(batch.images):
                raise ZooError(f"{len(batch.bad)} images in a row cannot be read, the first: {batch.bad[0][1]}")
            if batch.bad and self._execution.on_bad_image is OnBadImage.RAISE:
                raise ZooError(f"{batch.bad[0][1]}; with --on-bad-image skip such images are replaced and counted")
            parts.append(batch)
            if len(parts) == self._execution.accumulation:
                yield parts
                parts = []

    def _guarded(self) -> Iterator[Batch]:
        try:
            yield from self._loader
        except RuntimeError as error:
            if re.match(r"DataLoader worker \(pid.*", str(error)):
                reason = in_short(error)
                raise ZooError(f"a worker process that loads images has died ({reason}); resume the run") from None
            raise


class _Order:
    """Index and seed of every image of this process in ``epoch``, part by part, starting at ``first_step``.

    The loader iterates over it once per epoch. It has no reference to the batches: a reference cycle with the loader
    would keep the workers from being shut down (torch waits five seconds for them).
    """

    def __init__(self, count: int, part: int, steps: int, recipe: Recipe, accumulation: int, world: World) -> None:
        self._count, self._part, self._steps, self._recipe = count, part, steps, recipe
        self._accumulation, self._world = accumulation, world
        self.epoch = self.first_step = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        repeats, seed, epoch = self._recipe.augmentation.repeats, self._recipe.seed, self.epoch
        order = np.random.default_rng([seed, epoch]).permutation(self._count)
        if repeats > 1:
            order = np.repeat(order, repeats)[: self._count]
        for n in range(self.first_step * self._accumulation, self._steps * self._accumulation):
            start = (n * self._world.size + self._world.rank) * self._part
            yield [(int(order[at]), seed_of(seed, epoch, at)) for at in range(start, start + self._part)]


_Sample = tuple[Tensor | None, int, tuple[tuple[str, str], ...]]


class _Samples(TorchDataset[_Sample]):
    def __init__(self, examples: Sequence[Example], augmenter: Augmenter) -> None:
        self._examples, self._augmenter = examples, augmenter

    def __getitem__(self, index_and_seed: tuple[int, int]) -> _Sample:
        index, seed = index_and_seed
        bad: list[tuple[str, str]] = []
        with torch.random.fork_rng(devices=[]):
            for offset in range(min(_TRIES, len(self._examples))):
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would look for GPUs every time
                example = self._examples[(index + offset) % len(self._examples)]
                try:
                    return self._augmenter(example), example.label, tuple(bad)
                except ZooError as error:
                    bad.append((example.key, str(error)))
        return None, 0, tuple(bad)


def _collate(samples: list[_Sample]) -> Batch:
    for pixels, _, bad in samples:
        if pixels is None:
            return Batch(torch.empty(0), torch.empty(0), bad)
    images = torch.stack([pixels for pixels, _, _ in samples if pixels is not None]).movedim(-1, 1)  # channels-last
    return Batch(images, torch.tensor([label for _, label, _ in samples]), tuple(b for *_, bad in samples for b in bad))
