"""Supernets: their networks one by one, in evaluation and in training; resolutions; the weights of choices."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal
from scipy.stats import chisquare
from sweeps import every
from torch import Tensor, nn

from fbnetv3_zoo.arch import Activation, Conv, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite
from fbnetv3_zoo.models.blocks import ClassifierHead, Conv2d
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.search.supernet import Layer, LayerSpace, Supernet
from fbnetv3_zoo.search.supernet.mixed_op import Branch, MixedLayer
from fbnetv3_zoo.search.supernet.presets import TINY_DMASKING, TINY_DNAS, V1, V2
from fbnetv3_zoo.search.supernet.space import fixed
from fbnetv3_zoo.search.supernet.supernet import interspersed, places_of, sampled

RELU, SWISH = Activation.RELU, Activation.HARD_SWISH
SPACES = {
    "v1": replace(V1, resolutions=(64,)),
    "v2": replace(V2, resolutions=(32, 48)),
    "tiny_dnas": TINY_DNAS,
    "tiny_dmasking": TINY_DMASKING,
}
ONE_SIDE = replace(TINY_DMASKING, resolutions=(32,))


def supernet(space: LayerSpace) -> Supernet:
    """In evaluation mode; no norm is neutral, no bias 0. Norms have seen images, so that every layer counts.

    Variances are doubled: rounding errors in early layers would grow 1,000 times on their way through 27 layers.
    """
    generator = torch.Generator().manual_seed(0)
    net = Supernet(space, generator=generator).to(torch.get_default_dtype())
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in net.modules():
        if (bias := getattr(module, "bias", None)) is not None:
            nn.init.normal_(bias, std=0.2, generator=generator)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        norm.momentum = 0.5
    with torch.no_grad():
        for code in space.sample(4, np.random.default_rng(0), method="uniform").tolist():
            net.train().code = tuple(code)
            net(images_for(space, 8))
    for norm in norms:
        norm.momentum = 0.1
        norm.running_var *= 2
    net.eval().code = None
    return net


@cache
def shared(name: str) -> Supernet:
    return supernet(SPACES[name])


def images_for(space: LayerSpace, batch: int = 1) -> Tensor:
    side = space.resolutions[-1]
    return torch.randn(batch, space.in_channels, side, side, generator=torch.Generator().manual_seed(1))


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


# Single networks


def matched(net: Supernet, network: FBNet, code: Sequence[int]) -> Iterator[tuple[nn.Module, MixedLayer, Branch]]:
    """Every block of a network; the layer of its supernet, and the candidate of it, where it is from."""
    blocks = FBNet._blocks(network.stages)
    for layer, where, block in zip(net.layers, net.space.places, blocks, strict=True):
        assert isinstance(layer, MixedLayer)
        yield block, layer, layer.candidate(0 if where.candidate is None else code[where.candidate])


@contextmanager
def listening(net: Supernet) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """What every layer takes and gives at the resolution that is chosen."""
    heard: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def hear(layer: nn.Module, given: tuple[Tensor, list[Tensor], Tensor | None], answer: Tensor) -> None:
        x, _, share = (*given, None)[:3]
        if share is None or share == 1:
            heard[layer] = x, answer

    handles = [layer.register_forward_hook(hear) for layer in net.layers]
    yield heard
    for handle in handles:
        handle.remove()


def differences(net: Supernet, network: FBNet, code: tuple[int, ...], images: Tensor) -> list[float]:
    """How far the answers of ``net`` are from those of ``network``, and those of each layer from its block's."""
    net.code = code
    with torch.no_grad(), listening(net) as heard:
        found = [apart(net(images), network(sampled(images, network.arch.resolution)))]
        for of, (block, layer, _) in zip(network.arch.blocks, matched(net, network, code), strict=True):
            x, y = heard[layer]
            assert not x[:, of.in_channels :].any()
            assert not y[:, of.out_channels :].any()
            found.append(apart(y[:, : of.out_channels], block(x[:, : of.in_channels].clone())))
    return found


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", every(SPACES, "tiny_dnas", "tiny_dmasking"))
def test_every_point_answers_as_its_network(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, images, found = shared(name), images_for(SPACES[name]), []
    for kind in (Conv2d, ClassifierHead):  # drawing the weights that copies replace takes a quarter of the time
        monkeypatch.setattr(kind, "reset_parameters", lambda self: None)
    for code in map(tuple, SPACES[name].sample(count, np.random.default_rng(0), method="uniform").tolist()):
        found.append(differences(net, net.network(code), code, images))
    assert np.shape(found) == (count, 1 + len(net.layers))
    assert (np.array(found) <= 1e-6).all()


@pytest.mark.parametrize("name", ["tiny_dnas", "tiny_dmasking"])
def test_the_comparison_sees_every_parameter(name: str) -> None:
    net, images = shared(name), images_for(SPACES[name])
    code = tuple(SPACES[name].sample(1, np.random.default_rng(1), method="uniform")[0].tolist())
    network = net.network(code)
    for place, parameter in network.named_parameters():
        held = parameter.detach().clone()
        parameter.data += 0.1 * held.abs().mean()
        assert max(differences(net, network, code, images)) > 1e-5, place
        parameter.data.copy_(held)
    assert max(differences(net, network, code, images)) <= 1e-6


@pytest.fixture
def doubles() -> Iterator[None]:
    """Everything in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def check_training(net: Supernet, code: tuple[int, ...], *, tolerance: float) -> None:
    """In training, too, ``net`` at ``code`` answers, learns and counts batches as its network, and the rest rests."""
    images = images_for(net.space, 4)
    net.code, network = code, net.network(code).train()
    net.train().zero_grad()
    found, expected = net(images), network(sampled(images, network.arch.resolution))
    assert apart(found, expected) <= tolerance
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    ((found + expected) * direction).sum().backward()
    most = max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None)
    learned = 0.0
    pairs = [(block, candidate) for block, _, candidate in matched(net, network, code)]
    for parts, whole in [*pairs, (network.classifier, net.classifier)]:
        for name, theirs in parts.named_parameters():
            ours = whole.get_parameter(name).grad
            assert theirs.grad is not None
            assert ours is not None
            inside = tuple(slice(n) for n in theirs.shape)
            assert float((ours[inside] - theirs.grad).abs().max()) <= tolerance * most
            learned += float(theirs.grad.abs().sum())
        if len(net.space.resolutions) == 1:
            for name, buffer in parts.named_buffers():
                same = whole.get_buffer(name)[tuple(slice(n) for n in buffer.shape)]
                torch.testing.assert_close(same, buffer, rtol=tolerance, atol=tolerance)
    total = sum(float(p.grad.abs().sum()) for p in net.parameters() if p.grad is not None)
    assert total == pytest.approx(learned, rel=100 * tolerance)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("space", [TINY_DNAS, TINY_DMASKING, ONE_SIDE], ids=["tiny_dnas", "tiny_dmasking", "one_side"])
def test_points_are_trained_as_their_networks(space: LayerSpace) -> None:
    net = supernet(space)
    for code in space.sample(5, np.random.default_rng(3), method="uniform").tolist():
        check_training(net, tuple(code), tolerance=1e-10)


@st.composite
def spaces(draw: st.DrawFn) -> LayerSpace:
    """Small spaces with every kind of candidate, width, expansion, padding and resolution."""
    widths = st.lists(st.sampled_from((4, 8, 12, 20)), max_size=3, unique=True).map(sorted).map(tuple)
    layers = [Layer((Conv(3, 12, draw(st.sampled_from((1, 2))), SWISH),), draw(widths))]
    for _ in range(draw(st.integers(1, 3))):
        layers.append(draw(layers_behind(layers[-1].widths, draw(widths))))
    expansions = draw(st.sampled_from(((), (2,), (2, 3.3))))
    head = Layer((PoolingHead(16, 2, draw(st.sampled_from(Activation))),), draw(widths), expansions)
    layers += [head] if draw(st.booleans()) else []
    sides, divisor = draw(st.sampled_from(((26,), (24, 32), (25, 30, 40)))), draw(st.sampled_from((1, 4)))
    return LayerSpace("drawn", sides, (tuple(layers),), divisor, draw(st.integers(1, 4)), num_classes=7)


@st.composite
def layers_behind(draw: st.DrawFn, before: tuple[int, ...], channels: tuple[int, ...]) -> Layer:
    """A layer that can follow ``before``."""
    stride, cropped = draw(st.sampled_from((1, 1, 2))), draw(st.sampled_from((False, False, True)))
    out = draw(st.sampled_from((12, before[0])))
    expansions = draw(st.sampled_from(((), (2,), (1.5, 2, 4))))
    kinds = [st.builds(
        InvertedResidual, st.sampled_from((3, 5)), st.just(out), st.just(stride), st.just(1),
        st.sampled_from((1, 1.5, 3) if not expansions else (2,)), st.sampled_from(Activation),
        st.sampled_from((None, SqueezeExcite("input"), SqueezeExcite("expanded", 0.5))),
        conv_bias=st.booleans(), depthwise_norm=st.booleans(),
        groups_1x1=st.sampled_from((1, 2) if len(before) == 1 and not channels and not expansions else (1,)),
    )]  # fmt: skip
    if not cropped:
        kinds += [st.builds(Conv, st.sampled_from((1, 3)), st.just(out), st.just(stride), st.sampled_from(Activation),
                            st.booleans()), st.just(Skip(out, stride))]  # fmt: skip
    rows: list[Row] = draw(st.lists(st.one_of(kinds), min_size=1, max_size=3, unique=True))
    if cropped:
        rows = [replace(row, depthwise_padding=row.kernel_size // 2 - 1) for row in rows]  # type: ignore[union-attr]
    expanding = any(isinstance(row, InvertedResidual) for row in rows)
    return Layer(tuple(rows), channels, expansions if expanding else ())


@pytest.mark.long
@pytest.mark.usefixtures("doubles")
@settings(max_examples=20)
@given(spaces(), st.randoms(use_true_random=False))
def test_points_of_any_space(space: LayerSpace, random: Random) -> None:
    net = supernet(space)
    for _ in range(2):
        code = tuple(random.randrange(len(d)) for d in space.dimensions)
        net.eval().code, network = code, net.network(code)
        images = images_for(space, 2)
        with torch.no_grad():
            assert apart(net(images), network(sampled(images, network.arch.resolution))) <= 1e-12
        check_training(net, code, tolerance=1e-8)


def test_networks_are_copies() -> None:
    net = shared("tiny_dmasking")
    code = (0,) * len(net.space.dimensions)
    network = net.network(code, "first")
    assert not network.training
    assert network.arch == net.space.arch(code, "first")
    assert (net.preprocess.resolution, network.preprocess.resolution) == (32, 24)
    before = [parameter.clone() for parameter in net.parameters()]
    for parameter in network.parameters():
        parameter.data.zero_()
    assert all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))
    net.preprocess = Preprocess(40, 32, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert net.network(code).preprocess == Preprocess(30, 24, mean=(0.5,) * 3, std=(0.25,) * 3)


# Resolutions


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("factor", [2, 3])
def test_sampled_convolutions_are_dilated_ones(factor: int, kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(4)
    x, weight = (
        torch.randn(shape, generator=generator) for shape in ((2, 3, 8 * factor, 8 * factor), (5, 3, kernel, kernel))
    )
    small = F.conv2d(sampled(x, 8), weight, stride=stride, padding=kernel // 2)
    found = interspersed(small, 8 * factor // stride)
    dilated = F.conv2d(x, weight, stride=stride, padding=factor * (kernel // 2), dilation=factor)
    expected = torch.zeros_like(dilated)
    expected[:, :, ::factor, ::factor] = dilated[:, :, ::factor, ::factor]
    assert found.shape == expected.shape
    assert apart(found, expected) <= 1e-14
    assert apart(dilated, expected) > 0.1


@pytest.mark.parametrize(("side", "of"), [(24, 32), (3, 4), (7, 8), (1, 2), (5, 9), (128, 288), (6, 6)])
def test_sampling_takes_nearest_neighbors_and_interspersing_puts_them_back(side: int, of: int) -> None:
    x = torch.randn(1, 2, of, of, generator=torch.Generator().manual_seed(5))
    small = sampled(x, side)
    torch.testing.assert_close(small, F.interpolate(x, size=side, mode="nearest"), rtol=0, atol=0)
    spread = interspersed(small, of)
    torch.testing.assert_close(sampled(spread, side), small, rtol=0, atol=0)
    assert int((spread != 0).sum()) == small.numel()
    at = places_of(side, of, x.device).tolist()
    assert at == [n * of // side for n in range(side)]


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("headed", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_weighted_resolutions(training: bool, headed: bool) -> None:
    """Every layer computes the map at every side; its results, in their places, count by the weights of the sides."""
    layers = fixed(Conv(3, 8, 2, SWISH), InvertedResidual(3, 8, 1, 1, 2, SWISH, SqueezeExcite("input")))
    last = fixed(PoolingHead(16, 2, SWISH)) if headed else fixed(Conv(1, 16, 1, RELU))
    space = LayerSpace("two", (8, 24), (layers, last), num_classes=5)
    net = supernet(space).train(training)
    net.logits[0].data = torch.tensor([0.3, -0.4])
    small, large = torch.softmax(net.logits[0], 0)
    x = images = images_for(space, 2)
    for layer in copy.deepcopy(net.layers):
        total = large * layer(x, [])
        total[:, :, ::3, ::3] += small * layer(x[:, :, ::3, ::3], [])
        x = total
    features = x.flatten(1) if headed else small * x[:, :, ::3, ::3].mean((2, 3)) + large * x.mean((2, 3))
    assert apart(net(images), net.classifier(features)) <= 1e-13


# The weights of choices

CHOICES = LayerSpace("choices", (8, 12), (fixed(Conv(3, 8, 1, SWISH)), (Layer((Conv(3, 8, 1, SWISH), Skip(8))),)))
LOGITS = (torch.tensor([0.5, -0.25]), torch.tensor([-1.0, 0.75]))


def choices() -> Supernet:
    net = Supernet(CHOICES)
    for logit, value in zip(net.logits, LOGITS, strict=True):
        logit.data = value.clone()
    net.temperature = 2.5
    return net


def test_noise_is_drawn_by_its_seed() -> None:
    net, drawn = choices(), []
    for seed in (6, 7, 6):
        net.draw_noise(seed)
        drawn.append([w.tolist() for w in net.weights()])
    assert drawn[0] == drawn[2]
    assert all(one != other for one, other in zip(*drawn[:2], strict=True))


def test_weights() -> None:
    net = choices()
    plain = [torch.softmax(logit / 2.5, 0) for logit in LOGITS]
    torch.testing.assert_close(net.weights(), plain)  # no noise has been drawn
    net.draw_noise(8)
    noisy = [logit + noise for logit, noise in zip(LOGITS, net.noise or (), strict=True)]
    torch.testing.assert_close(net.weights(), [torch.softmax(x / 2.5, 0).float() for x in noisy])
    assert [float(w.detach().sum()) for w in net.weights()] == pytest.approx([1, 1], abs=1e-7)
    net.temperature = 0.01
    ends = [F.one_hot(x.argmax(), 2).float() for x in noisy]
    torch.testing.assert_close(net.weights(), ends, rtol=0, atol=1e-6)
    net.temperature = 2.5
    net.eval()
    torch.testing.assert_close(net.weights(), plain)
    for training in (False, True):
        net.train(training).code = (1, 0)
        assert [w.tolist() for w in net.weights()] == [[0, 1], [1, 0]]
        torch.testing.assert_close(net.probabilities(), [torch.softmax(logit.double(), 0) for logit in LOGITS])
    assert not any(p.requires_grad for p in net.probabilities())


def test_noisy_choices_follow_the_probabilities() -> None:
    """The largest of logits with Gumbel noise is each with the probability that softmax gives it."""
    net, counts = choices(), np.zeros((2, 2))
    for seed in range(4000):
        net.draw_noise(seed)
        for n, w in enumerate(net.weights()):
            counts[n, int(w.argmax())] += 1
    for count, probability in zip(counts, net.probabilities(), strict=True):
        assert chisquare(count, 4000 * probability.numpy()).pvalue > 0.01


@pytest.mark.usefixtures("doubles")
def test_choices_learn_through_their_weights() -> None:
    net = supernet(CHOICES).train()
    net.draw_noise(9)
    images = images_for(CHOICES, 2)
    (net(images) ** 2).sum().backward()
    for logit in net.logits:
        assert logit.grad is not None
        for k in range(len(logit)):
            ends = []
            for step in (1e-5, -2e-5):
                logit.data[k] += step
                ends.append(float((net(images).detach() ** 2).sum()))
            logit.data[k] += 1e-5
            assert float(logit.grad[k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_a_supernet_is_made_from_its_generator() -> None:
    state = torch.get_rng_state()
    nets = [Supernet(TINY_DMASKING, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    one, same, other = ([p.detach().clone() for p in net.layers.parameters()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    gray = Supernet(TINY_DMASKING.fitted(num_classes=4, in_channels=1))
    assert (gray.num_classes, gray.preprocess) == (4, Preprocess(32, 32).for_channels(1))


def test_norms_that_are_synchronized_compute_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, masked ones too: only they know the other processes. Alone, they give what the others give."""
    nets = [Supernet(TINY_DMASKING, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    nets[1] = nn.SyncBatchNorm.convert_sync_batchnorm(nets[1])  # type: ignore[no-untyped-call]
    called: list[nn.Module] = []
    forward = nn.SyncBatchNorm.forward

    def counted(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
        called.append(norm)
        return forward(norm, x)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", counted)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    outputs = []
    for net in nets:
        net.draw_noise(3)
        outputs.append(net.train()(images))
        outputs[-1].sum().backward()
    assert torch.equal(*outputs)
    assert set(called) == {module for module in nets[1].modules() if isinstance(module, nn.SyncBatchNorm)}
    for (name, one), other in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)


def test_what_supernets_refuse() -> None:
    net = choices()
    takes = "its supernet takes (batch, 3, 12, 12)"
    for shape in ((2, 3, 8, 8), (2, 1, 12, 12), (3, 12, 12)):
        assert refusal(lambda shape=shape: net(torch.zeros(shape))) == f"choices: images have shape {shape}; {takes}"  # type: ignore[misc]
    said = "drop_rate is 1.0; it must be a number at least 0 and below 1"
    assert refusal(lambda: Supernet(CHOICES, drop_rate=1.0)) == said
