"""Weights: our files and those of others, the registry and cache of published ones, fitting them to a network."""

from ..utils import telemetry  # noqa: F401 - ahead of the libraries that it silences
