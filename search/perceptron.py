"""Multi-layer perceptrons, several at once: encoder of the architecture, proxy head, accuracy head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fbnetv3_zoo.errors import ZooError

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

BATCH = 16
PRETRAINING_BATCH = 256


@dataclass(frozen=True, slots=True)
class Encoder:
    """What stage 1 leaves: the weights of ``members`` encoders by name, and how well they tell the statistics apart.

    ``r2`` and ``kendall`` are by statistic, on the held-out fifth of the pool, of the members' mean.
    """

    state: dict[str, Tensor]
    statistics: tuple[str, ...]
    r2: tuple[float, ...]
    kendall: tuple[float, ...]


class _Linear(nn.Module):
    """One linear layer for each of several members: (members, n, inputs) to (members, n, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / np.sqrt(max(1, inputs))
        self.weight = nn.Parameter((torch.rand(members, inputs, outputs, generator=generator) * 2 - 1) * bound)
        self.bias = nn.Parameter((torch.rand(members, 1, outputs, generator=generator) * 2 - 1) * bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class _Encoder(nn.Module):
    def __init__(self, members: int, inputs: int, hidden: int, embedding: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _Linear(members, inputs, hidden, generator)
        self.second = _Linear(members, hidden, embedding, generator)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))))


class _Head(nn.Module):
    def __init__(self, members: int, inputs: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _Linear(members, inputs, hidden, generator)
        self.second = _Linear(members, hidden, 1, generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x))).squeeze(-1)


class Perceptrons:
    """Fitted members. Inputs are encoded points (points, columns), the architecture's columns first."""

    def __init__(self, encoder: _Encoder | None, head: _Head, architecture_columns: int, members: int) -> None:
        self.encoder, self.head, self.columns, self.members = encoder, head, architecture_columns, members

    def predict(self, encoded: Floats) -> Doubles:
        """Scores of every member, shape (members, points)."""
        with torch.inference_mode():
            parts = [
                self(torch.from_numpy(encoded[start : start + 8192]).expand(self.members, -1, -1))
                for start in range(0, len(encoded), 8192)
            ]
            return torch.cat(parts, 1).double().numpy()

    def __call__(self, x: Tensor) -> Tensor:
        if self.encoder is None:
            return self.head(x)  # type: ignore[no-any-return]
        embedded = self.encoder(x[..., : self.columns])
        return self.head(torch.cat([embedded, x[..., self.columns :]], -1))  # type: ignore[no-any-return]


def fit_perceptrons(
    encoded: Floats, scores: Doubles, *, architecture_columns: int, members: int, hidden: int, embedding: int,
    epochs: int, learning_rate: float, weight_decay: float, encoder: Encoder | None, frozen_first: bool, seed: int,
) -> Perceptrons:  # fmt: skip
    """Fit ``members`` perceptrons on standardised ``scores``, shape (points,). See :class:`MLP` for the rest."""
    generator = torch.Generator().manual_seed(seed)
    body = _Encoder(members, architecture_columns, hidden, embedding, generator) if architecture_columns else None
    recipe_columns = encoded.shape[1] - architecture_columns
    head = _Head(members, recipe_columns + (embedding if body else 0), hidden, generator)
    if encoder is not None and body is not None:
        try:
            body.load_state_dict(encoder.state)
        except RuntimeError:
            raise ZooError("the encoder of stage 1 has another shape than the predictor; run stage 1 again") from None
    nets = Perceptrons(body, head, architecture_columns, members)
    x, y = torch.from_numpy(encoded), torch.from_numpy(scores).float()
    frozen = frozen_first and encoder is not None and body is not None
    phases = (((not frozen), learning_rate, epochs - epochs // 2), (True, learning_rate / 10, epochs // 2))
    for with_encoder, rate, count in phases:
        trained = [*head.parameters(), *(body.parameters() if body and with_encoder else ())]
        optimizer = torch.optim.Adam(trained, lr=rate, weight_decay=weight_decay)
        for _ in range(count):
            for picked in _batches(len(x), members, BATCH, generator):
                optimizer.zero_grad()
                loss = F.huber_loss(nets(x[picked]), y[picked], delta=1.0) * members
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return nets


def pretrain_encoder(
    encoded: Floats, statistics: dict[str, Doubles], *, members: int, hidden: int, embedding: int, epochs: int = 20,
    learning_rate: float = 2e-3, seed: int = 0,
) -> Encoder:  # fmt: skip
    """Train encoders and proxy heads on ``statistics`` of the ``encoded`` architectures (points, columns): stage 1.

    A fifth of the points is held out for the figures of the result.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(encoded), generator=generator)
    held, used = order[: len(order) // 5], order[len(order) // 5 :]
    raw = torch.from_numpy(np.stack(list(statistics.values()), 1))
    targets = ((raw - raw[used].mean(0)) / raw[used].std(0).clamp_min(1e-12)).float()
    body = _Encoder(members, encoded.shape[1], hidden, embedding, generator)
    proxy = _Linear(members, embedding, targets.shape[1], generator)
    x = torch.from_numpy(encoded)
    steps = epochs * -(-len(used) // PRETRAINING_BATCH)
    optimizer = torch.optim.Adam([*body.parameters(), *proxy.parameters()], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for picked in _batches(len(used), members, PRETRAINING_BATCH, generator):
            chosen = used[picked]
            optimizer.zero_grad()
            loss = F.mse_loss(proxy(body(x[chosen])), targets[chosen]) * members
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        predicted = proxy(body(x[held].expand(members, -1, -1))).mean(0).double().numpy()
    state = {name: tensor.detach().clone() for name, tensor in body.state_dict().items()}
    return Encoder(state, tuple(statistics), *_quality(predicted, targets[held].double().numpy()))


def _quality(predicted: Doubles, actual: Doubles) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from scipy.stats import kendalltau

    residual = ((predicted - actual) ** 2).sum(0)
    r2 = 1 - residual / np.maximum(((actual - actual.mean(0)) ** 2).sum(0), 1e-12)
    tau = [kendalltau(predicted[:, n], actual[:, n]).statistic for n in range(actual.shape[1])]
    return tuple(map(float, r2)), tuple(map(float, tau))


def _batches(count: int, members: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """An epoch's batches as indices (members, batch): every member has an order of its own."""
    order = torch.rand(members, count, generator=generator).argsort(1)
    return [order[:, start : start + size] for start in range(0, count, size)]
