"""Training images as tensors: augmented, normalised, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipe import Augmentation
from fbnetv3_zoo.training.data import Example


class _Augmented(TorchDataset[tuple[Tensor, int]]):
    def __init__(self, examples: Sequence[Example], preprocess: Preprocess, augmentation: Augmentation) -> None:
        self.examples = examples
        self.preprocess = preprocess
        self.augment = _augmenter(preprocess, augmentation)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        example = self.examples[index]
        return torch.from_numpy(self.preprocess.normalise(self.augment(example.read()))), example.label


def _augmenter(preprocess: Preprocess, augmentation: Augmentation) -> Callable[[Image.Image], Image.Image]:
    steps: list[Callable[[Image.Image], Image.Image]] = [preprocess.crop]
    if augmentation is Augmentation.SHIFT:
        steps.append(v2.RandomAffine(degrees=8, translate=(0.08, 0.08), scale=(0.9, 1.1), interpolation=2))
    elif augmentation is Augmentation.CROP_FLIP:
        steps = [preprocess.convert, v2.RandomResizedCrop(preprocess.resolution), v2.RandomHorizontalFlip()]
    composed: Callable[[Image.Image], Image.Image] = v2.Compose(steps)  # not a lambda: worker processes pickle it
    return composed


def training_batches(
    examples: Sequence[Example], preprocess: Preprocess, augmentation: Augmentation, *,
    batch_size: int, generator: torch.Generator, workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:  # fmt: skip
    """Shuffled batches (images, channels, height, width) with labels (images,); an incomplete last one is left out."""
    return DataLoader(
        _Augmented(examples, preprocess, augmentation),  # type: ignore[arg-type]
        batch_size=min(batch_size, len(examples)),
        shuffle=True,
        drop_last=True,
        generator=generator,
        num_workers=workers,
    )
