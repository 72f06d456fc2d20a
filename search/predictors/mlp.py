"""Ensembles of multi-layer perceptrons in NumPy: encoder of the architecture, proxy head, accuracy head.

Gradients are written out, all weights of a member lie in one row, and one BLAS thread computes: a fit takes fractions
of a second, and the same data and seed give the same weights whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.checksummed import ChecksummedFormat
from fbnetv3_zoo.utils.serialization import from_plain, parse_json

from ..space import Space

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BATCH = 32
PRETRAINING_BATCH = 256
_BETAS = (0.9, 0.999)
ENCODER = ("encoder.first", "encoder.second")
_FILE = ChecksummedFormat(
    "an encoder", "fbnetv3_zoo.encoder 1", "Encoder.save", "run stage 1 again",
    arrays=dict.fromkeys(ENCODER, "f"), metadata=("encoder",),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingPhase:
    """One phase of training: ``steps`` steps of Adam with decoupled weight decay, the rate falling to 0 as a cosine.

    The encoder's rate is ``encoder_rate`` times as large; 0 freezes it.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.0
    encoder_rate: float = 1.0


class PerceptronEnsemble:
    """``members`` perceptrons: inputs (points, columns), the architecture's first; encoder, then head.

    Without architecture columns there is no encoder: the head sees the inputs. ``outputs`` above 0 make it a network of
    stage 1 instead: encoder, then a linear proxy head of so many outputs.
    """

    def __init__(
        self, *, members: int, architecture: int, recipe: int, hidden: int, embedding: int,
        rng: np.random.Generator, outputs: int = 0,
    ) -> None:  # fmt: skip
        self.members, self.architecture, self.embedding = members, architecture, embedding if architecture else 0
        shapes: dict[str, tuple[int, int]] = {}
        if architecture:
            shapes = dict(zip(ENCODER, ((architecture, hidden), (hidden, embedding)), strict=True))
        if outputs:
            shapes["proxy"] = (embedding, outputs)
        else:
            shapes |= {"head.first": (self.embedding + recipe, hidden), "head.second": (hidden, 1)}
        total = sum((inputs + 1) * width for inputs, width in shapes.values())
        self.flat, self.gradient = np.zeros((2, members, total), np.float32)
        self.decays = np.zeros(total, np.float32)
        self.layers, self.gradients = _views(self.flat, shapes), _views(self.gradient, shapes)
        for layer in _views(self.decays[None], shapes).values():
            layer[:, 1:] = 1
        for name, layer in self.layers.items():
            gain = 1.0 if name in ("proxy", "head.second") else 2.0
            inputs = max(1, layer.shape[1] - 1)
            layer[:, 1:] = rng.standard_normal(layer[:, 1:].shape) * np.sqrt(gain / inputs)
            if name.endswith("first"):
                layer[:, :1] = rng.uniform(-0.5, 0.5, layer[:, :1].shape)
        self.start_of_head = sum(layer[0].size for name, layer in self.layers.items() if name in ENCODER)

    def predict(self, x: Floats) -> Doubles:
        """Outputs of every member, shape (members, points)."""
        with one_thread():
            return self.forward(self._for_all(x))[0].astype(np.float64)

    def predict_statistics(self, x: Floats) -> Doubles:
        """The mean of the members' proxy heads, shape (points, outputs)."""
        with one_thread():
            mean: Doubles = self._linear("proxy", self.encode(self._for_all(x))[1]).mean(0, dtype=np.float64)
        return mean

    def encode(self, x: Floats) -> tuple[Floats, Floats]:
        """Hidden values and embedding of (members, points, architecture columns)."""
        hidden = _rectified(self._linear(ENCODER[0], x))
        return hidden, _rectified(self._linear(ENCODER[1], hidden))

    def forward(self, x: Floats) -> tuple[Floats, tuple[Floats, ...]]:
        """Outputs (members, points) for inputs (members, points, columns), and what :meth:`backward` needs."""
        hidden_layers: tuple[Floats, ...] = ()
        inputs = x
        if self.architecture:
            hidden, embedding = self.encode(x[..., : self.architecture])
            inputs = np.concatenate((embedding, x[..., self.architecture :]), -1)
            hidden_layers = (hidden, embedding)
        last = _rectified(self._linear("head.first", inputs))
        return self._linear("head.second", last)[..., 0], (x, inputs, last, *hidden_layers)

    def backward(self, layers: tuple[Floats, ...], slope: Floats, *, with_encoder: bool) -> None:
        """Fill the gradient, given the loss's slope at every output (members, points)."""
        x, inputs, last, *rest = layers
        back = slope[..., None]
        self._gradient_of("head.second", last, back)
        back = self._back("head.second", back) * (last > 0)
        self._gradient_of("head.first", inputs, back)
        if self.architecture and with_encoder:
            hidden, embedding = rest
            self.backward_encoder(x, hidden, embedding, self._back("head.first", back, self.embedding))

    def backward_encoder(self, x: Floats, hidden: Floats, embedding: Floats, back: Floats) -> None:
        """Fill the encoder's part of the gradient, given the slope at the embedding."""
        back = back * (embedding > 0)
        self._gradient_of(ENCODER[1], hidden, back)
        back = self._back(ENCODER[1], back) * (hidden > 0)
        self._gradient_of(ENCODER[0], x[..., : self.architecture], back)

    def proxy(self, x: Floats, targets: Floats) -> None:
        """Fill the gradient of stage 1: mean squared error at ``targets`` (members, points, outputs)."""
        hidden, embedding = self.encode(x)
        error = self._linear("proxy", embedding) - targets
        error *= 2 / (error.shape[1] * error.shape[2])
        self._gradient_of("proxy", embedding, error)
        self.backward_encoder(x, hidden, embedding, self._back("proxy", error))

    @property
    def encoder_layers(self) -> dict[str, Floats]:
        """Copies of the encoder's layers."""
        return {name: self.layers[name].copy() for name in ENCODER}

    def _for_all(self, x: Floats) -> Floats:
        return np.broadcast_to(x, (self.members, *x.shape))

    def _linear(self, name: str, x: Floats) -> Floats:
        layer = self.layers[name]
        output: Floats = np.matmul(x, layer[:, 1:])
        output += layer[:, :1]
        return output

    def _gradient_of(self, name: str, x: Floats, back: Floats) -> None:
        gradient = self.gradients[name]
        np.matmul(x.transpose(0, 2, 1), back, out=gradient[:, 1:])
        np.sum(back, 1, out=gradient[:, 0])

    def _back(self, name: str, back: Floats, inputs: int | None = None) -> Floats:
        slope: Floats = np.matmul(back, self.layers[name][:, 1:][:, :inputs].transpose(0, 2, 1))
        return slope


