"""Initial weights: the distribution the facts state, and nothing left to chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from fbnetv3_zoo.arch import Arch, InvertedResidual
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.blocks import InvertedResidualBlock
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.zoo import ARCHS

SAMPLES = ["fbnetv3_a", "fbnetv2_f1", "dmasking_f1", "fbnet_a"]


@pytest.fixture
def _poisoned_memory() -> Iterator[None]:
    """Memory that nobody wrote reads as NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", SAMPLES)
def test_weights_are_kaiming_normal_by_fan_out(name: str) -> None:
    model = create(name, generator=torch.Generator().manual_seed(0))
    checked = 0
    for module in model.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        weight = module.weight.detach()
        fan_out = weight.shape[0] * weight[0, 0].numel()
        scaled = (weight / (2 / fan_out) ** 0.5).flatten()
        if scaled.numel() >= 1000:
            few = 4 / scaled.numel() ** 0.5  # four standard errors
            assert scaled.std().item() == pytest.approx(1, abs=few)
            assert scaled.mean().item() == pytest.approx(0, abs=few)
            assert (scaled.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=few)  # normal, not uniform
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("name", SAMPLES)
def test_biases_and_norms(name: str) -> None:
    for module in create(name).modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()
            assert module.num_batches_tracked == 0


@pytest.mark.parametrize("name", SAMPLES)
def test_last_norm_is_zero_on_residual_branches_where_the_row_says_so(name: str) -> None:
    arch, model = ARCHS[name], create(name)
    expected = {
        f"stages.{block.stage}.{block.index}.project.norm"
        for block in arch.blocks
        if isinstance(block.row, InvertedResidual)
        and block.row.zero_init_last_norm
        and block.stride == 1
        and block.in_channels == block.out_channels
    }
    scales = {key: module.weight for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {key for key, scale in scales.items() if not scale.any()} == expected
    assert all((scale == 1).all() for key, scale in scales.items() if key not in expected)
    assert bool(expected) == (name in ("fbnetv3_a", "fbnetv2_f1"))


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_is_left_unset(name: str) -> None:
    one, other = (create(name, generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    for key, value in one.items():
        assert value.isfinite().all(), key
        assert torch.equal(value, other[key]), key


@pytest.mark.usefixtures("_poisoned_memory")
def test_a_new_classifier_is_set(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch)
    model.reset_classifier(4)
    assert all(parameter.isfinite().all() for parameter in model.classifier.parameters())


@pytest.mark.parametrize("num_classes", [2, 1000, 5000])
def test_a_classifier_is_never_wider_than_for_imagenet(tiny_arch: Arch, num_classes: int) -> None:
    built, reset = FBNet(replace(tiny_arch, num_classes=num_classes)), FBNet(tiny_arch)
    reset.reset_classifier(num_classes)
    for layer in (built.classifier, reset.classifier):
        few = 4 / layer.weight.numel() ** 0.5
        assert layer.weight.std().item() * (max(1000, num_classes) / 2) ** 0.5 == pytest.approx(1, abs=few)
        assert not layer.bias.any()


def test_the_generator_alone_decides(tiny_arch: Arch) -> None:
    torch.manual_seed(0)
    first = FBNet(tiny_arch, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    same = FBNet(tiny_arch, generator=torch.Generator().manual_seed(3))
    other = FBNet(tiny_arch, generator=torch.Generator().manual_seed(4))
    assert torch.equal(same.classifier.weight, first.classifier.weight)
    assert not torch.equal(other.classifier.weight, first.classifier.weight)


def test_the_global_generator_is_left_alone(tiny_arch: Arch) -> None:
    before = torch.get_rng_state()
    FBNet(tiny_arch, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_initializing_again_forgets_training(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch, generator=torch.Generator().manual_seed(3))
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.reset_parameters(torch.Generator().manual_seed(3))
    assert all(torch.equal(value, fresh[key]) for key, value in model.state_dict().items())


def test_residual_blocks_begin_as_identities() -> None:
    model = create("fbnetv3_a0").eval()
    blocks = [b for b in model.modules() if isinstance(b, InvertedResidualBlock) and b.has_residual]
    images = torch.randn(1, blocks[-1].project.conv.out_channels, 3, 3)
    assert torch.equal(blocks[-1](images), images)
