"""A model in every format that can be written here, compared, timed, and listed on one page."""

from .results import ExportedFile, FileTiming, FormatsReport, UnavailableFormat
from .run import TimingOptions, export_all

__all__ = ["ExportedFile", "FileTiming", "FormatsReport", "TimingOptions", "UnavailableFormat", "export_all"]
