"""torchvision's classification models: built from their value, and as a network that is trained, saved and exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..arch.blocks import MOST_WEIGHTS
from ..arch.torchvision_arch import TorchvisionArch
from ..errors import ZooError, check_number, in_short, nearest
from .network import FeatureInfo, Network, check_floating


def find_torchvision(source: str) -> TorchvisionArch:
    """The model that ``source`` names, ``torchvision:NAME`` with or without factors, known to be one that can be built.

    Raises :class:`ZooError` for a name that torchvision does not have, and for factors that its family does not know.
    """
    arch = TorchvisionArch.parse(source)
    skeleton(arch)
    return arch


class TorchvisionModel(Network):
    """A classification model of torchvision.

    Args:
        arch: the model to build.
        drop_rate: dropout probability, in [0, 1), of all its dropout layers.
        drop_path_rate: stochastic depth: probability of dropping the last residual branch, in [0, 1); rises linearly
            from 0 at the first, where the model has such layers.
        generator: source of the initial weights (default: torch's global generator).
        empty: leave all tensors on the meta device, without values.

    ``inner`` is torchvision's module. Gray images are given to all three channels. Feature maps, gradient
    checkpointing and frozen stages are refused. Raises :class:`ZooError` for a model or factors that do not exist, a
    rate out of range, and images of a side that the model cannot compute.
    """

    def __init__(
        self, arch: TorchvisionArch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        generator: torch.Generator | None = None, empty: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(arch)
        check_number("drop_rate", drop_rate, at_least=0, below=1)
        check_number("drop_path_rate", drop_path_rate, at_least=0, below=1)
        self.arch: TorchvisionArch = arch
        self._rates = drop_rate, drop_path_rate
        check_side(arch)
        with _seeded(generator):
            self.inner = deepcopy(skeleton(arch)).train() if empty else _built(arch)
        self._set_rates()

    def _set_rates(self) -> None:
        from torchvision.ops import StochasticDepth

        dropout, last = self._rates
        branches = [module for module in self.inner.modules() if isinstance(module, StochasticDepth)]
        for number, branch in enumerate(branches):
            branch.p = last * number / max(1, len(branches) - 1)
        for module in self.inner.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width), normalized as by ``preprocess``.

        Raises :class:`ZooError` for another number of channels than 3, or 1 for gray images.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            shape = tuple(images.shape)
            raise ZooError(f"{self.arch.name}: images have shape {shape}; it takes (batch, 1 or 3, height, width)")
        check_floating(self.arch.name, images)
        logits: Tensor = self.inner(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images)
        return logits

    def reset_classifier(self, num_classes: int, *, generator: torch.Generator | None = None) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes and forget the class names.

        ``generator`` is the source of its values (default: torch's global one). Raises :class:`ZooError` unless
        ``num_classes`` is a whole number of at least 1.
        """
        arch = replace(self.arch, num_classes=num_classes)
        old, device = self.inner, next(self.inner.parameters()).device
        with _seeded(generator), torch.device(device):
            self.inner = _built(arch).to(device, next(old.parameters()).dtype)
        kept = {key: value for key, value in old.state_dict().items() if f"inner.{key}" not in classifier_tensors(arch)}
        self.inner.load_state_dict(kept, strict=False)
        self.inner.train(old.training)
        self.arch, self.class_names = arch, None
        self._set_rates()

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Refuse: torchvision's models have none."""
        if enabled:
            raise ZooError(f"{self.arch.name}: torchvision's models know no gradient checkpointing; leave it out")

    def freeze(self, stages: int) -> None:
        """Refuse any but 0: torchvision's models have no stages that are known here."""
        if stages:
            raise ZooError(f"{self.arch.name}: torchvision's models have no stages to freeze; set frozen_stages to 0")

    @property
    def feature_info(self) -> FeatureInfo:
        """Refuse: the maps of torchvision's models are not known here."""
        self._refuse_maps()

    def forward_features(self, images: Tensor) -> Tensor:
        """Refuse, as :attr:`feature_info` does."""
        self._refuse_maps()

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Refuse, as :attr:`feature_info` does."""
        self._refuse_maps()

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Refuse, as :attr:`feature_info` does."""
        self._refuse_maps()

    def _refuse_maps(self) -> NoReturn:
        raise ZooError(
            f"{self.arch.name}: torchvision's models give logits only, no feature maps (distillation.feature_weight "
            "must be 0); take a network of this project"
        )


@contextmanager
def _seeded(generator: torch.Generator | None) -> Iterator[None]:
    """A context in which torch's global generator is seeded by ``generator``, if there is one."""
    with nullcontext() if generator is None else torch.random.fork_rng(devices=[]):
        if generator is not None:
            torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
        yield


_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Arguments of models whose defaults give several logits in training, or a warning."""


def _built(arch: TorchvisionArch) -> nn.Module:
    """The module of torchvision for ``arch``. Raises :class:`ZooError` if there is none."""
    from torchvision import models

    if arch.model not in (known := models.list_models(module=models)):
        raise ZooError(f"torchvision has no model {arch.model!r}{nearest(arch.model, known)}")
    settings = {"num_classes": arch.num_classes, **_SETTINGS.get(arch.model, {})}
    if arch.model.startswith("vit_"):
        settings["image_size"] = arch.resolution
    if (arch.width, arch.depth) != (1, 1):
        return _scaled(arch)
    try:
        plain: nn.Module = models.get_model(arch.model, weights=None, **settings)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unable(arch, error) from None
    return plain


def _scaled(arch: TorchvisionArch) -> nn.Module:
    """The module for an ``arch`` of other width or depth, as far as torchvision's constructors give it."""
    from torchvision import models

    plain = skeleton(replace(arch, width=1.0, depth=1.0))
    if isinstance(plain, models.ResNet):
        from .torchvision_resnet import scaled_resnet

        return scaled_resnet(plain, width=arch.width, depth=arch.depth, num_classes=arch.num_classes)
    widths = isinstance(plain, (models.MobileNetV2, models.MobileNetV3, models.MNASNet))
    if arch.depth != 1 or not widths:
        factor, more = ("depth", "") if arch.depth != 1 else ("width", ", MobileNetV2, MobileNetV3, MNASNet")
        raise ZooError(f"{arch.name}: {arch.model} takes no factor {factor}; these families do: ResNet, ResNeXt{more}")
    if isinstance(plain, models.MNASNet):
        return models.MNASNet(plain.alpha * arch.width, num_classes=arch.num_classes)  # type: ignore[no-any-return]
    wider: nn.Module = models.get_model(
        arch.model, weights=None, width_mult=arch.width, num_classes=arch.num_classes
    )  # fmt: skip
    return wider


class _Allocating(TorchFunctionMode):
    """A context in which weights are allocated on the meta device; RegNets compute their widths with other tensors."""

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:  # fmt: skip
        given = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones) and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


