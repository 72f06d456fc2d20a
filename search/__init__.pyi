# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from .evaluation import (
    FunctionEvaluator as FunctionEvaluator,
    Limits as Limits,
    Recording as Recording,
    TrainingEvaluator as TrainingEvaluator,
)
from .executors import find_executor as find_executor
from .parts import Search as Search
from .plan import (
    PLANS as PLANS,
    SearchPlan as SearchPlan,
    find_plan as find_plan,
)
from .report import write_report as write_report
from .result import SearchResult as SearchResult
from .run import (
    SearchCallback as SearchCallback,
    run_search as run_search,
)
from .space import (
    SPACES as SPACES,
    Space as Space,
    find_space as find_space,
    parse_constraint as parse_constraint,
)
from .supernet import (
    SupernetPlan as SupernetPlan,
    SupernetResult as SupernetResult,
    search_supernet as search_supernet,
)

__all__: list[str]
