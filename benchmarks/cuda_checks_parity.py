"""The checks of ``cuda_check.py`` that compare a GPU's numbers with a CPU's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from cuda_checks_common import (
    Row,
    Setting,
    arch_of,
    drawn_batch,
    full_float32,
    largest_difference,
    learner_for,
    step_of,
)
from torch import Tensor, nn

import fbnetv3_zoo
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.zoo import ARCHS

SINGLE, DOUBLE, TRAINED, LOSS = 1e-4, 1e-10, 1e-8, 1e-3  # tolerances, each relative to what its row says
LAYOUTS = {"default": torch.contiguous_format, "channels-last": torch.channels_last}
IN_DOUBLE = ("fbnetv3_nano", "fbnetv2_f1", "fbnetv3_b")
STEPS = 5


def settled(arch: Arch) -> FBNet:
    """``arch`` in evaluation mode with drawn weights, none of them neutral, and statistics of photographs.

    As tests/helpers/networks.py has it; that imports packages which a machine with a GPU may lack.
    """
    generator = torch.Generator().manual_seed(0)
    network = FBNet(arch, generator=generator)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, std=0.1, generator=generator)
        norm.momentum = None  # the plain average over all batches
    images = network.preprocess(photographs(8, seed=1))
    with torch.no_grad():
        network(images)
        network.classifier.weight /= network.eval()(images).std()
    return network


def network_of(name: str, quick: bool) -> FBNet:
    """The network ``name``, with the weights that come with the package, if there are any."""
    files = (Path(fbnetv3_zoo.__file__).parent / "weights/files").glob(f"{name}.*.safetensors")
    shipped = next(files, None)
    return settled(arch_of(name, 64 if quick else None)) if shipped is None else fbnetv3_zoo.load(shipped)


@contextmanager
def exact_activations() -> Iterator[None]:
    """A context in which hard activations are put together from operators that are exact in float64.

    PyTorch's own kernels for GPUs multiply by a sixth in single precision.
    """

    def gate(x: Tensor, inplace: bool = False) -> Tensor:
        return (x + 3).clamp(0, 6) / 6

    with patch.object(F, "hardsigmoid", gate), patch.object(F, "hardswish", lambda x, inplace=False: x * gate(x)):
        yield


def _kernel(setting: Setting) -> Row:
    """PyTorch's own hard swish in float64."""
    x = torch.linspace(-4, 4, 1001, dtype=torch.float64)
    found = relative(F.hardswish(x.to(setting.device)), F.hardswish(x))
    return Row("PyTorch's hard swish, float64", f"{found:.1e} of the largest value", None, {"difference": found})


def relative(one: Tensor, other: Tensor) -> float:
    """The largest difference of a logit, relative to the largest logit."""
    other = other.cpu().double()
    return float((one.cpu().double() - other).abs().max() / other.abs().max())


def forward(setting: Setting) -> Iterator[Row]:
    """Logits of all networks on both devices."""
    yield _kernel(setting)
    for name in ["fbnetv3_nano", "fbnet_a", "fbnetv2_f1"] if setting.quick else ARCHS:
        network = network_of(name, setting.quick)
        images = network.preprocess(photographs(2, seed=2))
        with torch.no_grad(), full_float32():
            expected = network(images)
            moved = copy.deepcopy(network).to(setting.device)
            found = {
                layout: relative(moved.to(memory_format=form)(images.to(setting.device, memory_format=form)), expected)
                for layout, form in LAYOUTS.items()
            }
        moved.to(memory_format=torch.contiguous_format)
        with torch.no_grad():  # as PyTorch is by default, with TF32 in convolutions
            found["TF32"] = relative(moved(images.to(setting.device)), expected)
        largest = max(found[layout] for layout in LAYOUTS)
        text = f"{largest:.1e} of the largest logit, {float(expected.abs().max()):.2f} (with TF32 {found['TF32']:.1e})"
        yield Row(f"{name}, float32", text, largest <= SINGLE, {"tolerance": SINGLE, **found})
        if name in IN_DOUBLE:
            yield _double(setting, name, network, images)
        setting.free()


def _double(setting: Setting, name: str, network: FBNet, images: Tensor) -> Row:
    with torch.no_grad(), exact_activations():
        expected = network.double()(images.double())
        found = relative(network.to(setting.device)(images.double().to(setting.device)), expected)
    text = f"{found:.1e} of the largest logit"
    return Row(f"{name}, float64, exact activations", text, found <= DOUBLE, {"tolerance": DOUBLE, "difference": found})


def _trained(arch: Arch, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of ``arch`` in float64 before and after a few steps."""
    network = FBNet(arch, generator=torch.Generator().manual_seed(0)).double()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        shape = (8, arch.in_channels, arch.resolution, arch.resolution)
        images = torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
        labels = torch.randint(0, arch.num_classes, (8,), generator=generator).to(device)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return before, network.state_dict()


def training(setting: Setting) -> Iterator[Row]:
    """Weights after steps on both devices: in float64, and the losses of the project's own steps in float32."""
    names = {"fbnetv3_nano": 32, "fbnet_a": 96, "fbnetv2_f1": 96, "fbnetv3_a": 96, "fbnetv3_e": 96}
    for name, side in list(names.items())[: 1 if setting.quick else None]:
        arch = replace(arch_of(name, side), num_classes=10)
        with exact_activations():
            (before, expected), (_, found) = _trained(arch, torch.device("cpu")), _trained(arch, setting.device)
        moved, apart = largest_difference(expected, before), largest_difference(found, expected)
        text = (
            f"{apart:.1e} apart, in float64 with exact activations, after moving by up to {moved:.2g} in {STEPS} steps"
        )
        yield Row(f"{name}, {side} px", text, apart <= TRAINED * moved, {"apart": apart, "moved": moved})
        setting.free()
    for name in ("fbnetv3_nano",) if setting.quick else ("fbnetv3_nano", "fbnetv3_a"):
        arch = arch_of(name, 32 if name == "fbnetv3_nano" else 96, num_classes=10)
        with full_float32():
            losses = [_losses(place, arch) for place in (Setting(torch.device("cpu"), True, setting.ends), setting)]
        apart = max(abs(one - other) / one for one, other in zip(*losses, strict=True))
        text = f"losses {apart:.1e} apart, in float32: {', '.join(f'{loss:.3f}' for loss in losses[1])}"
        yield Row(f"{name}, the learner's steps", text, apart <= LOSS, {"apart": apart, "losses": losses})


def _losses(setting: Setting, arch: Arch) -> list[float]:
    step = step_of(learner_for(setting, arch), drawn_batch(setting, arch, 32))
    return [step() for _ in range(STEPS)]
