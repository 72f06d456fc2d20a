"""Training: data, augmentation, the loop with exact resume, evaluation."""

from fbnetv3_zoo.training.data import Dataset, find_dataset
from fbnetv3_zoo.training.evaluate import Accuracy, evaluate
from fbnetv3_zoo.training.loop import Epoch, Run, train

__all__ = ["Accuracy", "Dataset", "Epoch", "Run", "evaluate", "find_dataset", "train"]
