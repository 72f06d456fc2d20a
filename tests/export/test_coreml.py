"""Core ML packages: the program, its answers and metadata, and packages that are damaged or not ours."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from disks import small_disk
from networks import NAMES, SHORT, V1, V2, settled
from PIL import Image
from programs import with_coremltools
from shell import run, script, succeed

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import export_coreml
from fbnetv3_zoo.export.backends import common as sources
from fbnetv3_zoo.export.backends import coreml as exporter
from fbnetv3_zoo.export.backends.coreml import WeightsType, class_labels, package_size, quiet
from fbnetv3_zoo.export.parity import parity
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.runtimes import coreml, sandbox
from fbnetv3_zoo.runtimes.coreml import MODEL, WEIGHTS, read_package, sealed, write_package
from fbnetv3_zoo.runtimes.mil import MLProgram, parse
from fbnetv3_zoo.utils.onnx_io import EXPORT_AGAIN
from fbnetv3_zoo.weights.serialization import load, save

pytestmark = with_coremltools

BY = "Core ML" if sys.platform == "darwin" else "torch, operator by operator"
HARD = ("HardSwish", "HardSigmoid")


def _fill(folder: Path, graph: Path) -> None:
    """The network of ``model_files`` with all types of weights, and another network of the same shape."""
    for kind in WeightsType:
        export_coreml(graph, folder / f"{kind.value}.mlpackage", weights=kind)
    other = onnx.load(graph)
    (classifier,) = (node for node in other.graph.node if node.op_type == "Gemm")
    (weight,) = (one for one in other.graph.initializer if one.name == classifier.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, weight.name))
    onnx.save_model(other, folder / "other.onnx")
    export_coreml(folder / "other.onnx", folder / "other.mlpackage", weights=WeightsType.FLOAT32)


@pytest.fixture(scope="session")
def packages(model_files: Path, shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The folder of the packages of one network. Only read."""
    return shared("coreml-files", lambda folder: _fill(folder, model_files / "net.onnx"))


@pytest.fixture
def package(packages: Path, tmp_path: Path) -> Path:
    """A package of the test's own."""
    return Path(shutil.copytree(packages / "float32.mlpackage", tmp_path / "net.mlpackage"))


