"""What all networks have that are trained, saved and exported here: their value, and what describes their files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..arch.torchvision_arch import AnyArch
from ..description import Description
from ..errors import ZooError, told
from ..preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A map that :meth:`Network.feature_maps` returns: its name, channels, and stride relative to the image."""

    name: str
    channels: int
    stride: int


class FeatureInfo(tuple[FeatureMap, ...]):
    """Feature maps in the order in which they are returned; :meth:`channels` and :meth:`reduction` as in timm."""

    def channels(self) -> list[int]:
        """Number of channels of each map."""
        return [feature.channels for feature in self]

    def reduction(self) -> list[int]:
        """Stride of each map relative to the image."""
        return [feature.stride for feature in self]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every part is in the mode in which it was."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


class Network(nn.Module, ABC):
    """A classifier of images: an :class:`~fbnetv3_zoo.models.fbnet.FBNet`, or a model of torchvision.

    Attributes:
        arch: the network as a value; with the number of classes and channels that the module has now.
        preprocess: how an image becomes the input.
        class_names: name of each class, or None if unknown.
        weights: name of the published weights that the network has or was trained from, or None.
        license: SPDX identifier of the license of those weights, or None.
        trained_on: digests of some images that it was trained on; empty if unknown.

    :func:`fbnetv3_zoo.save` stores the attributes with the weights.
    """

    def __init__(self, arch: AnyArch) -> None:
        super().__init__()
        self.arch = arch
        self.preprocess = Preprocess.for_arch(arch)
        self.class_names: tuple[str, ...] | None = None
        self.weights: str | None = None
        self.license: str | None = None
        self.trained_on: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes, which is the number of logits."""
        return self.arch.num_classes

    @property
    def description(self) -> Description:
        """The metadata of this network's files."""
        given = self.arch, self.preprocess, self.class_names, self.weights, self.license, self.trained_on
        return Description(*given)

    @property
    @abstractmethod
    def feature_info(self) -> FeatureInfo:
        """The maps that :meth:`feature_maps` returns, in order of stride."""

    @abstractmethod
    def forward_features(self, images: Tensor) -> Tensor:
        """The last map before the head, shape (batch, channels, height, width)."""

    @abstractmethod
    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Logits (batch, classes) from the output of :meth:`forward_features`."""

    @abstractmethod
    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """The last map of each stride before the head, by the names of :attr:`feature_info`."""

    @abstractmethod
    def reset_classifier(self, num_classes: int, *, generator: torch.Generator | None = None) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes and forget the class names."""

    @abstractmethod
    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass instead of keeping them: less memory, more time."""

    @abstractmethod
    def freeze(self, stages: int) -> None:
        """Keep weights and statistics of the first ``stages`` stages (0: of none) in all training that follows."""


WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Names under which torch.compile, DataParallel, averaged models and checkpoint wrappers hold the module."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside all wrappers."""
    while (inner := _wrapped_by(model)) is not None:
        model = inner
    return model


def _wrapped_by(model: nn.Module) -> nn.Module | None:
    return next((model._modules[name] for name in WRAPPERS if name in model._modules), None)


def network_of(model: object, name: str = "model") -> Network:
    """The network ``model``, without wrappers. Raises :class:`ZooError`, which calls it ``name``, for what is none."""
    network = unwrapped(model) if isinstance(model, nn.Module) else model
    if isinstance(network, Network):
        return network
    remedy = "create('fbnetv3_nano', pretrained=True), create('torchvision:resnet18') or load(FILE)"
    why = "; a state dict alone does not say which network it is of" if isinstance(model, Mapping) else ""
    raise ZooError(f"{name} is {told(network)}; it must be a network, such as {remedy}{why}")


def check_floating(name: str, images: Tensor) -> None:
    """Raise :class:`ZooError` for whole numbers, as images have before they are normalized for the network ``name``."""
    if not images.is_floating_point() and not images.is_quantized:
        kind = str(images.dtype).removeprefix("torch.")
        raise ZooError(f"{name}: images are {kind}; normalize them: model.preprocess(images)")
