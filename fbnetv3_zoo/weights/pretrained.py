"""Find and read pretrained weights: published ones, a file, an address, the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..arch import Arch
from ..arch.torchvision_arch import AnyArch, TorchvisionArch
from ..description import Description
from ..errors import ZooError
from ..models.fbnet import FBNet
from ..models.torchvision_model import TorchvisionModel, classifier_tensors
from ..preprocess import Preprocess
from ..utils.paths import exists
from ..zoo import ARCHS
from . import hub
from .cache import WeightsCache, sha256_of
from .convert import convert
from .fetch import read
from .registry import RECORDS, WeightsEntry, WeightsSource, find_commercial, find_record, timm_form
from .serialization import WeightsFile, parse, read_weights, same_weights
from .state_dict import assemble, skeleton
from .torch_checkpoint import PICKLED, read_any
from .url import identity_of

COMMERCIAL = "commercial"
"""The weights to ask for where only those will do that may be used commercially."""

_REMOTE = ("hf-hub:", "http://", "https://")


def read_pretrained(arch: AnyArch, weights: str | Path | WeightsEntry, cache: WeightsCache) -> WeightsFile:
    """The file with ``weights`` for ``arch``: a record, or a source as accepted by :func:`fbnetv3_zoo.create`."""
    if isinstance(weights, WeightsEntry):
        return read(weights, cache)
    if isinstance(arch, TorchvisionArch) and str(weights).startswith(("http://", "https://")):
        raise ZooError(f"{weights}: weights of torchvision's models are not fetched here; give a file of them")
    local = read_weights(Path(weights).expanduser()) if _is_pickled(weights) else None
    if not isinstance(arch, TorchvisionArch) and (record := _record_of(arch, weights, local)) is not None:
        return read(record, cache, local=local)
    if str(weights).startswith("hf-hub:"):
        return parse(hub.contents_of(str(weights), offline=cache.offline), str(weights))
    return replace(read_any(Path(weights).expanduser()), name=str(weights))


def build(
    file: WeightsFile, arch: Arch, *, named: bool, num_classes: int | None = None, in_chans: int | None = None,
    generator: torch.Generator | None = None, skeleton: Callable[[Arch], FBNet] = skeleton,
) -> FBNet:  # fmt: skip
    """The network ``arch`` with the weights in ``file``, in training mode.

    Args:
        file: weights in any layout. It must not be used again: the network owns its tensors.
        arch: the network.
        named: whether it was given by name. Then the weights determine padding, resolution, classes and channels;
            otherwise ``arch`` does.
        num_classes: as in :func:`fbnetv3_zoo.create`, like the two that follow.
        in_chans: see there.
        generator: see there.
        skeleton: builds a network without values, like :func:`~fbnetv3_zoo.weights.state_dict.skeleton`.
    """
    description, tensors = file.description, file.tensors
    if description is None:
        try:
            converted, tensors = convert(arch, tensors)
        except ZooError as error:
            raise ZooError(f"{file.name}: {error}") from None
        description = Description(converted, Preprocess.for_arch(converted))
    form = description.arch
    fits = same_weights(form, arch) or (named and same_weights(form, timm_form(arch)))
    if isinstance(form, TorchvisionArch) or not fits:
        raise ZooError(f"{file.name}: holds {_difference(form, arch)}")
    if not named:
        num_classes = arch.num_classes if num_classes is None else num_classes
        in_chans = arch.in_channels if in_chans is None else in_chans
        form = replace(arch, num_classes=form.num_classes, in_channels=form.in_channels)
        description = replace(description, arch=form)
    return assemble(
        skeleton(form), description, tensors, file.name, num_classes=num_classes, in_chans=in_chans,
        generator=generator,
    )  # fmt: skip


def build_torchvision(
    file: WeightsFile, arch: TorchvisionArch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
    generator: torch.Generator | None = None,
) -> TorchvisionModel:  # fmt: skip
    """The model ``arch`` of torchvision with the weights in ``file``, in training mode; as :func:`build`.

    A file without a description must be a state dict of torchvision's, such as those that torchvision publishes.
    """
    description, tensors = file.description, file.tensors
    if description is None:
        tensors = {f"inner.{key}": value for key, value in tensors.items()}
        classes = next((len(tensors[key]) for key in classifier_tensors(arch) if key in tensors), arch.num_classes)
        description = Description(replace(arch, num_classes=classes), Preprocess.for_arch(arch))
    if not same_weights(description.arch, arch):
        raise ZooError(f"{file.name}: holds {_difference(description.arch, arch)}")
    form = replace(arch, num_classes=description.arch.num_classes, in_channels=description.arch.in_channels)
    model = TorchvisionModel(form, drop_rate=drop_rate, drop_path_rate=drop_path_rate, empty=True)
    return assemble(
        model, replace(description, arch=form), tensors, file.name, num_classes=arch.num_classes,
        in_chans=arch.in_channels, generator=generator,
    )  # fmt: skip


def find_weights(network: str, source: str | Path | bool) -> WeightsEntry | str | Path:
    """The weights given by ``source``: the record of published weights, or the source of a file, unchanged.

    ``network`` is the name of a network, or ``name.tag``; ``source`` is True for the network's first weights,
    ``"commercial"`` for the best ones that may be used commercially, a tag, a path, an address, or
    ``hf-hub:owner/name``. Raises :class:`ZooError` for anything else.
    """
    if source is True:
        return find_record(network)
    if source == COMMERCIAL:
        return find_commercial(network)
    if not isinstance(source, (str, Path)) or not str(source):
        raise ZooError(f"pretrained is {source!r}; give True, a tag, a path, an address or hf-hub:owner/name")
    name, _, tag = network.partition(".")
    tags = [record.tag for record in RECORDS.values() if record.arch.name == name]
    if source in tags or source in RECORDS:
        record = RECORDS[f"{name}.{source}" if source in tags else str(source)]
        if record.arch.name != name or tag not in ("", record.tag):
            raise ZooError(f"{record.name} are not weights of {network}; name {record.name} as the model")
        return record
    if Path(source).suffix or str(source).startswith(_REMOTE) or exists(source):
        return source
    given = f"a tag ({', '.join(tags)}), a path" if tags else "a path"
    raise ZooError(f"{name}: unknown weights {str(source)!r}; give {given}, an address or hf-hub:owner/name")


def _difference(other_arch: AnyArch, arch: AnyArch) -> str:
    if other_arch.name == arch.name:
        return f"another form of {arch.name}; create({arch.name!r}, ...) takes the file's own, or load() the file alone"
    other = f"name {other_arch.name} instead, or " if other_arch.name in ARCHS else ""
    return f"{other_arch.name}, not {arch.name}; {other}load() the file alone (--model FILE)"


def _is_pickled(source: str | Path) -> bool:
    """Whether ``source`` is the path of a checkpoint on this machine."""
    return not str(source).startswith(_REMOTE) and Path(source).suffix.lower() in PICKLED


def _record_of(arch: Arch, location: str | Path, local: bytes | None) -> WeightsEntry | None:
    """A record made up for a file that the cache keeps: one at an address, or a pickled one, whose contents ``local``
    are. Others need no cache.
    """
    if str(location).startswith(("http://", "https://")):
        address, pin, pinned = str(location).partition("#sha256=")
        if pin and not re.fullmatch(r"[0-9a-fA-F]{8,64}", pinned):
            raise ZooError(f"{address}: no digest follows #sha256=; give 8 to 64 hexadecimal digits")
        tag = f"at_{hashlib.sha256(identity_of(address).encode()).hexdigest()[:16]}"
        source = WeightsSource(address, pinned.lower())
    elif local is not None:
        source, tag = WeightsSource(str(Path(location).expanduser()), sha256_of(local)), "local"
    else:
        return None
    return WeightsEntry(
        tag, arch, (source,), layout=None, license=None, preprocess=Preprocess.for_arch(arch), imagenet_classes=False
    )
