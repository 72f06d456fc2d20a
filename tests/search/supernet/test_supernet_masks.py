"""Layers of supernets under weighted choices: against separate blocks, against masks on maps; what autograd keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fbnetv3_zoo.arch import Activation, Block, Conv, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite
from fbnetv3_zoo.models.blocks import build_block
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.search.supernet import Layer, LayerSpace, Supernet
from fbnetv3_zoo.search.supernet.mixed_op import MixedLayer
from fbnetv3_zoo.search.supernet.presets import TINY_DNAS, V1

RELU, SWISH = Activation.RELU, Activation.HARD_SWISH
BY_INPUT, BY_EXPANDED = SqueezeExcite("input"), SqueezeExcite("expanded", 0.5)
WIDTHS = (4, 8, 12, 16, 20, 24, 28, 32)
training = pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    """Everything in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def behind(before: tuple[int, ...], layer: Layer) -> LayerSpace:
    """``layer`` behind a convolution of ``before`` widths."""
    return LayerSpace("two", (16,), ((Layer((Conv(3, before[-1], 1, SWISH),), before), layer),), 4)


def mixed(space: LayerSpace, number: int = 1) -> MixedLayer:
    """A layer, no norm of which is neutral and no bias of which is 0."""
    layer, generator = MixedLayer(space, number).double(), torch.Generator().manual_seed(0)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.running_mean, std=0.2, generator=generator)
        if (bias := getattr(module, "bias", None)) is not None:
            nn.init.normal_(bias, std=0.2, generator=generator)
    return layer


def drawn_weights(space: LayerSpace) -> tuple[list[Tensor], list[Tensor]]:
    """Logits, and weights made from them: they add up to 1 wherever the logits move."""
    generator = torch.Generator().manual_seed(1)
    logits = [torch.randn(len(d), generator=generator, requires_grad=True) for d in space.dimensions]
    return logits, [torch.softmax(logit, 0) for logit in logits]


def map_for(channels: int, side: int = 7) -> Tensor:
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(2)).requires_grad_()


