"""The result of a differentiable search: its plan, its epochs, and its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError, shown
from fbnetv3_zoo.utils.atomic_write import replacing_together
from fbnetv3_zoo.utils.paths import is_file, read_file
from fbnetv3_zoo.utils.serialization import from_plain, json_text, parse_json

from .plan import SupernetPlan

PLAN, EPOCHS, FOUND, REPORT = "plan.json", "metrics.jsonl", "found.json", "report.html"


def result_files(plan: SupernetPlan) -> tuple[str, ...]:
    """The names of the files that a search by ``plan`` leaves, without its report."""
    return f"{plan.result_name}.arch.json", PLAN, EPOCHS, FOUND


@dataclass(frozen=True)
class SupernetEpoch:
    """One finished epoch, a line of ``metrics.jsonl``.

    Losses are cross entropies in nats, accuracy in [0, 1] is the supernet's, all choices weighted. ``cost`` is the
    expected one under ``probabilities`` (for every dimension, one a value); ``code`` the most probable network of all,
    ``likeliest`` its cost.
    """

    epoch: int
    temperature: float
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_top1: float
    cost: float
    likeliest: float
    code: tuple[int, ...]
    probabilities: tuple[tuple[float, ...], ...]
    seconds: float

    @property
    def decided(self) -> float:
        """How decided the choices are: the mean of their largest probabilities."""
        return sum(map(max, self.probabilities)) / len(self.probabilities)

    @classmethod
    def from_plain(cls, entry: object) -> SupernetEpoch:
        """An epoch from its line."""
        return from_plain(cls, entry, "epoch")


@dataclass(frozen=True)
class SampledNetwork:
    """A network of the space: its point, log-probability in nats, cost, and accuracy with the supernet's weights."""

    code: tuple[int, ...]
    log_probability: float
    cost: float
    accuracy: float


@dataclass(frozen=True)
class SupernetResult:
    """A finished search. ``found`` is the most probable network under the target, ``drawn`` are others."""

    folder: Path
    plan: SupernetPlan
    data: str
    epochs: tuple[SupernetEpoch, ...]
    found: SampledNetwork
    drawn: tuple[SampledNetwork, ...]

    @property
    def arch(self) -> Arch:
        """The resulting network."""
        return self.plan.space.arch(self.found.code, self.plan.result_name)

    @property
    def files(self) -> list[Path]:
        """The output files."""
        return [self.folder / name for name in result_files(self.plan)]

    def write(self) -> None:
        """Write all files except the epochs': all of them, or none."""
        result = {"data": self.data, "found": asdict(self.found), "drawn": [asdict(one) for one in self.drawn]}
        texts = {PLAN: self.plan.to_json(), self.files[0].name: self.arch.to_json(), FOUND: json_text(result, indent=1)}
        with replacing_together(*(self.folder / name for name in texts)) as written:
            for path, text in zip(written, texts.values(), strict=True):
                path.write_text(text + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> SupernetResult:
        """The search in ``folder``. Raises :class:`ZooError` if it has not ended or there is none."""
        path = Path(folder)
        if missing := next((name for name in (PLAN, EPOCHS, FOUND) if not is_file(path / name)), None):
            raise ZooError(f"{folder}: holds no differentiable search that has ended (there is no {missing})")
        text, lines, result_text = (read_file(path / name, "a file of a search") for name in (PLAN, EPOCHS, FOUND))
        try:
            plan = SupernetPlan.from_json(text)
            found = from_plain(_Found, parse_json(result_text, FOUND), FOUND.removesuffix(".json"))
            epochs = tuple(
                SupernetEpoch.from_plain(parse_json(line, f"{EPOCHS}, line {number}"))
                for number, line in enumerate(lines.splitlines()[: plan.recipe.epochs + 1], start=1)
            )
            if len(epochs) != plan.recipe.epochs:
                raise ZooError(f"{EPOCHS} has {len(epochs)} of {plan.recipe.epochs} epochs")
            _check_points(plan, epochs, (found.found, *found.drawn))
        except ZooError as error:
            raise ZooError(f"{folder}: its files are damaged ({error}); search again in another folder") from None
        return cls(path, plan, found.data, epochs, found.found, found.drawn)


@dataclass(frozen=True)
class _Found:
    """The contents of the file of the result."""

    data: str
    found: SampledNetwork
    drawn: tuple[SampledNetwork, ...]


def _check_points(plan: SupernetPlan, epochs: Sequence[SupernetEpoch], drawn: Sequence[SampledNetwork]) -> None:
    """Raise unless codes are points of the plan's space, and probabilities one a value of every dimension."""
    sizes = [len(dimension) for dimension in plan.space.dimensions]
    for epoch in epochs:
        if [len(values) for values in epoch.probabilities] != sizes:
            raise ZooError(f"epoch {epoch.epoch} has not one probability for each value of the space")
    for code in (*(epoch.code for epoch in epochs), *(one.code for one in drawn)):
        if not plan.space.is_point(code):
            raise ZooError(f"{shown(code)} is no point of the space")