@pytest.fixture
def converted(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converting any network gives, at once, the program of ``packages``."""
    parts = read_package(packages / "float32.mlpackage")
    monkeypatch.setattr(exporter, "_converted", lambda *given: parts)


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ZooError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _message(package: Path) -> Any:
    return parse(read_package(package)[0])


def _operations(package: Path) -> list[Any]:
    main = _message(package).mlProgram.functions["main"]
    return list(main.block_specializations[main.opset].operations)


def test_float32_agrees(packages: Path, model_files: Path) -> None:
    (found,) = parity(
        model_files / "net.safetensors", [packages / "float32.mlpackage"], images=photographs(12, seed=3)
    ).files
    assert 0 < found.relative <= 1e-5
    assert (found.images, found.agreement) == (12, 1)
    assert found.scale > 0.5


def test_shorter_weights_take_less_space_and_differ_little(packages: Path, model_files: Path) -> None:
    sizes = {kind.value: (packages / f"{kind.value}.mlpackage" / WEIGHTS).stat().st_size for kind in WeightsType}
    assert sizes["int8"] < sizes["float16"] < 0.75 * sizes["float32"]  # each array begins at a multiple of 64 bytes
    for kind, least, most in (("float16", 1e-5, 1e-2), ("int8", 1e-3, 0.2)):
        (found,) = parity(model_files / "net.safetensors", [packages / f"{kind}.mlpackage"]).files
        assert least < found.relative < most


def test_hard_activations_are_operators(packages: Path, model_files: Path) -> None:
    nodes = [node.op_type for node in onnx.load(model_files / "net.onnx").graph.node]
    hard = sum(kind in HARD for kind in nodes)
    assert hard == 15
    for name, casts in (("float32", 0), ("float16", 2), ("int8", 2)):
        kinds = [one.type for one in _operations(packages / f"{name}.mlpackage")]
        assert kinds.count("sigmoid_hard") == hard
        assert kinds.count("mul") == nodes.count("HardSwish") + nodes.count("Mul") + 1  # and normalization
        assert kinds.count("conv") == nodes.count("Conv")
        assert kinds.count("cast") == casts
        assert kinds.count("constexpr_affine_dequantize") == (name == "int8") * (nodes.count("Conv") + 1)
        others = {"add", "cast", "classify", "const", "constexpr_affine_dequantize", "conv", "linear", "mul"}
        assert {*kinds} <= {*others, "reduce_mean", "relu", "reshape", "sigmoid_hard", "softmax", "sub"}


def test_types_of_the_program(packages: Path) -> None:
    for name, number in (("float32", 11), ("float16", 10), ("int8", 10)):
        found = [one.outputs[0].type.tensorType.dataType for one in _operations(packages / f"{name}.mlpackage")
                 if one.type in ("conv", "sigmoid_hard", "linear", "sub")]  # fmt: skip
        assert {*found} == {number}


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_apples_own_reader_takes_the_program(packages: Path, name: str, tmp_path: Path) -> None:
    """It checks every operator's arguments, and computes every shape anew."""
    with quiet():
        from coremltools.converters.mil.frontend.milproto.load import load as read_program
    package = packages / f"{name}.mlpackage"
    message = _message(package)
    with quiet():
        program = read_program(message, message.specificationVersion, str(package / WEIGHTS.parent))
    kinds = [one.op_type for one in program.functions["main"].operations]
    assert kinds.count("sigmoid_hard") == 15
    assert kinds[-1] == "classify"


def test_what_xcode_and_clients_are_told(packages: Path, model_files: Path) -> None:
    description = _message(packages / "float16.mlpackage").description
    (image,) = description.input
    assert (image.name, image.type.imageType.width, image.type.imageType.height) == ("image", 32, 32)
    assert image.type.imageType.colorSpace == 20  # RGB
    assert [one.name for one in description.output] == ["classLabel", "classLabel_probs", "logits"]
    assert (description.predictedFeatureName, description.predictedProbabilitiesName) == (
        "classLabel", "classLabel_probs",
    )  # fmt: skip
    assert description.metadata.shortDescription == "tiny, 10 classes"
    (classify,) = (one for one in _operations(packages / "float16.mlpackage") if one.type == "classify")
    values = classify.inputs["classes"].arguments[0].value.immediateValue.list.values
    assert tuple(value.immediateValue.tensor.strings.values[0] for value in values) == NAMES
    opened = Classifier.open(packages / "float16.mlpackage")
    assert opened.description == load(model_files / "net.safetensors").description


def test_names_that_several_classes_have(tiny_arch: Arch) -> None:
    arch = replace(tiny_arch, num_classes=4)
    known = Description(arch, Preprocess.for_arch(arch), ("crane", "cat", "crane", "dog"))
    assert class_labels(known) == ["crane (0)", "cat", "crane (2)", "dog"]
    assert class_labels(replace(known, class_names=None)) == ["0", "1", "2", "3"]


def test_gray_images(tiny_arch: Arch, tmp_path: Path) -> None:
    model, images = settled(replace(tiny_arch, in_channels=1)), photographs(20)
    report = export_coreml(model, tmp_path / "gray.mlpackage", weights=WeightsType.FLOAT32, images=images)
    assert all(0 < found.relative < 1e-5 for found in report.parity.values())
    assert report.computed_by == BY
    assert _message(report.path).description.input[0].type.imageType.colorSpace == 10  # grayscale
    found, wanted = Classifier.open(report.path)(images, top=1), Classifier.of(model)(images, top=1)
    assert [one[0].name for one in found] == [one[0].name for one in wanted]


def test_a_license_is_part_of_the_metadata(packages: Path, model_files: Path) -> None:
    message = _message(packages / "float16.mlpackage")
    described = Description.from_metadata(coreml.entries_of(message))
    assert described is not None
    exporter._describe(message, replace(described, license="Apache-2.0"))
    assert message.description.metadata.license == "Apache-2.0"


@pytest.mark.long
@pytest.mark.parametrize("arch", [V1, V2, SHORT], ids=lambda arch: str(arch.name))
@pytest.mark.parametrize("kind", WeightsType)
def test_networks_of_all_three_papers(arch: Arch, kind: WeightsType, tmp_path: Path) -> None:
    model = settled(arch, NAMES).train()
    report = export_coreml(model, tmp_path / "net.mlpackage", weights=kind)
    assert model.training
    assert report.file_size == package_size(report.path)
    for found in report.parity.values():
        assert (found.path, found.images) == (report.path, 10)
        assert found.relative <= {"float32": 1e-5, "float16": 1e-2, "int8": 0.2}[kind.value]


@pytest.mark.long
@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:mobilenet_v3_small"])
def test_models_of_torchvision(name: str, tmp_path: Path) -> None:
    model = create(name, num_classes=10, generator=torch.Generator().manual_seed(0))
    model.preprocess = model.preprocess.at_resolution(64)
    with torch.no_grad():
        for _ in range(10):
            model(model.preprocess(photographs(16)))
    report = export_coreml(model, tmp_path / "net.mlpackage", weights=WeightsType.FLOAT32)
    assert report.parity["PyTorch"].relative <= 1e-4


def test_the_same_network_gives_the_same_bytes(packages: Path, model_files: Path, tmp_path: Path) -> None:
    export_coreml(model_files / "net.onnx", tmp_path / "again.mlpackage", weights=WeightsType.INT8)
    assert read_package(tmp_path / "again.mlpackage") == read_package(packages / "int8.mlpackage")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_images(count: int, packages: Path, model_files: Path) -> None:
    model = load(model_files / "net.safetensors")
    images = stack(model.preprocess, photographs(3))[:count]
    found = Classifier.open(packages / "float32.mlpackage").logits(images)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(images)).numpy() if count else np.zeros((0, 10))
    assert found.shape == (count, 10)
    assert np.abs(found - wanted).max(initial=0) <= 1e-5 * np.abs(wanted).max(initial=1)


