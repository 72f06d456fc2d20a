"""``fbnetv3 search dnas`` and ``fbnetv3 search dmasking``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ...errors import ZooError
from .. import training_options as training
from ..common import Json, leads, output_folder, print_json, processes, program, written
from ..option_groups import Checkpointing, DataOptions, configurable
from ..output import in_shell, say
from .options import Accumulation

if TYPE_CHECKING:
    from fbnetv3_zoo.search.supernet import SupernetPlan, SupernetResult

    from ...training import Execution

Latency = Annotated[
    str | None, typer.Option(help="A table of `search lut`, for latency_ms as cost.", rich_help_panel="Plan")
]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The plan of a search, and what is changed of it."""

    title: ClassVar[str] = "Plan"
    plan: Annotated[
        str, typer.Option("--plan", help="A plan: paper, tiny, or a JSON file (plan.json of a search).")
    ] = "tiny"
    target: Annotated[
        str | None,
        typer.Option(help="Bound on the cost: 'macs<=1M', 'parameters<=80k', 'latency_ms<=2.5'."),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(help="Number of epochs, if not the plan's; scales the schedule of the choices."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of the search.")] = None
    draws: Annotated[int | None, typer.Option(help="Number of other networks to sample from the distribution.")] = None

    def search_plan(self, plans: Mapping[str, SupernetPlan]) -> SupernetPlan:
        """The plan among the named ``plans``, or of a file, with the changes."""
        from fbnetv3_zoo.search.space import parse_constraint
        from fbnetv3_zoo.search.supernet import find_supernet_plan

        plan = find_supernet_plan(self.plan, plans)
        if self.epochs is not None:
            plan = plan.with_epochs(self.epochs)
        if self.seed is not None:
            plan = replace(plan, recipe=replace(plan.recipe, seed=self.seed))
        if self.draws is not None:
            plan = replace(plan, draws=self.draws)
        if self.target is not None:
            bounds = parse_constraint(self.target)
            if len(bounds) != 1:
                raise ZooError(f"--target is {self.target!r}; give one bound, such as 'macs<=1M'")
            plan = replace(plan, cost=bounds[0].cost, target=bounds[0])
        return plan


@dataclass(frozen=True, slots=True)
class SupernetRunOptions(training.RunOptions):
    """Execution and checkpoints of a search, and whether its supernet fits a GPU."""

    accumulation: Accumulation = 1
    gradient_checkpointing: Checkpointing = False

    def fitted(self, plan: SupernetPlan) -> Execution:
        """How the search is computed, in as many parts as it takes to fit a GPU where that is asked for."""
        plain = training.RunOptions.execution(replace(self, accumulation=max(1, self.accumulation)))
        chosen = replace(plain, gradient_checkpointing=self.gradient_checkpointing)
        if not self.device.startswith("cuda"):
            return chosen
        import torch

        from fbnetv3_zoo.search.supernet.memory import fit_supernet

        from ...training.distributed import usable

        usable(self.device)
        available = torch.cuda.get_device_properties(self.device).total_memory
        fit = fit_supernet(plan, chosen, available, choose=self.accumulation == 0, processes=processes())
        if leads():
            say(str(fit))
        return fit.execution


def _command(kind: str, purpose: str) -> Callable[..., None]:
    """The command ``kind``, whose help begins with ``purpose``; both take the same options."""

    def search(
        *,
        output: Annotated[Path, output_folder("Folder for network, report, metrics and checkpoints.")],
        planned: PlanOptions,
        data: DataOptions,
        data_seed: Annotated[int, typer.Option(help="Seed of the data's split.", rich_help_panel="Images")] = 0,
        subset: training.SubsetFile = None,
        latency: Latency = None,
        running: SupernetRunOptions,
        as_json: Json = False,
    ) -> None:
        from fbnetv3_zoo.search.supernet import DMASKING_PLANS, DNAS_PLANS, search_supernet

        from ...arch.latency import LatencyTable
        from ...training import find_dataset
        from .progress import SupernetProgress

        plan = planned.search_plan({"dnas": DNAS_PLANS, "dmasking": DMASKING_PLANS}[kind])
        table = LatencyTable.load(latency) if latency else None
        images = find_dataset(data.source, seed=data_seed, subset=subset, val_split=data.val_split)
        with SupernetProgress(plan) as progress:
            record = search_supernet(
                plan, images, output, latency=table, resume=running.resume,
                execution=running.fitted(plan), callbacks=[progress],
            )  # fmt: skip
        if not leads():
            return
        if as_json:
            print_json(_plain(record))
            return
        _print_record(record)
        for path in (*record.files, record.folder / "report.html"):
            say(written(path))

    search.__name__ = kind
    search.__doc__ = f'{purpose}\n\nExample: fbnetv3 search {kind} --target "macs<=1M" --output runs/{kind}'
    return configurable(search)


dnas = _command(
    "dnas", "FBNet's differentiable search for the block of each layer. Interrupted searches continue with --resume."
)
dmasking = _command(
    "dmasking",
    "FBNetV2's differentiable search for blocks, and by masks for widths, expansions and resolution. Interrupted "
    "searches continue with --resume.",
)


def _plain(record: SupernetResult) -> dict[str, Any]:
    values = record.plan.space.values(record.found.code)
    found = {**asdict(record.found), "values": values}
    return {"folder": record.folder, "found": found, "drawn": [asdict(one) for one in record.drawn]}


def _print_record(record: SupernetResult) -> None:
    found, last, cost = record.found, record.epochs[-1], record.plan.cost
    bound = "" if record.plan.target is None else f" (target {record.plan.target})"
    say(f"supernet: validation accuracy {last.validation_top1:.2%} after {last.epoch} epochs")
    say(f"{record.arch.name}: {found.cost:,.6g} {cost}{bound}; train it from scratch:")
    say(f"{program()} train --model {in_shell(record.files[0])} --data ... --output ...")
