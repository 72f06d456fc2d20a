"""Exports Core ML packages (``.mlpackage``): ML programs that take an image and name its class."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError, in_short, parse_enum, printable
from fbnetv3_zoo.models.network import Network
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.runtimes.base import check_installed, missing_extra, silence
from fbnetv3_zoo.runtimes.coreml import INPUT, MODEL, WEIGHTS, runs_core_ml, sealed, write_package
from fbnetv3_zoo.utils.atomic_write import replacing_folder, scratch, settled
from fbnetv3_zoo.utils.paths import FOREIGN, check_folder, exists, is_file, to_path

from ..parity import TOLERANCE, FileParity
from .common import ONNXSource, compared, source_graph

if TYPE_CHECKING:
    from PIL import Image

SUFFIX = ".mlpackage"


class WeightsType(Enum):
    """How weights are stored. FLOAT32 also computes in float32, which the Neural Engine cannot; the others in float16.

    INT8: a step per output channel, which Core ML multiplies with when it loads or runs the program.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class CoreMLReport:
    """The exported package, its size in bytes, and its difference from each reference.

    ``operators`` counts the operators of the program by name; ``computed_by`` says what computed the package for the
    comparison: "Core ML", or elsewhere than on macOS "torch, operator by operator".
    """

    path: Path
    weights: WeightsType
    operators: dict[str, int]
    computed_by: str
    file_size: int
    parity: dict[str, FileParity]


def export_coreml(
    source: Network | str | Path, path: str | Path, *, weights: WeightsType = WeightsType.FLOAT16,
    images: Sequence[Image.Image] | None = None,
) -> CoreMLReport:  # fmt: skip
    """Write ``source`` as a Core ML package that classifies an image, for iOS 16, macOS 13 and later.

    The input ``image`` has the described side; it is normalized in the program. The outputs are ``classLabel``,
    ``classLabel_probs`` and ``logits``. Hard swish and hard sigmoid are ``sigmoid_hard``. The metadata has the
    description and a digest of the package. On macOS Core ML computes it, elsewhere torch does, operator by operator,
    and it is compared with its source. The program is first built in float32: if a logit differs by more than 1e-4 of
    the largest one, raises :class:`ZooError` and leaves no package. How far float16 and 8-bit weights take the logits
    depends on the network; the report says it, and only numbers that are not finite, or as far off as the largest logit
    is large, are refused.

    Args:
        source: a network, or an ``.onnx`` file written by this project.
        path: package to write, a folder ending in ``.mlpackage``; an older package is replaced.
        weights: how weights are stored.
        images: images to compare on (default: photographs).
    """
    path, weights = to_path("path", path), parse_enum("weights", weights, WeightsType)
    check_target(path)
    check_installed(path, "coremltools", "coreml", "coremltools")
    with scratch() as folder:
        onnx_source = source_graph(source, folder)
        for kind in dict.fromkeys((WeightsType.FLOAT32, weights)):
            model, blob = _converted(onnx_source, path, kind, folder / f"{kind.value}{SUFFIX}")
            draft = folder / kind.value / path.name
            draft.mkdir(parents=True)
            write_package(draft, model, blob)
            sandbox.remember(SUFFIX, (model, blob))
            parities = compared(onnx_source, draft, path, images=images, tolerance=_TOLERANCES[kind])
    with replacing_folder(path) as temporary:
        write_package(temporary, model, blob)
    return CoreMLReport(
        path=path,
        weights=weights,
        operators=_counted(model, blob),
        computed_by="Core ML" if runs_core_ml() else "torch, operator by operator",
        file_size=package_size(path),
        parity=parities,
    )


_TOLERANCES = {WeightsType.FLOAT32: TOLERANCE, WeightsType.FLOAT16: 1.0, WeightsType.INT8: 1.0}


