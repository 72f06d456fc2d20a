"""Programs and packages that some tests need."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

_NO_COREMLTOOLS = sys.version_info >= (3, 14) or (sys.platform != "darwin" and platform.machine() != "x86_64")
with_coremltools = pytest.mark.skipif(_NO_COREMLTOOLS, reason="there are no wheels of coremltools for this machine")
"""Marks tests that need it; where there are wheels says pyproject.toml."""


def needed(*names: str) -> str:
    """Path of the first of ``names`` that is installed.

    Without it the test is skipped, or fails where ``CI_PROGRAMS=required`` is set.
    """
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    _missing(f"no {names[0]}: install the Debian package {names[0]}")


def needed_file(package: str, places: Sequence[str]) -> Path:
    """The first file that fits one of the patterns ``places``, from a Debian package; without it as ``needed``."""
    for place in places:
        for path in sorted(Path("/").glob(place)):
            return path
    _missing(f"no {places[0]}: install the Debian package {package}")


def needed_package(name: str, extra: str) -> None:
    """Skip the test, or fail it as ``needed`` does, where the package ``name`` is not installed."""
    if importlib.util.find_spec(name) is None:
        _missing(f"no {name}: install the extra {extra}")


def _missing(missing: str) -> NoReturn:
    if os.environ.get("CI_PROGRAMS") == "required":
        pytest.fail(missing)
    pytest.skip(missing)
