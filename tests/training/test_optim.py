"""Optimizers and the moving average against timm's, torch's and a NumPy reading of the formulas."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import pytest
import torch
from timm.optim import RMSpropTF as TimmRMSprop
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.cli.training_options import ClassifierRecipeOptions
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import OPTIMIZERS, SGD, AdamW, Optimizer, Recipe, RMSProp
from fbnetv3_zoo.search.space import RateFactors
from fbnetv3_zoo.training.checkpoint import _SLOTS
from fbnetv3_zoo.training.optim import RMSPropTF, average_decay, build_average, build_optimizer, warn_of_long_average

RECIPE = Recipe(10, 8, SGD(), 0.1, weight_decay=1e-3, ema_decay=0.9)
EVERY_OPTIMIZER: tuple[Optimizer, ...] = (SGD(), SGD(0.0), SGD(0.8, nesterov=False), RMSProp(), RMSProp(0.0), AdamW())
SHAPES = ((4, 3, 3, 3), (5, 7), (6,), ())
STEPS = 60

Gradients = list[list[Tensor | None]]
Step = Callable[[list[Tensor]], torch.optim.Optimizer]


def _parameters(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in SHAPES]


def _gradients(dtype: torch.dtype, steps: int = STEPS) -> Gradients:
    """For every step a gradient for every parameter, of sizes from 1e-3 to 1e3; some are missing."""
    rng = np.random.default_rng(0)

    def one(shape: tuple[int, ...], missing: bool) -> Tensor | None:
        drawn = torch.from_numpy(np.asarray(rng.normal(size=shape) * 10 ** rng.uniform(-3, 3)))
        return None if missing else drawn.to(dtype)

    return [[one(shape, n > 0 and rng.random() < 0.3) for n, shape in enumerate(SHAPES)] for _ in range(steps)]


def _rate(step: int) -> float:
    return 0.05 * (1 + step % 7) * 0.98**step


def _descend(
    optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], gradients: Gradients, first: int = 0
) -> None:
    for step, given in enumerate(gradients[first:], start=first):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        for parameter, gradient in zip(parameters, given, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_rmsprop_is_timms(dtype: torch.dtype, tolerance: float, weight_decay: float, momentum: float) -> None:
    steps = STEPS if dtype is not torch.bfloat16 else 8  # rounding adds up
    ours, theirs, gradients = _parameters(dtype), _parameters(dtype), _gradients(dtype, steps)
    _descend(
        RMSPropTF(ours, lr=1.0, momentum=momentum, smoothing=0.8, epsilon=0.01, weight_decay=weight_decay),
        ours, gradients,
    )  # fmt: skip
    timms = TimmRMSprop(theirs, lr=1.0, momentum=momentum, alpha=0.8, eps=0.01, weight_decay=weight_decay)
    _descend(timms, theirs, gradients)
    for own, other, start in zip(ours, theirs, _parameters(dtype), strict=True):
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)
        assert (own - start).abs().min() > 10 * tolerance or dtype is torch.bfloat16


def _by_the_formula(
    start: npt.NDArray[np.float64], gradients: list[npt.NDArray[np.float64] | None], chosen: RMSProp, decay: float
) -> npt.NDArray[np.float64]:
    p, s, m = start.copy(), np.ones_like(start), np.zeros_like(start)
    for step, given in enumerate(gradients):
        if given is not None:
            g = given + decay * p
            s = chosen.smoothing * s + (1 - chosen.smoothing) * g**2
            m = chosen.momentum * m + _rate(step) * g / np.sqrt(s + chosen.epsilon)
            p = p - m
    return p


def test_rmsprop_is_the_formula() -> None:
    parameters, gradients, chosen = _parameters(torch.float64), _gradients(torch.float64), RMSProp(0.7, 0.95, 0.1)
    starts = [parameter.detach().numpy().copy() for parameter in parameters]
    optimizer = RMSPropTF(parameters, lr=1.0, momentum=0.7, smoothing=0.95, epsilon=0.1, weight_decay=1e-2)
    _descend(optimizer, parameters, gradients)
    for n, (start, found) in enumerate(zip(starts, parameters, strict=True)):
        own = [None if (given := row[n]) is None else given.numpy() for row in gradients]
        np.testing.assert_allclose(found.detach().numpy(), _by_the_formula(start, own, chosen, 1e-2), rtol=1e-11)


def test_rmsprop_differs_from_torchs_in_its_three_points() -> None:
    """The references above would be worth little if torch's own RMSprop passed for ours."""
    ours, theirs, gradients = _parameters(torch.float64), _parameters(torch.float64), _gradients(torch.float64, 5)
    _descend(RMSPropTF(ours, lr=1.0), ours, gradients)
    _descend(torch.optim.RMSprop(theirs, lr=1.0, alpha=0.9, eps=1e-3, momentum=0.9), theirs, gradients)
    assert all((own - other).abs().max() > 0.01 for own, other in zip(ours, theirs, strict=True))


