"""The report of a training run: one HTML page."""

from .page import Report, write_report

__all__ = ["Report", "write_report"]
