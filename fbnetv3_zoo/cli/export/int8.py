"""``fbnetv3 export int8``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...errors import ZooError, counted
from ...utils.tables import table
from ..common import Json, Seed, output_file, print_json, target_of
from ..option_groups import grouped
from ..output import complain, in_shell, say, say_text

if TYPE_CHECKING:
    from fbnetv3_zoo.export.quantization.config import QuantizationConfig
    from fbnetv3_zoo.export.quantization.quantize import QuantizationReport

    from ...training import Dataset


TESTED = 2000
"""The most test images to compare on."""


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """How a file is quantized."""

    target: Annotated[
        Literal["avx2", "vnni", "arm64"] | None, typer.Option(help="Processors to write for (default: this machine's).")
    ] = None
    clip: Annotated[bool, typer.Option(help="Clip rare large values of maps.")] = True
    agreement: Annotated[
        float, typer.Option(help="Leave layers in float until this fraction of images has the same class as in float.")
    ] = 0.99
    most_float: Annotated[int, typer.Option(help="Maximum number of layers to leave in float for that.")] = 16
    keep: Annotated[list[str] | None, typer.Option(help="Layer to leave in float; may be repeated.")] = None
    fastest: Annotated[
        bool, typer.Option("--fastest", help="Time several forms here, with other layers in float; take the fastest.")
    ] = False
    threads: Annotated[int, typer.Option(help="Number of threads to time with.")] = 1

    def config(self) -> QuantizationConfig:
        """These options as the value that :func:`fbnetv3_zoo.export.quantize` takes."""
        from fbnetv3_zoo.export.quantization.config import QuantizationConfig, Target

        return QuantizationConfig(
            target=Target(self.target) if self.target else None, clip=self.clip, keep=tuple(self.keep or ()),
            agreement=self.agreement, most_float=self.most_float, fastest=self.fastest, threads=self.threads,
        )  # fmt: skip


@grouped
def int8(
    model: Annotated[Path, typer.Argument(help="A float .onnx file written by `fbnetv3 export onnx`.")],
    *,
    images: Annotated[
        Path | None, typer.Option(help="Folder with at least 8 images like those the model will be used on.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Instead of --images: 'digits' or a folder as for `fbnetv3 train`; its training split is for "
            "calibration, its test split (of more than 2,000 images a part) for accuracies."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        output_file(
            "File to write: .onnx for ONNX Runtime, .xml for OpenVINO, .tflite for LiteRT (default: MODEL-int8.onnx)."
        ),
    ] = None,
    options: ConfigOptions,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Quantize an ONNX file to int8, and compare accuracy and time with float.

    Calibration images come from a folder (--images) or from the training split of a dataset (--data), whose test split
    then gives the accuracies.

    Example: fbnetv3 export int8 model.onnx --images PHOTOS --output model-int8.onnx
    """
    from fbnetv3_zoo.export.quantization.quantize import quantize

    if model.suffix == ".safetensors":
        remedy = f"fbnetv3 export onnx {in_shell(model)}"
        raise ZooError(f"{model}: is not an ONNX file; export it by `{remedy}` first")
    if (images is None) == (data is None):
        raise ZooError("give calibration images, either --images FOLDER or --data SOURCE")
    path, config = target_of(output, model.with_name(f"{model.stem}-int8.onnx")), options.config()
    if images is not None:
        report = quantize(model, path, images, config=config)
    else:
        from ...training import find_dataset

        report = quantize_on(find_dataset(str(data), seed=seed), model, path, config)
    if as_json:
        print_json(plain(report))
        return
    print_report(report, wanted=config.agreement)


def quantize_on(data: Dataset, model: Path, output: Path, config: QuantizationConfig) -> QuantizationReport:
    """Write the int8 form of ``model``, calibrated on training images of ``data`` and compared on its test images.

    Of many, :data:`TESTED` are taken.
    """
    from fbnetv3_zoo.export.quantization.calibration import StoredImages, sample_images, thinned
    from fbnetv3_zoo.export.quantization.quantize import quantize

    shown, test = sample_images(data["train"]), thinned(data["test"], TESTED)
    if not test:
        return quantize(model, output, shown, config=config)
    labels = _labels(model, data, [example.label for example in test])
    return quantize(model, output, shown, config=config, test=StoredImages.of(test), labels=labels)


def _labels(model: Path, data: Dataset, labels: Sequence[int]) -> list[int] | None:
    """``labels`` as indices of the network's classes; None, with a warning, if it has other classes than the data."""
    from ...description import Description
    from ...training.class_matching import match_classes
    from ...utils.onnx_io import entries_of, read_graph

    try:
        description = Description.from_metadata(entries_of(read_graph(model)))
    except ZooError:  # quantize() says what is wrong with the file
        description = None
    if description is None:
        return [*labels]
    own, count = description.class_names, description.arch.num_classes
    try:
        order = match_classes(own, count, data.class_names, network=str(model), data=data.name)
    except ZooError as error:
        complain(f"warning: {error}; no accuracy is measured")
        return None
    return [int(order[label]) for label in labels]


def plain(report: QuantizationReport) -> dict[str, Any]:
    """``report`` as JSON values."""
    return {**asdict(report), "target": report.target.value if report.target else None, "slower": report.slower}


def print_report(report: QuantizationReport, *, wanted: float) -> None:
    """Print size, agreement, accuracy and time of an int8 file; first of all, if it is not worth its name.

    ``wanted`` is the agreement that was asked for.
    """
    low, high = report.time_quartiles
    where = f"here on {counted(report.threads, 'thread')}"
    taken = f"{report.time_ratio:.2f} ({low:.2f} to {high:.2f})"
    if report.tried and not report.faster:
        say(
            f"no int8 form is faster than float beyond noise {where}: the fastest takes {report.tried[0].ratio:.2f} "
            f"of its time, this one, which is small, {taken}; keep the float file where speed counts"
        )
    elif report.slower:
        say(f"slower than float {where}: {taken} of its time; keep the float file where speed counts")
    target = f" ({report.target.value})" if report.target else ""
    say(
        f"{report.path}: int8 for {report.route}{target}, {report.file_size / 1e6:.2f} MB, "
        f"{report.size_ratio:.2f} of float's size"
    )
    if report.float_layers:
        shown = ", ".join(report.float_layers[:3])
        say(f"left in float: {len(report.float_layers)} layers ({shown}{', ...' if report.float_layers[3:] else ''})")
    which = "test" if report.held_out else "calibration"
    missed = f", less than --agreement {wanted:g} asks for" if report.agreement < wanted else ""
    say(f"same class as float: {report.agreement:.2%} of {report.images} {which} images{missed}")
    if report.accuracy_float is not None and report.accuracy_int8 is not None:
        hint = "" if report.held_out else "; --data measures it on held-out ones"
        say(f"accuracy on {which} images: {report.accuracy_int8:.2%}, float {report.accuracy_float:.2%}{hint}")
    say(
        f"time here, one image, {counted(report.threads, 'thread')}: {report.time_ratio:.2f} of float's "
        f"({low:.2f} to {high:.2f})"
    )
    if report.tried:
        rows = [(one.name, one.layers, f"{one.ratio:.2f}", "{:.2f} to {:.2f}".format(*one.quartiles))
                for one in report.tried]  # fmt: skip
        say_text(table([("form", "in float", "time, of float's", "quartiles"), *rows]))
