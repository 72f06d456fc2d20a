"""What a differentiable search leaves: its plan, a line an epoch, what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.atomic import replacing
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.plain import json_text
from fbnetv3_zoo.search.supernet.plan import SupernetPlan

PLAN, EPOCHS, FOUND = "plan.json", "metrics.jsonl", "found.json"


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
        """How far the choices are decided: the mean of their largest probabilities."""
        return sum(map(max, self.probabilities)) / len(self.probabilities)

    @classmethod
    def from_plain(cls, **entry: Any) -> SupernetEpoch:
        """An epoch from its line."""
        lists = {"code": tuple(entry["code"]), "probabilities": tuple(map(tuple, entry["probabilities"]))}
        return cls(**{**entry, **lists})


@dataclass(frozen=True)
class Drawn:
    """One network of the space: its point, log-probability in nats, cost, and accuracy with the supernet's weights."""

    code: tuple[int, ...]
    log_probability: float
    cost: float
    accuracy: float


@dataclass(frozen=True)
class SupernetRecord:
    """A finished search. ``found`` is the most probable network under the target, ``drawn`` are others."""

    folder: Path
    plan: SupernetPlan
    data: str
    epochs: tuple[SupernetEpoch, ...]
    found: Drawn
    drawn: tuple[Drawn, ...]

    @property
    def arch(self) -> Arch:
        """The network that was found."""
        return self.plan.space.arch(self.found.code, self.plan.result_name)

    @property
    def files(self) -> list[Path]:
        """What is there for use."""
        return [self.folder / name for name in (f"{self.plan.result_name}.arch.json", PLAN, EPOCHS, FOUND)]

    def write(self) -> None:
        """Write all files but the epochs', each whole or not at all."""
        told = {"data": self.data, "found": asdict(self.found), "drawn": [asdict(one) for one in self.drawn]}
        texts = {PLAN: self.plan.to_json(), self.files[0].name: self.arch.to_json(), FOUND: json_text(told, indent=1)}
        for name, text in texts.items():
            with replacing(self.folder / name) as temporary:
                temporary.write_text(text + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> SupernetRecord:
        """The search in ``folder``. Raises :class:`ZooError` where none has ended there."""
        place = Path(folder)
        try:
            text, lines, told = ((place / name).read_bytes() for name in (PLAN, EPOCHS, FOUND))
        except OSError as error:
            raise ZooError(f"{folder}: holds no differentiable search that has ended ({error.strerror})") from None
        try:
            data, plan = json.loads(told), SupernetPlan.from_json(text)
            epochs = tuple(SupernetEpoch.from_plain(**json.loads(line)) for line in lines.splitlines())
            if len(epochs) != plan.recipe.epochs:
                raise ValueError(f"{EPOCHS} has {len(epochs)} of {plan.recipe.epochs} epochs")
            found, *drawn = (_drawn(one) for one in (data["found"], *data["drawn"]))
            return cls(place, plan, data["data"], epochs, found, tuple(drawn))
        except (ValueError, TypeError, KeyError) as error:
            raise ZooError(f"{folder}: its files are damaged ({error}); search again in another folder") from None


def _drawn(entry: Mapping[str, Any]) -> Drawn:
    return Drawn(**{**entry, "code": tuple(entry["code"])})
