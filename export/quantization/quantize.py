"""Static int8 quantization of a float ONNX file for ONNX Runtime, OpenVINO or LiteRT, evaluated and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx

from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError, check_type
from fbnetv3_zoo.preprocess import stack
from fbnetv3_zoo.runtimes.base import check_installed, missing_extra
from fbnetv3_zoo.utils.onnx_io import entries_of, read_graph
from fbnetv3_zoo.utils.paths import to_path

from ..timing.turns import quartiles, ratios
from .calibration import LEAST_IMAGES, check_enough, check_images, read_calibration
from .candidates import Int8Model, OnnxBuild, agreement_of, good_enough
from .config import QuantizationConfig, Target
from .fastest import FLOAT, WHOLE, Bench, FastestForm, TriedForm, at_size, fastest
from .qdq import Activations, QDQSettings, layers_of, logits_of

if TYPE_CHECKING:
    from PIL import Image

Floats = npt.NDArray[np.float32]
ROUNDS = 25


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """Accuracy, size and speed of an int8 file compared with float, on the same images and this machine.

    ``agreement`` is the fraction of ``images`` test images with the same top class in int8 and float; the accuracies
    are None if there are no labels. ``target`` is None for all processors. ``float_layers`` stayed in float.
    ``size_ratio`` and ``time_ratio`` are int8 over float on ONNX Runtime (one image, ``threads`` threads, alternating
    runs: median of the ratios, and their quartiles). ``held_out``: whether the images are others than those of the
    calibration, which make figures too good. ``tried`` are the forms that were timed to choose this one, itself
    included: first those that were timed twice, the fastest of them first; empty if it was not chosen by time.
    """

    path: Path
    route: str
    target: Target | None
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
    held_out: bool = True
    threads: int = 1
    tried: tuple[TriedForm, ...] = ()

    @property
    def slower(self) -> bool:
        """Whether int8 takes more time than float here, beyond noise."""
        return self.time_quartiles[0] > 1

    @property
    def faster(self) -> bool:
        """Whether int8 takes less time than float here, beyond noise."""
        return self.time_quartiles[1] < 1


def quantize(
    source: str | Path, output: str | Path, images: str | Path | Sequence[Image.Image] | Floats, *,
    config: QuantizationConfig = QuantizationConfig(), test: Sequence[Image.Image] | Floats | None = None,
    labels: Sequence[int] | None = None,
) -> QuantizationReport:  # fmt: skip
    """Quantize the float file ``source`` to int8; the extension of ``output`` selects the runtime.

    ``.onnx`` is for ONNX Runtime: all maps in int8, including hard swish (:mod:`fbnetv3_zoo.export.quantization.qdq`).
    ``.xml`` (with ``.bin``) is for OpenVINO, by NNCF: convolutions that gain from it in int8, the rest in float.
    ``.tflite`` is for LiteRT on all processors: all maps in int8 (:mod:`fbnetv3_zoo.export.quantization.litert_int8`).

    Args:
        source: an ``.onnx`` file of :func:`fbnetv3_zoo.export.export_onnx` without preprocessing in the graph; or any
            other with one input, one output and folded norms, with images given as arrays.
        output: file to write.
        images: calibration images like those the network will be used on, or a folder of them; at least 8, better 100.
            An array has them preprocessed, in shape (images, channels, height, width). Without test images, folders
            in the folder that are named after the network's classes give labels.
        config: the processors, and what may stay in float.
        test: images to compare on, a list or an array like ``images`` (default: the calibration images).
        labels: classes of the test images, for accuracies.

    Raises :class:`ZooError` for unsuitable files, too few images or a missing extra, and then leaves no file.
    """
    source, output = to_path("source", source), to_path("output", output)
    check_images("images", images)
    check_type("test", () if test is None else test, Sequence | np.ndarray, "a list of images, or an array of them")
    if isinstance(test, str):
        raise ZooError("test is a path; give a list of images, or an array of them")
    _check_places(source, output, config)
    _check_labels(labels, test)
    if output.suffix == ".tflite":
        check_installed(output, "LiteRT", "litert", "ai_edge_litert")
    if output.suffix == ".xml":
        check_installed(output, "OpenVINO with NNCF", "openvino", "openvino", "nncf")
    task = _Task.read(source, images, test, labels, config)
    target = _target(output, config)
    float_logits = logits_of(task.model)
    calibrated = float_logits(task.calibration)
    work = _Work.of(task, target, config, output)
    candidate, in_float = work.good_enough(calibrated)
    bench = Bench(source, at_size(task.model, task.calibration.shape), output, config.threads)
    chosen: FastestForm | None = None
    if config.fastest:
        chosen = fastest(
            work.build, candidate, in_float, bench, images=task.calibration, expected=calibrated,
            agreement=config.agreement,
        )  # fmt: skip
        candidate, in_float = chosen.model, chosen.in_float
    expected = calibrated if task.compared is task.calibration else float_logits(task.compared)
    answers = candidate.logits()(task.compared)
    low, middle, high = _time_ratio(chosen, candidate, task, bench)
    float_size, count = source.stat().st_size, len(task.calibration)
    where = target.value if target else "all processors"
    made_by = f"int8 for {where}, {count} calibration images, {len(in_float)} layers in float"
    size = candidate.save(output, {**entries_of(task.model), "quantized_by": made_by})
    return QuantizationReport(
        path=output, route=_ROUTES[output.suffix], target=target,
        calibrated_on=count, images=len(task.compared), agreement=agreement_of(answers, expected),
        accuracy_float=_accuracy(expected, task.labels), accuracy_int8=_accuracy(answers, task.labels),
        float_layers=tuple(sorted(in_float)), file_size=size, size_ratio=size / float_size, time_ratio=middle,
        time_quartiles=(low, high), held_out=task.compared is not task.calibration, threads=config.threads,
        tried=chosen.tried if chosen else (),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Task:
    """The float graph of a file, images to calibrate and to compare on, and the classes of the latter, if known."""

    source: Path
    model: onnx.ModelProto
    calibration: Floats
    compared: Floats
    labels: Sequence[int] | None

    @classmethod
    def read(
        cls, source: Path, images: str | Path | Sequence[Image.Image] | Floats,
        test: Sequence[Image.Image] | Floats | None, labels: Sequence[int] | None, config: QuantizationConfig,
    ) -> _Task:  # fmt: skip
        model = _read_float(source, config.keep)
        compares = test is not None and len(test) > 0
        if isinstance(images, (str, Path)):
            images, classes = read_calibration(images)
            labels = labels if compares else _labels(model, source, classes)
        calibration = _prepared(model, source, images)
        compared = _prepared(model, source, test, at_least=1) if test is not None and compares else calibration
        return cls(source, model, calibration, compared, labels)


_ROUTES = {".onnx": "ONNX Runtime", ".xml": "OpenVINO", ".tflite": "LiteRT"}


def _check_places(source: Path, output: Path, config: QuantizationConfig) -> None:
    if output.suffix not in _ROUTES:
        *known, last = (f"{suffix} ({route})" for suffix, route in _ROUTES.items())
        raise ZooError(f"{output}: int8 files end in {', '.join(known)} or {last}; change the extension")
    if output.suffix == ".tflite" and config.target is not None:
        raise ZooError(f"{output}: LiteRT files are for all processors; leave out the target")
    if output.resolve() == source.resolve():
        raise ZooError(f"{output}: is the float file itself; give another name for the int8 file")


def _check_labels(labels: Sequence[int] | None, test: Sequence[Image.Image] | Floats | None) -> None:
    count = 0 if test is None else len(test)
    if labels is not None and (count == 0 or len(labels) != count):
        raise ZooError(f"labels has {len(labels)} entries for {count} test images; give one per image")


def _target(output: Path, config: QuantizationConfig) -> Target | None:
    """The processors that ``output`` is for; None for all: XNNPACK adds products of 8 bits in 32 bits everywhere."""
    if output.suffix == ".tflite":
        return None
    return Target.here() if config.target is None else config.target


@dataclass(frozen=True, slots=True)
class _Work:
    """What makes int8 forms of a task's graph by :attr:`build`; layers ``unworthy`` of int8 stay in float anyway."""

    task: _Task
    config: QuantizationConfig
    numbers: OnnxBuild
    build: Callable[[frozenset[str]], Int8Model]
    unworthy: Collection[str] = ()

    @classmethod
    def of(cls, task: _Task, target: Target | None, config: QuantizationConfig, output: Path) -> _Work:
        settings = QDQSettings(target.activations, target.weight_levels) if target else QDQSettings(Activations.INT8)
        numbers = OnnxBuild(task.model, task.calibration, settings, clip=config.clip)
        if output.suffix == ".tflite":
            return cls(task, config, numbers, _litert_build(task, output, numbers))
        if output.suffix == ".onnx":
            return cls(task, config, numbers, numbers.build)
        from .openvino_nncf import IntermediateBuild

        build = IntermediateBuild(
            str(task.source), task.model, task.calibration, weights=numbers.weights,
            weight_levels=settings.weight_levels,
        )  # fmt: skip
        return cls(task, config, numbers, build, build.unworthy)

    def good_enough(self, expected: Floats) -> tuple[Int8Model, frozenset[str]]:
        """An int8 form that is good enough, and the layers that it has in float.

        ``expected`` are the float graph's logits for the calibration images.
        """
        config = self.config
        return good_enough(
            self.build, self.task.calibration, expected, keep=frozenset(config.keep), agreement=config.agreement,
            most_float=config.most_float, order=lambda: self.numbers.order(but=self.unworthy),
        )  # fmt: skip


