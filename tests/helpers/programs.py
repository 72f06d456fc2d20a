"""Programs that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(*names: str) -> str:
    """Path of the first of ``names`` that is installed.

    Without it the test is skipped, or fails where ``CI_PROGRAMS=required`` is set.
    """
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    missing = f"no {names[0]}: install the Debian package {names[0]}"
    if os.environ.get("CI_PROGRAMS") == "required":
        pytest.fail(missing)
    pytest.skip(missing)
