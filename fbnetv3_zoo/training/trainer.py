"""Training a classifier: from data and recipe to a folder with a trained network, resumable at any moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from ..arch import Arch
from ..arch.torchvision_arch import AnyArch, TorchvisionArch
from ..errors import ZooError, check_type, in_short, printable, shown
from ..factory import create, find_any_network
from ..models.fbnet import FBNet
from ..models.network import Network
from ..preprocess import Preprocess
from ..recipes import Recipe, RecipePreset, preset_of
from ..utils.atomic_write import replacing
from ..utils.log import LOG
from ..utils.paths import CONFIG, check_outside, exists
from ..weights.serialization import WeightsFile, save
from ..weights.state_dict import new_network
from .callbacks import Callback, Epoch, Run, tell_looked
from .checkpoint import recipe_identity
from .data import SPLITS, Dataset, Split, TrainingData, as_dataset, find_dataset
from .data.image_headers import Unusable, look_before_run
from .data.seen import sample_of
from .distributed import World, join
from .engine import EXPLODED, Engine
from .evaluation import Evaluation
from .execution import Execution, step_macs, threads_for
from .learner import Learner
from .loader import Batch, TrainingBatches, fitted
from .losses import class_weights_of
from .optim import warn_of_long_average
from .qat import imitate_int8, plain_state
from .report import Report, write_report
from .report.curves import draw_curve
from .report.results import RESULTS, hint_on, write_results
from .run_folder import METRICS, MODEL, REPORT, check_run, claimed, own_randomness
from .teacher import Teacher, TeacherSource, find_teacher


def train(
    arch: AnyArch | str | Path, data: TrainingData, recipe: Recipe | RecipePreset, folder: str | Path, *,
    teacher: TeacherSource | None = None, pretrained: bool | str | Path | WeightsFile = False, resume: bool = False,
    execution: Execution = Execution(), callbacks: Sequence[Callback] = (), report: bool = True,
) -> Run:  # fmt: skip
    """Train ``arch`` on ``data`` and leave the result in ``folder``; under ``torchrun``, all processes together.

    Args:
        arch: the network, of this project or of torchvision, as a value, a name or the path of its JSON, as
            :func:`fbnetv3_zoo.create` takes it; its classes and input channels are changed to the data's.
        data: images to train, validate and test on: a dataset, a folder, or datasets of torchvision, of `datasets` or
            of one's own by split; see :func:`as_dataset`, which has more options.
        recipe: how to train; the sources of a preset's values are kept in ``recipe.json`` and the report.
        folder: where the files go; must not hold a run unless ``resume``.
        teacher: a network to learn from, as ``recipe.distillation`` says: a module, a published name, a model file
            (``.safetensors``, ``.onnx``) or ``hf-hub:owner/name``. It is validated before the first epoch.
        pretrained: weights to start from; see :func:`fbnetv3_zoo.create`. The result keeps their name and license.
        resume: continue the run in ``folder`` after its newest checkpoint, with the result of one that was never
            interrupted. Network, weights, data, recipe and teacher must be the same; ``epochs`` may grow where the
            schedule does not depend on it. The number of processes may change.
        execution: where and how to compute.
        callbacks: called after every step and epoch, in the leading process.
        report: write ``curve.png`` and ``report.html`` when the run has ended.

    Raises :class:`ZooError` for input that does not fit, and where the loss explodes or stops being a number (the batch
    is then in ``folder``); :class:`Interrupted` where SIGTERM ends the run, after a checkpoint.
    """
    check_run(folder, execution, callbacks)
    check_type("recipe", recipe, Recipe | RecipePreset, "a recipe, such as RECIPES['digits'] or fit_recipe(IMAGES)")
    arch = _network(arch)
    seed = (recipe.recipe if isinstance(recipe, RecipePreset) else recipe).seed
    data = find_dataset(data, seed=seed) if isinstance(data, str | Path) else as_dataset(data)
    check_outside(folder, data.root)
    arch = replace(arch, num_classes=len(data.class_names), in_channels=len(data.mean))
    with (
        join(execution.device) as world,
        claimed(Path(folder), world, _FILES),
        own_randomness(world),
        closing(_Trainer(arch, data, recipe, Path(folder), execution, world, report)) as trainer,
    ):
        trainer.check_folder(resume=resume)
        found = trainer.prepare(teacher, pretrained)
        trainer.look(callbacks)
        trainer.check_teacher(found)
        trainer.begin(resume=resume, epoch=Epoch)
        trainer.keep_recipe()
        return trainer.run(callbacks)


def _network(arch: object) -> AnyArch:
    """The network given. Raises :class:`ZooError` for what is none, and for a module."""
    own = "; that of a network is network.arch" if isinstance(arch, Network) else ""
    check_type("arch", arch, Arch | TorchvisionArch | str | Path, f"an Arch or a name, such as 'fbnetv3_nano'{own}")
    return find_any_network(arch)  # type: ignore[arg-type]


RECIPE = "recipe.json"
"""The file of a run's recipe, for ``--recipe`` and :func:`~fbnetv3_zoo.recipes.find_preset`."""

