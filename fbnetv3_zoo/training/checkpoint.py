"""The state of a run in one safetensors file: enough to go on, mid-epoch too, as if nothing had happened.

Randomness needs no state: it is derived from seed, epoch and position (loader.py, learner.py).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ..errors import Interrupted as Interrupted
from ..errors import ZooError, assert_never, check_number, check_whole, in_short, printable, shown
from ..recipes import CosineDecay, ExponentialDecay, Recipe
from ..utils.atomic_write import replacing
from ..utils.digest import short_digest
from ..utils.log import LOG
from ..utils.paths import exists
from ..utils.safetensors_order import in_order
from ..utils.serialization import json_text, parse_json, to_json
from ..utils.temporary_folder import clear
from ..weights.serialization import parse
from .callbacks import Epoch
from .data.dataset import data_difference
from .optim import MovingAverage
from .run_folder import METRICS, MODEL

FORMAT, VERSION = "fbnetv3_zoo.checkpoint", "3"
_NAME = re.compile(r"epoch-(\d{4,})-step-(\d{6,})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: ``step`` steps of epoch ``epoch`` (from 0), and the finished epochs.

    ``loss`` and ``seconds`` are sums over those steps; ``bad`` has the keys of the images that could not be read in
    them, ``bad_before`` of those in earlier epochs, each once and in order.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    bad: tuple[str, ...] = ()
    bad_before: tuple[str, ...] = ()
    history: tuple[Any, ...] = ()

    def after_step(self, loss: float, seconds: float, bad: Collection[str] = ()) -> Progress:
        """One step further; ``bad`` are the keys of images that could not be read in it."""
        seen = tuple(sorted({*self.bad, *bad})) if bad else self.bad
        return replace(self, step=self.step + 1, loss=self.loss + loss, seconds=self.seconds + seconds, bad=seen)

    def after_epoch(self, epoch: Any) -> Progress:
        """At the beginning of the next epoch."""
        return Progress(epoch=self.epoch + 1, bad_before=self.all_bad, history=(*self.history, epoch))

    @property
    def all_bad(self) -> tuple[str, ...]:
        """Keys of all images that could not be read so far, each once."""
        return tuple(sorted({*self.bad, *self.bad_before}))

    def interrupted(self) -> Interrupted:
        """What a run that SIGTERM ends here raises, after a checkpoint."""
        return Interrupted(f"ended by SIGTERM after step {self.step} of epoch {self.epoch + 1}; continue with --resume")

    def write_metrics(self, folder: Path) -> None:
        """Write ``metrics.jsonl`` into ``folder``: a line for every finished epoch."""
        with replacing(folder / METRICS) as temporary:
            temporary.write_text("".join(json_text(asdict(epoch)) + "\n" for epoch in self.history))


class TrainingState(Protocol):
    """What a run changes, and a checkpoint holds."""

    student: nn.Module
    average: MovingAverage | None
    scaler: torch.amp.GradScaler

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """All optimizers, by the names that their state has in a checkpoint."""


def recipe_identity(recipe: Recipe) -> str:
    """The recipe as a run's checkpoints are told by: its epochs may grow where the schedule does not depend on them."""
    if isinstance(recipe.schedule, ExponentialDecay):
        return to_json(replace(recipe, epochs=1))
    if isinstance(recipe.schedule, CosineDecay):
        return to_json(recipe)
    assert_never(recipe.schedule)


class FoundCheckpoint(NamedTuple):
    """A checkpoint that is whole: its file, and what is in it."""

    path: Path
    data: bytes


