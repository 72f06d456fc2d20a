"""How a search was done and what failed in it, for its page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from markupsafe import Markup

from fbnetv3_zoo.errors import counted
from fbnetv3_zoo.report.page import name

from ..evaluation.trial import Outcome
from ..predictors import PredictorKind
from ..result import SearchResult
from ..stages.acquisition import AcquisitionConfig
from ..stages.evolution import EvolutionConfig
from .formatting import bounds, value_of

REASONS = 20
"""How many reasons of failures are listed."""


def failures(record: SearchResult) -> dict[str, Any]:
    """What had no score and why: reasons with their trials, the most frequent first; nothing where all have one."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in record.outcomes.values():
        if outcome.failure is not None:
            groups.setdefault((outcome.failure.value, outcome.reason), []).append(outcome)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0].number))
    rows = [(len(outcomes), kind, name(reason or "no reason given"), _numbers(outcomes), _attempts(outcomes))
            for (kind, reason), outcomes in ranked[:REASONS]]  # fmt: skip
    failed = sum(map(len, groups.values()))
    counts = {"failed": failed, "outcomes": len(record.outcomes), "reasons": len(ranked)}
    return {**counts, "rows": rows} if groups else {}


def _numbers(outcomes: list[Outcome]) -> str:
    shown = ", ".join(str(outcome.number) for outcome in outcomes[:8])
    return f"{shown}, ..." if len(outcomes) > 8 else shown


def _attempts(outcomes: list[Outcome]) -> str:
    least, most = min(one.attempts for one in outcomes), max(one.attempts for one in outcomes)
    return str(most) if least == most else f"{least} to {most}"


def settings(record: SearchResult) -> dict[str, object]:
    """The plan, the space, where scores came from."""
    plan, rounds = record.plan, record.plan.rounds
    facts: dict[str, object] = {
        "Plan": name(plan.name),
        "Seed": plan.seed,
        "Space": Markup("{}: {}").format(name(plan.space.name), _dimensions(record)),
        "Fixed model": name(plan.space.model) if plan.space.model else None,
        "Pool": f"{record.pool:,} points" if record.pool else f"{plan.pool:,} points asked for",
        "All that is trained": bounds(plan.within) if plan.within else None,
        "Stage 2": f"{rounds.rounds} rounds of {rounds.batch} candidates, at most {rounds.epochs} epochs; stop at rank "
        f"correlation {rounds.correlation:g}",
        "Predictor": ", ".join([type(rounds.predictor).__name__, _fields(rounds.predictor)]),
        "AcquisitionConfig": _fields(rounds.choosing),
        "Stage 3": _fields(plan.evolving),
        "Constraints": Markup("; ").join(bounds(constraint) for constraint in plan.constraints),
        "Finalists": f"{plan.finalists} a constraint",
        "Evaluation time": _time(record),
    }
    origin = {f"Origin: {key}": name(shown) for key, shown in _flat(record.origin)}
    return {key: value for key, value in {**facts, **origin}.items() if value is not None}


def _dimensions(record: SearchResult) -> str:
    space = record.plan.space
    counts = []
    for part in ("architecture", "recipe"):
        free = sum(len(dimension) > 1 for dimension in space.dimensions if dimension.part == part)
        if free:
            counts.append(f"{counted(free, 'dimension')} of the {part}, {space.count(part):.3g} points")
    held = f"; {counted(len(space.held), 'dimension')} held" if space.held else ""
    return "; ".join(counts) + held


def _fields(of: PredictorKind | AcquisitionConfig | EvolutionConfig) -> str:
    values = ((field.name, getattr(of, field.name)) for field in fields(of))
    return ", ".join(f"{key} {value_of(value.value if isinstance(value, Enum) else value)}" for key, value in values)


def _time(record: SearchResult) -> str:
    seconds = sum(outcome.seconds for outcome in record.outcomes.values())
    tries = sum(outcome.attempts for outcome in record.outcomes.values())
    unit, size = ("hours", 3600) if seconds >= 3600 else ("minutes", 60) if seconds >= 60 else ("seconds", 1)
    return (
        f"{seconds / size:.3g} {unit} over {counted(len(record.outcomes), 'candidate')} in {counted(tries, 'attempt')}"
    )


def _flat(given: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value not in ("", None):
            yield f"{before}{key}", value if isinstance(value, str) else json.dumps(value)
