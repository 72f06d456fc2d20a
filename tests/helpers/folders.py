"""Where things lie in the checkout."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
DATA = HELPERS.parent / "data"
ROOT = HELPERS.parents[1]