class Checkpoints:
    """The checkpoints of a run, in ``folder``: the newest ``keep`` of them, each named after its own contents."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder, self._keep = folder, keep

    def paths(self) -> list[Path]:
        """All checkpoints, the newest first."""
        found = [(match, path) for path in self.folder.glob("*") if (match := _NAME.fullmatch(path.name))]
        found.sort(key=lambda pair: (int(pair[0][1]), int(pair[0][2]), pair[1].stat().st_mtime_ns), reverse=True)
        return [path for _, path in found]

    def write(self, learner: TrainingState, progress: Progress, *, identity: Mapping[str, str]) -> Path:
        """Write the state whole or not at all, then remove what is no longer among the newest."""
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "identity": json.dumps(dict(identity)),
            "progress": json_text(asdict(progress)),
            "scaler": json.dumps(learner.scaler.state_dict()),
        }
        data = in_order(to_bytes(_tensors(learner), metadata))
        digest = short_digest(data)
        path = self.folder / f"epoch-{progress.epoch:04}-step-{progress.step:06}-{digest}.safetensors"
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        self._thin_out(path)
        return path

    def _thin_out(self, newest: Path) -> None:
        """Leave ``newest`` and those before it; what is further on could not be read, or it would have been resumed."""
        paths = self.paths()
        at = paths.index(newest)
        for other in paths[:at] + paths[at + self._keep :]:
            other.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove all checkpoints, and their folder if it holds nothing else."""
        for path in self.paths():
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def begin(self, *, resume: bool) -> FoundCheckpoint | None:
        """Clear what a killed run has left half-written; the newest checkpoint to go on from, None for a new run.

        Raises :class:`ZooError` where the folder holds a run that is not to be resumed.
        """
        for folder in (self.folder.parent, self.folder):
            clear(folder)
        self.check(resume=resume)
        return self.newest()

    def check(self, *, resume: bool) -> None:
        """Raise :class:`ZooError` where the folder holds a run that is not to be resumed, or that cannot be."""
        run, begun = self.folder.parent, bool(self.paths())
        if begun and not resume:
            raise ZooError(f"{run}: holds a run; continue it with --resume (resume=True), or give another folder")
        if not begun and exists(run / MODEL):
            raise ZooError(f"{run}: holds a run that has ended, without checkpoints; give another folder")

    def newest(self) -> FoundCheckpoint | None:
        """The newest checkpoint that is whole; None where there is no checkpoint at all."""
        paths = self.paths()
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                LOG.warning("%s: cannot be read (%s); going on from the checkpoint before it", path, error.strerror)
                continue
            if short_digest(data) == _NAME.fullmatch(path.name)[3]:  # type: ignore[index]
                return FoundCheckpoint(path, data)
            LOG.warning("%s: is damaged; going on from the checkpoint before it", path)
        if paths:
            raise ZooError(f"{self.folder}: none of {len(paths)} checkpoints can be read; begin anew in another folder")
        return None


def restore(
    data: bytes, learner: TrainingState, *, identity: Mapping[str, str], place: Path, epoch: Callable[..., Any] = Epoch
) -> Progress:
    """Bring ``learner`` into the state that ``data`` holds. Raises :class:`ZooError` where ``identity`` differs.

    ``epoch`` makes a finished epoch from its fields.
    """
    file = parse(data, str(place))
    if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
        raise ZooError(f"{place}: holds checkpoints of another release; begin anew in another folder")
    try:
        return _restored(file.tensors, file.metadata, learner, identity=identity, epoch=epoch)
    except _Other as error:
        raise ZooError(f"{place}: the run was begun with another {error}; give another folder") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        message = f"{place}: its newest checkpoint is whole but makes no sense ({in_short(error)})"
        raise ZooError(f"{message}; delete it to go on from the one before") from None


class _Other(Exception):  # noqa: N818 - says what is other
    """The checkpoint is of another run."""


def _restored(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], learner: TrainingState, *, identity: Mapping[str, str],
    epoch: Callable[..., Any],
) -> Progress:  # fmt: skip
    stored = parse_json(metadata["identity"], "identity")
    if differing := [_named(key, stored.get(key), text) for key, text in identity.items() if stored.get(key) != text]:
        raise _Other(" and ".join(differing))
    progress = _progress(parse_json(metadata["progress"], "progress"), epoch)
    learner.student.load_state_dict(_under("student", tensors))
    if learner.average is not None:
        learner.average.load_state_dict(_under("average", tensors))
    for name, optimizer in learner.optimizers.items():
        _restore_optimizer(optimizer, _under(name, tensors))
    if scaler := parse_json(metadata["scaler"], "scaler"):  # empty where the run computed in another precision
        learner.scaler.load_state_dict(scaler)
    return progress