def _litert_build(task: _Task, output: Path, work: OnnxBuild) -> Callable[[frozenset[str]], Int8Model]:
    try:
        from .litert_build import LiteRTBuild
    except ImportError:
        raise missing_extra(output, "LiteRT", "litert") from None
    _, channels, high, wide = task.calibration.shape
    return LiteRTBuild(str(task.source), task.model, (channels, high, wide), work)


def _read_float(source: Path, keep: Collection[str]) -> onnx.ModelProto:
    model = read_graph(source)
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise ZooError(f"{source}: has several inputs or outputs; give a network with one of each")
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ZooError(f"{source}: is already quantized; give the float file")
    takes = model.graph.input[0].type.tensor_type
    axes = takes.shape.dim
    if takes.elem_type != onnx.TensorProto.FLOAT or len(axes) != 4:
        raise ZooError(f"{source}: does not take batches of float images; export it without preprocessing")
    if axes[0].dim_value:
        raise ZooError(f"{source}: takes batches of {axes[0].dim_value} only; export it for batches of any size")
    layers = {layer.name for layer in layers_of(model)}
    if unknown := sorted(set(keep) - layers):
        names = f"layers have names like {min(layers, default='')!r}"
        raise ZooError(f"{source}: has no layer {unknown[0]!r} to keep in float; {names}")
    return model


