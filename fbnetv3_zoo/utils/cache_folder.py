"""The cache folder: downloads, and results that are expensive to repeat."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``FBNETV3_ZOO_CACHE`` if set, otherwise the platform's cache folder. It may not exist yet."""
    if given := os.environ.get("FBNETV3_ZOO_CACHE"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("fbnetv3-zoo", appauthor=False)
