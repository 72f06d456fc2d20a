"""``fbnetv3 search``: the joint search of architecture and recipe, as a whole or stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import ZooError
from ...utils.paths import check_folder, exists
from ..common import (
    Json,
    command_group,
    output_file,
    output_folder,
    print_json,
    program,
    target_of,
    written,
)
from ..option_groups import grouped
from ..output import in_shell, say
from . import lut as search_lut
from . import results as search_show
from . import supernet as search_supernet
from .options import (
    Bounds,
    CandidateOptions,
    Folder,
    Latency,
    MovedOptions,
    PlanOptions,
    PlanSource,
    Pool,
    Resumed,
    ScoringOptions,
    Seed,
    Space,
    Within,
)

if TYPE_CHECKING:
    from fbnetv3_zoo.search import SearchResult

app = command_group(
    """Search for networks and recipes together, in the three stages of FBNetV3.

    Example: fbnetv3 search run --plan tiny --data digits --output runs/tiny
    """
)


@app.command()
@grouped
def run(
    *,
    output: Annotated[Path, output_folder("Folder for journal, results and report.")],
    planned: PlanOptions,
    scored_on: ScoringOptions,
    candidates: CandidateOptions,
    as_json: Json = False,
) -> None:
    """Run a search, from the pool to trained finalists. Interrupted searches continue with `search resume`.

    Example: fbnetv3 search run --plan tiny --data digits --constraint "macs<=1M" --output runs/tiny
    """
    config = scored_on.config()
    _print_search(candidates.run(planned.search_plan(), config, output, resume=False), as_json=as_json)


@app.command()
@grouped
def resume(*, folder: Resumed, candidates: CandidateOptions, moved: MovedOptions, as_json: Json = False) -> None:
    """Continue a search from its finished candidates, with the same result as without an interruption.

    Executor, device and precision are as before, unless given.

    Example: fbnetv3 search resume runs/tiny
    """
    from fbnetv3_zoo.search import SearchResult
    from fbnetv3_zoo.search.evaluation import EvaluatorConfig

    record = SearchResult.read(folder)
    if not record.origin:
        raise ZooError(
            f"{folder}: was started from Python with a custom evaluator; continue it by run_search(resume=True)"
        )
    config = moved.config(folder, EvaluatorConfig.from_plain(record.origin))
    _print_search(candidates.run(record.plan, config, folder, resume=True), as_json=as_json)


def _print_search(record: SearchResult, *, as_json: bool) -> None:
    if as_json:
        print_json(search_show.summary(record))
        return
    search_show.print_summary(record)
    for path in files_of(record):
        say(written(path))


def files_of(record: SearchResult) -> list[Path]:
    """The results and the report of a search."""
    names = [record.plan.result_name(winner.constraint) for winner in record.winners]
    paths = [record.folder / f"{name}.{kind}.json" for name in names for kind in ("arch", "recipe", "proxy.recipe")]
    return [path for path in (*paths, record.folder / "report.html") if exists(path)]


@app.command()
def pretrain(
    plan: PlanSource = "paper",
    space: Space = None,
    within: Within = None,
    pool: Pool = None,
    seed: Seed = None,
    latency: Latency = None,
    output: Annotated[
        Path | None, output_file("File for the encoder (default: encoder.safetensors).", "fbnetv3_zoo.encoder")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run stage 1: draw the pool, train the encoder on free statistics, and report how well it predicts them.

    Example: fbnetv3 search pretrain --plan paper --output encoder.safetensors
    """
    from fbnetv3_zoo.search import Search
    from fbnetv3_zoo.search.evaluation.config import measured_costs

    output = target_of(output, Path("encoder.safetensors"), "fbnetv3_zoo.encoder")
    chosen = PlanOptions(plan=plan, space=space, within=within, pool=pool, seed=seed).search_plan()
    search = Search(chosen, costs=measured_costs(chosen.space, latency) if latency else None)
    points = search.pool()
    encoder = search.encoder(points)
    if encoder is None:
        raise ZooError(f"plan {chosen.name}: has no architectures to pretrain on, or a predictor without pretraining")
    encoder.save(output)
    figures = {
        name: {"r2": r2, "kendall": tau}
        for name, r2, tau in zip(encoder.statistics, encoder.r2, encoder.kendall, strict=True)
    }
    if as_json:
        print_json({"file": output, "points": len(points.codes), "held_out": figures})
        return
    say(f"{len(points.codes):,} points; on the fifth held out:")
    for statistic, of in figures.items():
        say(f"{statistic:18} R2 {of['r2']:.4f}  Kendall {of['kendall']:.4f}")
    say(written(output))


@app.command()
def evolve(
    folder: Folder,
    constraint: Bounds = None,
    pareto: Annotated[
        str | None, typer.Option(help="Instead, print the front of predicted score and this cost.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Number of cost bounds for the front.")] = 12,
    as_json: Json = False,
) -> None:
    """Run stage 3 again for new constraints, with the existing predictor and without training.

    Example: fbnetv3 search evolve runs/tiny --constraint "macs<=0.5M" --constraint "parameters<=40k"
    """
    from fbnetv3_zoo.search import SearchResult, parse_constraint
    from fbnetv3_zoo.search.result import write_winners
    from fbnetv3_zoo.search.reuse import evolve_again, front_of

    record = SearchResult.read(folder)
    if bool(constraint) == bool(pareto):
        raise ZooError("give either --constraint (at least once) or --pareto")
    if not record.measured:
        remedy = f"{program()} search resume {in_shell(folder)}"
        raise ZooError(f"{folder}: its rounds are not finished, so there is no final predictor; run {remedy} first")
    if pareto:
        front = front_of(record, pareto, steps)
        if as_json:
            print_json(front)
            return
        for point in front:
            say(f"{pareto} {point['cost']:>16,.6g}  predicted {point['score']:.4f}")
        return
    check_folder(folder)
    constraints = [parse_constraint(text) for text in constraint or []]
    found = {record.plan.result_name(winner.constraint) for winner in record.winners}
    if own := [text for text, one in zip(constraint or [], constraints, strict=True)
               if record.plan.result_name(one) in found]:  # fmt: skip
        raise ZooError(f"--constraint {own[0]!r} is the search's own, whose winner stays; give another bound")
    winners = evolve_again(record, constraints)
    paths = write_winners(record.plan, winners, folder)
    if as_json:
        print_json({"winners": [search_show.told(record, winner) for winner in winners], "files": paths})
        return
    search_show.print_winners(record, winners)
    for path in paths:
        say(written(path))


for command in (
    search_show.status, search_show.export, search_show.report, search_show.space, search_show.plan, search_lut.lut,
    search_supernet.dnas, search_supernet.dmasking,
):  # fmt: skip
    app.command()(command)