@cache
def skeleton(arch: TorchvisionArch) -> nn.Module:
    """The module of torchvision on the meta device, without values, in evaluation mode; not to be changed.

    Raises :class:`ZooError` if there is none, and for one that is too large.
    """
    with _Allocating():
        model = _built(arch).eval().to("meta")
    if (weights := sum(parameter.numel() for parameter in model.parameters())) > MOST_WEIGHTS:
        raise ZooError(f"{arch.name}: has {weights} weights; at most {MOST_WEIGHTS} can be built")
    return model


def check_side(arch: TorchvisionArch, resolution: int | None = None) -> None:
    """Raise :class:`ZooError` if ``arch`` cannot compute images of ``resolution`` pixels (default: its own)."""
    _try(skeleton(arch), arch, arch.resolution if resolution is None else resolution)


@torch.no_grad()
def _try(model: nn.Module, arch: TorchvisionArch, side: int) -> None:
    try:
        model(torch.empty(1, 3, side, side, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unable(replace(arch, resolution=side), error) from None


def _unable(arch: TorchvisionArch, error: Exception) -> ZooError:
    side = arch.resolution
    return ZooError(
        f"{arch.name}: cannot compute images of {side} x {side} ({in_short(error)}); give another --resolution"
    )


def classifier_tensors(arch: TorchvisionArch) -> list[str]:
    """Names of the tensors of a :class:`TorchvisionModel` whose first axis is the number of classes."""
    one, other = (skeleton(replace(arch, num_classes=count)).state_dict() for count in (2, 3))
    return [f"inner.{key}" for key, value in one.items() if value.shape != other[key].shape]
