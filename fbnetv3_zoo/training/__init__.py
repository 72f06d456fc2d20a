"""Training on one machine or many, with exact resume; datasets, distillation, evaluation."""

from ..errors import Interrupted
from .callbacks import Callback, Epoch, Run, Step
from .data import Dataset, find_dataset
from .evaluate import Evaluation, evaluate
from .execution import Execution, OnBadImage, Precision
from .teacher import Teacher, find_teacher
from .trainer import train

__all__ = [
    "Dataset", "Epoch", "Evaluation", "Execution", "Interrupted", "Callback", "OnBadImage", "Precision", "Run", "Step",
    "Teacher", "evaluate", "find_dataset", "find_teacher", "train",
]  # fmt: skip
