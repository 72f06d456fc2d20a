"""The short way in: :func:`create` a network by name, value or file, with weights or without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, overload

import torch

from .arch import Arch
from .arch.torchvision_arch import PREFIX, AnyArch, TorchvisionArch, is_torchvision
from .errors import ZooError, plain_whole
from .models.fbnet import FBNet
from .models.features import FBNetFeatures
from .models.torchvision_model import TorchvisionModel, find_torchvision
from .weights.cache import WeightsCache
from .weights.pretrained import COMMERCIAL, build, build_torchvision, find_weights, read_pretrained
from .weights.registry import RECORDS, WeightsEntry, find_network
from .weights.serialization import WeightsFile
from .weights.state_dict import skeleton
from .zoo import ARCHS


@overload
def create(
    model: str | Path | Arch, *, pretrained: bool | str | Path | WeightsFile = False, num_classes: int | None = None,
    in_chans: int | None = None, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    features_only: Literal[False] = False, out_indices: None = None, generator: torch.Generator | None = None,
    cache: WeightsCache | None = None,
) -> FBNet: ...  # fmt: skip
@overload
def create(
    model: str | Path | Arch, *, pretrained: bool | str | Path | WeightsFile = False, num_classes: int | None = None,
    in_chans: int | None = None, drop_rate: float = 0.0, drop_path_rate: float = 0.0, features_only: Literal[True],
    out_indices: Sequence[int] | None = None, generator: torch.Generator | None = None,
    cache: WeightsCache | None = None,
) -> FBNetFeatures: ...  # fmt: skip
@overload
def create(
    model: TorchvisionArch, *, pretrained: bool | str | Path | WeightsFile = False, num_classes: int | None = None,
    in_chans: int | None = None, drop_rate: float = 0.0, drop_path_rate: float = 0.0, features_only: bool = False,
    out_indices: Sequence[int] | None = None, generator: torch.Generator | None = None,
    cache: WeightsCache | None = None,
) -> TorchvisionModel: ...  # fmt: skip
def create(
    model: str | Path | Arch | TorchvisionArch, *, pretrained: bool | str | Path | WeightsFile = False,
    num_classes: int | None = None, in_chans: int | None = None, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    features_only: bool = False, out_indices: Sequence[int] | None = None, generator: torch.Generator | None = None,
    cache: WeightsCache | None = None,
) -> FBNet | FBNetFeatures | TorchvisionModel:  # fmt: skip
    """Build a network, in training mode; :data:`create_model` is another name for this function.

    Args:
        model: a published name (``list_models()``); the name of published weights (``fbnetv3_b.ra2_in1k``, see
            ``list_weights()``) for the network in the form that they need; an :class:`Arch`, or the path of its JSON;
            a model of torchvision, ``torchvision:resnet18`` or ``torchvision:resnet18@width=1.4,depth=2``, or a
            :class:`~fbnetv3_zoo.arch.torchvision_arch.TorchvisionArch`.
        pretrained: weights to load. True: the published ones, whatever their license. ``"commercial"``: the most
            accurate ones that may be used commercially. Otherwise the tag of others (``"ra2_in1k"``), a path, an
            HTTP(S) address (``#sha256=DIGITS``, 8 to 64 of them, pins its contents), or ``hf-hub:owner/name``. Files
            are ``.safetensors`` or checkpoints of torch.save, in this project's, the official or timm's layout. A
            :class:`~fbnetv3_zoo.weights.serialization.WeightsFile` that was read before must not be used again.
        num_classes: number of classes (default: that of the weights or the network). Where it differs from that of the
            weights, the classifier is new and everything else is loaded; a warning is logged.
        in_chans: number of image channels, likewise. Where it differs from that of the weights, the stem is adapted.
        drop_rate: dropout probability before the classifier, in [0, 1).
        drop_path_rate: stochastic depth: probability of dropping the last residual branch, in [0, 1); see
            :class:`FBNet`.
        features_only: return the trunk alone, which computes a list of feature maps; see :class:`FBNetFeatures`.
        out_indices: which maps, with ``features_only``: 0 for stride 2 to 4 for stride 32, negative ones from the end
            (default: all).
        generator: source of the initial values (default: torch's global generator).
        cache: cache of downloaded weights (default: ``WeightsCache()``).

    A network given by name takes the form that the weights are for: timm's have symmetric padding and no bias in the
    stem. An :class:`Arch` keeps its form, classes and channels. A model of torchvision is a
    :class:`~fbnetv3_zoo.models.torchvision_model.TorchvisionModel`; its weights are files, in this project's layout or
    torchvision's own. Raises :class:`ZooError` for an unknown name, for
    arguments and weights that do not fit, and for weights that cannot be fetched.
    """
    if out_indices is not None and not features_only:
        raise ZooError("out_indices selects feature maps; add features_only=True")
    num_classes, in_chans = plain_whole(num_classes), plain_whole(in_chans)
    arch = find_any_network(model)
    if isinstance(arch, TorchvisionArch):
        if features_only:
            raise ZooError(f"{model}: torchvision's models give logits only; features_only is for this project's")
        return _of_torchvision(
            _adapted(arch, num_classes, in_chans), pretrained, cache, drop_rate=drop_rate,
            drop_path_rate=drop_path_rate, generator=generator,
        )  # fmt: skip
    if pretrained is not False:
        empty: Callable[[Arch], FBNet] = partial(skeleton, drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        named = isinstance(model, str) and (model in ARCHS or model in RECORDS)
        if isinstance(pretrained, WeightsFile):
            file = pretrained
        else:
            weights = find_weights(str(model) if named else arch.name, pretrained)
            arch = weights.arch if named and isinstance(weights, WeightsEntry) else arch
            file, empty = _read_beside(empty, arch, weights, WeightsCache() if cache is None else cache)
        network = build(
            file, arch, named=named, num_classes=num_classes, in_chans=in_chans, generator=generator, skeleton=empty
        )
    else:
        arch = _adapted(arch, num_classes, in_chans)
        network = FBNet(arch, drop_rate=drop_rate, drop_path_rate=drop_path_rate, generator=generator)
    return FBNetFeatures(network, out_indices) if features_only else network


def find_any_network(source: str | Path | AnyArch) -> AnyArch:
    """The network that ``source`` names, as :func:`create` takes it."""
    if isinstance(source, TorchvisionArch):
        return source
    if isinstance(source, str) and source not in ARCHS and source not in RECORDS and _is_in_torchvision(source):
        raise ZooError(f"unknown model {source!r} (did you mean '{PREFIX}{source}'?); `fbnetv3 list` shows all of ours")
    return find_torchvision(str(source)) if is_torchvision(source) else find_network(source)


def _is_in_torchvision(name: str) -> bool:
    if not name.isidentifier():
        return False
    import torchvision  # which takes a while

    return name in torchvision.models.list_models()


def _of_torchvision(
    arch: TorchvisionArch, pretrained: bool | str | Path | WeightsFile, cache: WeightsCache | None, *,
    drop_rate: float, drop_path_rate: float, generator: torch.Generator | None,
) -> TorchvisionModel:  # fmt: skip
    """The model ``arch`` with the weights ``pretrained``, if any."""
    if pretrained is False:
        return TorchvisionModel(arch, drop_rate=drop_rate, drop_path_rate=drop_path_rate, generator=generator)
    if pretrained is True or pretrained == COMMERCIAL:
        raise ZooError(f"{arch.name}: its published weights are not fetched here; give a file of them as the weights")
    cache = WeightsCache() if cache is None else cache
    file = pretrained if isinstance(pretrained, WeightsFile) else read_pretrained(arch, pretrained, cache)
    return build_torchvision(file, arch, drop_rate=drop_rate, drop_path_rate=drop_path_rate, generator=generator)


AArch = TypeVar("AArch", Arch, TorchvisionArch)


def _adapted(arch: AArch, num_classes: int | None, in_chans: int | None) -> AArch:
    """``arch`` with another number of classes and image channels, where they are given."""
    return replace(
        arch,
        num_classes=arch.num_classes if num_classes is None else num_classes,
        in_channels=arch.in_channels if in_chans is None else in_chans,
    )


def _read_beside(
    empty: Callable[[Arch], FBNet], arch: Arch, weights: str | Path | WeightsEntry, cache: WeightsCache
) -> tuple[WeightsFile, Callable[[Arch], FBNet]]:
    """The file of ``weights``, and ``empty`` with the network that will most probably be asked of it built already."""
    form = weights.arch if isinstance(weights, WeightsEntry) else arch
    expected = replace(arch, num_classes=form.num_classes, in_channels=form.in_channels)
    with ThreadPoolExecutor(1) as pool:  # reading and hashing leave the interpreter free
        prepared = pool.submit(empty, expected)
        file = read_pretrained(arch, weights, cache)
    return file, lambda arch: prepared.result() if arch == expected else empty(arch)


create_model = create
"""The name of :func:`create` in timm."""
