"""A network with weights, from wherever they are: published, in a file, at an address, on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..arch import Arch
from ..description import Description
from ..errors import ZooError
from ..models.fbnet import FBNet
from ..preprocess import Preprocess
from ..utils.paths import exists
from ..zoo import ARCHS
from . import hub
from .cache import WeightsCache, sha256_of
from .convert import convert
from .fetch import read
from .registry import RECORDS, WeightsEntry, WeightsSource, find_record, timm_form
from .serialization import describe, parse, read_weights, same_weights
from .state_dict import assemble, skeleton
from .torch_checkpoint import PICKLED, read_any
from .url import identity_of

_REMOTE = ("hf-hub:", "http://", "https://")


@dataclass(frozen=True, slots=True)
class PretrainedRequest:
    """The network that is to get weights.

    ``named``: it was asked for by name, so that the weights decide on what changes none of their tensors (padding,
    resolution), on classes and on channels; else ``arch`` does. The rest is as in :func:`fbnetv3_zoo.create`.
    """

    arch: Arch
    named: bool
    num_classes: int | None = None
    in_chans: int | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    generator: torch.Generator | None = None

    def skeleton(self, arch: Arch) -> FBNet:
        """``arch`` without values, with the regularisation that is wanted."""
        return skeleton(arch, drop_rate=self.drop_rate, drop_path_rate=self.drop_path_rate)

    def build(
        self, tensors: dict[str, Tensor], metadata: dict[str, str], source: str, *, model: FBNet | None = None
    ) -> FBNet:
        """The network with ``tensors``, in training mode; errors begin with ``source``.

        ``model`` is a skeleton made beforehand; it is filled if it is the network that the weights are for.
        """
        description = describe(metadata, source)
        if description is None:
            description, tensors = self._convert(tensors, source)
        found, arch = description.arch, self.arch
        if not same_weights(found, arch) and not (self.named and same_weights(found, timm_form(arch))):
            raise ZooError(f"{source}: holds {_difference(found, arch)}")
        num_classes, in_chans = self.num_classes, self.in_chans
        if not self.named:
            num_classes = arch.num_classes if num_classes is None else num_classes
            in_chans = arch.in_channels if in_chans is None else in_chans
            own = replace(arch, num_classes=found.num_classes, in_channels=found.in_channels)
            description = replace(description, arch=own)
        if model is None or model.arch != description.arch:
            model = self.skeleton(description.arch)
        return assemble(
            model, description, tensors, source, num_classes=num_classes, in_chans=in_chans,
            generator=self.generator,
        )  # fmt: skip

    def _convert(self, tensors: dict[str, Tensor], source: str) -> tuple[Description, dict[str, Tensor]]:
        try:
            arch, converted = convert(self.arch, tensors)
        except ZooError as error:
            raise ZooError(f"{source}: {error}") from None
        return Description(arch, Preprocess.for_arch(arch)), converted


def load_pretrained(wanted: PretrainedRequest, weights: str | Path | WeightsEntry, store: WeightsCache) -> FBNet:
    """The network with ``weights``: a record, or the place of a file as :func:`fbnetv3_zoo.create` takes it."""
    local = (
        None
        if isinstance(weights, WeightsEntry) or not _is_pickled(weights)
        else read_weights(Path(weights).expanduser())
    )
    record = weights if isinstance(weights, WeightsEntry) else _record_of(wanted.arch, weights, local)
    if record is not None:
        own = replace(wanted.arch, num_classes=record.arch.num_classes, in_channels=record.arch.in_channels)
        with ThreadPoolExecutor(1) as pool:  # reading and hashing leave the interpreter free
            model = pool.submit(wanted.skeleton, own)
            data, source = read(record, store, local=local)
            contents = parse(data, source)
        return wanted.build(*contents, source, model=model.result())
    if str(weights).startswith("hf-hub:"):
        contents = parse(hub.contents_of(str(weights), offline=store.offline), str(weights))
    else:
        contents = read_any(Path(str(weights)).expanduser())
    return wanted.build(*contents, str(weights))


def find_weights(network: str, place: str | Path | bool) -> WeightsEntry | str | Path:
    """What ``place`` stands for: the record of a published network's weights, or the place of a file as it is given.

    ``network`` is a network's name, or ``name.tag``; ``place`` is True for the network's first weights, a tag, a path,
    an address, or ``hf-hub:owner/name``. Raises :class:`ZooError` for what is none of these.
    """
    if place is True:
        return find_record(network)
    if not isinstance(place, (str, Path)) or not str(place):
        raise ZooError(f"pretrained is {place!r}; give True, a tag, a path, an address or hf-hub:owner/name")
    name, _, tag = network.partition(".")
    tags = [record.tag for record in RECORDS.values() if record.arch.name == name]
    if place in tags or place in RECORDS:
        record = RECORDS[f"{name}.{place}" if place in tags else str(place)]
        if record.arch.name != name or tag not in ("", record.tag):
            raise ZooError(f"{record.name} are not weights of {network}; name {record.name} as the model")
        return record
    if Path(place).suffix or str(place).startswith(_REMOTE) or exists(place):
        return place
    given = f"a tag ({', '.join(tags)}), a path" if tags else "a path"
    raise ZooError(f"{name}: unknown weights {str(place)!r}; give {given}, an address or hf-hub:owner/name")


def _difference(found: Arch, arch: Arch) -> str:
    if found.name == arch.name:
        return f"another form of {arch.name}; create({arch.name!r}, ...) takes the file's own, or load() the file alone"
    other = f"name {found.name} instead, or " if found.name in ARCHS else ""
    return f"{found.name}, not {arch.name}; {other}load() the file alone (--model FILE)"


def _is_pickled(place: str | Path) -> bool:
    """Whether ``place`` is the path of a checkpoint on this machine."""
    return not str(place).startswith(_REMOTE) and Path(place).suffix.lower() in PICKLED


def _record_of(arch: Arch, place: str | Path, local: bytes | None) -> WeightsEntry | None:
    """A record made up for a file that the store keeps: one at an address, or a pickled one, whose contents ``local``
    are. Others need no store.
    """
    if str(place).startswith(("http://", "https://")):
        address, pin, pinned = str(place).partition("#sha256=")
        if pin and not re.fullmatch(r"[0-9a-fA-F]{8,64}", pinned):
            raise ZooError(f"{address}: no digest follows #sha256=; give 8 to 64 hexadecimal digits")
        tag = f"at_{hashlib.sha256(identity_of(address).encode()).hexdigest()[:16]}"
        source = WeightsSource(address, pinned.lower())
    elif local is not None:
        source, tag = WeightsSource(str(Path(place).expanduser()), sha256_of(local)), "local"
    else:
        return None
    return WeightsEntry(
        tag, arch, (source,), layout=None, license=None, preprocess=Preprocess.for_arch(arch), imagenet_classes=False
    )
