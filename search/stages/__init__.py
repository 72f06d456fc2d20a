"""The stages of a search: iterative optimization (2) and evolution (3)."""

from .acquisition import AcquisitionConfig
from .evolution import EvolutionConfig, Evolved, evolve, pareto
from .iterative import IterativeConfig, IterativeSearch
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
