"""The formats that :mod:`fuzz` mutates: for each a function that gives a sound file and how it is read.

A new format is a function here, marked with :func:`form`; it may put further files into the folder it is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Kind(Enum):
    """How a file is mutated."""

    JSON = "json"
    LINES = "lines"
    TEXT = "text"
    BINARY = "binary"


@dataclass(frozen=True)
class Form:
    """A format: a sound file, how it is mutated, and what reads the file at a path."""

    seed: bytes
    read: Callable[[Path], object]
    suffix: str = ".json"
    kind: Kind = Kind.JSON
    stem: str = "mutated"


FORMS: dict[str, Callable[[Path], Form]] = {}


def form(name: str) -> Callable[[Callable[[Path], Form]], Callable[[Path], Form]]:
    """Make a function known as the one of the format ``name``."""

    def known(made: Callable[[Path], Form]) -> Callable[[Path], Form]:
        FORMS[name] = made
        return made

    return known


@form("arch")
def arch(folder: Path) -> Form:
    from fbnetv3_zoo.arch.cost import arch_cost
    from fbnetv3_zoo.zoo import ARCHS, find_arch

    def read(path: Path) -> None:
        found = find_arch(path)
        arch_cost(found)
        found.scaled(width=1.5, depth=2.0, resolution=1.5)

    return Form(ARCHS["fbnetv3_a"].to_json().encode(), read)


@form("recipe")
def recipe(folder: Path) -> Form:
    from fbnetv3_zoo.recipes import RECIPES, find_recipe

    def read(path: Path) -> None:
        found = find_recipe(path)
        found.for_batch_size(64)
        [found.learning_rate_at(epoch, 0.5) for epoch in range(min(found.epochs, 50))]

    return Form(RECIPES["digits"].to_json().encode(), read)


@form("description")
def description(folder: Path) -> Form:
    from fbnetv3_zoo.description import Description
    from fbnetv3_zoo.preprocess import Preprocess
    from fbnetv3_zoo.utils.serialization import parse_json
    from fbnetv3_zoo.zoo import ARCHS

    def read(path: Path) -> None:
        told = parse_json(path.read_bytes(), "file")
        entries = told if isinstance(told, dict) else {}
        Description.from_metadata({str(key): value for key, value in entries.items() if isinstance(value, str)})

    small = Description(ARCHS["fbnetv3_a0"], Preprocess(256, 224))
    return Form(json.dumps(small.to_metadata()).encode(), read)


@form("latency table")
def latency_table(folder: Path) -> Form:
    from fbnetv3_zoo.arch import Activation
    from fbnetv3_zoo.arch.cost import tabulate
    from fbnetv3_zoo.arch.latency import Conditions, LatencyCheck, LatencyTable, distinct_blocks
    from fbnetv3_zoo.errors import ZooError
    from fbnetv3_zoo.zoo import ARCHS

    pool = tabulate([ARCHS["fbnetv3_a"]])
    blocks = {key: 0.1 * n for n, key in enumerate(distinct_blocks(pool))}
    check = LatencyCheck(4, 0.1, 0.01, 0.05, 0.9, 1.0, 8.0)
    table = LatencyTable(Conditions("cpu", "ort", 1, 5), Activation.HARD_SWISH, blocks, 0.01, 1.1, check)

    def read(path: Path) -> None:
        found = LatencyTable.load(path)
        str(found.check), str(found.conditions)
        found(pool)
        if len(found.to_json()) < 10:
            raise ZooError("lost")

    return Form(table.to_json().encode(), read)


@form("space")
def space(folder: Path) -> Form:
    import numpy as np

    from fbnetv3_zoo.search.space import SPACES, find_space

    def read(path: Path) -> None:
        found = find_space(path)
        codes = found.sample(2, np.random.default_rng(0))
        found.encode(codes)
        found.candidate(codes[0])

    return Form(SPACES["tiny"].to_json().encode(), read)


@form("plan")
def plan(folder: Path) -> Form:
    from fbnetv3_zoo.search.plan import PLANS, find_plan

    return Form(PLANS["tiny"].to_json().encode(), find_plan)


@form("supernet space")
def supernet_space(folder: Path) -> Form:
    from fbnetv3_zoo.search.supernet import LAYER_SPACES, find_layer_space

    def read(path: Path) -> None:
        found = find_layer_space(path)
        str((found.sides, found.count(), found.activations))
        found.arch([0] * len(found.dimensions), "first")

    return Form(LAYER_SPACES["tiny_dmasking"].to_json().encode(), read)


@form("supernet plan")
def supernet_plan(folder: Path) -> Form:
    from fbnetv3_zoo.search.supernet import DMASKING_PLANS, find_supernet_plan

    def read(path: Path) -> None:
        found = find_supernet_plan(path, DMASKING_PLANS)
        str((found.with_epochs(3), found.result_name))

    return Form(DMASKING_PLANS["tiny"].to_json().encode(), read)


@form("weights lock")
def weights_lock(folder: Path) -> Form:
    from fbnetv3_zoo.utils.serialization import read_json, to_json
    from fbnetv3_zoo.weights.cache import LockedFile, WeightsLock

    entry = LockedFile("net/one.pth", "ab" * 32, 1000)
    return Form(to_json(WeightsLock((entry,))).encode(), lambda path: read_json(WeightsLock, path))


@form("boxes of COCO")
def coco(folder: Path) -> Form:
    from PIL import Image

    from fbnetv3_zoo.detection.data.coco import open_image, read_coco
    from fbnetv3_zoo.detection.data.fitting import evaluation_data, training_data
    from fbnetv3_zoo.detection.models.faster_rcnn import RCNNSettings
    from fbnetv3_zoo.detection.training.evaluate import check_objects

    for n in range(3):
        Image.new("RGB", (60, 40)).save(folder / f"{n}.png")
    told = {
        "info": {"year": 2024, "description": 'a "set"'},
        "images": [{"id": n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in range(3)],
        "annotations": [
            {"id": n, "image_id": n % 3, "category_id": 1 + n % 2, "bbox": [4.5, 3, 20, 10.25], "area": 205.0,
             "iscrowd": n // 4, "segmentation": [[4.5, 3, 24.5, 3, 24.5, 13.25]]}
            for n in range(5)
        ],
        "categories": [{"id": n, "name": name, "supercategory": "thing"} for n, name in ((1, "cat"), (2, "dog"))],
    }  # fmt: skip

    def read(path: Path) -> None:
        found = read_coco(path, folder)
        if not all(fault.isprintable() for fault in found.faults):
            raise AssertionError(f"cannot be shown: {found.faults}")
        training = training_data(found, RCNNSettings(min_size=64, max_size=64), mirror=True)
        check_objects(evaluation_data(found, RCNNSettings(min_size=64, max_size=64)))
        for sample in training.samples:
            open_image(sample)

    return Form(json.dumps(told).encode(), read)


@form("detector")
def detector(folder: Path) -> Form:
    from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual
    from fbnetv3_zoo.detection.models.faster_rcnn import RCNNSettings
    from fbnetv3_zoo.detection.models.serialization import FORMAT, DetectorSpec, check_tensors, parse_spec
    from fbnetv3_zoo.errors import ZooError
    from fbnetv3_zoo.utils.serialization import to_json

    relu = Activation.RELU
    rows = (Conv(3, 8, 2, relu), *(InvertedResidual(3, width, 2, 1, 2, relu) for width in (8, 16, 16, 24)))
    arch = Arch("small", 64, tuple((row,) for row in rows), num_classes=5)
    settings = RCNNSettings(64, 96, (12, 18), (1.0, 2.0), 20, 50, 16, 5, 0.1, 30)
    spec = DetectorSpec(("cat", "dog"), arch=arch, settings=settings, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))

    def read(path: Path) -> None:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        found = parse_spec({"format": FORMAT, "detector": text}, "file")
        if len(text) % 20 == 0:  # building takes fifty times as long
            try:
                check_tensors(found, {}, "file")
            except ZooError as error:
                if "its tensors are not those" not in str(error):
                    raise

    return Form(to_json(spec).encode(), read)


@form("detector settings")
def detector_settings(folder: Path) -> Form:
    from fbnetv3_zoo.detection.models.faster_rcnn import RCNNSettings
    from fbnetv3_zoo.utils.serialization import read_json, to_json

    settings = RCNNSettings(64, 96, (12, 18), (1.0, 2.0), 20, 50, 16, 5, 0.1, 30)
    return Form(to_json(settings).encode(), lambda path: read_json(RCNNSettings, path))


def _exported(folder: Path, suffix: str) -> Path:
    """A small network as a file of that ending in ``folder``."""
    from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual
    from fbnetv3_zoo.export import export_onnx
    from fbnetv3_zoo.export.backends.executorch_pte import export_executorch
    from fbnetv3_zoo.export.backends.litert_tflite import export_litert
    from fbnetv3_zoo.export.backends.ncnn_param import export_ncnn
    from fbnetv3_zoo.export.backends.openvino_ir import export_openvino
    from fbnetv3_zoo.export.backends.ort_mobile import export_mobile
    from fbnetv3_zoo.models.fbnet import FBNet

    rows = Conv(3, 8, 2, Activation.HARD_SWISH), InvertedResidual(3, 8, 1, 1, 2, Activation.HARD_SWISH)
    model = FBNet(Arch("tiny", 32, ((rows[0],), (rows[1],)), num_classes=4)).eval()
    path = folder / f"sound{suffix}"
    if suffix == ".pte":
        export_executorch(model, path, max_batch=2)
        return path
    export_onnx(model, folder / "sound.onnx", batch_sizes=[1])
    if suffix == ".ort":
        export_mobile(folder / "sound.onnx", path)
    elif suffix == ".xml":
        export_openvino(folder / "sound.onnx", path)
    elif suffix == ".tflite":
        export_litert(folder / "sound.onnx", path)
    elif suffix == ".ncnn.param":
        export_ncnn(folder / "sound.onnx", path)
    return path


def _opens(suffix: str, reseal: Callable[[Path], None] = lambda path: None) -> Callable[[Path], Form]:
    """The format of files that :meth:`Classifier.open` opens; digests are made to fit the mutated contents."""

    def made(folder: Path) -> Form:
        from fbnetv3_zoo.classify import Classifier

        def read(path: Path) -> None:
            reseal(path)
            Classifier.open(path, threads=1)  # this process is a fork, in which OpenMP cannot start threads

        sound = _exported(folder, suffix)
        if sound.with_suffix(".bin").exists():
            (folder / f"mutated{suffix}").with_suffix(".bin").write_bytes(sound.with_suffix(".bin").read_bytes())
        return Form(sound.read_bytes(), read, suffix, Kind.BINARY)

    return made


def _unsealed_pair(path: Path) -> None:
    import re

    path.write_bytes(re.sub(rb"<(weights|seal)_blake3[^>]*>", b"", path.read_bytes()))


def _resealed(path: Path) -> None:
    from fbnetv3_zoo.runtimes import seal

    data = path.read_bytes()
    if seal.has_seal(data):
        path.write_bytes(seal.sealed(seal.unsealed(data)))


@form("core ml")
def coreml_package(folder: Path) -> Form:
    """Packages whose model is mutated; their digests are made to fit."""
    from fbnetv3_zoo.arch import Activation, Arch, Conv
    from fbnetv3_zoo.classify import Classifier
    from fbnetv3_zoo.export import export_coreml
    from fbnetv3_zoo.models.fbnet import FBNet
    from fbnetv3_zoo.runtimes import coreml

    model = FBNet(Arch("tiny", 32, ((Conv(3, 8, 2, Activation.HARD_SWISH),),), num_classes=4)).eval()
    sound = folder / "sound.mlpackage"
    export_coreml(model, sound)

    def read(path: Path) -> None:
        bare = coreml._SEAL.sub(coreml._NO_SEAL, path.read_bytes())
        digest = coreml.digest_of(bare).encode()
        (sound / coreml.MODEL).write_bytes(bare.replace(coreml._NO_SEAL, coreml._NO_SEAL[:-64] + digest))
        Classifier.open(sound)

    return Form((sound / coreml.MODEL).read_bytes(), read, ".mlmodel", Kind.BINARY)


form("onnx")(_opens(".onnx"))
form("ort")(_opens(".ort"))
form("openvino")(_opens(".xml", _unsealed_pair))
form("executorch")(_opens(".pte", _resealed))
form("litert")(_opens(".tflite", _resealed))
form("ncnn")(_opens(".ncnn.param", _resealed))
