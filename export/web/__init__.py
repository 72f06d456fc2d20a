"""A web page that runs a classifier in the browser."""

from .page import SITE, WebReport, write_web

__all__ = ["SITE", "WebReport", "write_web"]
