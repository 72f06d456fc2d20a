"""Core ML packages (``.mlpackage``): a folder with a manifest, an ML program and its weights.

On macOS, Core ML runs them, by coremltools; elsewhere they are computed by :mod:`fbnetv3_zoo.runtimes.mil`. They take
one 8-bit image at a time and prepare it themselves.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, in_short
from ..utils.atomic_write import scratch, settled
from ..utils.digest import digest_of
from ..utils.paths import exists, is_file, is_folder, read_file
from . import sandbox
from .base import Floats, OpenModel, checked, described, missing_extra, silence, unreadable

if TYPE_CHECKING:
    from ..preprocess import Preprocess
    from .mil import MLProgram

Levels = npt.NDArray[np.uint8]

KIND = "Core ML package"
ENTRIES = "fbnetv3_zoo."
"""Prefix of our entries in the metadata of a model."""

DIGEST = f"{ENTRIES}weights_blake3"
"""Metadata entry: the digest of the file of weights, in hexadecimal."""

SEAL, SEAL_MARK = f"{ENTRIES}seal", "fbnetv3_zoo blake3 "
"""Metadata entry: :data:`SEAL_MARK` and the digest of the model with zeros in its place; with :data:`DIGEST` it covers
the package."""

INPUT = "image"
MODEL, WEIGHTS = Path("Data/com.apple.CoreML/model.mlmodel"), Path("Data/com.apple.CoreML/weights/weight.bin")
MANIFEST = """{
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {
        "52AEF7D4-3E53-4F05-9C0B-3A0F2D1C7E11": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": "com.apple.CoreML/model.mlmodel"
        },
        "8B6F0D21-6A14-4C7E-8D55-B1E9F4A2C630": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Weights",
            "name": "weights",
            "path": "com.apple.CoreML/weights"
        }
    },
    "rootModelIdentifier": "52AEF7D4-3E53-4F05-9C0B-3A0F2D1C7E11"
}
"""
"""The manifest of every package of ours, whose items have names of their own that no other file refers to."""

_SEAL = re.compile(re.escape(SEAL_MARK.encode()) + rb"([0-9a-f]{64})")
_NO_SEAL = SEAL_MARK.encode() + b"0" * 64
_LARGEST_MODEL = 256 << 20
_APART = 0.02  # levels: how far rounding may take a prepared image from the 8-bit one that it was


def open_coreml(path: Path, *, threads: int | None = None) -> OpenModel:
    """The model in the package ``path``, run by Core ML on macOS, and by torch elsewhere.

    Core ML chooses its own ``threads``; torch applies them to the whole process. Raises
    :class:`~fbnetv3_zoo.errors.ZooError` for a package that is missing, damaged or not of this project.
    """
    parts = read_package(path)
    if not sandbox.known(path.suffix, parts):
        sandbox.try_out(path, KIND, parts)
    try:
        message, program = _parsed(parts)
    except ModuleNotFoundError:
        raise missing_extra(path, "coremltools", "coreml") from None
    except ZooError as error:
        raise unreadable(path, KIND, error) from None
    description = described(entries_of(message), path, "coreml")
    compute = _on_core_ml(path, parts) if runs_core_ml() else _on_torch(program, threads)

    def run(images: Floats) -> Floats:
        return compute(levels_of(images, description.preprocess))

    return checked(path, description, program.sizes, run)


def runs_core_ml() -> bool:
    """Whether this system has Core ML."""
    return sys.platform == "darwin"


def read_package(path: Path) -> tuple[bytes, bytes]:
    """The model and the weights in the package ``path``, whole and of one export.

    Raises :class:`ZooError` if the package is missing, damaged or not of this project.
    """
    (folder,) = settled(path)
    if not is_folder(folder):
        raise ZooError(
            f"{path}: {'is a file, not the folder of a Core ML package' if exists(folder) else 'no such file'}"
        )
    if missing := [name for name in ("Manifest.json", MODEL, WEIGHTS) if not is_file(folder / name)]:
        raise unreadable(path, KIND, f"it has no {missing[0]}")
    manifest = read_file(folder / "Manifest.json", KIND)
    model = read_file(folder / MODEL, KIND, at_most=_LARGEST_MODEL)
    weights = read_file(folder / WEIGHTS, KIND, at_most=sandbox.LARGEST_MODEL)
    check_package(path, manifest, model, weights)
    return model, weights


def check_package(path: Path, manifest: bytes, model: bytes, weights: bytes) -> None:
    """Raise :class:`ZooError` unless these contents of the package ``path`` are undamaged and belong together."""
    seals = _SEAL.findall(model)
    if not seals:
        described({}, path, "coreml")
    if len(seals) > 1 or seals[0].decode() != digest_of(_SEAL.sub(_NO_SEAL, model)):
        raise unreadable(path, KIND, f"{MODEL.name} is damaged: its digest is another")
    if digest_of(weights).encode() not in model:
        raise unreadable(path, KIND, f"{WEIGHTS.name} is damaged or of another model")
    if manifest != MANIFEST.encode():
        raise unreadable(path, KIND, "Manifest.json is damaged")


def write_package(folder: Path, model: bytes, weights: bytes) -> None:
    """Write a package to the empty ``folder``. It is not written atomically: write to a temporary folder first."""
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / MODEL).write_bytes(model)
    (folder / "Manifest.json").write_text(MANIFEST, encoding="ascii")


def sealed(message: Any, entries: dict[str, str], weights: bytes) -> bytes:
    """The message ``Model`` as bytes, with ``entries`` and the digests in its metadata.

    The same message gives the same bytes.
    """
    texts = message.description.metadata.userDefined
    for key, value in entries.items():
        texts[f"{ENTRIES}{key}"] = value
    texts[DIGEST] = digest_of(weights)
    texts[SEAL] = _NO_SEAL.decode()
    data: bytes = message.SerializeToString(deterministic=True)
    if data.count(_NO_SEAL) != 1:
        raise AssertionError("the model holds several empty seals")
    return data.replace(_NO_SEAL, SEAL_MARK.encode() + digest_of(data).encode())


def entries_of(message: Any) -> dict[str, str]:
    """Our entries in the metadata of the message ``Model``."""
    texts = message.description.metadata.userDefined
    return {key.removeprefix(ENTRIES): value for key, value in texts.items() if key.startswith(ENTRIES)}


def prepare() -> None:
    """Import what :func:`try_out` needs."""
    import torch  # noqa: F401

    from . import mil

    mil.definitions()
    if runs_core_ml():
        import coremltools  # noqa: F401


def try_out(parts: Sequence[bytes]) -> None:
    """Compute the logits of a black image; on macOS by Core ML, too."""
    _, program = _parsed(parts)
    black = np.zeros(program.sizes, np.uint8)
    _on_torch(program, 1)(black)
    if runs_core_ml():
        _on_core_ml(Path("model.mlpackage"), parts)(black)


def levels_of(images: Floats, preprocess: Preprocess) -> Levels:
    """The 8-bit images (batch, channels, height, width) that ``preprocess`` normalized to ``images``.

    Raises :class:`ZooError` for images that were none.
    """
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
    levels = (images * std + mean) * np.float32(255)
    whole = np.rint(levels)
    if not np.abs(levels - whole).max() <= _APART or whole.min() < 0 or whole.max() > 255:
        raise ZooError("it takes 8-bit images, and these have other levels than 0 to 255 after normalization")
    exact: Levels = whole.astype(np.uint8)
    return exact


def _parsed(parts: Sequence[bytes]) -> tuple[Any, MLProgram]:
    from .mil import MLProgram, parse

    message = parse(parts[0])
    try:
        return message, MLProgram(message, parts[1])
    except ZooError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ZooError(f"its program is damaged: {in_short(error)}") from None


def _on_torch(program: MLProgram, threads: int | None) -> Callable[[Levels], Floats]:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)

    def compute(images: Levels) -> Floats:
        with torch.inference_mode():
            logits: Floats = program.logits(torch.from_numpy(images).float()).numpy()
        return logits

    return compute


def _on_core_ml(path: Path, parts: Sequence[bytes]) -> Callable[[Levels], Floats]:
    """Needs macOS. Core ML compiles the package, here a copy of the bytes that were checked, when it is opened."""
    from PIL import Image

    try:
        with silence():
            from coremltools.models import MLModel
    except ImportError:
        raise missing_extra(path, "coremltools", "coreml") from None
    try:
        with scratch() as folder, silence():
            package = folder / "model.mlpackage"
            package.mkdir()
            write_package(package, *parts)
            model = MLModel(str(package))
    except Exception as error:  # coremltools raises many kinds
        raise unreadable(path, KIND, error) from None

    def compute(images: Levels) -> Floats:
        pixels = images[0].transpose(1, 2, 0)
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        return np.asarray(model.predict({INPUT: image})["logits"], np.float32).reshape(1, -1)

    return compute