def _progress(stored: Mapping[str, Any], epoch: Callable[..., Any]) -> Progress:
    history = tuple(epoch(**_with_nan(entry)) for entry in stored["history"])
    for number, finished in enumerate(history, start=1):
        for name, value in asdict(finished).items():
            if not _is_numeric(value):
                raise ZooError(f"{name} of epoch {number} is {shown(value)}; it must be a number")
    progress = Progress(
        **{**stored, "history": history, "bad": _keys(stored, "bad"), "bad_before": _keys(stored, "bad_before")}
    )
    for name in ("epoch", "step"):
        check_whole(name, getattr(progress, name), at_least=0, at_most=1 << 50)
    for name in ("loss", "seconds"):
        check_number(name, getattr(progress, name), below=math.inf)
    return progress


def _is_numeric(value: object) -> bool:
    """Whether ``value`` is a number, or a sequence of such things: a supernet's epoch has probabilities."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_numeric, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _keys(stored: Mapping[str, Any], field: str) -> tuple[str, ...]:
    keys = stored[field]
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ZooError(f"{field} is {shown(keys)}; it must be a list of names")
    return tuple(keys)


def _with_nan(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch's fields as they were before JSON, which has no nan, took them for null."""
    return {name: math.nan if value is None else value for name, value in entry.items()}


def _named(key: str, then: object, now: str) -> str:
    """What a run was begun with otherwise: ``key``, and in which part."""
    if not isinstance(then, str):
        return key
    difference = data_difference(then, now) if key == "data" else _json_difference(then, now)
    return f"{key} ({difference})" if difference else key


def _json_difference(then: str, now: str) -> str:
    """The values that differ in two JSON texts, such as "learning_rate: 0.1 then, 0.05 now"; empty for other texts."""
    try:
        one, other = (dict(_values(parse_json(text, "identity"))) for text in (then, now))
    except ZooError:
        return ""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    first = [f"{printable(name)}: {shown(one.get(name))} then, {shown(other.get(name))} now" for name in names[:3]]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _values(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The numbers and texts in a JSON value, by dotted names; a list that differs in length is named as a whole."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _values(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        yield f"number of {name}", len(value)
        for n, item in enumerate(value):
            yield from _values(item, f"{name}.{n}")
    elif name:
        yield name, value


def _tensors(learner: TrainingState) -> dict[str, Tensor]:
    tensors: dict[str, Any] = {f"student.{name}": tensor for name, tensor in learner.student.state_dict().items()}
    if learner.average is not None:
        tensors.update({f"average.{name}": tensor for name, tensor in learner.average.state_dict().items()})
    for prefix, optimizer in learner.optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            tensors.update({f"{prefix}.{index}.{name}": value for name, value in slots.items() if value is not None})
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise ZooError(f"its optimizer has no parameter {shown(index)}")
        if tensor.numel() != 1 and tensor.shape != parameters[int(index)].shape:
            raise ZooError(f"{shown(name)} of parameter {index} has shape {tuple(tensor.shape)}")
        slots.setdefault(int(index), {})[name] = tensor
    wanted = _SLOTS.get(type(optimizer).__name__)
    odd = next((index for index, held in slots.items() if wanted and held.keys() != wanted), None)
    if odd is not None:
        raise ZooError(f"its optimizer keeps {', '.join(sorted(slots[odd]))} for parameter {odd}, another one's state")
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


_SLOTS = {
    "SGD": {"momentum_buffer"},
    "Adam": {"step", "exp_avg", "exp_avg_sq"},
    "AdamW": {"step", "exp_avg", "exp_avg_sq"},
    "RMSPropTF": {"square_average", "momentum_buffer"},
}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
