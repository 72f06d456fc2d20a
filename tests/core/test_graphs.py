"""Graphs that PyTorch's own tools take of a network: traced, symbolic, scripted, and cut at a stage."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from networks import settled
from refusals import refusal
from sweeps import every
from torch import Tensor
from torch.fx.experimental.optimization import fuse
from torchvision.models.feature_extraction import create_feature_extractor

from fbnetv3_zoo.arch import Arch, PoolingHead
from fbnetv3_zoo.detection.models.modules import Trunk
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.blocks import Hardswish
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.zoo import ARCHS

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.:FutureWarning"),  # deprecated, and still what many deploy
    pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning"),
]


def _images(arch: Arch, batch: int = 2) -> Tensor:
    side = arch.min_resolution
    return torch.rand(batch, arch.in_channels, side, side, generator=torch.Generator().manual_seed(1))


def _shallow(arch: Arch) -> Arch:
    """``arch`` with the first and the last row of each stage, once: what takes time is the number of layers."""
    ends = [stage if len(stage) < 3 else (stage[0], stage[-1]) for stage in arch.stages]
    once = [tuple(row if isinstance(row, PoolingHead) else replace(row, repeats=1) for row in stage) for stage in ends]
    return replace(arch, stages=tuple(once))


def _same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def model(tiny_arch: Arch) -> FBNet:
    return settled(tiny_arch)


def _check_graphs(arch: Arch) -> None:
    """``torch.jit.trace`` with its own check and gradients on, as many call it; ``torch.fx``; a network cut short."""
    model = create(arch, generator=torch.Generator().manual_seed(0)).eval()
    images = _images(model.arch)
    expected = model(images)
    _same(torch.jit.trace(model, images)(images), expected)
    _same(torch.fx.symbolic_trace(model)(images), expected)
    cut = create_feature_extractor(model, {"stages.2": "third", "classifier": "logits"})(images)
    _same(cut["third"], model.stages[:3](images))
    _same(cut["logits"], expected)


@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv2_f1", "fbnet_a"])
def test_one_network_of_each_paper(name: str) -> None:
    _check_graphs(_shallow(ARCHS[name]))


@pytest.mark.parametrize("name", every(ARCHS, "fbnetv3_nano"))
def test_every_network(name: str) -> None:
    _check_graphs(ARCHS[name])


@pytest.mark.filterwarnings("ignore:Converting a tensor:torch.jit.TracerWarning")  # of torch's batch norm in training
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_mode_and_gradients_do_not_change_what_is_traced(training: bool, gradients: bool, model: FBNet) -> None:
    """A graph taken in one mode of autograd is run in the other."""
    model.train(training)
    for part in model.modules():  # whose statistics would move between the calls that are compared
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.0
    images = _images(model.arch)
    with torch.set_grad_enabled(gradients):
        traced, symbolic = torch.jit.trace(model, images), torch.fx.symbolic_trace(model)
    for other in (True, False):
        with torch.set_grad_enabled(other):
            expected = model(images)
            _same(traced(images), expected)
            _same(symbolic(images), expected)


@pytest.mark.parametrize("name", ["fbnet_a", "fbnetv2_l2", "fbnetv3_a"])
def test_scripted(name: str) -> None:
    model = create(_shallow(ARCHS[name]), generator=torch.Generator().manual_seed(0)).eval()
    scripted = torch.jit.script(model)
    for batch in (1, 3):
        _same(scripted(_images(model.arch, batch)), model(_images(model.arch, batch)))


@pytest.mark.filterwarnings("ignore:Encountering a list at the output:torch.jit.TracerWarning")  # timm gives lists, too
@pytest.mark.parametrize("indices", [None, (1, -1)])
def test_a_backbone_of_feature_maps(indices: tuple[int, ...] | None, tiny_arch: Arch) -> None:
    generator = torch.Generator().manual_seed(0)
    model = create(tiny_arch, features_only=True, out_indices=indices, generator=generator).eval()
    images = _images(tiny_arch)
    graphs = torch.jit.trace(model, images), torch.jit.script(model), torch.fx.symbolic_trace(model)
    for graph in graphs:
        for found, expected in zip(graph(images), model(images), strict=True):
            _same(found, expected)


def test_a_symbolic_graph_is_trained(model: FBNet) -> None:
    """Its gradients are the network's own, in place or not."""
    images = _images(model.arch)
    model.train()(images).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    for mode in (True, False):
        graph = torch.fx.symbolic_trace(copy.deepcopy(model).train(mode)).train()
        graph.zero_grad()
        graph(images).square().sum().backward()
        for name, parameter in graph.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_a_symbolic_graph_takes_any_batch_and_is_kept(model: FBNet) -> None:
    graph = torch.fx.symbolic_trace(model)
    assert not any(node.op == "call_function" and node.target.__module__ == "fbnetv3_zoo" for node in graph.graph.nodes)
    for kept in (graph, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        for batch in (1, 5):
            _same(kept(_images(model.arch, batch)), model(_images(model.arch, batch)))


def test_norms_are_folded_by_the_tools_of_fx(model: FBNet) -> None:
    folded = fuse(model)
    _same(folded(_images(model.arch)), model(_images(model.arch)))


def test_feature_maps_are_cut_out_in_both_modes(model: FBNet) -> None:
    images, wanted = _images(model.arch), {f"stages.{n}": str(n) for n in range(len(model.stages))}
    cut = create_feature_extractor(model, wanted)
    for mode in (False, True):
        model.train(mode), cut.train(mode)
        maps = cut(images)
        assert list(maps) == list(wanted.values())
        x = images
        for n, stage in enumerate(model.stages):
            x = stage(x)
            _same(maps[str(n)], x)


def test_a_symbolic_graph_of_a_trunk(tiny_arch: Arch) -> None:
    """Of a detector: it gives its maps by name."""
    trunk = Trunk(tiny_arch.with_symmetric_padding().blocks[:-1], (2, 4)).eval()
    images = _images(tiny_arch)
    found, expected = torch.fx.symbolic_trace(trunk)(images), trunk(images)
    assert list(found) == list(expected)
    for name, x in expected.items():
        _same(found[name], x)


@pytest.mark.parametrize("shape", [(2, 4, 32, 32), (3, 32, 32)])
def test_what_is_refused_stays_refused(shape: tuple[int, ...], model: FBNet) -> None:
    """The network itself, after a graph of it was taken."""
    torch.fx.symbolic_trace(model)
    expected = f"tiny: images have shape {shape}; it takes (batch, 3, height, width)"
    assert refusal(lambda: model(torch.zeros(shape))) == expected


def test_hard_swish_takes_no_memory_of_its_own_where_no_gradient_is_wanted() -> None:
    for gradients in (True, False):
        x = torch.linspace(-4, 4, 9)
        with torch.set_grad_enabled(gradients):
            y = Hardswish()(x)
        assert (y.data_ptr() == x.data_ptr()) is not gradients
