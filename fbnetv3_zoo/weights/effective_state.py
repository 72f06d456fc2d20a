"""The effective weights of a module, with the names of the plain network, to be saved.

Users wrap, prune and parametrize networks, which changes names and tensors of the state dict.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..models.network import WRAPPERS, evaluating, unwrapped


@torch.no_grad()
def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of ``model`` without wrappers; parametrized and pruned weights with their values in evaluation.

    Tensors are on the CPU, contiguous, and share no memory with one another.
    """
    state: dict[str, Tensor] = dict(model.state_dict())
    for prefix_path, module in model.named_modules():
        prefix = f"{prefix_path}." if prefix_path else ""
        for name, tensor, replaced in _own(module):
            for key in [key for key in state if key.startswith(tuple(prefix + old for old in replaced))]:
                del state[key]
            state[prefix + name] = tensor
        if type(module).__name__ == "FrozenBatchNorm2d":  # torchvision's; its other values are a norm's
            state.setdefault(f"{prefix}num_batches_tracked", torch.zeros((), dtype=torch.int64))
    return _apart({_plain(key): tensor.detach().cpu().contiguous() for key, tensor in state.items()})


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor, tuple[str, ...]]]:
    """Tensors that ``module`` computes from others: name, value, and prefixes of the names of those."""
    if parametrize.is_parametrized(module):
        with evaluating(module):  # in training mode, spectral norm updates its state
            for name in module.parametrizations:  # type: ignore[union-attr]
                yield name, getattr(module, name), (f"parametrizations.{name}.",)
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            name = hook._tensor_name
            mask, whole = getattr(module, f"{name}_mask"), getattr(module, f"{name}_orig")
            yield name, mask.to(whole.dtype) * whole, (f"{name}_mask", f"{name}_orig")
        elif isinstance(hook, WeightNorm):
            yield hook.name, hook.compute_weight(module), (f"{hook.name}_g", f"{hook.name}_v")
        elif isinstance(hook, SpectralNorm):
            value = hook.compute_weight(module, do_power_iteration=False)
            yield hook.name, value, tuple(f"{hook.name}_{part}" for part in ("orig", "u", "v"))


_SETTINGS = ("eps", "stride", "padding", "dilation", "groups", "padding_mode", "output_size")
"""What changes the answers of a layer, besides its tensors."""


def changed_layer(model: nn.Module, plain: nn.Module) -> str:
    """How a layer of ``model`` without wrappers computes something else than in ``plain``; "" if none does.

    Only layers without others inside are compared. What matters in training alone may differ.
    """
    found = {_plain(name): unwrapped(module) for name, module in model.named_modules()}
    for name, right in plain.named_modules():
        if next(right.children(), None) is not None or type(right).__name__ in _TRAINING_ONLY:
            continue
        module = found.get(name)
        if module is None or not _same_kind(module, right):
            return f"{name} is {type(module).__name__}, not {type(right).__name__}"
        for setting in _SETTINGS:
            here, there = getattr(module, setting, None), getattr(right, setting, None)
            if here != there:
                return f"{setting} of {name} is {here}, not {there}"
    return ""


_TRAINING_ONLY = ("Dropout", "Identity", "StochasticDepth")


def _same_kind(module: nn.Module, right: nn.Module) -> bool:
    if isinstance(right, nn.BatchNorm2d):
        return isinstance(module, nn.modules.batchnorm._BatchNorm) or type(module).__name__ == "FrozenBatchNorm2d"
    layers = (kind for kind in type(right).__mro__ if kind.__module__.startswith("torch.nn.") and kind is not nn.Module)
    return isinstance(module, next(layers, type(right)))


def _plain(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with tensors that share memory copied, as safetensors requires."""
    storages: set[int] = set()
    for key, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr()
        if storage in storages and tensor.numel():
            state[key] = tensor.clone()
        storages.add(storage)
    return state
