"""Joint architecture-recipe search, FBNetV3's three stages; and the differentiable searches before it.

Names resolve on first use: spaces, plans and costs are there without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .evaluation.function import FunctionEvaluator
    from .evaluation.tabular import RecordedCosts, RecordedCurves, Recording
    from .evaluation.training import TrainingEvaluator
    from .evaluation.trial import Evaluator, Executor, Failure, Limits, Outcome, Task, Trial
    from .executors import InProcess, LocalPool, RayExecutor, find_executor
    from .journal import Journal
    from .notes import Winner
    from .plan import PLANS, SearchPlan, find_plan
    from .predictors import MLP, Pretraining, Trees, fit, pretrain_encoder
    from .report import write_report
    from .result import SearchResult
    from .run import Search, SearchCallback, run_search
    from .space import (
        SPACES,
        Bound,
        Candidate,
        Choice,
        ConvChoices,
        Dimension,
        Levels,
        NetworkCosts,
        Networks,
        PoolingChoices,
        Range,
        Recipes,
        ResidualChoices,
        Setting,
        Space,
        draw_pool,
        find_space,
        parse_constraint,
    )
    from .stages.evolution import EvolutionConfig, evolve, pareto
    from .stages.iterative import IterativeConfig, IterativeSearch
    from .supernet.plan import DMASKING_PLANS, DNAS_PLANS, Absolute, Product, Sum, SupernetPlan
    from .supernet.presets import LAYER_SPACES
    from .supernet.result import SupernetResult
    from .supernet.run import SupernetCallback, search_supernet
    from .supernet.space import Layer, LayerSpace
    from .supernet.supernet import Supernet

_HOMES = {
    "space.costs": ("Bound", "NetworkCosts", "parse_constraint"),
    "stages.evolution": ("EvolutionConfig", "evolve", "pareto"),
    "executors": ("InProcess", "LocalPool", "RayExecutor", "find_executor"),
    "evaluation.function": ("FunctionEvaluator",),
    "stages.iterative": ("IterativeSearch", "IterativeConfig"),
    "journal": ("Journal",),
    "space.arch_space": ("ConvChoices", "Networks", "PoolingChoices", "ResidualChoices"),
    "notes": ("Winner",),
    "space.dimension": ("Choice", "Dimension", "Levels", "Range"),
    "plan": ("PLANS", "SearchPlan", "find_plan"),
    "space.sampling": ("draw_pool",),
    "predictors.predictor": ("MLP", "Pretraining", "Trees", "fit", "pretrain_encoder"),
    "space.recipe_space": ("Recipes", "Setting"),
    "result": ("SearchResult",),
    "evaluation.tabular": ("RecordedCosts", "RecordedCurves", "Recording"),
    "report.page": ("write_report",),
    "run": ("SearchCallback", "Search", "run_search"),
    "space.space": ("Candidate", "Space", "find_space"),
    "space.presets": ("SPACES",),
    "supernet.space": ("Layer", "LayerSpace"),
    "supernet.supernet": ("Supernet",),
    "supernet.plan": ("Absolute", "DMASKING_PLANS", "DNAS_PLANS", "Product", "Sum", "SupernetPlan"),
    "supernet.result": ("SupernetResult",),
    "supernet.run": ("SupernetCallback", "search_supernet"),
    "supernet.presets": ("LAYER_SPACES",),
    "evaluation.training": ("TrainingEvaluator",),
    "evaluation.trial": ("Evaluator", "Executor", "Failure", "Limits", "Outcome", "Task", "Trial"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Absolute", "Bound", "Candidate", "Choice", "ConvChoices", "DMASKING_PLANS", "DNAS_PLANS", "Dimension",
    "Evaluator", "EvolutionConfig", "Executor", "Failure", "FunctionEvaluator", "InProcess", "IterativeConfig",
    "IterativeSearch", "Journal", "LAYER_SPACES", "Layer", "LayerSpace", "Levels", "Limits", "LocalPool", "MLP",
    "NetworkCosts", "Networks", "Outcome", "PLANS", "PoolingChoices", "Pretraining", "Product", "Range",
    "RayExecutor", "Recipes", "RecordedCosts", "RecordedCurves", "Recording", "ResidualChoices", "SPACES", "Search",
    "SearchCallback", "SearchPlan", "SearchResult", "Setting", "Space", "Sum", "Supernet", "SupernetCallback",
    "SupernetPlan", "SupernetResult", "Task", "TrainingEvaluator", "Trees", "Trial", "Winner", "draw_pool",
    "evolve", "find_executor", "find_plan", "find_space", "fit", "pareto", "parse_constraint", "pretrain_encoder",
    "run_search", "search_supernet", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
