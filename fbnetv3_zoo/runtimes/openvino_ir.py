"""OpenVINO's intermediate representation: a ``.xml`` file, and its weights in a ``.bin`` file of the same name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ZooError
from ..utils.atomic_write import settled
from ..utils.digest import digest_of
from ..utils.paths import check_file, is_file, read_file
from . import sandbox
from .base import Floats, OpenModel, check_shape, checked, described, missing_extra, silence, unreadable

if TYPE_CHECKING:
    import openvino

KIND = "OpenVINO IR"
SECTION = "fbnetv3_zoo"
"""Section of a model's ``rt_info`` with its metadata."""

DIGEST = "weights_blake3"
"""Metadata entry: the digest of the ``.bin`` file, in hexadecimal."""

SEAL, NO_SEAL = "seal_blake3", b"0" * 64
"""Metadata entry: the digest of the ``.xml`` file with zeros in its place; with :data:`DIGEST` it covers both files."""

_LARGEST_TEXT = 256 << 20


def open_openvino(path: Path, *, threads: int | None = None, bfloat16: bool = False) -> OpenModel:
    """The model in ``path`` (``.xml``) and its ``.bin`` file, run one batch at a time.

    Runs in ``threads`` threads (default: OpenVINO's choice), in float32 unless ``bfloat16``. Raises :class:`ZooError`
    for files that are missing, damaged or not of this project, and if the processor does not support bfloat16.
    """
    text, weights = read_pair(path)
    model = _parsed(path, text, weights)
    entries = entries_of(model)
    description = described(entries, path, "openvino")
    if len(model.inputs) != 1 or model.input(0).get_element_type().get_type_name() != "f32":
        raise unreadable(path, KIND, "it does not take one batch of float32 images")
    request = _compiled(model, path, threads, bfloat16).create_infer_request()

    def run(images: Floats) -> Floats:
        logits: Floats = request.infer([images], share_inputs=True)[0].copy()
        return logits

    sizes = [axis.get_length() if axis.is_static else None for axis in model.input(0).get_partial_shape()]
    return checked(path, description, sizes, run)


def read_pair(path: Path) -> tuple[bytes, bytes]:
    """The contents of the ``.xml`` file ``path`` and of its ``.bin`` file, checked and tried out.

    Raises :class:`ZooError` if they are missing, damaged or of different models, or if opening them crashes a process.
    """
    check_file(path, "a model file")
    file, beside = settled(path, path.with_suffix(".bin"))
    if not is_file(beside):
        raise ZooError(f"{path}: its weights are missing; put {beside.name} beside it")
    text = read_file(file, "a model file", at_most=_LARGEST_TEXT)
    if b"<net" not in text[:1000]:
        raise unreadable(path, KIND, "no network in it")
    try:
        text.decode()
    except UnicodeDecodeError:
        raise unreadable(path, KIND, "it is not UTF-8 text") from None
    weights = read_file(beside, "a model file", at_most=sandbox.LARGEST_MODEL)
    check_pair(path, text, weights)
    if not sandbox.known(".xml", (text, weights)):
        sandbox.try_out(path, KIND, (text, weights))
    return text, weights


def _parsed(path: Path, text: bytes, weights: bytes) -> openvino.Model:
    try:
        import openvino
    except ImportError:
        raise missing_extra(path, "OpenVINO", "openvino") from None
    try:
        with silence():  # if it is damaged, readers for other formats are tried, and print messages
            return openvino.Core().read_model(text, weights)
    except Exception as error:
        raise unreadable(path, KIND, _reason(error)) from None


def prepare() -> None:
    """Import what :func:`try_out` needs."""
    import openvino

    openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # loads the plugin for this processor


def try_out(parts: Sequence[bytes]) -> None:
    """Open the contents of both files and run the smallest batch, of zeros."""
    import numpy as np
    import openvino

    with silence():
        core = openvino.Core()
        model = core.read_model(parts[0], parts[1])
        shapes = [value.get_partial_shape() for value in model.inputs]
        sizes = [[axis.get_length() if axis.is_static else 1 for axis in shape] for shape in shapes]
        for shape in sizes:
            check_shape(shape)
        compiled = core.compile_model(model, "CPU", cpu_settings(1))
        free = [n for n, shape in enumerate(shapes) if any(not axis.is_static for axis in list(shape)[1:])]
        if not free:
            compiled.create_infer_request().infer([np.zeros(shape, np.float32) for shape in sizes])


def entries_of(model: openvino.Model) -> dict[str, str]:
    """The metadata in ``model``; empty if it is not of this project."""
    if not model.has_rt_info([SECTION]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([SECTION]).value.items()}


def check_pair(path: Path, text: bytes, weights: bytes) -> None:
    """Raise :class:`ZooError` if the digests in ``text`` are not those of ``text`` and ``weights``."""
    match = _entry(DIGEST).search(text)
    if match is not None and match[1].decode() != digest_of(weights):
        raise unreadable(path, KIND, f"{path.with_suffix('.bin').name} is damaged or of another model")
    match = _entry(SEAL).search(text)
    if match is not None and match[1].decode() != digest_of(unsealed(text)):
        raise unreadable(path, KIND, "it is damaged: its digest is another")


def unsealed(text: bytes) -> bytes:
    """``text``, the content of a ``.xml`` file, with zeros instead of its seal."""
    return _entry(SEAL).sub(lambda found: found[0].replace(found[1], NO_SEAL), text)


def sealed(text: bytes) -> bytes:
    """``text``, whose seal is empty (zeros), with its digest filled in."""
    if len(_entry(SEAL).findall(text)) != 1:
        raise AssertionError("the model holds no empty seal, or several")
    return _entry(SEAL).sub(lambda found: found[0].replace(NO_SEAL, digest_of(text).encode()), text)


def _entry(name: str) -> re.Pattern[bytes]:
    """A pattern for the digest in the metadata entry ``name`` of a ``.xml`` file."""
    return re.compile(rb"<" + name.encode() + rb'\s+value="([0-9a-f]{64})"')


def cpu_settings(threads: int | None = None, *, bfloat16: bool = False) -> dict[str, str | int]:
    """OpenVINO's settings for one batch at a time, by ``threads`` threads (default: OpenVINO's choice)."""
    settings: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    return settings if threads is None else {**settings, "INFERENCE_NUM_THREADS": threads}


def _compiled(model: openvino.Model, path: Path, threads: int | None, bfloat16: bool) -> openvino.CompiledModel:
    import openvino

    core = openvino.Core()
    if bfloat16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ZooError(f"{path}: this processor does not compute in bfloat16; leave bfloat16 out")
    try:
        return core.compile_model(model, "CPU", cpu_settings(threads, bfloat16=bfloat16))
    except Exception as error:
        raise unreadable(path, KIND, _reason(error)) from None


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message, which says what is wrong; others name places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
