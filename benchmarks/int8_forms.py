"""Which form of an int8 network runs fastest: FBNetV3-A at 224 pixels on ONNX Runtime and OpenVINO.

Every form is given the same image, in turn (A B C, B C A, ...), on as many threads as asked for; ratios are to the
fastest float32 form, round by round. Weights are drawn, norms have seen photographs: good for time, not for accuracy.
Prints a Markdown table; needs the extra ``openvino``.

    python benchmarks/int8_forms.py --rounds 101
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from against_timm import machine
from onnx_against_timm import Run, run_of, session, times
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from sample_photographs import photographs

from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.export import QuantizationConfig, export_onnx, export_openvino, quantize
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.zoo import ARCHS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from networks import settled

ELEMENTWISE = ["Add", "HSwish", "HardSigmoid", "Multiply", "ReduceMean"]


class Images(CalibrationDataReader):
    """Calibration images, one by one."""

    def __init__(self, images: np.ndarray) -> None:
        self._rest = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._rest, None)
        return None if image is None else {"images": image[None]}


def by_onnxruntime(source: Path, path: Path, images: np.ndarray, *, pointwise: bool = False) -> Path:
    """ONNX Runtime's own quantizer: everything that it can, or 1x1 convolutions and the classifier only."""
    model = onnx.load(source)
    shapes = {weight.name: tuple(weight.dims[2:]) for weight in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    chosen = [node.name for node in layers if shapes[node.input[1]] in ((1, 1), ())] if pointwise else None
    quantize_static(
        source, path, Images(images), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_quantize=chosen,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return path


def by_nncf(source: Path, images: np.ndarray, *, inputs_only: bool) -> Any:
    """NNCF's own choice, or int8 at the inputs of all convolutions and nowhere else."""
    import nncf
    import openvino

    ignored = nncf.IgnoredScope(types=ELEMENTWISE, validate=False) if inputs_only else None
    data = nncf.Dataset([image[None] for image in images])
    return nncf.quantize(openvino.Core().read_model(source), data, subset_size=len(images), ignored_scope=ignored)


def on_onnxruntime(path: Path, threads: int) -> Run:
    return run_of(session(path, threads))


def on_openvino(model: Any, threads: int, precision: str = "f32") -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    core = openvino.Core()
    request = core.compile_model(core.read_model(model) if isinstance(model, Path) else model, "CPU", settings)
    request = request.create_infer_request()
    return lambda image: request.infer([image])


def forms(name: str, folder: Path) -> dict[str, Callable[[int], Run]]:
    """Each form's name, and what opens it for a number of threads."""
    network = settled(ARCHS[name])
    source, calibration = folder / "model.onnx", photographs(32)
    export_onnx(network, source, batch_sizes=[1])
    export_openvino(source, folder / "model.xml")
    quantize(source, folder / "int8.onnx", calibration, config=QuantizationConfig(agreement=0))
    quantize(source, folder / "int8.xml", calibration, config=QuantizationConfig(agreement=0))
    images = stack(Classifier.open(source).description.preprocess, calibration)
    all_int8, pointwise = folder / "all.onnx", folder / "pointwise.onnx"
    by_onnxruntime(source, all_int8, images)
    by_onnxruntime(source, pointwise, images, pointwise=True)
    everything, inputs = (by_nncf(source, images, inputs_only=only) for only in (False, True))
    found: dict[str, Callable[[int], Run]] = {
        "ONNX Runtime, float32": lambda n: on_onnxruntime(source, n),
        "OpenVINO, float32": lambda n: on_openvino(folder / "model.xml", n),
        "OpenVINO, bfloat16": lambda n: on_openvino(folder / "model.xml", n, "bf16"),
        "ONNX Runtime's quantizer": lambda n: on_onnxruntime(all_int8, n),
        "ONNX Runtime's quantizer, 1x1 only": lambda n: on_onnxruntime(pointwise, n),
        "**ours for ONNX Runtime**: hard swish on int8": lambda n: on_onnxruntime(folder / "int8.onnx", n),
        "NNCF's defaults": lambda n: on_openvino(everything, n),
        "NNCF at all convolutions' inputs": lambda n: on_openvino(inputs, n),
        "**ours for OpenVINO**: 1x1 of whole maps": lambda n: on_openvino(folder / "int8.xml", n),
        "the same, the rest in bfloat16": lambda n: on_openvino(folder / "int8.xml", n, "bf16"),
    }
    if "BF16" not in __import__("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found = {kind: run for kind, run in found.items() if "bfloat16" not in kind}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--network", default="fbnetv3_a")
    options = parser.parse_args()
    image = stack(Preprocess.for_arch(ARCHS[options.network]), photographs(1))
    with tempfile.TemporaryDirectory() as folder:
        opened = forms(options.network, Path(folder))
        print(f"{machine()}; onnxruntime {onnxruntime.__version__}; {options.network}, {options.rounds} rounds\n")
        print("| form | threads | ms | ratio to the best float32 | quartiles |")
        print("|---|---:|---:|---:|---:|")
        for threads in options.threads:
            taken = times({kind: run(threads) for kind, run in opened.items()}, image, options.rounds)
            floats = [taken[kind] for kind in taken if kind.endswith("float32")]
            best = min(floats, key=statistics.median)
            for kind, row in taken.items():
                low, ratio, high = statistics.quantiles([a / b for a, b in zip(row, best, strict=True)], n=4)
                print(f"| {kind} | {threads} | {statistics.median(row):.2f} | {ratio:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
