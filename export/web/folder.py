"""The folder of a web page, written as a whole or not at all, and identified by its ``model.json``."""

from __future__ import annotations

from ..whole_folder import FolderKind

FORMAT, VERSION = "fbnetv3_zoo.web", 1
CARD = "model.json"
"""The file that describes a page."""

PAGE = FolderKind(CARD, FORMAT, VERSION, "page", "fbnetv3 export web", "--out", "format_version")
"""Folders of web pages."""
