"""Labelled images in three splits, no image in two of them, each read when it is asked for."""

from fbnetv3_zoo.training.data.dataset import SPLITS, Dataset, Example, Examples, Reader, Split
from fbnetv3_zoo.training.data.digits import digits
from fbnetv3_zoo.training.data.files import IMAGE_SUFFIXES
from fbnetv3_zoo.training.data.find import find_dataset
from fbnetv3_zoo.training.data.folder import folder

__all__ = [
    "Dataset",
    "Example",
    "Examples",
    "IMAGE_SUFFIXES",
    "Reader",
    "SPLITS",
    "Split",
    "digits",
    "find_dataset",
    "folder",
]
