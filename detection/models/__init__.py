"""Detectors as values and modules, their checkpoints and files."""
