"""``fbnetv3 search``: the joint search of architecture and recipe, as a whole or stage by stage."""

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
    from fbnetv3_zoo.search.evaluation import EvaluatorConfig

app = command_group(
    """Search for networks and recipes together, in the three stages of FBNetV3.

    Example: fbnetv3 search run --plan tiny --data digits --output runs/tiny
    """
)

PlanSource = Annotated[str, typer.Option("--plan", help="A plan: paper, paper_recipe, tiny, or a JSON file.")]
Space = Annotated[str | None, typer.Option(help="Space, if not the plan's: a name or a JSON file.")]
Bounds = Annotated[
    list[str] | None,
    typer.Option("--constraint", help="Bounds on the result, such as 'macs<=450M'; may be repeated for more results."),
]
Within = Annotated[str | None, typer.Option(help="Bounds on all trained candidates, such as '400M<=macs<=800M'.")]
Model = Annotated[
    str | None, typer.Option(help="Only search recipes, for this model: a name, a JSON file, torchvision:NAME.")
]
FixedRecipe = Annotated[str | None, typer.Option("--recipe", help="Only search networks, with this recipe.")]
Data = Annotated[
    str | None, typer.Option("--data", help="Training data: 'digits' or a folder, as for `fbnetv3 train`.")
]
Table = Annotated[str | None, typer.Option(help="Use the scores of a recording instead of training.")]
Latency = Annotated[str | None, typer.Option(help="A table of `search lut`, for bounds on latency_ms.")]
Where = Annotated[
    str, typer.Option("--executor", help="in-process, pool, pool:N, ray or ray:ADDRESS (`pip install ray`).")
]
Minutes = Annotated[float, typer.Option("--timeout-minutes", help="Time limit of a candidate (0: none).")]
Gigabytes = Annotated[float, typer.Option("--memory-gb", help="Memory limit of a candidate (0: none).")]
Retries = Annotated[int, typer.Option(help="Number of retries of a failed candidate.")]
Device = Annotated[str, typer.Option(help="Device of the candidates: cpu or cuda.")]
Workers = Annotated[int, typer.Option(help="Number of processes that load images for each candidate.")]
Stages = Annotated[int, typer.Option(min=1, max=3, help="Last stage to run; `search resume` continues.")]
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
    rounds: Annotated[int | None, typer.Option(help="Number of rounds of stage 2.")] = None,
    batch: Annotated[int | None, typer.Option(help="Candidates per round.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a full training.")] = None,
    finalists: Annotated[int | None, typer.Option(help="Candidates trained in full per constraint.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search.")] = None,
    data: Data = None,
    data_seed: Annotated[int, typer.Option(help="Seed of the data's split.")] = 0,
    subset: Annotated[str, typer.Option(help="Only this part of the data (`fbnetv3 subset`).")] = "",
    resolution: Annotated[int, typer.Option(help="Image side for models without their own (torchvision's).")] = 224,
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
    """Run a search, from the pool to trained finalists. Interrupted searches continue with `search resume`.

    Example: fbnetv3 search run --plan tiny --data digits --constraint "macs<=1M" --output runs/tiny
    """
    options = dict(locals())
    from fbnetv3_zoo.search.evaluation import EvaluatorConfig

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
    data: Annotated[str | None, typer.Option(help="New path of its data, if moved.")] = None,
    subset: Annotated[str | None, typer.Option(help="New path of its subset file, if moved.")] = None,
    table: Annotated[str | None, typer.Option(help="New path of its recording, if moved.")] = None,
    latency: Annotated[str | None, typer.Option(help="New path of its latency table, if moved.")] = None,
    as_json: Json = False,
) -> None:
    """Continue a search from its finished candidates, with the same result as without an interruption.

    Example: fbnetv3 search resume runs/tiny
    """
    options = dict(locals())
    from fbnetv3_zoo.search import SearchResult
    from fbnetv3_zoo.search.evaluation import EvaluatorConfig

    record = SearchResult.read(folder)
    if not record.origin:
        raise ZooError(
            f"{folder}: was started from Python with a custom evaluator; continue it by run_search(resume=True)"
        )
    before = EvaluatorConfig.from_plain(record.origin)
    given = {"data": data, "subset": subset, "table": table, "latency": latency}
    carry_out(record.plan, _found_again(folder, before, given), folder, options, resume=True)


def _found_again(folder: Path, before: EvaluatorConfig, given: Mapping[str, str | None]) -> EvaluatorConfig:
    """``before`` with the new paths. Raises :class:`ZooError` if files are missing or their contents differ."""
    from ...training.data.dataset import data_difference

    moved: dict[str, Any] = {name: place for name, place in given.items() if place is not None}
    if wrong := next((name for name in moved if not getattr(before, name)), None):
        raise ZooError(f"{folder}: was started without --{wrong}; leave it out")
    origin = replace(before, **moved).absolute
    try:
        now = origin.identified()
    except ZooError as error:
        if moved:
            raise
        raise ZooError(f"{error}; if it was moved, give its new path (--data, --subset, --table, --latency)") from None
    if now.identity != before.identity:
        change = data_difference(before.identity, now.identity) or "its contents differ"
        raise ZooError(f"{folder}: {now.data or now.table} has changed since the search started ({change}); restore it")
    return now


def carry_out(
    plan: SearchPlan, origin: EvaluatorConfig, folder: Path, options: dict[str, Any], *, resume: bool
) -> None:
    """Run the search, and print the result."""
    from fbnetv3_zoo.search import Limits, find_executor, run_search
    from fbnetv3_zoo.search.evaluation import TrainingEvaluator

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
    """The results and the report of a search."""
    names = [record.plan.result_name(winner.constraint) for winner in record.winners]
    paths = [record.folder / f"{name}.{kind}.json" for name in names for kind in ("arch", "recipe")]
    return [path for path in (*paths, record.folder / "report.html") if exists(path)]


def plan_of(options: Mapping[str, Any]) -> SearchPlan:
    """The plan named by a command's options, changed by the others that are given."""
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
    """Run stage 1: draw the pool, train the encoder on free statistics, and report how well it predicts them.

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
        raise ZooError(f"{folder}: its rounds are not finished, so there is no final predictor; run {remedy} first")
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
