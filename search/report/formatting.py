"""How figures and constraints are written in a search's report."""

from __future__ import annotations

from markupsafe import Markup

from fbnetv3_zoo.report.page import name

from ..space import Constraint

_UNITS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def score(value: object) -> str:
    """A score with four decimals, of large ones five digits."""
    number = float(value)  # type: ignore[arg-type]
    return f"{number:.4f}" if abs(number) < 10 else f"{number:,.5g}"


def amount(value: float) -> str:
    """A cost in thousands, millions or billions."""
    for unit, factor in _UNITS:
        if abs(value) >= factor:
            return f"{value / factor:.4g} {unit}"
    return f"{value:.4g}"


def bounds_text(constraint: Constraint) -> str:
    """A constraint as it is written."""
    return ", ".join(str(bound) for bound in constraint).replace("<=", " ≤ ") or "none"


def bounds(constraint: Constraint) -> Markup:
    """The same for a page."""
    return name(bounds_text(constraint))


def value_of(value: object) -> str:
    """A dimension's value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