def test_rmsprop_leaves_gradients_alone_and_takes_a_closure() -> None:
    parameter = torch.ones(3, requires_grad=True)
    optimizer = RMSPropTF([parameter], lr=0.1, weight_decay=0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    assert optimizer.step(closure) == 3.0
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [2.0] * 3
    assert parameter[0].item() == pytest.approx(1 - 0.1 * 2.5 / np.sqrt(0.9 + 0.1 * 2.5**2 + 1e-3))


@pytest.mark.parametrize("chosen", EVERY_OPTIMIZER)
def test_no_weight_decay_on_norms_and_biases(chosen: Optimizer, tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch)
    model.classifier.bias.requires_grad_(False)
    groups = build_optimizer(model, replace(RECIPE, optimizer=chosen)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 1e-3 for p in group["params"]}
    others = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert decayed == {id(m.weight) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert decayed | others == {id(p) for p in model.parameters() if p.requires_grad}
    assert not decayed & others


def _reference(chosen: Optimizer, parameters: Any) -> torch.optim.Optimizer:
    """The same from torch or timm, without weight decay."""
    if isinstance(chosen, SGD):
        nesterov = chosen.nesterov and chosen.momentum > 0
        return torch.optim.SGD(parameters, lr=1.0, momentum=chosen.momentum, nesterov=nesterov)
    if isinstance(chosen, AdamW):
        betas = (chosen.beta1, chosen.beta2)
        return torch.optim.AdamW(parameters, lr=1.0, betas=betas, eps=chosen.epsilon, weight_decay=0.0)
    return TimmRMSprop(parameters, lr=1.0, momentum=chosen.momentum, alpha=chosen.smoothing, eps=chosen.epsilon)


@pytest.mark.parametrize("chosen", [*EVERY_OPTIMIZER, SGD(0.5), RMSProp(0.5, 0.7, 0.1), AdamW(0.8, 0.9, 0.1)])
def test_the_recipes_optimizer(chosen: Optimizer) -> None:
    """Everything the recipe says reaches the steps: compared by what they do, weight decay by hand."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    twin, decay = deepcopy(model), 0.02
    ours = build_optimizer(model, replace(RECIPE, optimizer=chosen, weight_decay=decay))
    assert [group["lr"] for group in ours.param_groups] == [0.1, 0.1]
    theirs = _reference(chosen, twin.parameters())
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        for optimizer in (ours, theirs):
            for group in optimizer.param_groups:
                group["lr"] = _rate(step)
        for own, other in zip(model.parameters(), twin.parameters(), strict=True):
            own.grad = torch.randn(own.shape, generator=generator, dtype=own.dtype)
            share = decay if own.ndim > 1 else 0.0
            with torch.no_grad():
                if isinstance(chosen, AdamW):
                    other *= 1 - _rate(step) * share  # decoupled
                    share = 0.0
            other.grad = own.grad + share * other.detach()
        ours.step()
        theirs.step()
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chosen", EVERY_OPTIMIZER)
def test_a_restored_optimizer_goes_on_as_the_same(chosen: Optimizer) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    twin, recipe = deepcopy(model), replace(RECIPE, optimizer=chosen)
    generator = torch.Generator().manual_seed(0)
    shapes = [p.shape for p in model.parameters()]
    gradients: Gradients = [
        [None if (step + n) % 3 == 0 else torch.randn(shape, generator=generator) for n, shape in enumerate(shapes)]
        for step in range(10)
    ]
    straight = build_optimizer(model, recipe)
    _descend(straight, list(model.parameters()), gradients)
    first = build_optimizer(twin, recipe)
    _descend(first, list(twin.parameters()), gradients[:4])
    second = build_optimizer(twin, recipe)
    second.load_state_dict(deepcopy(first.state_dict()))
    _descend(second, list(twin.parameters()), gradients, first=4)
    assert all(torch.equal(own, other) for own, other in zip(model.parameters(), twin.parameters(), strict=True))


# --- the moving average ---


def _moved(model: nn.Module, generator: torch.Generator) -> None:
    """Change parameters and statistics as a training step would."""
    model(torch.randn(4, 3, 32, 32, generator=generator))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)


def _average(model: nn.Module, recipe: Recipe) -> Any:
    average = build_average(model, recipe)
    assert average is not None
    return average


def test_the_average_is_timms(tiny_arch: Arch) -> None:
    """Without warm-up; timm's is made of the network after the first step, which ours copies."""
    generator = torch.Generator().manual_seed(0)
    model = FBNet(tiny_arch, generator=generator)
    average = _average(model, replace(RECIPE, ema_decay=0.8, ema_warmup=False))
    _moved(model, generator)
    average.update()
    timms = ModelEmaV3(model, decay=0.8)
    for _ in range(12):
        _moved(model, generator)
        average.update()
        timms.update(model)
    found, expected, current = average.module.state_dict(), timms.module.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5)
        assert tensor.is_floating_point() != torch.equal(tensor, current[name]), name  # the norms' counts are copied
    assert average.n_averaged == 13


def test_the_average_with_warm_up_is_the_formula(tiny_arch: Arch) -> None:
    generator = torch.Generator().manual_seed(0)
    model = FBNet(tiny_arch, generator=generator)
    average = _average(model, replace(RECIPE, ema_decay=0.5))
    expected: dict[str, Tensor] = {}
    for step in range(15):  # the warm-up ends at step 8
        _moved(model, generator)
        average.update()
        decay = 0.0 if step == 0 else min(0.5, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected.get(name, 0) + (1 - decay) * tensor.double()
    for name, tensor in average.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("decay", "warmup", "updates", "factor"),
    [
        (0.9, True, 1, 2 / 11), (0.9, True, 79, 80 / 89), (0.9, True, 80, 0.9), (0.9, True, 10**6, 0.9),
        (0.9, False, 1, 0.9), (0.9998, True, 10_000, 10_001 / 10_010), (0.9998, False, 1, 0.9998),
    ],
)  # fmt: skip
def test_warm_up_of_the_average(decay: float, warmup: bool, updates: int, factor: float) -> None:
    assert average_decay(replace(RECIPE, ema_decay=decay, ema_warmup=warmup), updates) == factor


@pytest.mark.parametrize("warmup", [True, False])
def test_a_restored_average_goes_on_as_the_same(warmup: bool, tiny_arch: Arch) -> None:
    generator = torch.Generator().manual_seed(0)
    model = FBNet(tiny_arch, generator=generator)
    recipe = replace(RECIPE, ema_warmup=warmup)
    straight, broken = _average(model, recipe), _average(model, recipe)
    for step in range(8):
        if step == 3:
            state = deepcopy(broken.state_dict())
            assert state["n_averaged"] == 3
            broken = _average(model, recipe)
            broken.load_state_dict(state)
        _moved(model, generator)
        straight.update()
        broken.update()
    expected, found = straight.state_dict(), broken.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_average_leaves_the_network_alone(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch)
    before = deepcopy(model.state_dict())
    average = _average(model, RECIPE)
    for _ in range(3):
        average.update()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert build_average(model, replace(RECIPE, ema_decay=0.0)) is None


@pytest.mark.parametrize(
    ("decay", "steps_per_epoch", "told"),
    [
        (0.9998, 20, "0.9998 averages over about 5000 steps, but the run has 200: at most 0.95"),
        (0.9, 2, None),
        (0.99, 9, "0.99 averages over about 100 steps, but the run has 90: at most 0.8889"),
        (0.99, 10, None),
        (0.0, 1, None),
    ],
)  # fmt: skip
def test_a_long_average_is_warned_of(
    decay: float, steps_per_epoch: int, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="fbnetv3_zoo"):
        warn_of_long_average(replace(RECIPE, ema_decay=decay), steps_per_epoch)
    said, _, most = (told or "").partition(": ")
    remedy = f"train longer, or set ema_decay in a recipe file to {most} (`fbnetv3 recipe show NAME --json` writes one)"
    expected = f"ema_decay {said}, so the average will lag behind; {remedy}"
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == ([("WARNING", expected)] if told else [])


def test_the_advice_for_a_very_short_run_is_no_average(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_long_average(replace(RECIPE, epochs=1, ema_decay=0.95), 5)
    assert caplog.messages == [
        "ema_decay 0.95 averages over about 20 steps, but the run has 5, so the average will lag behind; train longer, "
        "or set ema_decay in a recipe file to 0, which is none (`fbnetv3 recipe show NAME --json` writes one)"
    ]


# Every optimizer, everywhere


def test_every_optimizer_is_known_everywhere() -> None:
    """A new one is missing here until it has a name, a factor of its rates, an option and a state in checkpoints."""
    assert set(get_args(Optimizer)) == set(OPTIMIZERS.values())
    assert [name for name in OPTIMIZERS if OPTIMIZERS[name].__name__.lower() != name] == []
    assert {field.name for field in fields(RateFactors)} == OPTIMIZERS.keys()
    option, _ = get_args(get_type_hints(ClassifierRecipeOptions)["optimizer"])
    assert set(get_args(option)) == OPTIMIZERS.keys()
    for kind in OPTIMIZERS.values():
        parameter = nn.Parameter(torch.ones(2))
        optimizer = build_optimizer(nn.ParameterList([parameter]), replace(RECIPE, optimizer=kind()))
        parameter.grad = torch.ones(2)
        optimizer.step()
        assert optimizer.state[parameter].keys() == _SLOTS[type(optimizer).__name__]


@dataclass(frozen=True)
class _Lion:
    beta: float = 0.9


def test_an_optimizer_without_a_branch_is_an_error() -> None:
    """Not RMSProp, as it once was."""
    recipe = replace(RECIPE)
    object.__setattr__(recipe, "optimizer", _Lion())
    with pytest.raises(AssertionError, match="no branch for _Lion"):
        build_optimizer(nn.Linear(2, 2), recipe)
    object.__setattr__(recipe, "schedule", _Lion())
    with pytest.raises(AssertionError, match="no branch for _Lion"):
        recipe.learning_rate_at(9, 1.0)
