"""The same network through PyTorch's other ways of running it: compiled, exported, traced, in other formats."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import V1
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet


@pytest.fixture(params=["v3", "v1"])
def model(request: pytest.FixtureRequest, tiny_arch: Arch) -> FBNet:
    """A network in evaluation mode whose norms have seen images."""
    network = FBNet(tiny_arch if request.param == "v3" else V1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            network(_images(16))
    network.arch = replace(network.arch)  # nothing computed along the way is left: what follows comes first
    return network.eval()


def _images(batch: int, side: int = 32) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))


def _assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Close compared with how far the logits lie apart."""
    assert (actual - expected).abs().max() <= tolerance * expected.std()


@torch.inference_mode()
def test_compiled(model: FBNet) -> None:
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    _assert_close(compiled(_images(2)), model(_images(2)))


@pytest.mark.long
@torch.inference_mode()
def test_compiled_to_machine_code(tiny_arch: Arch) -> None:
    stem, (_, strided), head = tiny_arch.stages
    shallow = replace(tiny_arch, stages=(stem, (replace(strided, repeats=1),), head))  # type: ignore[call-arg]
    network = FBNet(shallow, generator=torch.Generator().manual_seed(0)).eval()
    _assert_close(torch.compile(network, fullgraph=True)(_images(2)), network(_images(2)))


def test_compiled_training(model: FBNet) -> None:
    compiled = torch.compile(model.train(), backend="aot_eager", fullgraph=True)
    compiled(_images(4)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    model(_images(4)).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_exported_with_a_dynamic_batch(model: FBNet) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (_images(2),), dynamic_shapes={"images": {0: batch}}).module()
    for size in (1, 2, 7):
        _assert_close(exported(_images(size)), model(_images(size)))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")  # deprecated, and still what many deploy
@torch.inference_mode()
def test_traced(model: FBNet) -> None:
    traced = torch.jit.trace(model, _images(2))
    for size in (2, 5):
        _assert_close(traced(_images(size)), model(_images(size)))


@torch.inference_mode()
def test_layout_of_the_input_does_not_matter(model: FBNet) -> None:
    images = _images(2)
    assert torch.equal(model(images.contiguous(memory_format=torch.channels_last)), model(images))
    assert torch.equal(model(images.transpose(2, 3).contiguous().transpose(2, 3)), model(images))
    features = model.forward_features(images)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert images.is_contiguous()  # the argument is left as it was


@torch.inference_mode()
def test_input_is_not_written_to(model: FBNet) -> None:
    images = _images(2).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    model(images)
    assert torch.equal(images, before)


@torch.inference_mode()
def test_bfloat16(model: FBNet) -> None:
    expected = model(_images(8))
    logits = model.bfloat16()(_images(8).bfloat16())
    assert logits.dtype == torch.bfloat16
    _assert_close(logits.float(), expected, 0.1)


@torch.inference_mode()
def test_autocast(model: FBNet) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(_images(8))
    assert logits.dtype == torch.bfloat16
    _assert_close(logits.float(), model(_images(8)), 0.1)


@torch.inference_mode()
def test_one_image_answers_as_in_a_batch(model: FBNet) -> None:
    batch = _images(4)
    alone = torch.cat([model(image[None]) for image in batch])
    _assert_close(alone, model(batch))


def test_gradients_reach_every_parameter(model: FBNet) -> None:
    model.train()(_images(8)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_network_can_be_a_part_of_another(model: FBNet) -> None:
    whole = nn.Sequential(model, nn.Softmax(1))
    with torch.inference_mode():
        torch.testing.assert_close(whole(_images(3)).sum(1), torch.ones(3))
