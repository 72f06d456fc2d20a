"""Training: data, recipes carried out with exact resume on one machine or many, distillation, evaluation."""

from fbnetv3_zoo.errors import Interrupted
from fbnetv3_zoo.training.data import Dataset, find_dataset
from fbnetv3_zoo.training.evaluate import Evaluation, evaluate
from fbnetv3_zoo.training.execution import Execution, OnBadImage, Precision
from fbnetv3_zoo.training.loop import train
from fbnetv3_zoo.training.run import Epoch, Observer, Run, Step
from fbnetv3_zoo.training.teacher import Teacher, find_teacher

__all__ = [
    "Dataset", "Epoch", "Evaluation", "Execution", "Interrupted", "Observer", "OnBadImage", "Precision", "Run", "Step",
    "Teacher", "evaluate", "find_dataset", "find_teacher", "train",
]  # fmt: skip
