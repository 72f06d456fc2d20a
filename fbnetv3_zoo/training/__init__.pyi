# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from .callbacks import (
    Callback as Callback,
    Epoch as Epoch,
    Run as Run,
    Step as Step,
)
from .data import (
    Dataset as Dataset,
    as_dataset as as_dataset,
    find_dataset as find_dataset,
)
from .evaluation import (
    Evaluation as Evaluation,
    evaluate as evaluate,
)
from .execution import (
    Execution as Execution,
    OnBadImage as OnBadImage,
    Precision as Precision,
)
from .checkpoint import Interrupted as Interrupted
from .teacher import (
    Teacher as Teacher,
    find_teacher as find_teacher,
)
from .trainer import train as train

__all__: list[str]
