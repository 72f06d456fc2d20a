"""Measuring models on the runtimes of this machine, each in a process of its own, in turn."""

from fbnetv3_zoo.export.bench.candidates import Wanted
from fbnetv3_zoo.export.bench.measure import Turn, benchmark
from fbnetv3_zoo.export.bench.report import Benchmark
from fbnetv3_zoo.export.bench.routes import Plan, Route

__all__ = ["Benchmark", "Plan", "Route", "Turn", "Wanted", "benchmark"]
