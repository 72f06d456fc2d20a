"""The report of a search: one HTML page."""

from .page import write_report

__all__ = ["write_report"]
