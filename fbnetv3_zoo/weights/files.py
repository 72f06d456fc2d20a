"""This project's weight files: safetensors holding network, preprocessing and class names beside the tensors."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.plain import from_plain, to_plain
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.weights.fit import fit_to

FORMAT, VERSION = "fbnetv3_zoo", "1"


@dataclass(frozen=True, slots=True)
class _Content:
    tensors: dict[str, Tensor]
    arch: Arch | None
    preprocess: Preprocess | None
    class_names: tuple[str, ...] | None


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, moved over it when the block ends well and removed otherwise.

    The bytes reach the disk before the move: a reader sees the old file or the whole new one, whatever happens.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error.strerror})") from None
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def save(model: FBNet, path: str | Path) -> None:
    """Write ``model`` to ``path`` (``.safetensors``), so that :func:`load` restores it from the file alone."""
    if Path(path).suffix != ".safetensors":
        raise ZooError(f"{path}: weights are saved as .safetensors; change the ending")
    metadata = {
        "format": FORMAT,
        "format_version": VERSION,
        "arch": model.arch.to_json(),
        "preprocess": json.dumps(to_plain(model.preprocess)),
        "class_names": json.dumps(model.class_names),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise ZooError(f"{path}: cannot be written ({error})") from None


def load(path: str | Path, *, dropout: float = 0.0, stochastic_depth: float = 0.0) -> FBNet:
    """The network stored at ``path`` by :func:`save`, in evaluation mode, with its preprocessing and class names.

    Raises :class:`ZooError` for a missing or damaged file, or one without the network's description.
    """
    content = _read(path)
    if content.arch is None:
        raise ZooError(f"{path}: does not say which network it is for; use create(MODEL, weights={str(path)!r})")
    with torch.device("meta"):
        model = FBNet(content.arch, dropout=dropout, stochastic_depth=stochastic_depth)
    _adopt(model, fit_to(model, content.tensors, str(path)), content)
    return model.eval()


def load_into(model: FBNet, path: str | Path) -> None:
    """Load the weights at ``path`` into ``model``; see :func:`fbnetv3_zoo.create`."""
    content = _read(path)
    given, wanted = content.arch, model.arch
    if given is not None and not _same_body(given, wanted):
        raise ZooError(
            f"{path}: holds {given.name}, not {wanted.name}; create({given.name!r}, weights=...) or load() it"
        )
    _adopt(model, fit_to(model, content.tensors, str(path)), content)


def _same_body(one: Arch, other: Arch) -> bool:
    body = {"name": "any", "in_channels": 1, "num_classes": 1, "resolution": max(one.resolution, other.resolution)}
    return replace(one.with_symmetric_padding(), **body) == replace(other.with_symmetric_padding(), **body)  # type: ignore[arg-type]


def _adopt(model: FBNet, tensors: dict[str, Tensor], content: _Content) -> None:
    model.load_state_dict(tensors, assign=model.classifier.weight.is_meta)
    if content.preprocess is not None and len(content.preprocess.mean) == model.arch.in_channels:
        model.preprocess = content.preprocess
    if content.class_names is not None and len(content.class_names) == model.arch.num_classes:
        model.class_names = content.class_names


def _read(path: str | Path) -> _Content:
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"{path}: {'is a folder, not a weight file' if path.is_dir() else 'no such file'}")
    if path.suffix != ".safetensors":
        raise ZooError(f"{path}: weights are read from .safetensors files only")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ZooError(f"{path}: cannot be read as safetensors ({error}); fetch or save it again") from None
    if metadata.get("format") != FORMAT:
        return _Content(tensors, None, None, None)
    if metadata.get("format_version") != VERSION:
        found = metadata.get("format_version")
        raise ZooError(f"{path}: has format version {found!r}; this release reads {VERSION!r}, upgrade fbnetv3-zoo")
    return _Content(tensors, *_described(metadata, path))


def _described(metadata: dict[str, str], path: Path) -> tuple[Arch, Preprocess, tuple[str, ...] | None]:
    try:
        arch = Arch.from_json(metadata["arch"])
        preprocess = from_plain(Preprocess, json.loads(metadata["preprocess"]), "preprocess")
        names: Any = json.loads(metadata["class_names"])
        listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if names is not None and not (listed and len(names) == arch.num_classes):
            raise ZooError(f"class_names is not a list of {arch.num_classes} names")
    except (KeyError, ZooError, ValueError) as error:
        raise ZooError(f"{path}: damaged description ({error})") from None
    return arch, preprocess, None if names is None else tuple(names)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
