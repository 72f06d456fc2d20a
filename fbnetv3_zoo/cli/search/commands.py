"""``fbnetv3 search``: the joint search of architecture and recipe, whole or stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import ZooError
from ...utils.paths import check_folder, check_outside, exists
from ..common import Json, command_group, output_file, output_folder, print_json, program, target_of, written
from ..output import in_shell, say
from . import lut as search_lut
from . import results as search_show
from . import supernet as search_supernet

if TYPE_CHECKING:
    from fbnetv3_zoo.search import SearchPlan, SearchResult
    from fbnetv3_zoo.search.evaluation.config import EvaluatorConfig

app = command_group(
    """Search for networks and recipes together: the three stages of FBNetV3, whole or one by one.

    Example: fbnetv3 search run --plan tiny --data digits --output runs/tiny
    """
)

PlanSource = Annotated[str, typer.Option("--plan", help="A plan: paper, paper_recipe, tiny, or a JSON file.")]
Space = Annotated[str | None, typer.Option(help="Another space than the plan's: a name, or a JSON file.")]
Bounds = Annotated[
    list[str] | None,
    typer.Option("--constraint", help="Find the best under these bounds, such as 'macs<=450M'; may be given again."),
]
Within = Annotated[str | None, typer.Option(help="Bounds on all that is trained, such as '400M<=macs<=800M'.")]
Model = Annotated[
    str | None, typer.Option(help="Search recipes alone, for this model: a name, a JSON file, torchvision:NAME.")
]
FixedRecipe = Annotated[str | None, typer.Option("--recipe", help="Search networks alone, with this recipe.")]
Data = Annotated[
    str | None, typer.Option("--data", help="Train on this: 'digits' or a folder, as for `fbnetv3 train`.")
]
Table = Annotated[str | None, typer.Option(help="Take the scores from a recording instead of training.")]
Latency = Annotated[str | None, typer.Option(help="A table of `search lut`: bounds on latency_ms become possible.")]
Where = Annotated[
    str, typer.Option("--executor", help="Where: in-process, pool, pool:N, ray, ray:ADDRESS (`pip install ray`).")
]
Minutes = Annotated[float, typer.Option("--timeout-minutes", help="Time limit of a candidate (0: none).")]
Gigabytes = Annotated[float, typer.Option("--memory-gb", help="Memory limit of a candidate (0: none).")]
Retries = Annotated[int, typer.Option(help="How often a candidate that failed is tried again.")]
Device = Annotated[str, typer.Option(help="Where a candidate computes: cpu or cuda.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare images, for each candidate in training.")]
Stages = Annotated[int, typer.Option(min=1, max=3, help="How far to go; `search resume` goes on.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a search.")]


@app.command()
def run(
    output: Annotated[Path, output_folder("Folder for journal, results and report.")],
    plan: PlanSource = "tiny",
    space: Space = None,
    model: Model = None,
    recipe: FixedRecipe = None,
    constraint: Bounds = None,
    within: Within = None,
    name: Annotated[str | None, typer.Option(help="Name of the results, if not the plan's.")] = None,
    pool: Annotated[int | None, typer.Option(help="Points in the pool, if not the plan's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of stage 2.")] = None,
    batch: Annotated[int | None, typer.Option(help="Candidates a round.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a full training.")] = None,
    finalists: Annotated[int | None, typer.Option(help="Candidates trained in full for each constraint.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    data: Data = None,
    data_seed: Annotated[int, typer.Option(help="Seed of the data's split.")] = 0,
    subset: Annotated[str, typer.Option(help="Only this part of the data (`fbnetv3 subset`).")] = "",
    resolution: Annotated[int, typer.Option(help="Image side for models that name none (torchvision's).")] = 224,
    table: Table = None,
    latency: Latency = None,
    executor: Where = "pool",
    timeout_minutes: Minutes = 0.0,
    memory_gb: Gigabytes = 0.0,
    retries: Retries = 1,
    device: Device = "cpu",
    workers: Workers = 0,
    stages: Stages = 3,
    as_json: Json = False,
) -> None:
    """Search, from the pool to trained finalists; every result is kept at once, and `search resume` goes on.

    Example: fbnetv3 search run --plan tiny --data digits --constraint "macs<=1M" --output runs/tiny
    """
    options = dict(locals())
    from fbnetv3_zoo.search.evaluation.config import EvaluatorConfig

    origin = EvaluatorConfig(
        data=data or ("" if table else "digits"), data_seed=data_seed, subset=subset, resolution=resolution,
        table=table or "", latency=latency or "",
    ).absolute.identified()  # fmt: skip
    carry_out(plan_of(options), origin, output, options, resume=False)


@app.command()
def resume(
    folder: Folder,
    executor: Where = "pool",
    timeout_minutes: Minutes = 0.0,
    memory_gb: Gigabytes = 0.0,
    retries: Retries = 1,
    device: Device = "cpu",
    workers: Workers = 0,
    stages: Stages = 3,
    data: Annotated[str | None, typer.Option(help="Where its data lies now, if it was moved.")] = None,
    subset: Annotated[str | None, typer.Option(help="Where the file of `fbnetv3 subset` lies now.")] = None,
    table: Annotated[str | None, typer.Option(help="Where its recording lies now.")] = None,
    latency: Annotated[str | None, typer.Option(help="Where its latency table lies now.")] = None,
    as_json: Json = False,
) -> None:
    """Go on with a search: what was finished is kept, and the end is that of one never interrupted.

    Example: fbnetv3 search resume runs/tiny
    """
    options = dict(locals())
    from fbnetv3_zoo.search import SearchResult
    from fbnetv3_zoo.search.evaluation.config import EvaluatorConfig

    record = SearchResult.read(folder)
    if not record.origin:
        raise ZooError(
            f"{folder}: was begun from Python, with an evaluator of its own; go on with run_search(resume=True)"
        )
    before = EvaluatorConfig.from_plain(record.origin)
    given = {"data": data, "subset": subset, "table": table, "latency": latency}
    carry_out(record.plan, _found_again(folder, before, given), folder, options, resume=True)


def _found_again(folder: Path, before: EvaluatorConfig, given: Mapping[str, str | None]) -> EvaluatorConfig:
    """``before`` where its files lie now; raises where they are gone, or others than the search began with."""
    from ...training.data.dataset import data_difference

    moved: dict[str, Any] = {name: place for name, place in given.items() if place is not None}
    if wrong := next((name for name in moved if not getattr(before, name)), None):
        raise ZooError(f"{folder}: was begun without --{wrong}; leave it out")
    origin = replace(before, **moved).absolute
    try:
        now = origin.identified()
    except ZooError as error:
        if moved:
            raise
        raise ZooError(
            f"{error}; if it was moved, say where it lies now (--data, --subset, --table, --latency)"
        ) from None
    if now.identity != before.identity:
        told = data_difference(before.identity, now.identity) or "its contents are others"
        raise ZooError(f"{folder}: {now.data or now.table} is not what the search began with ({told}); bring that back")
    return now


def carry_out(
    plan: SearchPlan, origin: EvaluatorConfig, folder: Path, options: dict[str, Any], *, resume: bool
) -> None:
    """Run the search, print what came out."""
    from fbnetv3_zoo.search import Limits, find_executor, run_search
    from fbnetv3_zoo.search.evaluation.training import TrainingEvaluator

    from ...training import Execution
    from .progress import SearchProgress

    check_outside(folder, None if origin.data in ("", "digits") else origin.data)
    limits = Limits(60 * options["timeout_minutes"], options["memory_gb"], options["retries"])
    evaluator = origin.evaluator(plan.space, Execution(device=options["device"], workers=options["workers"]))
    if isinstance(evaluator, TrainingEvaluator):
        evaluator.look()
    record = run_search(
        plan, evaluator, folder,
        executor=find_executor(options["executor"]), limits=limits, costs=origin.costs(plan.space),
        points=origin.points(plan.space), resume=resume, stages=options["stages"], origin=origin.to_plain(),
        observers=[SearchProgress()],
    )  # fmt: skip
    if options["as_json"]:
        print_json(search_show.summary(record))
        return
    search_show.print_summary(record)
    for path in files_of(record):
        say(written(path))


def files_of(record: SearchResult) -> list[Path]:
    """The files that a search has left for use."""
    names = [record.plan.result_name(winner.constraint) for winner in record.winners]
    paths = [record.folder / f"{name}.{kind}.json" for name in names for kind in ("arch", "recipe")]
    return [path for path in (*paths, record.folder / "report.html") if exists(path)]


def plan_of(options: Mapping[str, Any]) -> SearchPlan:
    """The plan that a command's options describe; what is not given stays as in the plan that they name."""
    from fbnetv3_zoo.search import find_plan, find_space, parse_constraint

    from ...recipes import find_recipe

    given = {name: value for name, value in options.items() if value is not None}
    plan = find_plan(given["plan"])
    space = find_space(given["space"]) if given.get("space") else plan.space
    if given.get("model"):
        space = space.recipe_only(given["model"])
        plan = replace(plan, constraints=((),), within=())
    if given.get("recipe"):
        space = space.with_recipe(find_recipe(given["recipe"]))
    if "epochs" in given:
        space = space.with_epochs(given["epochs"])
    rounds = {field: given[field] for field in ("rounds", "batch", "epochs") if field in given}
    changes: dict[str, Any] = {field: given[field] for field in ("name", "pool", "finalists", "seed") if field in given}
    if "within" in given:
        changes["within"] = parse_constraint(given["within"])
    if given.get("constraint"):
        changes["constraints"] = tuple(parse_constraint(text) for text in given["constraint"])
    return replace(plan, space=space, rounds=replace(plan.rounds, **rounds), **changes)


