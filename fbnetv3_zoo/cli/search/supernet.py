"""``fbnetv3 search dnas`` and ``fbnetv3 search dmasking``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import ZooError
from .. import training_options as running
from ..common import DataSource, Json, output_folder, print_json, program, written
from ..output import in_shell, say

if TYPE_CHECKING:
    from fbnetv3_zoo.search.supernet import SupernetPlan, SupernetResult

Output = Annotated[Path, output_folder("Folder for network, report, metrics and checkpoints.")]
PlanSource = Annotated[str, typer.Option("--plan", help="A plan: paper, tiny, or a JSON file (plan.json of a search).")]
Target = Annotated[
    str | None, typer.Option(help="Bound on the cost: 'macs<=1M', 'parameters<=80k', 'latency_ms<=2.5'.")
]
Latency = Annotated[str | None, typer.Option(help="A table of `search lut`, for latency_ms as cost.")]
DataSeed = Annotated[int, typer.Option(help="Seed of the data's split.")]
Epochs = Annotated[
    int | None, typer.Option(help="Number of epochs, if not the plan's; scales the schedule of the choices.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the search.")]
Draws = Annotated[int | None, typer.Option(help="Number of other networks to sample from the distribution.")]


def _command(kind: str, told: str) -> Callable[..., None]:
    """The command ``kind``, of which the help says ``told``; both take the same options."""

    def search(
        output: Output,
        plan: PlanSource = "tiny",
        data: DataSource = "digits",
        data_seed: DataSeed = 0,
        subset: running.SubsetFile = None,
        target: Target = None,
        latency: Latency = None,
        epochs: Epochs = None,
        seed: Seed = None,
        draws: Draws = None,
        resume: running.Resume = False,
        device: running.Device = "cpu",
        workers: running.Workers = 0,
        checkpoint_steps: running.CheckpointSteps = 0,
        checkpoint_minutes: running.CheckpointMinutes = 0.0,
        as_json: Json = False,
    ) -> None:
        options = dict(locals())
        _carry_out(kind, options)

    search.__name__ = kind
    search.__doc__ = f'{told}\n\nExample: fbnetv3 search {kind} --target "macs<=1M" --output runs/{kind}'
    return search


dnas = _command(
    "dnas", "FBNet's differentiable search for the block of each layer. Interrupted searches continue with --resume."
)
dmasking = _command(
    "dmasking",
    "FBNetV2's differentiable search for blocks, and by masks for widths, expansions and resolution. Interrupted "
    "searches continue with --resume.",
)


def plan_of(plans: Mapping[str, SupernetPlan], options: Mapping[str, Any]) -> SupernetPlan:
    """The plan given by the options of a command."""
    from fbnetv3_zoo.search.space import parse_constraint
    from fbnetv3_zoo.search.supernet import find_supernet_plan

    plan = find_supernet_plan(options["plan"], plans)
    if options["epochs"] is not None:
        plan = plan.with_epochs(options["epochs"])
    if options["seed"] is not None:
        plan = replace(plan, recipe=replace(plan.recipe, seed=options["seed"]))
    if options["draws"] is not None:
        plan = replace(plan, draws=options["draws"])
    if options["target"] is not None:
        bounds = parse_constraint(options["target"])
        if len(bounds) != 1:
            raise ZooError(f"--target is {options['target']!r}; give one bound, such as 'macs<=1M'")
        plan = replace(plan, cost=bounds[0].cost, target=bounds[0])
    return plan


def _carry_out(kind: str, options: dict[str, Any]) -> None:
    """Run the search, write its report, and print the result."""
    from fbnetv3_zoo.search.supernet import DMASKING_PLANS, DNAS_PLANS, search_supernet
    from fbnetv3_zoo.search.supernet.page import write_report

    from ...arch.latency import LatencyTable
    from ...training import Execution, find_dataset
    from .progress import SupernetProgress

    plan = plan_of({"dnas": DNAS_PLANS, "dmasking": DMASKING_PLANS}[kind], options)
    table = LatencyTable.load(options["latency"]) if options["latency"] else None
    data = find_dataset(options["data"], seed=options["data_seed"], subset=options["subset"])
    fields = ("device", "workers", "checkpoint_steps", "checkpoint_minutes")
    with SupernetProgress(plan) as progress:
        record = search_supernet(
            plan, data, options["output"], latency=table, resume=options["resume"],
            execution=Execution(**{field: options[field] for field in fields}), observers=[progress],
        )  # fmt: skip
    report = record.folder / "report.html"
    write_report(record, report)
    if options["as_json"]:
        print_json(_told(record))
        return
    _print_record(record)
    for path in (*record.files, report):
        say(written(path))


def _told(record: SupernetResult) -> dict[str, Any]:
    values = record.plan.space.values(record.found.code)
    found = {**asdict(record.found), "values": values}
    return {"folder": record.folder, "found": found, "drawn": [asdict(one) for one in record.drawn]}


def _print_record(record: SupernetResult) -> None:
    found, last, cost = record.found, record.epochs[-1], record.plan.cost
    bound = "" if record.plan.target is None else f" (target {record.plan.target})"
    say(f"supernet: validation accuracy {last.validation_top1:.2%} after {last.epoch} epochs")
    say(f"{record.arch.name}: {found.cost:,.6g} {cost}{bound}; train it from scratch:")
    say(f"{program()} train --model {in_shell(record.files[0])} --data ... --output ...")
