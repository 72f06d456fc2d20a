"""Weights: this project's files, fitting them to a network, and foreign layouts."""

from ..utils import telemetry  # noqa: F401 - ahead of the libraries that it silences