def test_only_images_of_levels(packages: Path) -> None:
    path = packages / "float32.mlpackage"
    logits = Classifier.open(path, threads=torch.get_num_threads()).logits
    told = "it takes 8-bit images, and these have other levels than 0 to 255 after normalization"
    for images in (np.full((1, 3, 32, 32), 0.01), np.full((1, 3, 32, 32), 9.0), np.full((1, 3, 32, 32), np.nan)):
        assert _refusal(lambda images=images: logits(images.astype(np.float32))) == (
            f"{path}: cannot be computed ({told})"
        )
    assert "images are float32 of shape (1, 1, 32, 32)" in _refusal(
        lambda: logits(np.zeros((1, 1, 32, 32), np.float32))
    )


def test_missing_packages_and_files(package: Path, tmp_path: Path) -> None:
    assert _refusal(lambda: Classifier.open(tmp_path / "no.mlpackage")) == f"{tmp_path}/no.mlpackage: no such file"
    (tmp_path / "file.mlpackage").write_bytes(b"")
    told = f"{tmp_path}/file.mlpackage: is a file, not the folder of a Core ML package"
    assert _refusal(lambda: Classifier.open(tmp_path / "file.mlpackage")) == told
    for name in ("Manifest.json", MODEL, WEIGHTS):
        content = (package / name).read_bytes()
        (package / name).unlink()
        told = f"{package}: cannot be read as Core ML package (it has no {name}); {EXPORT_AGAIN}"
        assert _refusal(lambda: Classifier.open(package)) == told
        (package / name).write_bytes(content)
    assert Classifier.open(package).description.class_names == NAMES


