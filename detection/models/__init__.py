"""Detectors as values and modules, and loading and saving them."""
