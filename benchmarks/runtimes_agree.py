"""Whether all runtimes answer alike: FBNetV3 A to G on photographs, a trained model on its whole test set.

Networks: weights are drawn, norms have seen photographs; logits on 20 photographs of scikit-image. Model: that of
`fbnetv3 demo` (--demo FOLDER), on all test digits, on PyTorch, ONNX Runtime, its mobile format, OpenVINO,
ExecuTorch, ncnn, LiteRT and in Chromium, for which the package `playwright` and a browser are needed. Prints Markdown
tables.

    python benchmarks/runtimes_agree.py --demo demo
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from sample_photographs import photographs

import fbnetv3_zoo
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.export import (
    export_executorch,
    export_litert,
    export_mobile,
    export_ncnn,
    export_onnx,
    export_openvino,
    write_web,
)
from fbnetv3_zoo.export.parity import parity
from fbnetv3_zoo.preprocess import stack
from fbnetv3_zoo.training import find_dataset
from fbnetv3_zoo.zoo import ARCHS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from browser import classified_in_browser, playwright
from networks import settled

NAMES = tuple(f"fbnetv3_{letter}" for letter in "abcdefg")


def networks(names: list[str], folder: Path) -> None:
    print("| network | pixels | ONNX Runtime | OpenVINO | ExecuTorch | ncnn | LiteRT | same class |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in names:
        model = settled(ARCHS[name])
        paths = [folder / f"{name}{suffix}" for suffix in (".onnx", ".xml", ".pte", ".ncnn.param", ".tflite")]
        export_onnx(model, paths[0], batch_sizes=[1])
        export_openvino(paths[0], paths[1])
        export_executorch(model, paths[2], max_batch=1)
        export_ncnn(paths[0], paths[3])
        export_litert(paths[0], paths[4])
        found = parity(model, paths, images=photographs()).files
        same = min(one.images - len(one.disagree) for one in found)
        relative = " | ".join(f"{one.relative:.1e}" for one in found)
        print(f"| {name} | {model.preprocess.resolution} | {relative} | {same} of {found[0].images} |", flush=True)


def model(demo: Path, folder: Path) -> None:
    network = fbnetv3_zoo.load(demo / "student" / "model.safetensors")
    digits = find_dataset(demo / "digits", seed=0)["test"]
    images, labels = [example.read() for example in digits], np.array([example.label for example in digits])
    export_onnx(network, folder / "model.onnx")
    export_mobile(folder / "model.onnx", folder / "model.ort")
    export_openvino(folder / "model.onnx", folder / "model.xml")
    export_executorch(network, folder / "model.pte")
    export_ncnn(folder / "model.onnx", folder / "model.ncnn.param")
    export_litert(folder / "model.onnx", folder / "model.tflite")
    answers = {"PyTorch": Classifier.of(network.eval())}
    for kind, suffix in (
        ("ONNX Runtime", "onnx"),
        ("its mobile format", "ort"),
        ("OpenVINO", "xml"),
        ("ExecuTorch", "pte"),
        ("ncnn", "ncnn.param"),
        ("LiteRT", "tflite"),
    ):
        answers[kind] = Classifier.open(folder / f"model.{suffix}")
    batch = stack(network.preprocess, images)
    classes = {kind: one.logits(batch).argmax(1) for kind, one in answers.items()}
    write_web(folder / "model.onnx", folder / "page")
    files = [folder / f"{number}.png" for number in range(len(images))]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    with playwright() as driver:
        classes["Chromium"] = np.array(classified_in_browser(driver, folder / "page", files))
    print(f"\n| runtime | same class as PyTorch, of {len(images)} | right |\n|---|---:|---:|")
    for kind, found in classes.items():
        print(f"| {kind} | {(found == classes['PyTorch']).sum()} | {(found == labels).mean():.2%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="the folder of `fbnetv3 demo`")
    parser.add_argument("--networks", nargs="*", default=NAMES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.networks:
            networks(options.networks, Path(folder))
        if options.demo:
            model(options.demo, Path(folder))


if __name__ == "__main__":
    main()
