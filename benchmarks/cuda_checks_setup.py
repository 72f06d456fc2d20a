"""Makes the package importable from a checkout that is not installed; imported before everything else.

A machine with a GPU may lack two small packages: blake3, of which hashlib's BLAKE2 takes the place (files
that one process writes and reads need no more), and platformdirs, which is not asked where the cache is given.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("FBNETV3_ZOO_CACHE", str(Path(tempfile.gettempdir()) / "fbnetv3-zoo-checks"))


def _blake2(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=32)


STAND_INS: list[str] = []
"""Packages that are missing and replaced."""

try:
    import blake3  # noqa: F401
except ImportError:
    module = ModuleType("blake3")
    module.blake3 = _blake2  # type: ignore[attr-defined]
    sys.modules["blake3"] = module
    STAND_INS.append("blake3 (BLAKE2 instead)")