def _prepared(
    model: onnx.ModelProto, source: Path, images: Sequence[Image.Image] | Floats, *, at_least: int = LEAST_IMAGES
) -> Floats:
    """``images``, preprocessed for the network."""
    check_enough(len(images), "images", at_least=at_least)
    if isinstance(images, np.ndarray):
        takes = [axis.dim_value or axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim]
        fits = images.ndim == 4 and all(
            isinstance(expected, str) or expected == side for expected, side in zip(takes, images.shape, strict=True)
        )
        if not fits or images.dtype != np.float32:
            shown = ", ".join(map(str, takes))
            raise ZooError(f"images are {images.dtype} of shape {images.shape}; give float32, ({shown}) for {source}")
        return images
    description = _description(model, source)
    if description is None:
        raise ZooError(f"{source}: does not describe its preprocessing; give preprocessed images as an array")
    return stack(description.preprocess, images)


def _labels(model: onnx.ModelProto, source: Path, classes: Sequence[str]) -> list[int] | None:
    """The images' class numbers where the names ``classes`` are all classes of ``model``; else None."""
    description = _description(model, source)
    numbers = {name: n for n, name in enumerate((description and description.class_names) or ())}
    return [numbers[name] for name in classes] if numbers.keys() >= set(classes) else None


def _description(model: onnx.ModelProto, source: Path) -> Description | None:
    try:
        return Description.from_metadata(entries_of(model))
    except ZooError as error:
        raise ZooError(f"{source}: {error}") from None


def _accuracy(logits: Floats, labels: Sequence[int] | None) -> float | None:
    return None if labels is None else float((logits.argmax(1) == np.asarray(labels)).mean())


def _time_ratio(
    chosen: FastestForm | None, candidate: Int8Model, task: _Task, bench: Bench
) -> tuple[float, float, float]:
    """The ratio of the times of ``candidate`` and of the float file: lower quartile, median, upper quartile.

    On several threads each has a process of its own, as threads that wait for work would take cores from the other.
    """
    if chosen is not None:
        low, high = chosen.chosen.quartiles
        return low, chosen.chosen.ratio, high
    if bench.threads > 1:
        times = bench.times({WHOLE: candidate}, ROUNDS)
        return quartiles(ratios(times[WHOLE], times[FLOAT]))
    return quartiles(_time_ratios(candidate, task.model, task.compared[:1]))


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
