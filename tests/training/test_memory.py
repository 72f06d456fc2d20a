"""Training memory counted from a description, against what PyTorch keeps of a real step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from refusals import refusal
from saved_tensors import Saved
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import RECIPES, SGD, AdamW, Recipe
from fbnetv3_zoo.training import Execution, Precision
from fbnetv3_zoo.training.memory import GIB, training_memory
from fbnetv3_zoo.training.optim import build_average, build_optimizer
from fbnetv3_zoo.zoo import ARCHS

RECIPE = Recipe(1, 4, SGD(), 0.1, dropout=0.2, stochastic_depth=0.2)
PRECISIONS = (Precision.FLOAT32, Precision.BFLOAT16)


def kept(arch: Arch, images: int, precision: Precision, *, checkpointing: bool) -> int:
    """Bytes that a real step keeps; with checkpointing, those of the block that keeps most, which is computed anew."""
    network = FBNet(arch, drop_rate=0.2, drop_path_rate=0.2)
    network.set_gradient_checkpointing(checkpointing)
    saved, inputs = Saved(network), []
    if checkpointing:  # a block's input is kept unseen by the hooks below
        for block in (block for stage in network.stages.children() for block in stage.children()):
            block.register_forward_pre_hook(lambda module, given: inputs.append((module, saved(given[0]))))
    low = nullcontext() if precision is Precision.FLOAT32 else torch.autocast("cpu", torch.bfloat16)
    pixels = torch.randn(images, arch.in_channels, arch.resolution, arch.resolution)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor), low:
        logits = network(pixels.contiguous(memory_format=torch.channels_last))
        F.cross_entropy(logits.float(), torch.zeros(images, dtype=torch.long))
    return sum(saved.sizes.values()) + max((_alone(*given, low) for given in [*inputs]), default=0)


def _alone(block: nn.Module, given: Tensor, low: torch.autocast | nullcontext[None]) -> int:
    saved = Saved(block)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor), low:
        block(given.detach().requires_grad_())
    return sum(saved.sizes.values())


def counted(arch: Arch, images: int, precision: Precision, *, checkpointing: bool) -> int:
    execution = Execution(precision=precision, gradient_checkpointing=checkpointing)
    return training_memory(arch, replace(RECIPE, batch_size=images), execution=execution).activations


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.value)
def test_what_a_step_keeps_is_counted(precision: Precision, checkpointing: bool, tiny_arch: Arch) -> None:
    for arch, images in ((tiny_arch, 8), (replace(ARCHS["fbnetv3_a"], resolution=64), 2)):
        found = counted(arch, images, precision, checkpointing=checkpointing)
        assert found == pytest.approx(kept(arch, images, precision, checkpointing=checkpointing), rel=0.02)


@pytest.mark.long
@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv3_b", "fbnetv3_e", "fbnetv3_g", "fbnetv2_l3"])
def test_what_published_networks_keep_is_counted(name: str) -> None:
    """At two batch sizes, in two precisions, with and without checkpointing; at 96 px, so that it takes minutes."""
    arch = replace(ARCHS[name], resolution=96)
    for images in (4, 16):
        for precision in PRECISIONS:
            for checkpointing in (False, True):
                found = counted(arch, images, precision, checkpointing=checkpointing)
                real = kept(arch, images, precision, checkpointing=checkpointing)
                assert found == pytest.approx(real, rel=0.05), (images, precision, checkpointing)


def test_as_measured_on_a_gpu() -> None:
    """On an H200 (benchmarks/cuda_check.py): kept for the backward pass, 64 images, in MiB."""
    for name, precision, measured in (
        ("fbnetv3_b", Precision.FLOAT32, 6084),
        ("fbnetv3_b", Precision.BFLOAT16, 3058),
        ("fbnetv3_e", Precision.FLOAT32, 8743),
        ("fbnetv3_e", Precision.BFLOAT16, 4392),
    ):
        recipe = replace(RECIPE, batch_size=64, dropout=0.0, stochastic_depth=0.0)
        found = training_memory(ARCHS[name], recipe, execution=Execution(precision=precision))
        assert found.activations / 2**20 == pytest.approx(measured, abs=1)


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.0), RECIPES["proxy"].optimizer, AdamW()], ids=repr)
def test_what_stays_from_step_to_step(optimizer: SGD | AdamW, tiny_arch: Arch) -> None:
    network = FBNet(tiny_arch)
    recipe = replace(RECIPE, optimizer=optimizer, ema_decay=0.9)
    stepped, average = build_optimizer(network, recipe), build_average(network, recipe)
    assert average is not None
    network(torch.randn(4, 3, 32, 32)).sum().backward()
    stepped.step()
    slots = [slot for slots in stepped.state.values() for slot in slots.values()]
    found = training_memory(tiny_arch, recipe)
    assert found.weights == sum(tensor.nbytes for tensor in network.state_dict().values())
    assert found.gradients == sum(p.grad.nbytes for p in network.parameters() if p.grad is not None)
    assert found.optimizer == sum(slot.nbytes for slot in slots if isinstance(slot, Tensor) and slot.ndim)
    assert found.average == sum(tensor.nbytes for tensor in average.module.state_dict().values())
    assert training_memory(tiny_arch, replace(recipe, ema_decay=0.0)).average == 0


def test_the_papers_proxy_task() -> None:
    """Batches of 1,024 images in one process, which no GPU of 80 GB holds; in parts, or among processes, they fit."""
    recipe = RECIPES["proxy"]
    whole = training_memory(ARCHS["fbnetv3_b"], recipe)
    assert whole.total / GIB == pytest.approx(95.2, abs=0.1)
    assert str(whole).startswith("95.2 GiB (95.1 for the activations of 1,024 images, 0.16 for weights, gradients, ")
    parts = training_memory(ARCHS["fbnetv3_b"], recipe, execution=Execution(accumulation=2))
    assert parts == training_memory(ARCHS["fbnetv3_b"], recipe, processes=2)
    assert parts.images == 512
    assert parts.activations == pytest.approx(whole.activations / 2, rel=1e-3)
    told = refusal(lambda: training_memory(ARCHS["fbnetv3_b"], recipe, processes=3))
    assert told == (
        "batches of 1024 images cannot be divided into 3 processes x 1 parts of at least 2 images; "
        "use a multiple of 3, such as 1023"
    )
