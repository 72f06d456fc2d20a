"""Networks to compare with, built by timm with random weights and reparameterized for inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError, in_short, nearest

from .published_baselines import RIVALS, Baseline

if TYPE_CHECKING:
    from torch import nn

_BRANCHES = frozenset((
    "conv_kxk", "conv_scale", "conv_1x1", "large_conv", "small_conv", "fusion_conv", "primary_rpr_conv",
    "cheap_rpr_conv", "dw_conv_list",
))  # fmt: skip
"""timm's names of training-time branches, which are gone once a block is reparameterized."""


def find_rival(name: str) -> Baseline:
    """The timm network ``name``. Raises :class:`ZooError` if timm is missing or has no such network."""
    try:
        import timm
    except ImportError:
        raise ZooError(
            f'--against {name}: needs timm, which is not installed; pip install "fbnetv3-zoo[timm]"'
        ) from None
    known = timm.list_models()
    if name not in known:
        raise ZooError(f"--against {name}: timm has no network of that name{nearest(name, known)}")
    if name in RIVALS:
        return RIVALS[name]
    config = timm.get_pretrained_cfg(name)
    return Baseline(name, 224 if config is None else config.input_size[-1])


def export_rival(rival: Baseline, path: Path) -> Path:
    """Write the :func:`merged` network as an ONNX file for any batch size, by PyTorch's exporter."""
    import timm
    import torch

    from fbnetv3_zoo.utils.onnx_io import quiet_exporter

    network = merged(timm.create_model(rival.name, exportable=True).eval())
    images = torch.zeros(2, 3, rival.resolution, rival.resolution)
    try:
        with quiet_exporter():
            torch.onnx.export(
                network, (images,), path, dynamo=True, input_names=["images"], opset_version=18,
                dynamic_shapes=({0: torch.export.Dim("batch")},), optimize=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises many kinds
        raise ZooError(f"cannot be exported to ONNX ({in_short(error)})") from None
    return path


def merged(network: nn.Module) -> nn.Module:
    """A copy of ``network``, a timm network in evaluation mode, with training-time branches merged.

    Its outputs are the same. Raises :class:`ZooError` if branches are left, which would distort its time.
    """
    from timm.utils.model import reparameterize_model

    plain: nn.Module = reparameterize_model(network)
    if left := sorted(_BRANCHES & _module_names(plain)):
        raise ZooError(f"its training branches ({left[0]}) cannot be merged by this timm; pip install --upgrade timm")
    return plain


def _module_names(network: nn.Module) -> set[str]:
    """The names of all modules with parameters, at any depth."""
    return {part for name, _ in network.named_parameters() for part in name.split(".")}
