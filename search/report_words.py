"""How figures and constraints are written in a search's report."""

from __future__ import annotations

from collections.abc import Mapping

from fbnetv3_zoo.search.costs import Constraint
from fbnetv3_zoo.training.page import Html, name

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


def costs_line(costs: Mapping[str, float]) -> Html:
    """All costs of a point in a line."""
    return Html(", ".join(f"{name(what)} {amount(value)}" for what, value in costs.items()))


def bounds(constraint: Constraint) -> Html:
    """A constraint as it is written."""
    return name(", ".join(str(bound) for bound in constraint).replace("<=", " ≤ ") or "none")


def value_of(value: object) -> str:
    """A dimension's value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