def package_size(path: Path) -> int:
    """The size in bytes of all files in a package."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def check_target(path: Path) -> None:
    """Raise :class:`ZooError` unless a package can be written to ``path``, where at most one of ours may be."""
    if path.suffix != SUFFIX:
        raise ZooError(f"{path}: Core ML packages end in {SUFFIX}; change the extension")
    settled(path)
    check_folder(path, replaced=True)
    if not exists(path) or not any(path.iterdir()):
        return
    if not is_file(path / MODEL) or b"fbnetv3_zoo" not in (path / MODEL).read_bytes():
        remedy = "give another path as --output, or remove that file first"
        raise ZooError(f"{path}: {FOREIGN}; {remedy}")


def _counted(model: bytes, blob: bytes) -> dict[str, int]:
    from fbnetv3_zoo.runtimes.mil import MLProgram, counted, parse

    return counted(MLProgram(parse(model), blob).operations)


def _converted(source: ONNXSource, path: Path, weights: WeightsType, package: Path) -> tuple[bytes, bytes]:
    """The model and the weights of the package, with metadata."""
    import onnx

    description = source.description
    if description.arch.in_channels not in (1, 3):
        raise ZooError(f"{source.name}: has {description.arch.in_channels} channels; Core ML's images have 1 or 3")
    try:
        with quiet():
            import coremltools

            from .coreml_program import program
    except ImportError:
        raise missing_extra(path, "coremltools", "coreml") from None
    try:
        with quiet():
            graph = onnx.load(source.graph).graph
            converted = coremltools.convert(
                program(graph, description.preprocess, half=weights is not WeightsType.FLOAT32,
                        whole=weights is WeightsType.INT8),
                source="milinternal",
                convert_to="mlprogram",
                inputs=[_image(description)],
                classifier_config=coremltools.ClassifierConfig(
                    class_labels(description), predicted_probabilities_output="probabilities"
                ),
                compute_precision=coremltools.precision.FLOAT32,  # the program has its types already
                minimum_deployment_target=coremltools.target.iOS16,
                pass_pipeline=coremltools.PassPipeline.EMPTY,
                skip_model_load=True,
                package_dir=str(package),
            )  # fmt: skip
            message = converted.get_spec()
    except ZooError as error:
        raise ZooError(f"{source.name}: {error}") from None
    except Exception as error:  # coremltools raises many kinds
        raise ZooError(f"{source.name}: cannot be converted for Core ML ({in_short(error)})") from None
    _describe(message, description)
    blob = (package / WEIGHTS).read_bytes()
    made_by = f"coremltools {coremltools.__version__}, weights in {weights.value}"
    return sealed(message, {**source.entries, "converted_by": made_by}, blob), blob


def _image(description: Description) -> Any:
    """The type of the input: an image in color, or in gray for networks of one channel."""
    import coremltools

    channels, side = description.arch.in_channels, description.preprocess.resolution
    layout = coremltools.colorlayout.RGB if channels == 3 else coremltools.colorlayout.GRAYSCALE
    return coremltools.ImageType(name=INPUT, shape=(1, channels, side, side), color_layout=layout)


def class_labels(description: Description) -> list[str]:
    """The names of the classes, which Core ML uses as keys: a name that several have gets the number of the class."""
    names = [description.name_of(number) for number in range(description.arch.num_classes)]
    twice = {name for name in names if names.count(name) > 1}
    return [f"{name} ({number})" if name in twice else name for number, name in enumerate(names)]


def _describe(message: Any, description: Description) -> None:
    """Write what Xcode shows of a model. What coremltools notes, such as the date, is removed."""
    metadata, side = message.description.metadata, description.preprocess.resolution
    metadata.userDefined.clear()
    message.mlProgram.attributes.clear()
    metadata.shortDescription = f"{printable(description.arch.name)}, {description.arch.num_classes} classes"
    metadata.author = "fbnetv3-zoo"
    if description.license is not None:
        metadata.license = description.license
    texts = {
        INPUT: f"The photograph, its shorter side resized to {description.preprocess.resize} pixels, then the central "
        f"{side} x {side} of it. Normalization is part of the model.",
        "classLabel": "The most probable class.",
        "classLabel_probs": "The probability of each class.",
        "logits": "The logits of the classes, in order.",
    }
    for feature in (*message.description.input, *message.description.output):
        feature.shortDescription = texts[feature.name]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings, messages and progress bars of coremltools, which also loads other libraries that it knows."""
    with warnings.catch_warnings(), silence():
        warnings.simplefilter("ignore")
        yield
