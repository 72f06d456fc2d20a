"""Gradient checkpointing: the same training step to the bit, with less kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet


@dataclass
class Step:
    """What one training step leaves behind."""

    loss: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    kept: int


def _step(arch: Arch, *, checkpointing: bool, synchronized: bool = False, **options: float) -> Step:
    model = FBNet(arch, generator=torch.Generator().manual_seed(0), **options)  # type: ignore[arg-type]
    if synchronized:  # as on several GPUs; alone, they compute like others
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    nn.init.ones_(model.stages[1][2].project.norm.weight)  # or the branch would learn nothing in this step
    model.set_gradient_checkpointing(checkpointing)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)  # dropout and stochastic depth
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    blocks = [block for stage in model.stages.children() for block in stage.children()]
    if checkpointing:  # keeps the blocks' inputs, unseen by the hooks below
        for block in blocks:
            block.register_forward_pre_hook(lambda module, inputs: (pack(inputs[0]), None)[1])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(model(images), torch.arange(8))
        kept = sum(saved.values())
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return Step(loss.detach(), gradients, dict(model.named_buffers()), kept)


@pytest.mark.parametrize("options", [{}, {"drop_rate": 0.5, "drop_path_rate": 0.5}], ids=["plain", "random"])
def test_a_step_is_the_same_with_checkpointing(tiny_arch: Arch, options: dict[str, float]) -> None:
    plain, checkpointed = (_step(tiny_arch, checkpointing=flag, **options) for flag in (False, True))
    assert torch.equal(plain.loss, checkpointed.loss)
    assert plain.gradients.keys() == checkpointed.gradients.keys() == dict(FBNet(tiny_arch).named_parameters()).keys()
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(checkpointed.gradients[name], gradient, atol=1e-7, rtol=1e-5)
    for name, value in plain.buffers.items():
        assert torch.equal(checkpointed.buffers[name], value), name  # running statistics counted once, not twice


def test_synchronized_norms_count_their_statistics_once(tiny_arch: Arch) -> None:
    plain, checkpointed = (_step(tiny_arch, checkpointing=flag, synchronized=True) for flag in (False, True))
    assert plain.buffers.keys() == checkpointed.buffers.keys()
    for name, value in plain.buffers.items():
        assert torch.equal(checkpointed.buffers[name], value), name


def test_statistics_moved_at_all(tiny_arch: Arch) -> None:
    buffers = _step(tiny_arch, checkpointing=True).buffers
    assert all(value == 1 for name, value in buffers.items() if name.endswith("num_batches_tracked"))
    assert all(value.any() for name, value in buffers.items() if name.endswith("running_mean"))


def test_much_less_is_kept(tiny_arch: Arch) -> None:
    plain, checkpointed = (_step(tiny_arch, checkpointing=flag).kept for flag in (False, True))
    assert checkpointed < 0.4 * plain


def test_norms_go_on_counting_after_the_backward_pass(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch)
    model.set_gradient_checkpointing()
    for _ in range(2):
        model(torch.randn(4, 3, 32, 32)).sum().backward()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.track_running_stats and norm.num_batches_tracked == 2 for norm in norms)


def test_nothing_is_recomputed_without_gradients(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch, generator=torch.Generator().manual_seed(0))
    images = torch.randn(4, 3, 32, 32)
    expected = model.eval()(images)
    model.set_gradient_checkpointing()
    assert torch.equal(model(images), expected)
    with torch.no_grad():
        assert not model.train()(images).requires_grad
    model.set_gradient_checkpointing(False)
    assert not model.gradient_checkpointing


def test_frozen_norms_stay_frozen(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch)
    model.set_gradient_checkpointing()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(not value.any() for name, value in model.named_buffers() if not name.endswith("running_var"))