@app.command()
def pretrain(
    plan: PlanSource = "paper",
    space: Space = None,
    within: Within = None,
    pool: Annotated[int | None, typer.Option(help="Points in the pool, if not the plan's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    latency: Latency = None,
    output: Annotated[Path | None, output_file("File for the encoder (default: encoder.safetensors).")] = None,
    as_json: Json = False,
) -> None:
    """Stage 1 alone: draw the pool, train the encoder on free statistics, tell how well it knows them.

    Example: fbnetv3 search pretrain --plan paper --output encoder.safetensors
    """
    options = dict(locals())
    from fbnetv3_zoo.search import Search
    from fbnetv3_zoo.search.evaluation.config import measured_costs

    output = target_of(output, Path("encoder.safetensors"))
    chosen = plan_of(options)
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
    pareto: Annotated[str | None, typer.Option(help="Instead: the front of predicted score and this cost.")] = None,
    steps: Annotated[int, typer.Option(help="Bounds on the cost that the front is made with.")] = 12,
    as_json: Json = False,
) -> None:
    """Stage 3 alone, for new constraints: the trained predictor is used again, and nothing is trained.

    Example: fbnetv3 search evolve runs/tiny --constraint "macs<=0.5M" --constraint "parameters<=40k"
    """
    from fbnetv3_zoo.search import SearchResult, parse_constraint
    from fbnetv3_zoo.search.result import write_winners
    from fbnetv3_zoo.search.reuse import evolve_again, front_of

    record = SearchResult.read(folder)
    if bool(constraint) == bool(pareto):
        raise ZooError("give --constraint (once or more often) or --pareto, one of the two")
    if pareto:
        front = front_of(record, pareto, steps)
        if as_json:
            print_json(front)
            return
        for point in front:
            say(f"{pareto} {point['cost']:>16,.6g}  predicted {point['score']:.4f}")
        return
    if not record.measured:
        remedy = f"{program()} search resume {in_shell(folder)}"
        raise ZooError(f"{folder}: its rounds are not done, so there is no final predictor; run {remedy} first")
    check_folder(folder)
    winners = evolve_again(record, [parse_constraint(text) for text in constraint or []])
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
