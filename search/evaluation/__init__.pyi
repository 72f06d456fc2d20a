# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from .config import EvaluatorConfig as EvaluatorConfig
from .function import FunctionEvaluator as FunctionEvaluator
from .tabular import (
    TABLES as TABLES,
    RecordedCosts as RecordedCosts,
    RecordedCurves as RecordedCurves,
    Recording as Recording,
    record as record,
)
from .training import TrainingEvaluator as TrainingEvaluator
from .trial import (
    Evaluator as Evaluator,
    Failure as Failure,
    Limits as Limits,
    Outcome as Outcome,
    Task as Task,
    Trial as Trial,
)

__all__: list[str]
