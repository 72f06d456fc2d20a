"""Measuring models on the runtimes of this machine, each in a process of its own, in turn."""

from .artifacts import Wanted
from .backends import Plan, Route
from .measure import Turn, benchmark
from .report import Benchmark

__all__ = ["Benchmark", "Plan", "Route", "Turn", "Wanted", "benchmark"]