def test_every_change_is_noticed(packages: Path) -> None:
    path, rng = packages / "float32.mlpackage", random.Random(0)
    whole = {name: (path / name).read_bytes() for name in ("Manifest.json", MODEL, WEIGHTS)}

    def check(changed: dict[str | Path, bytes]) -> None:
        coreml.check_package(path, *({**whole, **changed}[name] for name in whole))

    check({})
    for name, content in whole.items():
        for place in [0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(100))]:
            damaged = bytearray(content)
            damaged[place] ^= 1 << rng.randrange(8)
            _refusal(lambda name=name, damaged=damaged: check({name: bytes(damaged)}))
            _refusal(lambda name=name, content=content, place=place: check({name: content[:place]}))
        _refusal(lambda name=name, content=content: check({name: content + b"\0"}))


def test_damaged_and_swapped_parts(package: Path, packages: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "Manifest.json": (b"{}", "Manifest.json is damaged"),
        MODEL: ((package / MODEL).read_bytes() + b"\0", "model.mlmodel is damaged: its digest is another"),
        WEIGHTS: ((packages / "other.mlpackage" / WEIGHTS).read_bytes(), "weight.bin is damaged or of another model"),
    }
    for name, (content, reason) in wrong.items():
        before = (package / name).read_bytes()
        (package / name).write_bytes(content)
        told = f"{package}: cannot be read as Core ML package ({reason}); {EXPORT_AGAIN}"
        assert _refusal(lambda: Classifier.open(package)) == told
        assert run("classify", "no.png", "--model", package).err == f"error: {told}\n"
        (package / name).write_bytes(before)
    assert capfd.readouterr() == ("", "")


def test_packages_of_others(package: Path) -> None:
    model = (package / MODEL).read_bytes().replace(b"fbnetv3_zoo blake3 ", b"of other people    ")
    (package / MODEL).write_bytes(model)
    told = f"{package}: does not describe its classes and preprocessing; export it with `fbnetv3 export coreml`"
    assert _refusal(lambda: Classifier.open(package)) == told


def _resealed(package: Path, change: Callable[[Any, bytearray], object]) -> None:
    """Change a package and seal it anew, as someone who means harm could."""
    model, weights = read_package(package)
    message, content = parse(model), bytearray(weights)
    change(message, content)
    entries = coreml.entries_of(message)
    shutil.rmtree(package)
    package.mkdir()
    write_package(package, sealed(message, entries, bytes(content)), bytes(content))


def _block(message: Any) -> Any:
    main = message.mlProgram.functions["main"]
    return main.block_specializations[main.opset]


def _first(message: Any, kind: str) -> Any:
    return next(one for one in _block(message).operations if one.type == kind)


def _other_operator(message: Any, weights: bytearray) -> None:
    _first(message, "relu").type = "while_loop"


def _other_kind(message: Any, weights: bytearray) -> None:
    message.ClearField("mlProgram")


def _huge(message: Any, weights: bytearray) -> None:
    _first(message, "conv").outputs[0].type.tensorType.dimensions[1].constant.size = 1 << 40


def _elsewhere(message: Any, weights: bytearray) -> None:
    blobs = (one.attributes["val"] for one in _block(message).operations if one.type == "const")
    next(one for one in blobs if one.WhichOneof("value") == "blobFileValue").blobFileValue.offset = 1 << 40


def _other_shape(message: Any, weights: bytearray) -> None:
    _first(message, "conv").outputs[0].type.tensorType.dimensions[1].constant.size = 9


def _unknown_name(message: Any, weights: bytearray) -> None:
    _first(message, "relu").inputs["x"].arguments[0].name = "nothing"


