"""The groups of options of ``fbnetv3 search run``, ``resume`` and others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ...errors import ZooError, check_whole
from ...utils.paths import check_outside
from ..option_groups import Checkpointing, Compile, PrecisionName
from ..output import say

if TYPE_CHECKING:
    from fbnetv3_zoo.search import SearchPlan, SearchResult
    from fbnetv3_zoo.search.evaluation import EvaluatorConfig
    from fbnetv3_zoo.search.executors import Executor

    from ...training import Execution

PlanSource = Annotated[
    str, typer.Option("--plan", help="A plan: paper, paper-literal, paper_recipe, tiny, letters, or a JSON file.")
]
Space = Annotated[str | None, typer.Option(help="Space, if not the plan's: a name or a JSON file.")]
Bounds = Annotated[
    list[str] | None,
    typer.Option("--constraint", help="Bounds on the result, such as 'macs<=450M'; may be repeated for more results."),
]
Within = Annotated[str | None, typer.Option(help="Bounds on all trained candidates, such as '400M<=macs<=800M'.")]
Pool = Annotated[int | None, typer.Option(help="Points in the pool, if not the plan's.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the search.")]
Latency = Annotated[str | None, typer.Option(help="A table of `search lut`, for bounds on latency_ms.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a search.")]
Accumulation = Annotated[
    int, typer.Option(help="Number of parts in which a batch is computed (0: as many as the GPU's memory asks for).")
]


def _as_before(context: typer.Context, folder: Path) -> Path:
    """Make the options with which the candidates were computed the defaults, but for the last stage to run."""
    from fbnetv3_zoo.search import SearchResult

    names = {one.name for one in fields(CandidateOptions)} - {"stages"}
    kept = SearchResult.read(folder).options
    context.default_map = {name: value for name, value in kept.items() if name in names and value is not None}
    return folder


Resumed = Annotated[Path, typer.Argument(help="The folder of a search.", is_eager=True, callback=_as_before)]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The plan of a search, and its changes."""

    title: ClassVar[str] = "Plan"
    plan: PlanSource = "tiny"
    space: Space = None
    model: Annotated[
        str | None, typer.Option(help="Only search recipes, for this model: a name, a JSON file, torchvision:NAME.")
    ] = None
    recipe: Annotated[str | None, typer.Option("--recipe", help="Only search networks, with this recipe.")] = None
    constraint: Bounds = None
    within: Within = None
    name: Annotated[str | None, typer.Option(help="Name of the results, if not the plan's.")] = None
    pool: Pool = None
    rounds: Annotated[int | None, typer.Option(help="Number of rounds of stage 2.")] = None
    batch: Annotated[int | None, typer.Option(help="Candidates per round.")] = None
    epochs: Annotated[int | None, typer.Option(help="Epochs of a full training.")] = None
    finalists: Annotated[int | None, typer.Option(help="Candidates trained in full per constraint.")] = None
    seed: Seed = None

    def search_plan(self) -> SearchPlan:
        """The plan with the changes."""
        from fbnetv3_zoo.search import find_plan, find_space, parse_constraint

        from ...recipes import find_recipe

        plan = find_plan(self.plan)
        space = find_space(self.space) if self.space else plan.space
        if self.model:
            space = space.recipe_only(self.model)
            plan = replace(plan, constraints=((),), within=())
        if self.recipe:
            space = space.with_recipe(find_recipe(self.recipe))
        if self.epochs is not None:
            space = space.with_epochs(self.epochs)
        changes: dict[str, Any] = {
            "space": space, "rounds": replace(plan.rounds, **self._given("rounds", "batch", "epochs")),
        }  # fmt: skip
        if self.within is not None:
            changes["within"] = parse_constraint(self.within)
        if self.constraint:
            changes["constraints"] = tuple(parse_constraint(text) for text in self.constraint)
        return replace(plan, **changes, **self._given("name", "pool", "finalists", "seed"))

    def _given(self, *names: str) -> dict[str, Any]:
        """Those of the options ``names`` that were given."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """The data, recording and latency table by which candidates are scored."""

    title: ClassVar[str] = "Scores"
    data: Annotated[
        str | None, typer.Option("--data", help="Training data: 'digits' or a folder, as for `fbnetv3 train`.")
    ] = None
    data_seed: Annotated[int, typer.Option(help="Seed of the data's split.")] = 0
    subset: Annotated[str, typer.Option(help="Only this part of the data (`fbnetv3 subset`).")] = ""
    resolution: Annotated[int, typer.Option(help="Image side for models without their own (torchvision's).")] = 224
    table: Annotated[
        str | None,
        typer.Option(help="Use the scores of a recording instead of training: a file, nars-letters or nars-emoji."),
    ] = None
    latency: Latency = None

    def config(self) -> EvaluatorConfig:
        """These options as the value stored in the journal."""
        from fbnetv3_zoo.search.evaluation import EvaluatorConfig

        return EvaluatorConfig(
            data=self.data or ("" if self.table else "digits"), data_seed=self.data_seed, subset=self.subset,
            resolution=self.resolution, table=self.table or "", latency=self.latency or "",
        ).absolute.identified()  # fmt: skip


@dataclass(frozen=True, slots=True)
class MovedOptions:
    """New paths of a search's files."""

    title: ClassVar[str] = "Moved files"
    data: Annotated[str | None, typer.Option(help="New path of its data, if moved.")] = None
    subset: Annotated[str | None, typer.Option(help="New path of its subset file, if moved.")] = None
    table: Annotated[str | None, typer.Option(help="New path of its recording, if moved.")] = None
    latency: Annotated[str | None, typer.Option(help="New path of its latency table, if moved.")] = None

    def config(self, folder: Path, before: EvaluatorConfig) -> EvaluatorConfig:
        """``before`` with the new paths. Raises :class:`ZooError` if files are missing or their contents differ."""
        from ...training.data.dataset import data_difference

        moved: dict[str, Any] = {name: place for name, place in asdict(self).items() if place is not None}
        if wrong := next((name for name in moved if not getattr(before, name)), None):
            raise ZooError(f"{folder}: was started without --{wrong}; leave it out")
        try:
            now = replace(before, **moved).absolute.identified()
        except ZooError as error:
            if moved:
                raise
            remedy = "if it was moved, give its new path (--data, --subset, --table, --latency)"
            raise ZooError(f"{error}; {remedy}") from None
        if now.identity != before.identity:
            difference = data_difference(before.identity, now.identity) or "its contents differ"
            changed = f"{folder}: {now.data or now.table} has changed since the search started"
            raise ZooError(f"{changed} ({difference}); restore it")
        return now


