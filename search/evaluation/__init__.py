"""Scoring candidates: by training, from a tabular benchmark, by a function."""
