"""How a search was done and what failed in it, as parts of its report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum

from fbnetv3_zoo.report.page import Html, facts, name, paragraph, section, table

from ..evaluation.trial import Outcome
from ..predictors import PredictorKind
from ..result import SearchResult
from ..stages.acquisition import AcquisitionConfig
from ..stages.evolution import EvolutionConfig
from .formatting import bounds, counted, value_of

REASONS = 20
"""How many reasons of failures are listed."""


def failures(record: SearchResult) -> Html:
    """What had no score and why: reasons with their trials, the most frequent first."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in record.outcomes.values():
        if outcome.failure is not None:
            groups.setdefault((outcome.failure.value, outcome.reason), []).append(outcome)
    if not groups:
        return Html()
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0].number))
    rows = [(len(found), kind, name(reason or "no reason given"), _numbers(found), _attempts(found))
            for (kind, reason), found in ranked[:REASONS]]  # fmt: skip
    said = f"{sum(map(len, groups.values()))} of {len(record.outcomes)} candidates have no score. "
    said += "A curve that was not finite counts as the worst score; the others are left out of the fits."
    rest = paragraph(f"The {REASONS} most frequent of {len(ranked)} reasons.") if len(ranked) > REASONS else Html()
    head = ("candidates", "kind", "reason", "trials", "attempts")
    return section("Failures", paragraph(said), table(head, rows, numbers=(0, 4)), rest)


def _numbers(found: list[Outcome]) -> str:
    shown = ", ".join(str(outcome.number) for outcome in found[:8])
    return f"{shown}, ..." if len(found) > 8 else shown


def _attempts(found: list[Outcome]) -> str:
    least, most = min(one.attempts for one in found), max(one.attempts for one in found)
    return str(most) if least == most else f"{least} to {most}"


def how(record: SearchResult) -> Html:
    """The plan, the space, where scores came from."""
    plan, rounds = record.plan, record.plan.rounds
    told: dict[str, object] = {
        "Plan": name(plan.name),
        "Seed": plan.seed,
        "Space": Html(f"{name(plan.space.name)}: {_dimensions(record)}"),
        "Fixed model": name(plan.space.model) if plan.space.model else None,
        "Pool": f"{record.pool:,} points" if record.pool else f"{plan.pool:,} points asked for",
        "All that is trained": bounds(plan.within) if plan.within else None,
        "Stage 2": f"{rounds.rounds} rounds of {rounds.batch} candidates, at most {rounds.epochs} epochs; stop at rank "
        f"correlation {rounds.correlation:g}",
        "Predictor": ", ".join([type(rounds.predictor).__name__, _fields(rounds.predictor)]),
        "AcquisitionConfig": _fields(rounds.choosing),
        "Stage 3": _fields(plan.evolving),
        "Constraints": Html("; ".join(bounds(constraint) for constraint in plan.constraints)),
        "Finalists": f"{plan.finalists} a constraint",
        "Evaluation time": _time(record),
    }
    origin = {f"Origin: {key}": name(shown) for key, shown in _flat(record.origin)}
    return section(
        "How it was done", facts({key: value for key, value in {**told, **origin}.items() if value is not None})
    )


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
