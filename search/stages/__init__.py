"""The stages of a search: iterative optimization (2) and evolution (3)."""

from .acquisition import AcquisitionConfig
from .evolution import EvolutionConfig, Evolved, evolve
from .iterative import IterativeConfig, IterativeSearch
from .pareto import pareto
from .state import SearchState

__all__ = [
    "AcquisitionConfig",
    "EvolutionConfig",
    "Evolved",
    "IterativeConfig",
    "IterativeSearch",
    "SearchState",
    "evolve",
    "pareto",
]