@dataclass(frozen=True, slots=True)
class CandidateOptions:
    """Executor and limits of the candidates, and the last stage to run."""

    title: ClassVar[str] = "Candidates"
    executor: Annotated[
        str, typer.Option("--executor", help="in-process, pool, pool:N, ray or ray:ADDRESS (`pip install ray`).")
    ] = "pool"
    timeout_minutes: Annotated[
        float, typer.Option("--timeout-minutes", help="Time limit of a candidate (0: none).")
    ] = 0.0
    memory_gb: Annotated[float, typer.Option("--memory-gb", help="Memory limit of a candidate (0: none).")] = 0.0
    retries: Annotated[int, typer.Option(help="Number of retries of a failed candidate.")] = 1
    device: Annotated[str, typer.Option(help="Device of the candidates: cpu or cuda.")] = "cpu"
    gpus_per_candidate: Annotated[
        float | None,
        typer.Option(
            help="GPUs of a candidate, or a share of one: 0.5, 0.25 (default with --device cuda: one for each process)."
        ),
    ] = None
    processes_per_candidate: Annotated[
        int | None,
        typer.Option(
            help="Processes of one machine that train a candidate together (default: one for each of its GPUs, or 1)."
        ),
    ] = None
    workers: Annotated[int, typer.Option(help="Number of processes that load images for each candidate.")] = 0
    precision: PrecisionName = "float32"
    accumulation: Accumulation = 1
    compile: Compile = False
    gradient_checkpointing: Checkpointing = False
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Keep checkpoints of candidates in the output folder: a lost one goes on from the last.",
        ),
    ] = False
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints, besides those after every epoch.")
    ] = 0.0
    stages: Annotated[int, typer.Option(min=1, max=3, help="Last stage to run; `search resume` continues.")] = 3

    def run(self, plan: SearchPlan, config: EvaluatorConfig, folder: Path, *, resume: bool) -> SearchResult:
        """Run the search."""
        from fbnetv3_zoo.search import Limits, run_search
        from fbnetv3_zoo.search.evaluation import TrainingEvaluator
        from fbnetv3_zoo.search.evaluation.training import check_recipes

        from .progress import SearchProgress

        check_outside(folder, None if config.data in ("", "digits") else config.data)
        evaluator = config.evaluator(plan.space, self._fitted(plan, config))
        if isinstance(evaluator, TrainingEvaluator):
            if plan.space.recipes is not None:
                check_recipes(plan.space.recipes, plan.rounds.epochs)
            evaluator.look()
            evaluator = replace(evaluator, processes=self._processes())
            if self.checkpoints:
                evaluator = replace(evaluator, checkpoints=folder.absolute() / "candidates")
        elif self.processes_per_candidate is not None:
            raise ZooError("--processes-per-candidate is for candidates that are trained; leave it out with --table")
        return run_search(
            plan, evaluator, folder, executor=self._executor(),
            limits=Limits(60 * self.timeout_minutes, self.memory_gb, self.retries), costs=config.costs(plan.space),
            points=config.points(plan.space), resume=resume, stages=self.stages, origin=config.to_plain(),
            callbacks=[SearchProgress()], options=asdict(self),
        )  # fmt: skip

    def _execution(self) -> Execution:
        from ...training import Execution, Precision

        return Execution(
            self.device, self.workers, Precision(self.precision), self.compile, accumulation=self.accumulation,
            gradient_checkpointing=self.gradient_checkpointing, checkpoint_minutes=self.checkpoint_minutes,
        )  # fmt: skip

    def _fitted(self, plan: SearchPlan, config: EvaluatorConfig) -> Execution:
        """How candidates are computed, in as many parts as it takes to fit a GPU where that is asked for."""
        chosen = replace(self, accumulation=max(1, self.accumulation))._execution()
        if config.table or not self.device.startswith("cuda"):
            return chosen
        import torch

        from fbnetv3_zoo.search.evaluation.memory import fit_memory

        from ...training.distributed import usable

        if self.executor.startswith("ray") and not torch.cuda.is_available():  # the nodes may have GPUs
            if self.accumulation == 0:
                raise ZooError("--accumulation 0 looks at a GPU of this machine, which has none; give a number")
            return chosen
        usable(self.device)
        share = min(1.0, self._gpus() or 1.0)
        available = torch.cuda.get_device_properties(self.device).total_memory * share
        fit = fit_memory(
            plan, chosen, available, choose=self.accumulation == 0, costs=config.costs(plan.space),
            processes=self._processes(),
        )  # fmt: skip
        if fit is None:
            return chosen
        say(str(fit))
        return fit.execution

    def _executor(self) -> Executor:
        """The executor, of which each candidate has its own GPUs, and cores for the processes that load its images."""
        from fbnetv3_zoo.search import find_executor

        processes = self._processes()
        return find_executor(self.executor, cpus_per_task=processes * (1 + self.workers), gpus_per_task=self._gpus())

    def _gpus(self) -> float:
        """The GPUs of a candidate."""
        if self.gpus_per_candidate is not None:
            return self.gpus_per_candidate
        return (self.processes_per_candidate or 1) if self.device == "cuda" else 0

    def _processes(self) -> int:
        """The processes of a candidate. Raises :class:`ZooError` unless each has one GPU, where there are several."""
        gpus, processes = self._gpus(), self.processes_per_candidate
        if processes is not None:
            check_whole("--processes-per-candidate", processes)
        if not self.device.startswith("cuda"):
            return processes or 1
        if processes is None:
            processes = max(1, int(gpus))
        if processes > 1 and (gpus != processes or self.device != "cuda"):
            raise ZooError(
                f"--processes-per-candidate {processes} needs --device cuda and as many GPUs, not {self.device} and "
                f"{gpus:g}; leave --gpus-per-candidate out, or give {processes}"
            )
        return processes
