"""Tests over many of a kind: a few in every run, the rest in the long one (``make test-long``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def every(names: Iterable[str], *few: str) -> list[Any]:
    """``names`` to parametrize by; all but the ``few`` are for the long run."""
    names = list(names)
    if unknown := set(few) - set(names):
        raise ValueError(f"{sorted(unknown)} are not among {names}")
    return [name if name in few else pytest.param(name, marks=pytest.mark.long) for name in names]
