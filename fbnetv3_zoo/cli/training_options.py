"""Shared by the training commands: groups of options, the initial weights, and printing of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from ..arch.torchvision_arch import is_torchvision
from ..errors import ZooError, counted, first_few
from .common import brings_weights, holds_weights, leads, print_json, program, written
from .option_groups import ArchOptions, Checkpointing, Compile, PrecisionName
from .output import in_shell, say

if TYPE_CHECKING:
    from ..arch.torchvision_arch import AnyArch
    from ..recipes import Recipe, RecipePreset
    from ..training import Callback, Dataset, Execution, Run
    from ..weights.serialization import WeightsFile

RecipeSource = Annotated[
    str | None,
    typer.Option(
        "--recipe", rich_help_panel="Recipe",
        help="A name from `fbnetv3 recipe list`, or a JSON file (default: fitted to the images).",
    ),
]  # fmt: skip
SubsetFile = Annotated[
    Path | None,
    typer.Option("--subset", help="Only this part of the data (`fbnetv3 subset`).", rich_help_panel="Images"),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:1; under torchrun, cuda is each process's own GPU.")]
Workers = Annotated[int, typer.Option(help="Number of processes that load images (0: only this one).")]


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """Changes of a recipe."""

    title: ClassVar[str] = "Recipe"
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, if not the recipe's.")] = None
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step over all processes; scales learning rate and moving average.")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Peak learning rate, if not the recipe's.")
    ] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the run, if not the recipe's.")] = None

    _fields: ClassVar[Mapping[str, str]] = {name: name for name in ("epochs", "learning_rate", "seed")}
    """The field of a recipe that an option changes."""

    def data_seed(self, recipe: Recipe | None) -> int:
        """Seed of the data's split, which is that of the run."""
        return self.seed if self.seed is not None else recipe.seed if recipe else 0

    def applied(self, recipe: Recipe, *, images: int | None = None) -> Recipe:
        """``recipe`` with these changes.

        Values count as they are given, so the recipe is fitted to the number of ``images`` to train on before those
        that fitting scales.
        """
        if self.batch_size is not None:
            recipe = recipe.for_batch_size(self.batch_size)
        given = {field: value for name, field in self._fields.items() if (value := getattr(self, name)) is not None}
        if images is not None and not given.keys().isdisjoint(("learning_rate", "ema_decay")):
            from ..training.loader import fitted

            recipe = fitted(recipe, images, tell=leads(), rate_given="learning_rate" in given)
        changed = replace(recipe, **given)
        if self.epochs is not None and leads():
            from ..recipes.decay import warn_of_decay

            warn_of_decay(recipe, self.epochs)
        return changed