BEST, CURVE = "best.safetensors", "curve.png"
_FILES = (RECIPE, MODEL, BEST, CURVE, REPORT, RESULTS, METRICS, CONFIG)


class _Trainer(Engine[Batch, Run]):
    learner: Learner

    def __init__(
        self, arch: AnyArch, data: Dataset, recipe: Recipe | RecipePreset, folder: Path, execution: Execution,
        world: World, report: bool,
    ) -> None:  # fmt: skip
        if len(data["train"]) < 2 or not data["validation"]:
            raise ZooError(f"{data.name}: needs at least 2 images to train on and 1 to validate on")
        preset = recipe if isinstance(recipe, RecipePreset) else preset_of(recipe, arch=arch.name)
        recipe = fitted(preset.recipe, len(data["train"]), tell=world.leads)
        self.preset = preset.changed(recipe, source=f"for {len(data['train']):,} images")
        self.arch, self.data, self.folder, self.report = arch, data, folder, report
        self.preprocess = data.preprocess(arch.resolution)
        batches = TrainingBatches(data["train"], self.preprocess, recipe, execution=execution, world=world)
        super().__init__(recipe, batches, folder, execution=execution, world=world)
        self.notes: list[str] = []
        self.unusable: list[Unusable] = []

    def look(self, callbacks: Sequence[Callback]) -> None:
        """Look at the headers of all images, where that is wanted, and tell at once what cannot be used of them."""
        self.unusable = look_before_run(
            self.data, self.preprocess, self.recipe, execution=self.execution, world=self.world,
            looked=partial(tell_looked, callbacks),
        )  # fmt: skip
        if reasons := {image.key: image.reason for image in self.unusable}:
            keys = enumerate(example.key for example in self.data["train"])
            self.batches.leave_out({index: reasons[key] for index, key in keys if key in reasons})

    def prepare(self, teacher: TeacherSource | None, pretrained: bool | str | Path | WeightsFile) -> Teacher | None:
        """Build the network, and open the teacher."""
        recipe, generator = self.recipe, torch.Generator().manual_seed(self.recipe.seed)
        network: Network = create(
            self.arch, drop_rate=recipe.dropout, drop_path_rate=recipe.stochastic_depth, generator=generator,
            pretrained=pretrained,
        )  # fmt: skip
        if pretrained is not False and self.world.leads:
            _tell_of_statistics(network.preprocess, self.preprocess)
        network.preprocess, network.class_names = self.preprocess, self.data.class_names
        self.origin = network.weights, network.license
        if recipe.weight_levels:
            if not isinstance(network, FBNet):
                raise ZooError(
                    f"{self.arch.name}: only this project's networks are trained for int8; leave weight_levels 0"
                )
            imitate_int8(network, recipe.weight_levels)
            self.notes.append("trained for int8: all accuracies but the teacher's are of rounded weights and maps")
        if recipe.frozen_stages and pretrained is False:
            raise ZooError("frozen_stages: random weights should not be frozen; start from weights, or set it to 0")
        network.freeze(recipe.frozen_stages)
        found = teacher and find_teacher(teacher, preprocess=self.preprocess, device=self.world.device)
        weights = class_weights_of(self.data.counts("train")) if recipe.balanced else None
        self.learner = Learner(
            network, recipe, teacher=found or None, execution=self.execution, world=self.world, generator=generator,
            class_weights=weights,
        )  # fmt: skip
        self.identity = self._identity()
        if self.world.leads:
            warn_of_long_average(recipe, self.batches.steps)
        return found or None

    def check_teacher(self, teacher: Teacher | None) -> None:
        """Measure the teacher, if there is one."""
        if teacher:
            accuracy = teacher.check(self.data, world=self.world, execution=self.execution)
            self.notes.append(f"teacher {teacher.name}: validation accuracy {accuracy}")

    @property
    def threads(self) -> int:
        """By the size of a step, unless ``execution`` says how many."""
        return threads_for(step_macs(self.arch, self.recipe, self.execution, self.world.size), self.execution)

    def keep_recipe(self) -> None:
        """Write the recipe, with the sources of its values, into the folder."""
        if self.world.leads:
            with replacing(self.folder / RECIPE) as temporary:
                temporary.write_text(self.preset.to_json() + "\n", encoding="utf-8")

    @property
    def ends_early(self) -> bool:
        """Whether the last ``recipe.patience`` epochs have brought no better validation accuracy."""
        scores = [epoch.validation_top1 for epoch in self.progress.history]
        patience = self.recipe.patience
        return 0 < patience < len(scores) and max(scores[-patience:]) <= max(scores[:-patience])

    def measure_epoch(self) -> Epoch:
        """Validate, and save the network if it is the best so far."""
        at, last = self.progress, self.progress.epoch + 1 == self.recipe.epochs
        measured = self.learner.evaluate(self.data, "validation", reduced=True)
        if not math.isfinite(measured.loss):
            raise ZooError(f"validation loss is {measured.loss} in epoch {at.epoch + 1}; {self.remedy}")
        if measured.loss > EXPLODED and last:  # before, there is time to come back
            raise ZooError(f"validation loss is {measured.loss:.4g} after the last epoch; {self.remedy}")
        epoch = Epoch(
            epoch=at.epoch + 1,
            learning_rate=self.recipe.learning_rate_at(at.epoch, 1.0),
            train_loss=self.train_loss,
            validation_loss=measured.loss,
            validation_top1=measured.fraction,
            skipped=len(at.bad),
            images_per_second=self.images_per_second,
            seconds=self.seconds,
        )
        best = max((epoch.validation_top1 for epoch in at.history), default=-1.0)
        if self.world.leads and (epoch.validation_top1 > best or not exists(self.folder / BEST)):
            save(self._delivered(), self.folder / BEST)
        return epoch

    def close(self) -> None:
        """Release the worker processes."""
        super().close()
        if hasattr(self, "learner"):
            self.learner.close()

    def finish(self) -> Run:
        """Save the network, then test it and write the report."""
        model, path, ended = self._delivered(), self.folder / MODEL, len(self.progress.history)
        if self.ends_early and ended < self.recipe.epochs and self.world.leads:
            text = f"ended after epoch {ended} of {self.recipe.epochs}: validation accuracy has not risen for"
            LOG.warning("%s %d epochs", text, self.recipe.patience)
            self.notes.append(f"{text} {self.recipe.patience} epochs")
        if self.world.leads:
            save(model, path)
            if not exists(self.folder / BEST):
                save(model, self.folder / BEST)
        try:
            return self._told(model)
        except (ZooError, MemoryError, OSError) as error:
            what = str(error) if isinstance(error, ZooError) else f"no report ({in_short(error)})"
            raise ZooError(f"{what}; training itself has ended, its result is {path}") from None

    def _told(self, model: Network) -> Run:
        """The run measured and described."""
        split: Split = "test" if self.data["test"] else "validation"
        measured = self.learner.evaluate(self.data, split)
        warning = "" if measured.beats_chance else self._no_better_than_chance(split, measured)
        bad = {*self.progress.all_bad, *(printable(image.key) for image in self.unusable)}
        bad_images = tuple(sorted({*bad, *map(printable, measured.skipped)}))
        hint = hint_on(split, measured)
        test = measured if self.data["test"] else None
        run = Run(self.folder, model, self.progress.history, test, bad_images, warning, hint)
        if self.world.leads:
            self._write_results(run)
        if self.world.leads and self.report:
            self._report(measured, split, bad_images, [line for line in (warning, hint) if line])
        return run

    def _write_results(self, run: Run) -> None:
        images = {str(split): len(self.data[split]) for split in SPLITS}
        measured = {
            "validation_accuracy": run.epochs[-1].validation_top1,
            "best_validation_accuracy": max(epoch.validation_top1 for epoch in run.epochs),
            "test": run.test and run.test.summary(),
            "bad_images": run.bad_images,
            "warning": run.warning or None,
            "hint": run.hint or None,
        }
        write_results(
            self.folder, self.arch.name, self.data.name, images, self.data.class_names, seed=self.recipe.seed,
            epochs=run.epochs, measured=measured,
        )  # fmt: skip

    def _no_better_than_chance(self, split: Split, measured: Evaluation) -> str:
        name, share = measured.commonest
        return (
            f"{split} accuracy {measured.fraction:.2%} is no better than chance (always answering {shown(name)} "
            f"is right for {share:.2%}); train longer, or at another learning rate than {self.recipe.learning_rate:.4g}"
        )

    def _delivered(self) -> Network:
        """The network that the run gives, on the CPU, in evaluation mode and without what only training needs."""
        model = new_network(self.learner.student.network.arch)
        model.load_state_dict(plain_state(self.learner.result))
        model.preprocess, model.class_names = self.preprocess, self.data.class_names
        model.weights, model.license = self.origin
        model.trained_on = self._sample
        return model.eval()

    @cached_property
    def _sample(self) -> tuple[str, ...]:
        """Digests of training images, for the model's file; made with the first one, since all names are hashed."""
        return sample_of(self.data["train"])

    def _identity(self) -> Mapping[str, str]:
        """What the run's checkpoints are told by; made once, since it takes seconds for millions of images."""
        teacher = self.learner.teacher
        return {
            "network": self.arch.to_json(),
            "set of weights": str(self.origin),
            "data": self.data.fingerprint,
            "recipe": recipe_identity(self.recipe),
            "teacher": "" if teacher is None else teacher.digest,
        }

    def _report(self, measured: Evaluation, split: Split, bad_images: Sequence[str], lines: Sequence[str]) -> None:
        draw_curve([asdict(epoch) for epoch in self.progress.history], self.folder / CURVE)
        report = Report(
            self.arch, self.data, self.preset, self.preprocess, self.progress.history, split, measured, self.execution,
            self.world.size, [*self.notes, *lines], bad_images,
        )  # fmt: skip
        write_report(self.folder / REPORT, report)


def _tell_of_statistics(weights: Preprocess, data: Preprocess) -> None:
    """Log a warning if the data is normalized otherwise than the images that the weights were trained on."""
    before, now = ((tuple(round(x, 3) for x in values) for values in (one.mean, one.std)) for one in (weights, data))
    (old_mean, old_std), (mean, std) = before, now
    if (old_mean, old_std) != (mean, std):
        LOG.warning(
            "images are normalized with mean %s and standard deviation %s, not with %s and %s as before",
            mean, std, old_mean, old_std,
        )  # fmt: skip
