"""Search spaces: dimensions, the points they span, and what a point costs. No torch in here."""

from .arch_space import ConvChoices, Networks, PoolingChoices, ResidualChoices, choices
from .base import Codes, SearchSpace
from .costs import (
    Bound,
    Constraint,
    CostModel,
    Costs,
    NetworkCosts,
    check_constraint,
    parse_constraint,
    violation,
)
from .dimension import Choice, Dimension, Levels, Options, Part, Range, Value, listed
from .presets import LETTERS, PAPER, PAPER_RECIPE, SPACES, TINY
from .recipe_space import RateFactors, Recipes, Setting
from .sampling import NoCosts, Pool, all_points, changed, descend, distinct, draw_pool, feasible_points, outside
from .space import Candidate, Floats, Space, find_space

__all__ = [
    "Bound",
    "Candidate",
    "Choice",
    "Codes",
    "Constraint",
    "ConvChoices",
    "CostModel",
    "Costs",
    "Dimension",
    "Floats",
    "LETTERS",
    "Levels",
    "NetworkCosts",
    "Networks",
    "NoCosts",
    "Options",
    "PAPER",
    "PAPER_RECIPE",
    "Part",
    "Pool",
    "PoolingChoices",
    "Range",
    "RateFactors",
    "Recipes",
    "ResidualChoices",
    "SPACES",
    "SearchSpace",
    "Setting",
    "Space",
    "TINY",
    "Value",
    "all_points",
    "changed",
    "check_constraint",
    "choices",
    "descend",
    "distinct",
    "draw_pool",
    "feasible_points",
    "find_space",
    "listed",
    "outside",
    "parse_constraint",
    "violation",
]
