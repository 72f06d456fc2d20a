"""Augmentation of training images: one by one from files, or a batch at once where all are in memory."""

from .batches import BatchAugmenter
from .images import Augmenter, build_mixer

__all__ = ["Augmenter", "BatchAugmenter", "build_mixer"]
