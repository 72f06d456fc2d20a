"""Training batches of randomly mirrored images with boxes, which depend only on seed, epoch and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.execution import Execution, OnBadImage
from fbnetv3_zoo.training.loader import Batches, Samples, Turn

from ..data.coco import AnnotatedImage, open_image
from ..data.fitting import mirrored


@dataclass(frozen=True, slots=True)
class Boxed:
    """An image (uint8: height, width, 3) with boxes (float32: objects, 4) in pixels and labels (int64: objects).

    Arrays, since worker processes need a file descriptor for every tensor that they send.
    """

    image: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DetectionBatch:
    """Images with their boxes; ``bad`` as in :class:`~fbnetv3_zoo.training.loader.AnyPart`."""

    images: Sequence[Boxed]
    bad: tuple[tuple[str, str], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a file."""
        return {
            f"{name}.{n}": torch.from_numpy(getattr(one, field).copy())
            for n, one in enumerate(self.images)
            for name, field in (("images", "image"), ("boxes", "boxes"), ("labels", "labels"))
        }

    def inputs(self, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Images in [0, 1] and targets for torchvision's detectors."""
        images = [
            torch.from_numpy(one.image).permute(2, 0, 1).to(device).float().div_(255)  # as of to_pixels
            for one in self.images
        ]
        targets = [
            {"boxes": torch.from_numpy(one.boxes).to(device), "labels": torch.from_numpy(one.labels).to(device)}
            for one in self.images
        ]
        return images, targets


class DetectionBatches(Batches[DetectionBatch]):
    """The batches of a detector's run. Unreadable images are always replaced."""

    def __init__(
        self, samples: Sequence[AnnotatedImage], recipe: Recipe, *, execution: Execution, world: World
    ) -> None:
        execution = replace(execution, on_bad_image=OnBadImage.SKIP)
        super().__init__(_Mirrored(samples, recipe), DetectionBatch, recipe, execution=execution, world=world)


class _Mirrored(Samples[Boxed]):
    def __init__(self, samples: Sequence[AnnotatedImage], recipe: Recipe) -> None:
        self._samples, self._seed, self._share = samples, recipe.seed, recipe.augmentation.flip

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        return str(self._samples[index].path)

    def load(self, index: int, turn: Turn) -> Boxed:
        sample, chance = self._samples[index], np.random.default_rng([self._seed, turn.epoch, index])
        image, boxes = np.array(to_eight_bits(open_image(sample), "RGB")), sample.boxes
        if chance.random() < self._share:
            image, boxes = image[:, ::-1].copy(), mirrored(torch.from_numpy(boxes), sample.width).numpy()
        return Boxed(image, boxes, sample.labels)
