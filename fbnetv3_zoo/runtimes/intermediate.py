"""OpenVINO's intermediate representation: a ``.xml`` file with its weights in the ``.bin`` file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.atomic import settled
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.runtimes.opened import (
    Floats,
    Opened,
    check_file,
    checked,
    described,
    missing_extra,
    silence,
    unreadable,
)

if TYPE_CHECKING:
    import openvino

KIND = "OpenVINO IR"
SECTION = "fbnetv3_zoo"
"""Part of a model's ``rt_info`` that holds the entries of its description."""

DIGEST = "weights_blake3"
"""Entry with the digest of the ``.bin`` file, in hexadecimal."""


def open_intermediate(path: Path, *, threads: int | None = None, bfloat16: bool = False) -> Opened:
    """The model in ``path`` (``.xml``, with its ``.bin`` beside it), set for one batch at a time.

    It is computed by ``threads`` threads (default: OpenVINO's choice), in float32 unless ``bfloat16``.

    Raises :class:`ZooError` for files that are missing, damaged or not of this project, and where the processor does
    not compute in bfloat16.
    """
    model = read_model(path)
    entries = entries_of(model)
    description = described(entries, path, "openvino")
    if len(model.inputs) != 1 or model.input(0).get_element_type().get_type_name() != "f32":
        raise unreadable(path, KIND, "it does not take one batch of float32 images")
    check_weights(path, entries)
    request = _compiled(model, path, threads, bfloat16).create_infer_request()

    def run(images: Floats) -> Floats:
        logits: Floats = request.infer([images], share_inputs=True)[0].copy()
        return logits

    sizes = [axis.get_length() if axis.is_static else None for axis in model.input(0).get_partial_shape()]
    return checked(path, description, sizes, run)


def read_model(path: Path) -> openvino.Model:
    """The model in ``path``, a ``.xml`` file, as OpenVINO has it."""
    check_file(path)
    file, weights = settled(path, path.with_suffix(".bin"))
    if not weights.is_file():
        raise ZooError(f"{path}: its weights are missing; put {weights.name} beside it")
    if b"<net" not in file.read_bytes()[:1000]:
        raise unreadable(path, KIND, "no network in it")
    try:
        import openvino
    except ImportError:
        raise missing_extra(path, "OpenVINO", "openvino") from None
    try:
        with silence():  # where it is damaged, the readers for other formats are tried, and talk
            return openvino.Core().read_model(file, weights)
    except Exception as error:
        raise unreadable(path, KIND, _reason(error)) from None


def entries_of(model: openvino.Model) -> dict[str, str]:
    """The entries of the description in ``model``; none where it is not of this project."""
    if not model.has_rt_info([SECTION]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([SECTION]).value.items()}


def check_weights(path: Path, entries: dict[str, str]) -> None:
    """Raise unless the ``.bin`` beside ``path`` is the one that was written with it."""
    expected = entries.get(DIGEST)
    if expected is not None and digest(settled(path, path.with_suffix(".bin"))[1]) != expected:
        raise unreadable(path, KIND, f"{path.with_suffix('.bin').name} is damaged or of another model")


def digest(path: Path) -> str:
    """The BLAKE3 digest of a file, in hexadecimal."""
    import blake3

    return blake3.blake3(path.read_bytes()).hexdigest()


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
    """The line in which OpenVINO says what is wrong: the last one, after those that say where in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