@dataclass(frozen=True, slots=True)
class ClassifierRecipeOptions(RecipeOptions):
    """Further changes of a recipe, for classifiers."""

    optimizer: Annotated[
        Literal["sgd", "rmsprop", "adamw"] | None,
        typer.Option(help="Optimizer, if not the recipe's; another one needs --learning-rate, too."),
    ] = None
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay, if not the recipe's.")] = None
    ema_decay: Annotated[
        float | None, typer.Option(help="Decay per step of the moving average of weights (0: no average).")
    ] = None
    freeze: Annotated[
        int | None, typer.Option(help="Number of the network's first stages that keep their weights and statistics.")
    ] = None
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weight classes inversely to their number of training images.")
    ] = False
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror half of the images, where left and right do not matter.")
    ] = False
    patience: Annotated[
        int | None, typer.Option(help="End after so many epochs without a better validation accuracy.")
    ] = None
    weight_levels: Annotated[
        int | None, typer.Option(help="Quantization-aware training with this weight range: 127, or 63 without VNNI.")
    ] = None

    _fields: ClassVar[Mapping[str, str]] = {
        **RecipeOptions._fields,
        "weight_decay": "weight_decay", "ema_decay": "ema_decay", "freeze": "frozen_stages", "patience": "patience",
        "weight_levels": "weight_levels",
    }  # fmt: skip

    def applied(self, recipe: Recipe, *, images: int | None = None) -> Recipe:
        """``recipe`` with these changes; see :meth:`RecipeOptions.applied`."""
        changed = RecipeOptions.applied(self, self._optimized(recipe), images=images)
        if self.flip:
            changed = replace(changed, augmentation=replace(changed.augmentation, flip=0.5))
        return replace(changed, balanced=True) if self.balanced else changed

    def _optimized(self, recipe: Recipe) -> Recipe:
        from ..recipes import OPTIMIZERS

        if self.optimizer is None or isinstance(recipe.optimizer, OPTIMIZERS[self.optimizer]):
            return recipe
        if self.learning_rate is None:
            own = type(recipe.optimizer).__name__
            raise ZooError(
                f"--optimizer {self.optimizer}: the recipe's learning rate of {recipe.learning_rate:.4g} is for {own}; "
                "give --learning-rate, too"
            )
        return replace(recipe, optimizer=OPTIMIZERS[self.optimizer]())


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Execution and checkpoints of a run."""

    title: ClassVar[str] = "Execution"
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False
    device: Device = "cpu"
    workers: Workers = 0
    precision: PrecisionName = "float32"
    accumulation: Annotated[int, typer.Option(help="Number of parts in which a batch is computed.")] = 1
    checkpoint_steps: Annotated[
        int, typer.Option(help="Steps between checkpoints, besides those after every epoch.")
    ] = 0
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between checkpoints, besides those after every epoch.")
    ] = 0.0
    keep_checkpoints: Annotated[int, typer.Option(help="Number of newest checkpoints to keep.")] = 2

    def execution(self) -> Execution:
        """These options as the value that a run takes."""
        from ..training import Execution, Precision

        return Execution(
            device=self.device, workers=self.workers, precision=Precision(self.precision),
            accumulation=self.accumulation, checkpoint_steps=self.checkpoint_steps,
            checkpoint_minutes=self.checkpoint_minutes, keep_checkpoints=self.keep_checkpoints,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingOptions(RunOptions):
    """Further options for the training of classifiers."""

    compile: Compile = False
    gradient_checkpointing: Checkpointing = False
    on_bad_image: Annotated[
        Literal["raise", "skip"], typer.Option(help="If an image cannot be read, fail or skip it.")
    ] = "raise"
    threads: Annotated[
        int, typer.Option(help="Number of threads on the CPU (0: by the size of a step, or OMP_NUM_THREADS).")
    ] = 0
    skip_image_check: Annotated[
        bool, typer.Option("--skip-image-check", help="Do not read the headers of all images before the first epoch.")
    ] = False

    def execution(self) -> Execution:
        """These options as the value that a run takes."""
        from ..training import OnBadImage

        return replace(
            RunOptions.execution(self), compile=self.compile, gradient_checkpointing=self.gradient_checkpointing,
            on_bad_image=OnBadImage(self.on_bad_image), check_images=not self.skip_image_check,
            threads=self.threads,
        )  # fmt: skip


def given_preset(source: str | None) -> RecipePreset | None:
    """The recipe of the name or file ``source``, if one is given."""
    from ..recipes import find_preset

    return None if source is None else find_preset(source)


def named_preset(
    source: str | None, given: RecipePreset | None, data: str, images: Dataset, changes: RecipeOptions, *,
    pretrained: bool,
) -> tuple[str, RecipePreset]:  # fmt: skip
    """The recipe ``given`` by ``source``, by default the one for the ``images`` that ``data`` is; and its name.

    For images of one's own, that is a fitted one.
    """
    if given is not None:
        return str(source), given
    from ..recipes import NAMED, fit_recipe
    from ..training.data.cifar import find_cifar

    if data == "digits" or find_cifar(Path(data)):
        name = "digits" if data == "digits" else "cifar10"
        return name, NAMED[name]
    fitted = fit_recipe(len(images["train"]), epochs=changes.epochs, pretrained=pretrained)
    return f"fitted to {fitted.purpose}", fitted


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The network to train, and its initial weights."""

    title: ClassVar[str] = "Network"
    model: Annotated[
        str | None,
        typer.Option(
            help="A published name, an arch JSON file, torchvision:NAME, or a .safetensors file to fine-tune (default: "
            "the file of --weights, or fbnetv3_a)."
        ),
    ] = None
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from the published weights of the model (fine-tune).")
    ] = False
    weights: Annotated[
        str | None, typer.Option(help="Weights to start from: a file, a tag, commercial, a URL, hf-hub:owner/name.")
    ] = None

    def network(self, shape: ArchOptions) -> tuple[AnyArch, str | WeightsFile | None]:
        """The network, changed to ``shape``, and its initial weights; None for random ones."""
        from ..weights.registry import find_record

        if self.pretrained and self.weights is not None:
            raise ZooError("--pretrained and --weights both give weights to start from; give only one")
        model, weights = self.model, self.weights
        file = _file_of(model, weights)
        if file is None or (model is None and file.description is None):
            model = model or "fbnetv3_a"
            if self.pretrained and is_torchvision(model):
                raise ZooError(f"--pretrained: {model}'s weights are not fetched here; give a file as --weights")
            if self.pretrained and (shape.width, shape.depth) != (1, 1):
                raise ZooError(
                    f"--pretrained: {find_record(model).name} only fits its own network; leave out --width and "
                    "--depth, or train from random weights with it as --teacher"
                )
            return shape.any_arch_of(model), find_record(model).name if self.pretrained else file or weights
        if self.pretrained:
            raise brings_weights(file.name)
        if shape.reshape and weights in (None, file.name):
            remedy = "leave out --small-images, --width and --depth"
            raise ZooError(f"{file.name}: its weights only fit its own network; {remedy}")
        own = model is None or weights in (None, model)
        return shape.applied_to_any(file.own_description.arch), file if own else weights


