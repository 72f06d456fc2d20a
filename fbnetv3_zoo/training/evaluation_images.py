"""The preprocessed images of a split, in batches, as often as they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..classify import Floats
from ..errors import ZooError, check_whole, printable
from ..preprocess import Preprocess
from .data import Example
from .data.dataset import ArraySource, Integers, labels_of
from .data.gathered import gathered
from .distributed import World
from .loader import unless_worker_dies, worker_count, worker_init

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """An image that cannot be read or preprocessed: its index in the split, its key, and why."""

    position: int
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class EvaluationBatch:
    """Preprocessed images (None: there are none) with their positions and labels, and the unreadable ones."""

    positions: Ints
    labels: Ints
    images: Tensor | None
    bad: tuple[UnreadableImage, ...] = ()


class EvaluationImages:
    """This process's share of ``examples``: process r of ``world`` has examples r, r + size and so on, in order.

    Every iteration gives the same batches, of at most ``batch_size`` images, read by ``workers`` processes (0: by this
    one) that stay for the next. Images that lie in memory are preprocessed a batch at once. Raises :class:`ZooError`
    if there are none.
    """

    def __init__(
        self, examples: Sequence[Example], preprocess: Preprocess, *, batch_size: int = 64, workers: int = 0,
        world: World = World(),
    ) -> None:  # fmt: skip
        check_whole("batch_size", batch_size)
        check_whole("workers", workers, at_least=0)
        if not len(examples):
            raise ZooError("this split has no images to evaluate on; choose another split")
        share = range(world.rank, len(examples), world.size)
        found = gathered(examples, preprocess)
        images = _Read(examples, preprocess, share) if found is None else _InMemory(examples, *found, preprocess, share)
        workers = worker_count(workers, -(-len(share) // batch_size)) if found is None else 0
        self._loader: DataLoader[EvaluationBatch] = DataLoader(
            images,  # type: ignore[arg-type]
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_collate,
            generator=torch.Generator(),  # otherwise the loader would use the caller's
            worker_init_fn=worker_init(),
        )

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return unless_worker_dies(self._loader)


class _InMemory(TorchDataset[EvaluationBatch]):
    """Images in memory, in the size that the network sees; ``rows`` are those of ``examples`` in ``source``."""

    def __init__(
        self, examples: Sequence[Example], source: ArraySource, rows: Integers, preprocess: Preprocess, share: range
    ) -> None:
        self._source, self._rows, self._preprocess, self._share = source, rows, preprocess, share
        self._labels = labels_of(examples).astype(np.int64)

    def __len__(self) -> int:
        return len(self._share)

    def __getitems__(self, indices: Sequence[int]) -> EvaluationBatch:
        positions = np.array([self._share[index] for index in indices], np.int64)
        images = self._preprocess.normalize(self._source.gather(self._rows[positions]))
        return EvaluationBatch(positions, self._labels[positions], torch.from_numpy(images))


_Item = tuple[int, int, "Floats | UnreadableImage"]


class _Read(TorchDataset[_Item]):
    """Images that are read one by one, each with position and label."""

    def __init__(self, examples: Sequence[Example], preprocess: Preprocess, share: range) -> None:
        self._examples, self._preprocess, self._share = examples, preprocess, share

    def __len__(self) -> int:
        return len(self._share)

    def __getitem__(self, index: int) -> _Item:
        position = self._share[index]
        example = self._examples[position]
        return position, example.label, self._prepared(position, example)

    def _prepared(self, position: int, example: Example) -> Floats | UnreadableImage:
        try:
            image = example.read()
        except ZooError as error:
            return UnreadableImage(position, example.key, str(error))
        try:
            return self._preprocess.array(image)
        except ZooError as error:
            reason = f"{printable(example.key)}: {error}" if example.key else str(error)
            return UnreadableImage(position, example.key, reason)


def _collate(items: list[_Item] | EvaluationBatch) -> EvaluationBatch:
    if not isinstance(items, list):
        return items
    good = [(position, label, image) for position, label, image in items if not isinstance(image, UnreadableImage)]
    return EvaluationBatch(
        positions=np.array([position for position, _, _ in good], np.int64),
        labels=np.array([label for _, label, _ in good], np.int64),
        images=torch.from_numpy(np.stack([image for _, _, image in good])) if good else None,
        bad=tuple(image for _, _, image in items if isinstance(image, UnreadableImage)),
    )