def _no_logits(message: Any, weights: bytearray) -> None:
    del _block(message).outputs[:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_operator, "it has the operator while_loop, which is not known here"),
        (_other_kind, "it is not an ML program"),
        (_huge, "it has a tensor of shape (1, 1099511627776, 16, 16)"),
        (_elsewhere, "its weights end too early"),
        (_other_shape, "conv gives (1, 8, 16, 16), and the program says (1, 9, 16, 16)"),
        (_unknown_name, "it uses 'nothing', which nothing computes"),
        (_no_logits, "it does not compute logits of one image"),
    ],
)
def test_programs_made_to_harm(
    change: Callable[[Any, bytearray], None], reason: str, package: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Another process refuses them first."""
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path / "cache"))
    _resealed(package, change)
    told = f"{package}: cannot be read as Core ML package ({reason}); {EXPORT_AGAIN}"
    assert _refusal(lambda: Classifier.open(package)) == told


def test_opened_in_another_process_first(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sandbox, "_good", set())
    parts = read_package(package)
    assert not sandbox.known(".mlpackage", parts)
    assert Classifier.open(package).description.arch.name == "tiny"
    assert sandbox.known(".mlpackage", parts)


def test_classify_says_nothing_but_its_answer(package: Path, model_files: Path, tmp_path: Path) -> None:
    """From the very first call of a process; and where nobody has Core ML, coremltools itself is never imported."""
    photographs(1)[0].save(tmp_path / "photo.png")
    answers = []
    for model in (package, model_files / "net.onnx"):
        with script("classify", "photo.png", "--model", model, "--json", cwd=tmp_path) as process:
            out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        answers.append([one["name"] for one in json.loads(out)[0]["predictions"]])
    assert answers[0] == answers[1]


def test_without_coremltools(package: Path, tmp_path: Path) -> None:
    code = "import sys, importlib.util as u; found = u.find_spec; "
    code += "u.find_spec = lambda name, *rest: None if name == 'coremltools' else found(name, *rest); "
    code += "sys.modules['coremltools'] = None; from fbnetv3_zoo.cli import main; main(sys.argv[1:])"
    told = 'needs coremltools, which is not installed; pip install "fbnetv3-zoo[coreml]"'
    save(settled(SHORT), tmp_path / "short.safetensors")
    for words in (("classify", "no.png", "--model", package), ("export", "coreml", tmp_path / "short.safetensors")):
        command = [sys.executable, "-c", code, *map(str, words)]
        ended = subprocess.run(command, capture_output=True, check=False, text=True)
        path = package if words[0] == "classify" else tmp_path / "short.mlpackage"
        assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"error: {path}: {told}\n")


def test_a_package_that_differs_is_not_kept(
    converted: None, package: Path, model_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_package(package)
    monkeypatch.setitem(exporter._TOLERANCES, WeightsType.FLOAT32, -1)
    told = _refusal(lambda: export_coreml(model_files / "net.onnx", package, weights=WeightsType.FLOAT32))
    assert told.startswith(f"{package}: logits differ from the network's by ")
    assert told.endswith("more than -1 of it; nothing was written")
    assert read_package(package) == before
    assert os.listdir(package.parent) == [package.name]


def test_full_disks(converted: None, model_files: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 8192):
        told = _refusal(lambda: export_coreml(model_files / "net.onnx", disk / "net.mlpackage"))
        assert not list(disk.iterdir())
    written = disk / "net.mlpackage"
    assert told in {f"{written}: cannot be written ({why})" for why in ("No space left on device", "File too large")}


def test_what_is_replaced(converted: None, package: Path, model_files: Path, tmp_path: Path) -> None:
    """An older package of ours as a whole; nothing else."""
    (package / "Data" / "note.txt").write_text("of an older export")
    report = export_coreml(model_files / "net.onnx", package, weights=WeightsType.FLOAT32)
    assert not (package / "Data" / "note.txt").exists()
    assert report.file_size == package_size(package)
    end = (
        "already exists, and was not written by this program; give another path as --output, or remove that file first"
    )
    (package / MODEL).write_bytes(b"of others")
    assert _refusal(lambda: export_coreml(model_files / "net.onnx", package)) == f"{package}: {end}"
    assert (package / MODEL).read_bytes() == b"of others"
    mine = tmp_path / "mine.mlpackage"
    mine.mkdir()
    (mine / "letter.txt").write_text("mine")
    assert _refusal(lambda: export_coreml(model_files / "net.onnx", mine)) == f"{mine}: {end}"
    assert (mine / "letter.txt").read_text() == "mine"


def test_wrong_calls(model_files: Path, tmp_path: Path) -> None:
    wrong: dict[str, Callable[[], object]] = {
        "net.mlmodel: Core ML packages end in .mlpackage; change the extension": lambda: export_coreml(
            model_files / "net.onnx", "net.mlmodel"
        ),
        "weights is 'int4'; choose from float32, float16, int8": lambda: export_coreml(
            model_files / "net.onnx", "net.mlpackage", weights="int4",  # type: ignore[arg-type]
        ),
        "net.pt: give a network or an .onnx file written by `fbnetv3 export onnx`": lambda: export_coreml(
            "net.pt", tmp_path / "net.mlpackage"
        ),
    }  # fmt: skip
    for told, call in wrong.items():
        assert _refusal(call) == told


def test_networks_of_other_channels(tiny_arch: Arch, tmp_path: Path) -> None:
    model = FBNet(replace(tiny_arch, in_channels=4))
    told = "tiny: has 4 channels; Core ML's images have 1 or 3"
    assert _refusal(lambda: export_coreml(model, tmp_path / "net.mlpackage")) == told


def test_graphs_of_other_operators(model_files: Path, tmp_path: Path) -> None:
    proto = onnx.load(model_files / "net.onnx")
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type = "Elu"
    onnx.save_model(proto, path := tmp_path / "elu.onnx")
    told = f"{path}: has the operator Elu, which is not exported to Core ML"
    assert _refusal(lambda: export_coreml(path, tmp_path / "net.mlpackage")) == told


def test_the_command(model_files: Path, tmp_path: Path) -> None:
    """Of a graph as JSON, and of a network as a person reads it."""
    shutil.copy(model_files / "net.onnx", tmp_path)
    data = json.loads(succeed("export", "coreml", tmp_path / "net.onnx", "--weights", "float32", "--json"))
    path = tmp_path / "net.mlpackage"
    assert (data["path"], data["weights"], data["computed_by"]) == (str(path), "float32", BY)
    assert data["operators"]["sigmoid_hard"] == 15
    assert 0 < data["parity"]["ONNX Runtime"]["relative"] <= 1e-4
    assert data["file_size"] == package_size(path)
    save(settled(SHORT, NAMES), tmp_path / "net.safetensors")
    lines = succeed("export", "coreml", tmp_path / "net.safetensors").splitlines()
    assert lines[0].startswith(f"{path} (")
    assert lines[0].endswith(" kB), weights in float16")
    assert lines[1].startswith("operators: 8 conv, 8 mul, 7 sigmoid_hard, ")
    assert lines[2] == ("computed by Core ML" if BY == "Core ML" else f"computed by {BY}: Core ML needs macOS")
    assert [line.split(":")[0] for line in lines[3:]] == [
        "largest difference to PyTorch", "largest difference to ONNX Runtime",
    ]  # fmt: skip
    Image.new("RGB", (50, 40), "orange").save(tmp_path / "image.png")
    (answer,) = json.loads(succeed("classify", tmp_path / "image.png", "--model", path, "--json"))
    (wanted,) = json.loads(
        succeed("classify", tmp_path / "image.png", "--model", path.with_suffix(".safetensors"), "--json")
    )
    assert [one["name"] for one in answer["predictions"]] == [one["name"] for one in wanted["predictions"]]


def test_a_benchmark_of_a_package(package: Path) -> None:
    told = f"error: {package}: Core ML packages are timed by Xcode, on the device; give a .safetensors file\n"
    assert run("benchmark", package, "--rounds", 3).err == told


def test_the_program_is_computed_as_written(packages: Path) -> None:
    """The evaluator reads the weights from the package: other weights give other logits."""
    images = torch.rand(1, 3, 32, 32) * 255
    model, weights = read_package(packages / "float32.mlpackage")
    _, others = read_package(packages / "other.mlpackage")
    one, other = (MLProgram(parse(model), blob).logits(images) for blob in (weights, others))
    assert (one - other).abs().max() > 0.1
    assert sources.TOLERANCE == 1e-4
