"""Benchmarks of models on the runtimes of this machine, each in a process of its own, in turn."""

from .artifacts import ModelOptions
from .measure import BenchProgress, benchmark
from .plots import FILES, write_benchmark
from .results import Benchmark
from .routes import BenchmarkConfig, Route

__all__ = ["FILES", "Benchmark", "BenchmarkConfig", "Route", "BenchProgress", "ModelOptions", "benchmark",
           "write_benchmark"]  # fmt: skip
