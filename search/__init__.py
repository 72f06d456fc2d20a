"""Joint architecture-recipe search, FBNetV3's three stages; and the differentiable searches before it.

Names resolve on first use: spaces, plans and costs are there without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fbnetv3_zoo.search.costs import Bound, NetworkCosts, parse_constraint
    from fbnetv3_zoo.search.evolve import Evolving, evolve, pareto
    from fbnetv3_zoo.search.executors import InProcess, LocalPool, OnRay, find_executor
    from fbnetv3_zoo.search.functions import FunctionEvaluator
    from fbnetv3_zoo.search.iterate import Iterations, Rounds
    from fbnetv3_zoo.search.journal import Journal
    from fbnetv3_zoo.search.networks import ConvChoices, Networks, PoolingChoices, ResidualChoices
    from fbnetv3_zoo.search.notes import Winner
    from fbnetv3_zoo.search.options import Choice, Dimension, Levels, Range
    from fbnetv3_zoo.search.plan import PLANS, Plan, find_plan
    from fbnetv3_zoo.search.pool import draw_pool
    from fbnetv3_zoo.search.predictors import MLP, Pretraining, Trees, fit, pretrain_encoder
    from fbnetv3_zoo.search.recipes import Recipes, Setting
    from fbnetv3_zoo.search.record import Record
    from fbnetv3_zoo.search.recorded import RecordedCosts, RecordedCurves, Recording
    from fbnetv3_zoo.search.report import write_report
    from fbnetv3_zoo.search.run import Observer, Search, run_search
    from fbnetv3_zoo.search.space import Candidate, Space, find_space
    from fbnetv3_zoo.search.spaces import SPACES
    from fbnetv3_zoo.search.supernet.layers import Layer, LayerSpace
    from fbnetv3_zoo.search.supernet.net import Supernet
    from fbnetv3_zoo.search.supernet.plan import DMASKING_PLANS, DNAS_PLANS, Absolute, Product, Sum, SupernetPlan
    from fbnetv3_zoo.search.supernet.record import SupernetRecord
    from fbnetv3_zoo.search.supernet.run import SupernetObserver, search_supernet
    from fbnetv3_zoo.search.supernet.spaces import LAYER_SPACES
    from fbnetv3_zoo.search.training_evaluator import TrainingEvaluator
    from fbnetv3_zoo.search.trials import Evaluator, Executor, Failure, Limits, Outcome, Task, Trial

_HOMES = {
    "costs": ("Bound", "NetworkCosts", "parse_constraint"),
    "evolve": ("Evolving", "evolve", "pareto"),
    "executors": ("InProcess", "LocalPool", "OnRay", "find_executor"),
    "functions": ("FunctionEvaluator",),
    "iterate": ("Iterations", "Rounds"),
    "journal": ("Journal",),
    "networks": ("ConvChoices", "Networks", "PoolingChoices", "ResidualChoices"),
    "notes": ("Winner",),
    "options": ("Choice", "Dimension", "Levels", "Range"),
    "plan": ("PLANS", "Plan", "find_plan"),
    "pool": ("draw_pool",),
    "predictors": ("MLP", "Pretraining", "Trees", "fit", "pretrain_encoder"),
    "recipes": ("Recipes", "Setting"),
    "record": ("Record",),
    "recorded": ("RecordedCosts", "RecordedCurves", "Recording"),
    "report": ("write_report",),
    "run": ("Observer", "Search", "run_search"),
    "space": ("Candidate", "Space", "find_space"),
    "spaces": ("SPACES",),
    "supernet.layers": ("Layer", "LayerSpace"),
    "supernet.net": ("Supernet",),
    "supernet.plan": ("Absolute", "DMASKING_PLANS", "DNAS_PLANS", "Product", "Sum", "SupernetPlan"),
    "supernet.record": ("SupernetRecord",),
    "supernet.run": ("SupernetObserver", "search_supernet"),
    "supernet.spaces": ("LAYER_SPACES",),
    "training_evaluator": ("TrainingEvaluator",),
    "trials": ("Evaluator", "Executor", "Failure", "Limits", "Outcome", "Task", "Trial"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Absolute", "Bound", "Candidate", "Choice", "ConvChoices", "DMASKING_PLANS", "DNAS_PLANS", "Dimension",
    "Evaluator", "Evolving", "Executor", "Failure", "FunctionEvaluator", "InProcess", "Iterations", "Journal",
    "LAYER_SPACES", "Layer", "LayerSpace", "Levels", "Limits", "LocalPool", "MLP", "NetworkCosts", "Networks",
    "Observer", "OnRay", "Outcome", "PLANS", "Plan", "PoolingChoices", "Pretraining", "Product", "Range", "Recipes",
    "Record", "RecordedCosts", "RecordedCurves", "Recording", "ResidualChoices", "Rounds", "SPACES", "Search",
    "Setting", "Space", "Sum", "Supernet", "SupernetObserver", "SupernetPlan", "SupernetRecord", "Task",
    "TrainingEvaluator", "Trees", "Trial", "Winner", "draw_pool", "evolve", "find_executor", "find_plan", "find_space",
    "fit", "pareto", "parse_constraint", "pretrain_encoder", "run_search", "search_supernet", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