class _Adam:
    """Adam over all weights of ``network`` that ``phase`` trains."""

    def __init__(self, network: PerceptronEnsemble, phase: TrainingPhase) -> None:
        start = 0 if phase.encoder_rate else network.start_of_head
        self.values, self.gradient = network.flat[:, start:], network.gradient[:, start:]
        self.rates = np.ones(self.values.shape[1], np.float32)
        self.rates[: network.start_of_head - start] = phase.encoder_rate
        self.decays = self.rates * network.decays[start:] * np.float32(phase.weight_decay)
        self.mean, self.square = np.zeros((2, *self.values.shape), np.float32)
        self.count = 0

    def step(self, rate: float) -> None:
        """One step along the network's gradient, at ``rate`` for the head."""
        self.count += 1
        first, second = _BETAS
        self.mean *= first
        self.mean += self.gradient * np.float32(1 - first)
        self.square *= second
        self.square += self.gradient * self.gradient * np.float32(1 - second)
        change = np.sqrt(self.square)
        change += np.float32(1e-8)
        np.divide(self.mean, change, out=change)
        change *= self.rates * np.float32(rate * np.sqrt(1 - second**self.count) / (1 - first**self.count))
        self.values *= 1 - self.decays * np.float32(rate)
        self.values -= change


def train_network(
    network: PerceptronEnsemble, x: Floats, y: Floats, phases: Sequence[TrainingPhase], rng: np.random.Generator
) -> None:
    """Fit ``network`` on ``y``, shape (points,), with the Huber loss of threshold 1, in one phase after the other."""
    with one_thread():
        for phase in phases:
            adam = _Adam(network, phase)
            for rate, picked in _steps(phase, len(x), BATCH, network.members, rng):
                output, layers = network.forward(x[picked])
                slope = np.clip(output - y[picked], -1, 1) / np.float32(picked.shape[1])
                network.backward(layers, slope, with_encoder=phase.encoder_rate > 0)
                adam.step(rate)


