"""Timing of model files on their runtimes, each in a process of its own."""
