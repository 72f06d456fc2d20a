"""The report of a training run: one HTML page."""

from .page import Report, sources_of, write_report

__all__ = ["Report", "sources_of", "write_report"]
