"""Labelled images in three splits, no image in two of them, each read when it is asked for."""

from fbnetv3_zoo.training.data.cifar import cifar
from fbnetv3_zoo.training.data.dataset import SPLITS, Dataset, Example, Examples, Reader, Split, joined
from fbnetv3_zoo.training.data.digits import digits
from fbnetv3_zoo.training.data.find import find_dataset
from fbnetv3_zoo.training.data.folder import folder
from fbnetv3_zoo.training.data.listing import IMAGE_SUFFIXES
from fbnetv3_zoo.training.data.shards import shards
from fbnetv3_zoo.training.data.subset import Subset, choose_subset, load_subset

__all__ = [
    "Dataset",
    "Example",
    "Examples",
    "IMAGE_SUFFIXES",
    "Reader",
    "SPLITS",
    "Split",
    "Subset",
    "choose_subset",
    "cifar",
    "digits",
    "find_dataset",
    "folder",
    "joined",
    "load_subset",
    "shards",
]
