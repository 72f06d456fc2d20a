"""This project's weight files: safetensors with a :class:`~fbnetv3_zoo.description.Description` beside the tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.atomic import replacing
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.weights.fit import fit_to


def save(model: FBNet, path: str | Path) -> None:
    """Write ``model`` to ``path`` (``.safetensors``), so that :func:`load` restores it from the file alone."""
    if Path(path).suffix != ".safetensors":
        raise ZooError(f"{path}: weights are saved as .safetensors; change the ending")
    metadata = model.description.to_metadata()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_tensors(path, tensors, metadata)


def load(path: str | Path, *, dropout: float = 0.0, stochastic_depth: float = 0.0) -> FBNet:
    """The network stored at ``path`` by :func:`save`, in evaluation mode, with its preprocessing and class names.

    Raises :class:`ZooError` for a missing or damaged file, or one without the network's description.
    """
    tensors, description = _read(path)
    if description is None:
        raise ZooError(f"{path}: does not say which network it is for; use create(MODEL, weights=...)")
    with torch.device("meta"):
        model = FBNet(description.arch, dropout=dropout, stochastic_depth=stochastic_depth)
    model.load_state_dict(fit_to(model, tensors, str(path)), assign=True)
    model.preprocess, model.class_names = description.preprocess, description.class_names
    return model.eval()


def load_into(model: FBNet, path: str | Path) -> None:
    """Load the weights at ``path`` into ``model``; see :func:`fbnetv3_zoo.create`."""
    tensors, description = _read(path)
    if description is not None and not _same_weights(description.arch, model.arch):
        given, wanted = description.arch.name, model.arch.name
        raise ZooError(f"{path}: holds {given}, not {wanted}; name {given} instead, or load() the file alone")
    model.load_state_dict(fit_to(model, tensors, str(path)))
    if description is not None and description.arch.in_channels == model.arch.in_channels:
        model.preprocess = description.preprocess
    if description is not None and description.arch.num_classes == model.arch.num_classes:
        model.class_names = description.class_names


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and metadata entries of the safetensors file at ``path``. Raises :class:`ZooError` if unreadable."""
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"{path}: {'is a folder, not a weight file' if path.is_dir() else 'no such file'}")
    if path.suffix != ".safetensors":
        raise ZooError(f"{path}: weights are read from .safetensors files only")
    try:
        with safe_open(path, framework="pt") as file:
            # copied, because the tensors given are views of the mapped file: they would change, or crash, with it
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ZooError(f"{path}: cannot be read as safetensors ({error}); fetch or save it again") from None


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise ZooError(f"{path}: cannot be written ({error})") from None


def _same_weights(one: Arch, other: Arch) -> bool:
    """Whether the networks differ at most in name, resolution, padding, input channels and classes."""

    def body(arch: Arch) -> tuple[object, int]:
        return arch.with_symmetric_padding().stages, arch.width_divisor

    return body(one) == body(other)


def _read(path: str | Path) -> tuple[dict[str, Tensor], Description | None]:
    tensors, metadata = read_tensors(path)
    try:
        return tensors, Description.from_metadata(metadata)
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None