def _file_of(model: str | None, weights: str | None) -> WeightsFile | None:
    """The file of this project that ``model`` is, or without a model the .safetensors file ``weights``, if any."""
    if model is not None:
        if not holds_weights(model):
            return None
        from ..weights.serialization import open_weights

        return open_weights(model)
    if weights is None or not weights.endswith(".safetensors") or "://" in weights:
        return None
    from ..weights.torch_checkpoint import read_any

    return replace(read_any(Path(weights).expanduser()), name=weights)


def callbacks_of(folder: Path, *, tensorboard: bool) -> list[Callback]:
    """Callbacks of the run besides the progress on the terminal."""
    if not tensorboard or not leads():
        return []
    from ..training.tensorboard_writer import TensorBoard

    return [TensorBoard(folder / "tensorboard")]


def outcome(run: Run) -> dict[str, Any]:
    """The result of a run as JSON values."""
    test = run.test.summary() if run.test else None
    fields = {"folder": run.folder, "last_epoch": asdict(run.epochs[-1]), "test": test}
    remarks = {"warning": run.warning or None, "hint": run.hint or None}
    return {**fields, "bad_images": list(run.bad_images), **remarks}


def folders(output: Path, preset: RecipePreset, seeds: int) -> Iterator[tuple[Path, RecipePreset]]:
    """The folder and the recipe of each of ``seeds`` runs."""
    for seed in range(preset.recipe.seed, preset.recipe.seed + seeds):
        seeded = preset.changed(replace(preset.recipe, seed=seed))
        yield output if seeds == 1 else output / f"seed-{seed}", seeded


def print_runs(runs: Sequence[Run], *, as_json: bool) -> None:
    """Print the result of a run, or those of several and their mean, in the leading process."""
    if not leads():
        return
    if len(runs) == 1:
        if as_json:
            print_json(outcome(runs[0]))
        else:
            print_outcome(runs[0])
        return
    import numpy as np

    from ..utils.intervals import mean_interval

    split = "test" if all(run.test for run in runs) else "validation"
    scores = [run.test.fraction if run.test else run.epochs[-1].validation_top1 for run in runs]
    mean, low, high = (min(1.0, max(0.0, float(value))) for value in mean_interval(np.array(scores)))
    if as_json:
        print_json({"runs": [outcome(run) for run in runs], "split": split, "mean": mean, "interval": [low, high]})
        return
    for run, score in zip(runs, scores, strict=True):
        say(f"{run.folder / 'model.safetensors'}: {split} accuracy {score:.2%}")
        tell_of_trouble(run)
    say(f"{split} accuracy over {len(runs)} seeds: mean {mean:.2%}, 95 % interval {low:.2%} to {high:.2%}")


def print_outcome(run: Run) -> None:
    """Print the result of a run."""
    last = run.epochs[-1]
    say(f"validation accuracy {last.validation_top1:.2%} after {counted(last.epoch, 'epoch')}")
    if run.test:
        say(f"test accuracy {run.test}")
    for name in ("model.safetensors", "best.safetensors", "report.html", "results.json", "metrics.jsonl", "curve.png"):
        say(written(run.folder / name))
    tell_of_trouble(run)
    model = in_shell(run.folder / "model.safetensors")
    say(f"next: {program()} classify IMAGES --model {model}", f"      {program()} export onnx {model}")


def tell_of_trouble(run: Run) -> None:
    """Print the images that a run skipped, and warnings about its result, if any."""
    if bad := run.bad_images:
        say(f"{len(bad):,} images could not be used and were left out: {first_few(bad)}")
    if run.warning:
        say(f"warning: {run.warning}")
    if run.hint:
        say(f"note: {run.hint}")
