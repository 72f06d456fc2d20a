"""Static int8 quantisation of a float ONNX file for ONNX Runtime or OpenVINO, evaluated on images and timed."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError, check_number, check_whole
from fbnetv3_zoo.preprocess import stack
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.utils.hardware import cpu_info
from fbnetv3_zoo.utils.onnx_io import entries_of, read_graph

from .calibration import LEAST_IMAGES, ValueRange, check_enough, find_ranges, read_calibration
from .gptq import input_moments
from .qdq import Activations, Logits, QDQSettings, WholeWeight, layers_of, logits_of, observed, quantised, whole_weights
from .sensitivity import by_sensitivity

if TYPE_CHECKING:
    from PIL import Image

Floats = npt.NDArray[np.float32]
ROUNDS = 25
RANKED_ON = 8
"""Number of calibration images for ranking layers by sensitivity."""


class Target(Enum):
    """The processors for which an int8 file is written; they differ in the range of integers."""

    AVX2 = "avx2"
    """x86 without VNNI: 7-bit weights, since two products are added in 16 bits, which 8 bits would overflow."""

    VNNI = "vnni"
    """x86 with AVX-512 VNNI or AVX-VNNI: 8-bit weights."""

    ARM64 = "arm64"
    """64-bit ARM: signed weights and maps."""

    @classmethod
    def here(cls) -> Target:
        """The target for this machine."""
        if platform.machine().lower() in ("arm64", "aarch64"):
            return cls.ARM64
        flags = cpu_info()
        return cls.VNNI if "avx512_vnni" in flags or "avx_vnni" in flags else cls.AVX2

    @property
    def activations(self) -> Activations:
        """Integer type of the maps."""
        return Activations.INT8 if self is Target.ARM64 else Activations.UINT8

    @property
    def weight_levels(self) -> int:
        """The largest absolute value of an integer weight."""
        return 63 if self is Target.AVX2 else 127


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """Accuracy, size and speed of an int8 file compared with float, on the same images and this machine.

    ``agreement`` is the fraction of ``images`` test images with the same top class in int8 and float; the accuracies
    are None if no labels were given. ``float_layers`` stayed in float. ``size_ratio`` and ``time_ratio`` are int8 over
    float (one image, one thread, alternating runs: median of the ratios, and their quartiles).
    """

    path: Path
    route: str
    target: Target
    calibrated_on: int
    images: int
    agreement: float
    accuracy_float: float | None
    accuracy_int8: float | None
    float_layers: tuple[str, ...]
    file_size: int
    size_ratio: float
    time_ratio: float
    time_quartiles: tuple[float, float]


def quantize(
    source: str | Path, output: str | Path, images: str | Path | Sequence[Image.Image] | Floats, *,
    target: Target | None = None, clip: bool = True, keep: Collection[str] = (), agreement: float = 0.99,
    most_float: int = 16, test: Sequence[Image.Image] | Floats | None = None, labels: Sequence[int] | None = None,
) -> QuantizationReport:  # fmt: skip
    """Quantise the float file ``source`` to int8; the extension of ``output`` selects the runtime.

    ``.onnx`` is for ONNX Runtime: all maps in int8, including hard swish (:mod:`fbnetv3_zoo.export.quantization.qdq`).
    ``.xml`` (with ``.bin``) is for OpenVINO, by NNCF: convolutions that gain from it in int8, the rest in float.

    Args:
        source: an ``.onnx`` file of :func:`fbnetv3_zoo.export.export_onnx` without preprocessing in the graph; or any
            other with one input, one output and folded norms, with images given as arrays.
        output: file to write.
        images: calibration images like those the network will be used on, or a folder of them; at least 8, better 100.
            An array has them preprocessed, in shape (images, channels, height, width).
        target: processors to write for (default: this machine's).
        clip: clip rare large values of maps if that makes the error smaller (for ONNX Runtime; NNCF's ways of doing so
            cost more than they gain).
        keep: names of convolutions to leave in float.
        agreement: required fraction of calibration images with the same top class in int8 and float. If it is not
            reached, the most sensitive layers are left in float.
        most_float: maximum number of layers to leave in float for that.
        test: images to compare on, given like ``images`` (default: the calibration images).
        labels: classes of the test images, for accuracies.

    Raises :class:`ZooError` for unsuitable files, too few images or a missing extra, and then leaves no file.
    """
    source, output = Path(source), Path(output)
    if output.suffix not in (".onnx", ".xml"):
        raise ZooError(f"{output}: int8 files end in .onnx (ONNX Runtime) or .xml (OpenVINO); change the extension")
    if output.resolve() == source.resolve():
        raise ZooError(f"{output}: is the float file itself; give another name for the int8 file")
    check_number("agreement", agreement, at_least=0, at_most=1)
    check_whole("most_float", most_float, at_least=0)
    count = 0 if test is None else len(test)
    if labels is not None and (count == 0 or len(labels) != count):
        raise ZooError(f"labels has {len(labels)} entries for {count} test images; give one per image")
    model = _read_float(source, keep)
    batch = _prepared(model, source, read_calibration(images) if isinstance(images, (str, Path)) else images)
    compared = _prepared(model, source, test, at_least=1) if test is not None and count else batch
    target = Target.here() if target is None else target
    settings = QDQSettings(target.activations, target.weight_levels)
    work = _Calibrated(model, batch, settings, clip=clip)
    build: Callable[[frozenset[str]], Int8Model] = work.build
    in_float: Collection[str] = ()
    if output.suffix == ".xml":
        from .openvino_nncf import IntermediateBuild

        intermediate = IntermediateBuild(
            str(source), model, batch, weights=work.weights, weight_levels=target.weight_levels
        )
        build, in_float = intermediate, intermediate.unworthy
    floats = logits_of(model)
    calibrated = floats(batch)
    candidate, floating = _good_enough(
        build, batch, calibrated, frozenset(keep), agreement=agreement, most_float=most_float,
        order=lambda: work.order(but=in_float),
    )  # fmt: skip
    expected, found = calibrated if compared is batch else floats(compared), candidate.logits()(compared)
    truth = None if labels is None else np.asarray(labels)
    low, middle, high = statistics.quantiles(_time_ratios(candidate, model, compared[:1]), n=4)
    float_size = source.stat().st_size
    made_by = f"int8 for {target.value}, {len(batch)} calibration images, {len(floating)} layers in float"
    size = candidate.save(output, {**entries_of(model), "quantised_by": made_by})
    return QuantizationReport(
        path=output,
        route="ONNX Runtime" if output.suffix == ".onnx" else "OpenVINO",
        target=target,
        calibrated_on=len(batch),
        images=len(compared),
        agreement=_agreement(found, expected),
        accuracy_float=None if truth is None else float((expected.argmax(1) == truth).mean()),
        accuracy_int8=None if truth is None else float((found.argmax(1) == truth).mean()),
        float_layers=tuple(sorted(floating)),
        file_size=size,
        size_ratio=size / float_size,
        time_ratio=middle,
        time_quartiles=(low, high),
    )


class Int8Model(Protocol):
    """An int8 model in memory."""

    def logits(self, *, threads: int | None = None) -> Logits:
        """A function from images (images, channels, height, width) to logits."""

    def save(self, path: Path, entries: Mapping[str, str]) -> int:
        """Write it with ``entries`` as metadata; returns the size in bytes."""


@dataclass(frozen=True, slots=True)
class _Graph:
    """A candidate for ONNX Runtime."""

    model: onnx.ModelProto

    def logits(self, *, threads: int | None = None) -> Logits:
        return logits_of(self.model, threads=threads)

    def save(self, path: Path, entries: Mapping[str, str]) -> int:
        onnx.helper.set_model_props(self.model, dict(entries))
        onnx.checker.check_model(self.model, full_check=True)
        with replacing(path) as temporary:
            onnx.save_model(self.model, temporary)
        return path.stat().st_size


class _Calibrated:
    """What int8 graphs for ONNX Runtime are built from, computed on first use."""

    def __init__(self, model: onnx.ModelProto, images: Floats, settings: QDQSettings, *, clip: bool) -> None:
        self._model, self._images, self._settings, self._clip = model, images, settings, clip

    def build(self, keep: frozenset[str]) -> _Graph:
        return _Graph(quantised(self._model, self._ranges, self.weights, self._settings, keep=keep))

    def order(self, *, but: Collection[str]) -> list[str]:
        images = self._images[:RANKED_ON]
        return by_sensitivity(self._model, self._ranges, self.weights, self._settings, images, but=but)

    @cached_property
    def _ranges(self) -> dict[str, ValueRange]:
        return find_ranges(self._model, self._images, observed(self._model.graph), clip=self._clip)

    @cached_property
    def weights(self) -> dict[str, WholeWeight]:
        """The int8 weights by layer name."""
        moments = input_moments(self._model, layers_of(self._model), self._images)
        return whole_weights(self._model, self._settings, moments=moments)


def _read_float(source: Path, keep: Collection[str]) -> onnx.ModelProto:
    model = read_graph(source)
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise ZooError(f"{source}: has several inputs or outputs; give a network with one of each")
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ZooError(f"{source}: is already quantised; give the float file")
    takes = model.graph.input[0].type.tensor_type
    axes = takes.shape.dim
    if takes.elem_type != onnx.TensorProto.FLOAT or len(axes) != 4:
        raise ZooError(f"{source}: does not take batches of float images; export it without preprocessing")
    if axes[0].dim_value:
        raise ZooError(f"{source}: takes batches of {axes[0].dim_value} only; export it for batches of any size")
    layers = {layer.name for layer in layers_of(model)}
    if unknown := sorted(set(keep) - layers):
        raise ZooError(
            f"{source}: has no layer {unknown[0]!r} to keep in float; layers have names like "
            f"{min(layers, default='none')!r}"
        )
    return model


def _prepared(
    model: onnx.ModelProto, source: Path, images: Sequence[Image.Image] | Floats, *, at_least: int = LEAST_IMAGES
) -> Floats:
    """``images``, preprocessed for the network."""
    check_enough(len(images), "images", at_least=at_least)
    if isinstance(images, np.ndarray):
        takes = [axis.dim_value or axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim]
        fits = images.ndim == 4 and all(
            isinstance(wanted, str) or wanted == side for wanted, side in zip(takes, images.shape, strict=True)
        )
        if not fits or images.dtype != np.float32:
            shown = ", ".join(map(str, takes))
            raise ZooError(f"images are {images.dtype} of shape {images.shape}; give float32, ({shown}) for {source}")
        return images
    try:
        description = Description.from_metadata(entries_of(model))
    except ZooError as error:
        raise ZooError(f"{source}: {error}") from None
    if description is None:
        raise ZooError(f"{source}: does not describe its preprocessing; give preprocessed images as an array")
    return stack(description.preprocess, images)


def _good_enough(
    build: Callable[[frozenset[str]], Int8Model], batch: Floats, expected: Floats, keep: frozenset[str], *,
    agreement: float, most_float: int, order: Callable[[], Sequence[str]],
) -> tuple[Int8Model, frozenset[str]]:  # fmt: skip
    """The first candidate with the required agreement, as more and more layers are left in float.

    Otherwise the one with logits nearest to float, since these say more about few images than their classes do.
    """
    best, floating = build(keep), keep
    found = best.logits()(batch)
    ranked: Sequence[str] | None = None
    count = 1
    while _agreement(found, expected) < agreement and count <= most_float:
        ranked = order() if ranked is None else ranked
        more = keep | set(ranked[:count])
        candidate = build(more)
        now = candidate.logits()(batch)
        if _distance(now, expected) < _distance(found, expected) or _agreement(now, expected) >= agreement:
            best, floating, found = candidate, more, now
        count *= 2
    return best, floating


def _distance(found: Floats, expected: Floats) -> float:
    return float(np.square(found - expected).sum())


def _agreement(found: Floats, expected: Floats) -> float:
    return float((found.argmax(1) == expected.argmax(1)).mean())


def _time_ratios(candidate: Int8Model, model: onnx.ModelProto, image: Floats) -> list[float]:
    """Ratios of the times of ``candidate`` and of the float graph on ONNX Runtime, on one thread, alternating."""
    int8, floats = candidate.logits(threads=1), logits_of(model, threads=1)
    times = []
    for _ in range(ROUNDS + 3):
        started = time.perf_counter()
        int8(image)
        between = time.perf_counter()
        floats(image)
        times.append((between - started) / (time.perf_counter() - between))
    return times[3:]
