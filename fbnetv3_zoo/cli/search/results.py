"""``fbnetv3 search``: status, export and report of a search; spaces and plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import counted
from ...utils.durations import duration
from ...utils.paths import check_folder, check_place, exists
from ..common import Json, output_file, output_folder, print_json, written
from ..output import say, say_text
from .spaces import find_any_space

if TYPE_CHECKING:
    from fbnetv3_zoo.search import SearchResult
    from fbnetv3_zoo.search.notes import Winner
    from fbnetv3_zoo.search.status import SearchStatus

Folder = Annotated[Path, typer.Argument(help="The folder of a search.")]


def status(folder: Folder, as_json: Json = False) -> None:
    """Show the progress of a search, running or not.

    Example: fbnetv3 search status runs/tiny
    """
    from fbnetv3_zoo.search import SearchResult
    from fbnetv3_zoo.search.status import SearchStatus

    record = SearchResult.read(folder)
    at = SearchStatus.of(record)
    if as_json:
        print_json({**summary(record), **asdict(at)})
        return
    print_summary(record)
    print_status(record, at)


def export(
    folder: Folder,
    output: Annotated[Path | None, output_folder("Folder for the files (default: the search's own).")] = None,
    as_json: Json = False,
) -> None:
    """Write the results for `create`, `train` and `export`, and all learning curves as a recording for other searches.

    Example: fbnetv3 search export runs/tiny --output results
    """
    from fbnetv3_zoo.search import SearchResult
    from fbnetv3_zoo.search.result import write_winners
    from fbnetv3_zoo.search.reuse import recording_of

    record = SearchResult.read(folder)
    target = folder if output is None else output
    check_folder(target)
    paths = write_winners(record.plan, record.winners, target)
    path = target / f"{record.plan.name}.recording.safetensors"
    recording_of(record).save(path)
    if as_json:
        print_json({"files": [*paths, path]})
        return
    for one in (*paths, path):
        say(written(one))


def report(folder: Folder, output: Annotated[Path | None, output_file("HTML file to write.")] = None) -> None:
    """Write the report of a search: one HTML file that works offline.

    Example: fbnetv3 search report runs/tiny
    """
    from fbnetv3_zoo.search import SearchResult, SupernetResult
    from fbnetv3_zoo.search.report import write_report
    from fbnetv3_zoo.search.supernet.page import write_report as write_supernet_report
    from fbnetv3_zoo.search.supernet.result import FOUND

    path = folder / "report.html" if output is None else output
    check_place(path)
    if exists(folder / FOUND):
        write_supernet_report(SupernetResult.read(folder), path)
    else:
        write_report(SearchResult.read(folder), path)
    say(written(path))


def space(
    name: Annotated[str, typer.Argument(help="A space: paper, tiny, v1, v2, ..., or a JSON file.")],
    contains: Annotated[str | None, typer.Option(help="Check whether it contains this network.")] = None,
    as_json: Json = False,
) -> None:
    """Show a search space: its dimensions and the number of its points. --json prints it as a file to edit.

    Example: fbnetv3 search space paper --contains fbnetv3_c
    """
    from ...zoo import find_arch

    found = find_any_space(name)
    if contains is not None:
        values, reasons = found.locate(find_arch(contains))
        say(f"{contains} is {'no ' if reasons else 'a '}network of space {found.name}")
        for line in reasons or [f"{dimension}: {value}" for dimension, value in values.items()]:
            say(f"  {line}")
        return
    say_text(found.to_json() if as_json else found.describe())


def plan(
    name: Annotated[str, typer.Argument(help="A plan: paper, paper-literal, paper_recipe, tiny or letters.")],
) -> None:
    """Print a plan as a JSON file for --plan, to edit it.

    Example: fbnetv3 search plan tiny > mine.plan.json
    """
    from fbnetv3_zoo.search import find_plan

    say_text(find_plan(name).to_json())


def summary(record: SearchResult) -> dict[str, Any]:
    """A search as JSON values."""
    failures = Counter(o.failure.value for o in record.outcomes.values() if o.failure)
    return {
        "folder": record.folder,
        "plan": record.plan.name,
        "done": record.done,
        "round": max((trial.round for trial in record.trials), default=0),
        "rounds": record.plan.rounds.rounds,
        "asked": len(record.trials),
        "finished": len(record.outcomes),
        "failed": dict(failures),
        "epochs": record.stop_epoch,
        "best": max((o.curve[-1] for o in record.outcomes.values() if o.failure is None), default=None),
        "winners": [told(record, winner) for winner in record.winners],
    }


def print_status(record: SearchResult, at: SearchStatus) -> None:
    """Print what runs, and what is left to do."""
    from fbnetv3_zoo.search.status import seconds_since

    for name, one in at.running.items():
        score = f"score {one.curve[-1]:.4f}  " if one.curve else ""
        since = duration(seconds_since(one))
        say(f"  {name}  epoch {len(one.curve)} of {one.epochs}  {score}last heard of {since} ago")
    if not record.done and at.planned > len(record.trials):
        say(f"up to {counted(at.planned, 'candidate')} in all")
    if not record.done and at.seconds_left is not None:
        say(f"about {duration(at.seconds_left)} left while it runs")
    if at.device_hours and at.device_hours >= 0.005:
        left = "" if record.done or at.device_hours_left is None else f", about {at.device_hours_left:,.2f} left"
        say(f"{at.device} hours: {at.device_hours:,.2f}{left}")
    if at.utilization is not None:
        say(f"utilization {at.utilization:.0%}")


def told(record: SearchResult, winner: Winner) -> dict[str, Any]:
    """A winner as JSON values."""
    return {
        "name": record.plan.result_name(winner.constraint),
        "constraint": ",".join(map(str, winner.constraint)),
        "predicted": winner.predicted,
        "measured": winner.measured,
        "costs": dict(winner.costs),
        "values": record.plan.space.values(winner.code),
    }


def print_summary(record: SearchResult) -> None:
    """Print the state of a search."""
    found = summary(record)
    state = "finalists" if found["round"] > found["rounds"] else f"round {found['round']} of {found['rounds']}"
    state = "done" if record.done else state
    say(f"{record.plan.name}: {state}; {found['finished']} of {found['asked']} candidates finished")
    for failure, count in found["failed"].items():
        say(f"  {count} failed: {failure}")
    if record.stop is not None:
        say(f"training stops after epoch {record.stop_epoch} of {record.plan.rounds.epochs}")
    if found["best"] is not None:
        say(f"best score {found['best']:.4f}")
    print_winners(record, record.winners)


def print_winners(record: SearchResult, winners: Sequence[Winner]) -> None:
    """Print winners, one per line."""
    for winner in winners:
        costs = ", ".join(f"{name} {value:,.6g}" for name, value in winner.costs.items())
        measured = "not trained" if winner.measured is None else f"measured {winner.measured:.4f}"
        say(f"{record.plan.result_name(winner.constraint)}: {measured}, predicted {winner.predicted:.4f}; {costs}")
