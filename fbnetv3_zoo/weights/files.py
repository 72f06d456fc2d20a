"""This project's weight files: safetensors with a :class:`~fbnetv3_zoo.description.Description` beside the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.atomic import replacing
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError, in_short
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.paths import check_file, read_file
from fbnetv3_zoo.reproducible import in_order
from fbnetv3_zoo.weights import hub
from fbnetv3_zoo.weights.fit import assemble, skeleton
from fbnetv3_zoo.weights.store import LARGEST_FILE, Store

# What safetensors and torch raise for damaged headers: found by 20,000 of them (tests/fuzz_headers.py).
_UNREADABLE = (SafetensorError, ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)


def save(model: FBNet, path: str | Path) -> None:
    """Write ``model`` to ``path`` (``.safetensors``), so that :func:`load` restores it from the file alone."""
    if Path(path).suffix != ".safetensors":
        raise ZooError(f"{path}: weights are saved as .safetensors; change the ending")
    metadata = model.description.to_metadata()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_tensors(path, tensors, metadata)


def load(path: str | Path, *, dropout: float = 0.0, stochastic_depth: float = 0.0) -> FBNet:
    """The network stored at ``path`` by :func:`save`, in evaluation mode, with its preprocessing and class names.

    ``path`` may also be ``hf-hub:owner/name``, a repository made by :func:`fbnetv3_zoo.save_pretrained`. Raises
    :class:`ZooError` for a missing or damaged file, or one without the network's description.
    """
    if str(path).startswith("hf-hub:"):
        tensors, metadata = parse(hub.contents_of(str(path), offline=Store().offline), str(path))
    else:
        tensors, metadata = read_tensors(path)
    description = describe(metadata, str(path))
    if description is None:
        raise ZooError(f"{path}: does not say which network it is for; use create(MODEL, pretrained=...)")
    model = skeleton(description.arch, dropout=dropout, stochastic_depth=stochastic_depth)
    return assemble(model, description, tensors, str(path)).eval()


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and metadata entries of the safetensors file at ``path``. Raises :class:`ZooError`."""
    check_file(path, "a weight file")
    if Path(path).suffix != ".safetensors":
        raise ZooError(f"{path}: weights are read from .safetensors files only")
    return parse(read_weights(path), str(path))


def read_weights(path: str | Path) -> bytes:
    """The contents of a file of weights, read once: what is checked of them is what is used."""
    return read_file(path, "a weight file", at_most=LARGEST_FILE)


def parse(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and metadata entries of a safetensors file's contents; the tensors have memory of their own."""
    try:
        tensors = from_bytes(data)
    except _UNREADABLE as error:
        raise ZooError(f"{name}: cannot be read as safetensors ({in_short(error)}); fetch or save it again") from None
    if unfit := next((key for key in tensors if not key.isprintable()), None):
        raise ZooError(f"{name}: cannot be read as safetensors ({unfit[:80]!r} is no tensor's name); save it again")
    return tensors, entries_of(data)


def entries_of(data: bytes) -> dict[str, str]:
    """The metadata entries in a sound safetensors file's contents."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    entries: dict[str, str] = header.get("__metadata__") or {}
    return entries


def describe(metadata: Mapping[str, str], name: str) -> Description | None:
    """The description among a file's metadata, None where it has none; errors begin with ``name``."""
    try:
        return Description.from_metadata(metadata)
    except ZooError as error:
        raise ZooError(f"{name}: {error}") from None


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all; of the same tensors and entries, the same bytes."""
    try:
        data = in_order(to_bytes(tensors, metadata))
    except SafetensorError as error:
        raise ZooError(f"{path}: cannot be written ({in_short(error)})") from None
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def same_weights(one: Arch, other: Arch) -> bool:
    """Whether the networks differ at most in name, resolution, padding, input channels and classes."""

    def body(arch: Arch) -> tuple[object, int]:
        return arch.with_symmetric_padding().stages, arch.width_divisor

    return body(one) == body(other)
