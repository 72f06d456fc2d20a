"""Datasets: labeled images in three disjoint splits, each image read on demand."""

from ...images import IMAGE_SUFFIXES
from .cifar import cifar
from .dataset import SPLITS, Dataset, Example, Examples, Reader, Split, joined
from .digits import digits
from .find import find_dataset
from .folder import folder
from .map_style import MapDataset, TrainingData, as_dataset
from .shards import shards
from .subset import Subset, choose_subset, load_subset

__all__ = [
    "Dataset",
    "Example",
    "Examples",
    "IMAGE_SUFFIXES",
    "MapDataset",
    "Reader",
    "SPLITS",
    "Split",
    "Subset",
    "TrainingData",
    "as_dataset",
    "choose_subset",
    "cifar",
    "digits",
    "find_dataset",
    "folder",
    "joined",
    "load_subset",
    "shards",
]
