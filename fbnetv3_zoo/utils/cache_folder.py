"""The folder in which this package keeps what would cost to get or find out again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``FBNETV3_ZOO_CACHE`` where it is set, else the platform's place for caches. It need not be there yet."""
    if given := os.environ.get("FBNETV3_ZOO_CACHE"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("fbnetv3-zoo", appauthor=False)