def pretrain_network(
    network: PerceptronEnsemble, x: Floats, targets: Floats, phase: TrainingPhase, rng: np.random.Generator
) -> None:
    """Stage 1: fit encoder and proxy head of ``network`` on ``targets``, shape (points, outputs)."""
    with one_thread():
        adam = _Adam(network, phase)
        for rate, picked in _steps(phase, len(x), PRETRAINING_BATCH, network.members, rng):
            network.proxy(x[picked], targets[picked])
            adam.step(rate)


def _steps(
    phase: TrainingPhase, count: int, size: int, members: int, rng: np.random.Generator
) -> Iterator[tuple[float, Ints]]:
    """The rate of every step and the points of its batch, shape (members, batch): each member has its own order."""
    batches: Iterator[Ints] = iter(())
    for step in range(phase.steps):
        picked = next(batches, None)
        if picked is None:
            batches = _epoch(count, size, members, rng)
            picked = next(batches)
        yield phase.learning_rate * 0.5 * (1 + np.cos(np.pi * step / phase.steps)), picked


def _epoch(count: int, size: int, members: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Whole batches in random order; the rest of an epoch is dropped."""
    order = rng.random((members, count)).argsort(1)
    for start in range(0, max(1, count - size + 1), size):
        yield order[:, start : start + size]


def _views(flat: Floats, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Floats]:
    """Layers inside rows of weights: shape (members, 1 + inputs, width), the bias first."""
    views, start = {}, 0
    for name, (inputs, width) in shapes.items():
        end = start + (inputs + 1) * width
        views[name] = flat[:, start:end].reshape(len(flat), inputs + 1, width)
        start = end
    return views


def _rectified(x: Floats) -> Floats:
    """``x``, set to 0 where it is negative; in place."""
    return np.maximum(x, 0, out=x)


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def one_thread() -> Any:
    """A context in which BLAS uses one thread: faster for small products, and reproducible."""
    return _libraries().limit(limits=1, user_api="blas")


@dataclass(frozen=True, eq=False)
class Encoder:
    """The result of stage 1: weights of encoders, and how well they predict the statistics of networks.

    ``layers`` are by name, each of shape (members, 1 + inputs, outputs) with the bias first. ``space`` and
    ``fingerprint`` say whose architectures they encode. ``r2`` and ``kendall`` are by statistic, on the held-out fifth
    of the pool, of the members' mean.
    """

    layers: Mapping[str, Floats]
    space: str
    fingerprint: str
    statistics: tuple[str, ...]
    r2: tuple[float, ...]
    kendall: tuple[float, ...]

    def put_into(self, network: PerceptronEnsemble, space: Space) -> None:
        """Copy these encoders into ``network``, a predictor for ``space``."""
        if self.fingerprint != fingerprint(space):
            raise ZooError(
                f"the encoder was made for other architectures (of space {self.space}) than those of space "
                f"{space.name}; run stage 1 on this space"
            )
        for name in ENCODER:
            mine, theirs = self.layers[name].shape, network.layers[name].shape
            if mine != theirs:
                raise ZooError(
                    f"the encoder of stage 1 has shape {mine} in {name}, the predictor {theirs}; run stage 1 with the "
                    "same members, hidden and embedding"
                )
            network.layers[name][...] = self.layers[name]

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file."""
        figures = {name: getattr(self, name) for name in ("space", "fingerprint", "statistics", "r2", "kendall")}
        _FILE.write(path, self.layers, {"encoder": json.dumps(figures)})

    @classmethod
    def load(cls, path: str | Path) -> Encoder:
        """The encoder that :meth:`save` wrote. Raises :class:`ZooError` if the file is damaged or of another kind."""
        layers, metadata = _FILE.read(path)
        try:
            figures = from_plain(_EncoderFigures, parse_json(metadata["encoder"], "encoder"), "encoder")
        except ZooError as error:
            raise ZooError(f"{path}: {error}") from None
        return cls(layers, figures.space, figures.fingerprint, figures.statistics, figures.r2, figures.kendall)


@dataclass(frozen=True)
class _EncoderFigures:
    """The entry beside the layers in the file of an encoder."""

    space: str
    fingerprint: str
    statistics: tuple[str, ...]
    r2: tuple[float, ...]
    kendall: tuple[float, ...]


def fingerprint(space: Space) -> str:
    """A digest of the architecture dimensions of ``space``, which identifies what an encoder was trained for."""
    dimensions = [
        (d.name, type(d.options).__name__, d.options.values) for d in space.dimensions if d.part == "architecture"
    ]
    return hashlib.sha256(json.dumps(dimensions).encode()).hexdigest()