def check_equal(found: Tensor, expected: Tensor, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """The same numbers, and the same gradients with respect to ``ours`` and ``theirs``."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max()))
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    one, other = (
        torch.autograd.grad((y * direction).sum(), of, retain_graph=True, allow_unused=True, materialize_grads=True)
        for y, of in ((found, ours), (expected, theirs))
    )
    most = max(float(gradient.abs().max()) for gradient in other)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * most)


def factor_at(weights: Sequence[Tensor], place: int | None, n: int) -> Tensor:
    return torch.ones(()) if place is None else weights[place][n]


# Against separate blocks


def one_by_one(
    layer: MixedLayer, space: LayerSpace, number: int, x: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Every candidate at every width as a block of its own, padded, weighted, added up; the buffers of the widest."""
    widths, where, parts, buffers = space.layers[number].widths, space.places[number], [], []
    for n, at in product(range(layer.shape[0]), range(len(widths))):
        block = build_block(space.block(number, n, 0, 0, at)).train(layer.training)
        owned = dict(layer.candidate(n).named_parameters())
        cut = {name: owned[name][tuple(map(slice, part.shape))] for name, part in block.named_parameters()}
        state = layer.candidate(n).state_dict()
        held = {name: state[name][tuple(map(slice, part.shape))].clone() for name, part in block.named_buffers()}
        y = torch.func.functional_call(block, {**cut, **held}, (x.clone(),))
        factor = factor_at(weights, where.candidate, n) * factor_at(weights, where.channels, at)
        parts.append(factor * F.pad(y, (0, 0, 0, 0, 0, widths[-1] - y.shape[1])))
        if at == len(widths) - 1:
            buffers.append(held)
    return torch.stack(parts).sum(0), buffers


EXPANDED, EXCITED = InvertedResidual(3, 32, 1, 1, 3, SWISH), InvertedResidual(5, 32, 1, 1, 3, SWISH, BY_EXPANDED)
PLAIN = InvertedResidual(3, 32, 1, 1, 1, RELU, conv_bias=True)
SEPARATE: dict[str, tuple[LayerSpace, int]] = {
    "candidates": (V1, 1),
    "candidates of stride 2": (V1, 2),
    "candidates with squeeze-excite": (TINY_DNAS, 7),
    "convolution": (behind((16,), Layer((Conv(3, 32, 2, SWISH),), WIDTHS)), 1),
    "inverted residual": (behind((16,), Layer((EXPANDED,), WIDTHS)), 1),
    "squeeze-excite": (behind((16,), Layer((EXCITED,), WIDTHS)), 1),
    "unexpanded": (behind((16,), Layer((PLAIN,), WIDTHS)), 1),
    "pooling head": (behind((16,), Layer((PoolingHead(32, 2, SWISH),), WIDTHS)), 1),
    "skip": (behind((16,), Layer((Skip(32),), WIDTHS)), 1),
    "skip of stride 2": (behind((16,), Layer((Skip(32, 2),), WIDTHS)), 1),
    "narrow behind wide": (behind((40,), Layer((EXPANDED, Skip(32)), WIDTHS)), 1),
    "all kinds": (behind((16,), Layer((EXPANDED, EXCITED, PLAIN, Skip(32), Conv(3, 32, 1, RELU)), WIDTHS)), 1),
}  # fmt: skip


@training
@pytest.mark.parametrize("name", SEPARATE)
def test_a_layer_is_the_weighted_sum_of_its_options(name: str, training: bool) -> None:
    space, number = SEPARATE[name]
    layer, x = mixed(space, number).train(training), map_for(space.layers[number - 1].widths[-1])
    logits, weights = drawn_weights(space)
    expected, buffers = one_by_one(layer, space, number, x, weights)
    found = layer(x, weights)
    learned = [x, *logits, *layer.parameters()]
    check_equal(found, expected, learned, learned)
    for n, held in enumerate(buffers):
        state = layer.candidate(n).state_dict()
        for key, value in held.items():
            torch.testing.assert_close(state[key], value, rtol=1e-12, atol=1e-12)


# Against masks on maps


def by_definition(layer: MixedLayer, space: LayerSpace, number: int, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Every candidate at its largest widths, its maps multiplied by the sums of the masks of all widths."""
    total = torch.zeros(())
    for n in range(layer.shape[0]):
        factor = factor_at(weights, space.places[number].candidate, n)
        total = total + factor * masked(layer, space, number, n, x, weights)
    return total


def masked(layer: MixedLayer, space: LayerSpace, number: int, n: int, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    where, before = space.places[number], space.places[number - 1].channels
    options: list[tuple[Block, Tensor]] = []
    for i, e, o in product(*map(range, space.shape(number)[1:])):
        places = ((before, i), (where.expansion, e), (where.channels, o))
        chance = torch.stack([factor_at(weights, place, at) for place, at in places]).prod()
        options.append((space.block(number, n, i, e, o), chance))

    def mask(width: Callable[[Block], int], largest: int) -> Tensor:
        ones = [chance * (torch.arange(largest) < width(block)) for block, chance in options]
        return torch.stack(ones).sum(0)[:, None, None]

    candidate, row, widest = layer.candidate(n), options[0][0].row, space.layers[number].widths[-1]
    out = mask(lambda block: block.out_channels, widest)
    passed = mask(lambda block: block.out_channels * block.keeps_shape, widest)
    through: Tensor | float = 0.0
    if passed.any():
        through = passed * F.pad(x, (0, 0, 0, 0, 0, max(0, widest - x.shape[1])))[:, :widest]
    if isinstance(row, Conv):
        return out * candidate.act(candidate.norm(candidate.conv(x)))
    if isinstance(row, Skip):
        kept = all(block.keeps_shape for block, _ in options)
        return through if kept else (out - passed) * F.relu(candidate.norm(candidate.conv(x))) + through
    mid = mask(lambda block: block.expanded_channels, max(block.expanded_channels for block, _ in options))
    if isinstance(row, PoolingHead):
        return out * candidate.act(candidate.project(mid * candidate.expand(x).mean((2, 3), keepdim=True)))
    y = mid * candidate.depthwise(candidate.expand(x) if hasattr(candidate, "expand") else x)
    if row.squeeze_excite is not None:
        se, squeezed = candidate.squeeze_excite, max(block.se_channels for block, _ in options)
        reduced = se.act(se.reduce(y.mean((2, 3), keepdim=True))) * mask(lambda block: block.se_channels, squeezed)
        y = y * se.gate(se.expand(reduced))
    return out * candidate.project(y) + through


BEFORE, AFTER, EXPANSIONS = (8, 16, 20), (8, 12, 20, 24), (2.0, 2.5, 3.0, 4.0)


def residual(kernel: int, stride: int = 1, se: SqueezeExcite | None = None, expansion: float = 3) -> InvertedResidual:
    return InvertedResidual(kernel, 24, stride, 1, expansion, SWISH, se)


def choosing(*rows: Row, expansions: tuple[float, ...] = EXPANSIONS) -> LayerSpace:
    """Rows behind several widths, of several widths and expansions."""
    return behind(BEFORE, Layer(rows, AFTER, expansions))


MASKED: dict[str, LayerSpace] = {
    "expansions": behind((16,), Layer((residual(3),), (), EXPANSIONS)),
    "expansions with squeeze-excite": behind((16,), Layer((residual(3, se=BY_EXPANDED),), (), EXPANSIONS)),
    "squeeze-excite, widest inside": behind((20,), Layer((residual(3, se=BY_INPUT),), (), (2.0, 2.25))),  # of 8, of 4
    "inverted residual": choosing(residual(3)),
    "of stride 2": choosing(residual(5, 2)),
    "squeeze-excite of the input": choosing(residual(3, se=BY_INPUT)),
    "squeeze-excite of the expanded": choosing(residual(3, se=BY_EXPANDED)),
    "unexpanded": choosing(residual(3, expansion=1), expansions=()),
    "convolution": choosing(Conv(3, 24, 2, SWISH), expansions=()),
    "skip": choosing(Skip(24), expansions=()),
    "skip of stride 2": choosing(Skip(24, 2), expansions=()),
    "pooling head": choosing(PoolingHead(24, 2, RELU)),
    "all kinds": choosing(
        residual(3), residual(5, se=BY_INPUT), residual(3, se=BY_EXPANDED), Skip(24), Conv(1, 24, 1, RELU)
    ),
    "all kinds of one width": behind(
        (24,), Layer((residual(3), residual(5, se=BY_EXPANDED), Skip(24)), (), EXPANSIONS)
    ),
}


@training
@pytest.mark.parametrize("name", MASKED)
def test_masks_are_those_on_maps(name: str, training: bool) -> None:
    space = MASKED[name]
    layer, x = mixed(space).train(training), map_for(space.layers[0].widths[-1])
    logits, weights = drawn_weights(space)
    other = copy.deepcopy(layer)
    expected = by_definition(other, space, 1, x, weights)
    check_equal(layer(x, weights), expected, [x, *logits, *layer.parameters()], [x, *logits, *other.parameters()])
    torch.testing.assert_close(layer.state_dict(), other.state_dict(), rtol=1e-12, atol=1e-12)


@training
@pytest.mark.parametrize("name", MASKED)
def test_a_share_scales_the_output(name: str, training: bool) -> None:
    space, share = MASKED[name], torch.tensor(0.37, requires_grad=True)
    layer, x = mixed(space).train(training), map_for(space.layers[0].widths[-1])
    logits, weights = drawn_weights(space)
    learned = [share, x, *logits, *layer.parameters()]
    check_equal(layer(x, weights, share), share * layer(x, weights), learned, learned)


# Memory

EIGHT_WIDTHS, EIGHT_EXPANSIONS = tuple(range(8, 65, 8)), tuple(2.25 + 0.25 * n for n in range(8))


def stacked(*rows: InvertedResidual, channels: tuple[int, ...] = (), expansions: tuple[float, ...] = ()) -> LayerSpace:
    """A convolution and four layers on maps of 16 x 16; the largest network has 64 channels, expanded 4 times."""
    layers = (Layer(rows, channels, expansions),) * 4
    return LayerSpace("maps", (32,), ((Layer((Conv(3, 64, 2, RELU),), channels),), layers), num_classes=10)


def kept_bytes(model: nn.Module, images: Tensor) -> int:
    """What autograd keeps of a forward pass, every storage once, without the model's own parameters and buffers."""
    kept: dict[int, tuple[Tensor, int]] = {}  # the tensors too, so that no address is used twice
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    return sum(size for _, size in kept.values())


@pytest.mark.parametrize("se", [None, BY_EXPANDED], ids=["plain", "squeeze-excite"])
@pytest.mark.parametrize("channels", [(), EIGHT_WIDTHS], ids=["one width", "eight widths"])
@pytest.mark.parametrize("expansions", [(), EIGHT_EXPANSIONS], ids=["one expansion", "eight expansions"])
def test_eight_options_keep_hardly_more_than_one(
    expansions: tuple[float, ...], channels: tuple[int, ...], se: SqueezeExcite | None
) -> None:
    """The target is 1.15; what is more is the first convolution's map, masked, and the masked weights."""
    row, images = InvertedResidual(3, 64, 1, 1, 4, RELU, se), torch.randn(8, 3, 32, 32)
    one = kept_bytes(FBNet(stacked(row).arch((), "largest")).train(), images)
    eight = kept_bytes(Supernet(stacked(row, channels=channels, expansions=expansions)).double(), images)
    assert 1 <= eight / one <= 1.03


def test_eight_candidates_keep_eight_times_as_much() -> None:
    rows = [InvertedResidual(kernel, 64, 1, 1, 4, RELU) for kernel in range(1, 16, 2)]
    images = torch.randn(2, 3, 32, 32)
    one, eight = (kept_bytes(Supernet(stacked(*options)).double(), images) for options in (rows[:1], rows))
    assert eight / one > 7
