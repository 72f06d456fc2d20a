"""Weights: this project's files, fitting them to a network, and foreign layouts."""
