"""The command line as its users meet it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import fitted
from PIL import Image
from shell import run, script, succeed
from waiting import PATIENCE

from fbnetv3_zoo import create, export_onnx
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.training.data import digits
from fbnetv3_zoo.weights.registry import list_models, list_weights
from fbnetv3_zoo.weights.serialization import save
from fbnetv3_zoo.zoo import ARCHS, PUBLISHED

COMMANDS = (
    "list", "info", "train", "distil", "validate", "classify", "predict", "subset", "demo", "serve-demo",
    "benchmark", "data", "detect", "export", "recipe", "search", "weights",
)  # fmt: skip


@dataclass(frozen=True)
class Home:
    """A folder with ``arch.json`` and ``model.safetensors``, a network that knows the digits."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"


@pytest.fixture(scope="module")
def home(tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    (home.folder / "arch.json").write_text(tiny_arch.to_json())
    save(fitted(tiny_arch), home.model)
    return home


@pytest.fixture(scope="module")
def exported(home: Home) -> tuple[Path, str]:
    """The model's ONNX file, and what exporting it printed."""
    return home.folder / "model.onnx", succeed("export", "onnx", home.model)


def test_list() -> None:
    header, *lines = succeed("list").splitlines()
    assert header.split() == [
        "name",
        "pixels",
        "MMACs",
        "Mparams",
        "top-1",
        "%",
        "(published)",
        "license",
        "of",
        "the",
        "weights",
    ]
    assert [line.split()[0] for line in lines] == list_models()
    assert len(lines) == 23
    (line,) = (line for line in lines if line.startswith("fbnetv3_a "))
    assert line.split() == ["fbnetv3_a", "224", "356.6", "8.60", "79.57", "CC-BY-NC-4.0"]
    (line,) = (line for line in lines if line.startswith("fbnetv3_b "))
    assert line.endswith("80.21  CC-BY-NC-4.0, Apache-2.0")
    (line,) = (line for line in lines if line.startswith("fbnetv3_a0 "))
    assert line.split()[-2:] == ["-", "-"]


def test_list_with_a_pattern() -> None:
    lines = succeed("list", "fbnetv2_[fl]1").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["fbnetv2_f1", "fbnetv2_l1"]


def test_list_of_networks_for_commercial_use() -> None:
    lines = succeed("list", "--commercial").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["fbnetv3_b", "fbnetv3_d", "fbnetv3_g", "fbnetv3_nano"]
    assert all(line.endswith("Apache-2.0") for line in lines[1:])


def test_list_as_json() -> None:
    rows = json.loads(succeed("list", "--json"))
    assert [row["name"] for row in rows] == list_models()
    for row in rows:
        cost = arch_cost(ARCHS[row["name"]])
        assert (row["macs"], row["parameters"]) == (cost.macs, cost.parameters)
        assert row["resolution"] == ARCHS[row["name"]].resolution
        published = PUBLISHED.get(row["name"])
        assert row["published_top1"] == (published.top1 if published else None)
        assert [weights["name"] for weights in row["weights"]] == list_weights(row["name"])
        assert all(weights["commercial"] == (weights["licence"] == "Apache-2.0") for weights in row["weights"])


def test_info_shows_the_published_figures() -> None:
    text = succeed("info", "fbnetv3_a")
    published, cost = PUBLISHED["fbnetv3_a"], arch_cost(ARCHS["fbnetv3_a"])
    assert text.startswith("fbnetv3_a, 224 x 224 pixels\n")
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["MACs"] == ["MACs", f"{cost.macs:,}"]
    assert lines["published"] == [
        "published",
        f"{published.macs:,}",
        "MACs,",
        f"{published.conv_weights:,}",
        "conv",
        "weights",
    ]
    assert lines["conv weights"][2:] == [f"{cost.conv_weights:,}"]
    assert lines["parameters"] == ["parameters", "8,598,480"]
    figures = f"    top-1 79.57 %, top-5 {published.top5:.2f} % at 224 px (publisher's record)"
    assert text.splitlines()[-2:] == ["weights fbnetv3_a.fb_in1k (license CC-BY-NC-4.0)", figures]
    rows = [line for line in text.splitlines() if "InvertedResidual" in line]
    assert len(rows) == sum(type(block.row).__name__ == "InvertedResidual" for block in ARCHS["fbnetv3_a"].blocks)


def test_info_without_published_figures(home: Home) -> None:
    text = succeed("info", home.folder / "arch.json")
    assert text.startswith("tiny, 32 x 32 pixels\n")
    assert text.splitlines()[-1].split() == ["weights", "none", "are", "published", "for", "this", "network"]


@pytest.mark.parametrize("name", ["fbnet_c", "fbnetv2_l1", "fbnetv3_a0", "fbnetv3_20g"])
def test_info_as_json(name: str) -> None:
    data, cost = json.loads(succeed("info", name, "--json")), arch_cost(ARCHS[name])
    for field in ("resolution", "macs", "conv_weights", "parameters", "peak_activation"):
        assert data[field] == getattr(cost, field)
    assert [row["macs"] for row in data["blocks"]] == [line.macs for line in cost.blocks]
    assert [row["size"] for row in data["blocks"]] == [line.size for line in cost.blocks]
    assert [row["out_channels"] for row in data["blocks"]] == [block.out_channels for block in ARCHS[name].blocks]
    assert (data["published"] is None) == (name not in PUBLISHED)


def test_info_of_a_derived_network() -> None:
    options = ("--small-images", "--width", "0.5", "--depth", "2", "--resolution", "40", "--json")
    data = json.loads(succeed("info", "fbnetv3_a", *options))
    arch = replace(ARCHS["fbnetv3_a"].for_small_images().scaled(width=0.5, depth=2), resolution=40)
    assert (data["name"], data["resolution"]) == ("fbnetv3_a_small_w0.5_d2", 40)
    assert (data["macs"], data["parameters"]) == (arch_cost(arch).macs, arch_cost(arch).parameters)


def test_export(home: Home, exported: tuple[Path, str]) -> None:
    path, text = exported
    size = path.stat().st_size
    file, given, answer, difference = text.splitlines()
    assert file == f"{path}: opset 18, {size / 1e6:.1f} MB"
    assert (given, answer) == ("input images: batch x 1 x 32 x 32", "output logits: batch x 10")
    assert difference.startswith("largest difference to PyTorch: ")
    assert difference.endswith(" (batches of 1, 2, 7, 32 photographs)")


def test_export_a_network_without_weights(smallest_arch: Arch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("arch.json").write_text(smallest_arch.to_json())
    lines = succeed("export", "onnx", "arch.json", "--opset", 20, "--resolution", 64).splitlines()
    assert lines[0] == "weights are random: good for timing, not for classifying"
    assert lines[1].startswith("smallest.onnx: opset 20, ")
    assert lines[2] == "input images: batch x 3 x 64 x 64"
    assert next(o.version for o in onnx.load("smallest.onnx").opset_import if not o.domain) == 20


def test_export_as_json(home: Home, exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from fbnetv3_zoo.export.onnx import export as to_onnx

    monkeypatch.setattr(to_onnx, "_write", lambda model, target, form: shutil.copy(exported[0], target))
    data = json.loads(succeed("export", "onnx", home.model, "--output", home.folder / "again.onnx", "--json"))
    assert data["path"] == str(home.folder / "again.onnx")
    assert (data["opset"], data["inputs"]) == (18, {"images": ["batch", 1, 32, 32]})
    assert data["max_difference"] == max(data["differences"].values())
    assert data["file_size"] == exported[0].stat().st_size


@pytest.mark.long
def test_export_for_images_of_any_size(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "inside.onnx"
    text = succeed("export", "onnx", home.model, "--output", path, "--preprocessing", "--align", 1)
    _, given, answer, difference = text.splitlines()
    assert (given, answer) == ("input image: height x width x 1", "output probabilities: 10")
    assert " at probabilities up to " in difference
    made_by = {entry.key: entry.value for entry in onnx.load(path).metadata_props}["made_by"]
    assert made_by.endswith("; opset 18, channels in multiples of 1, preprocessing inside")
    text = succeed("export", "onnx", home.model, "--output", tmp_path / "any.onnx", "--any-size")
    assert text.splitlines()[1] == "input images: batch x 1 x height x width"


def test_export_int8(home: Home, exported: tuple[Path, str], tmp_path: Path) -> None:
    """With images from a folder, or from a data set, whose test part then gives accuracies."""
    for n, example in enumerate(digits()["train"][:10]):
        example.read().save(tmp_path / f"{n}.png")
    path = exported[0].with_name("model-int8.onnx")
    lines = succeed("export", "int8", exported[0], "--images", tmp_path, "--agreement", 0).splitlines()
    lines = lines[lines[0].startswith("slower than float here on 1 thread: ") :]
    size = path.stat().st_size
    shown = f"{size / 1e6:.2f} MB, {size / exported[0].stat().st_size:.2f} of float's size"
    assert re.fullmatch(rf"{path}: int8 for ONNX Runtime \((avx2|vnni|arm64)\), {shown}", lines[0])
    assert re.fullmatch(r"same class as float: \d+\.\d\d% of 10 calibration images", lines[1])
    assert re.fullmatch(r"time here, one image, 1 thread: .+ of float's \(.+ to .+\)", lines[2])
    options = ("--output", tmp_path / "net.onnx", "--target", "avx2", "--most-float", 1, "--json")
    data = json.loads(succeed("export", "int8", exported[0], "--data", "digits", *options))
    assert (data["path"], data["target"], data["route"]) == (str(tmp_path / "net.onnx"), "avx2", "ONNX Runtime")
    assert (data["images"], len(data["float_layers"])) == (len(digits()["test"]), 1)
    assert 0.8 < data["accuracy_float"] <= 1
    kept = data["float_layers"][0]
    text = succeed("export", "int8", exported[0], "--images", tmp_path, "--keep", kept, "--agreement", 0)
    assert f"left in float: 1 layers ({kept})" in text.splitlines()


def test_int8_of_a_network_with_other_classes_has_no_accuracy(smallest_arch: Arch, tmp_path: Path) -> None:
    """Classes in another order are found by name; others are told of, and are no labels."""
    for name, classes in {"turned": "9876543210", "letters": "abcdefghij"}.items():
        model = create(smallest_arch, in_chans=1, num_classes=10).eval()
        model.class_names = tuple(classes)
        export_onnx(model, tmp_path / f"{name}.onnx")
    options = ("--data", "digits", "--agreement", 0)
    assert "accuracy on test images" in succeed("export", "int8", tmp_path / "turned.onnx", *options)
    ended = run("export", "int8", tmp_path / "letters.onnx", *options)
    assert ended.code == 0
    assert "accuracy" not in ended.out
    assert ended.err.startswith(f"warning: {tmp_path}/letters.onnx: its classes differ from those of digits; ")
    assert ended.err.endswith("; no accuracy is measured\n")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A test digit, a 7 that is no 7 when it lies on its side, in every kind of file, without loss but for JPEG."""
    folder = tmp_path_factory.mktemp("pictures")
    digit = next(example.read() for example in digits()["test"] if example.label == 7).resize((64, 64))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    images: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "gray.png": (digit, {}),
        "rgb.png": (digit.convert("RGB"), {}),
        "rgba.png": (digit.convert("RGBA"), {}),
        "palette.png": (digit.convert("P"), {}),
        "sixteen_bit.png": (Image.fromarray(np.asarray(digit).astype(np.uint16) * 257), {}),
        "turned.png": (digit.transpose(Image.Transpose.ROTATE_90), {"exif": turned}),
        "lossless.webp": (digit.convert("RGB"), {"lossless": True}),
        "scan.tif": (digit, {}),
        "plain.bmp": (digit, {}),
        "cmyk.tiff": (digit.convert("RGB").convert("CMYK"), {}),
        "photo.jpg": (digit, {"quality": 95}),
        "print.jpeg": (digit.convert("CMYK"), {"quality": 95}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    digit.transpose(Image.Transpose.ROTATE_90).save(folder / "on_its_side.png")
    return {path.name: path for path in folder.iterdir()}


def _answers(text: str) -> dict[str, dict[str, float]]:
    return {
        Path(entry["image"]).name: {p["name"]: p["probability"] for p in entry["predictions"]}
        for entry in json.loads(text)
    }


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_classify_every_kind_of_file(
    kind: str, home: Home, exported: tuple[Path, str], pictures: dict[str, Path]
) -> None:
    model = home.model if kind == "safetensors" else exported[0]
    found = _answers(succeed("classify", *pictures.values(), "--model", model, "--top", 10, "--json"))
    expected = found["gray.png"]
    assert list(found) == list(pictures)
    for name, answer in found.items():
        assert sum(answer.values()) == pytest.approx(1)
        lossy, same = name.endswith((".jpg", ".jpeg")), answer == pytest.approx(expected, abs=0.02)
        assert same != (name == "on_its_side.png") or lossy, name
        assert not lossy or answer == pytest.approx(expected, abs=0.2), name


def test_classify_as_text(home: Home, pictures: dict[str, Path]) -> None:
    path = pictures["gray.png"]
    probabilities = _answers(succeed("classify", path, "--model", home.model, "--json"))["gray.png"]
    expected = [str(path), *(f"  {value:7.2%}  {name}" for name, value in probabilities.items())]
    text = succeed("classify", path, "--model", home.model)
    assert text.splitlines() == expected
    assert len(expected) == 6
    assert succeed("classify", path, "--model", home.model, "--top", 2).splitlines() == expected[:3]


def test_classify_a_folder_as_csv(home: Home, pictures: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    shutil.copy(pictures["gray.png"], tmp_path / 'a, "1".png')
    shutil.copy(pictures["rgb.png"], tmp_path / "below" / "b.png")
    (tmp_path / "notes.txt").touch()
    text = succeed("predict", tmp_path, "--model", home.model, "--top", 2, "--csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["image"], row["rank"]) for row in rows] == [
        (str(tmp_path / name), rank) for name in ('a, "1".png', "below/b.png") for rank in "12"
    ]
    found = _answers(succeed("classify", tmp_path, "--model", home.model, "--top", 2, "--json"))
    for row in rows:
        assert float(row["probability"]) == pytest.approx(found[Path(row["image"]).name][row["class"]], abs=1e-6)


def test_classify_a_folder_without_images(home: Home, tmp_path: Path) -> None:
    ended = run("classify", tmp_path, "--model", home.model)
    assert (ended.code, ended.err) == (2, f"error: {tmp_path}: has no images (JPEG, PNG, WebP, TIFF, BMP)\n")
    assert "give only one" in run("classify", tmp_path, "--model", home.model, "--csv", "--json").err


def test_classify_goes_on_after_a_broken_file(home: Home, pictures: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures["rgb.png"].read_bytes()[:80])
    order = (pictures["gray.png"], broken, tmp_path / "absent.png", pictures["rgb.png"])
    ended = run("classify", *order, "--model", home.model, "--json")
    assert ended.code == 2
    assert list(_answers(ended.out)) == ["gray.png", "rgb.png"]
    first, second = ended.err.splitlines()
    assert first.startswith(f"error: {broken}: cannot be read as an image (")
    assert second == f"error: {tmp_path}/absent.png: no such file"


def test_classify_from_another_folder(exported: tuple[Path, str], pictures: dict[str, Path]) -> None:
    folder = pictures["gray.png"].parent
    process = script("classify", "gray.png", "rgb.png", "--model", exported[0], "--top", 1, cwd=folder)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert [line.split()[-1] for line in out.splitlines()] == ["gray.png", "7", "rgb.png", "7"]


def _plain(text: str) -> str:
    """``text`` without the colors that typer adds where it takes a log for a terminal, as on GitHub."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    text = " ".join(_plain(succeed(command, "--help")).split())
    assert f"Usage: fbnetv3 {command} [OPTIONS]" in text
    assert f"Example: fbnetv3 {command}" in text


def test_help_of_a_command_below_another_in_short() -> None:
    assert succeed("export", "int8", "-h") == succeed("export", "int8", "--help")


def test_completion() -> None:
    words = {"_FBNETV3_COMPLETE": "complete_bash", "COMP_WORDS": "fbnetv3 export o", "COMP_CWORD": "2"}
    command = [str(Path(sys.executable).with_name("fbnetv3"))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **words}, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["onnx", "openvino"])


@pytest.mark.parametrize("arguments", [("--help",), ()])
def test_help_names_every_command(arguments: tuple[str, ...]) -> None:
    text = _plain(succeed(*arguments))
    assert "Usage: fbnetv3 [OPTIONS] COMMAND" in text
    assert re.findall(r"^[│\s]*([a-z-]+)  +[A-Z]", text, re.MULTILINE) == list(COMMANDS)


def _imported(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``code``."""
    code = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "matplotlib", "sklearn", "scipy", "PIL", "safetensors"}


@pytest.mark.parametrize("arguments", [["list"], ["recipe", "show", "proxy"], ["train", "--help"]])
def test_looking_up_imports_nothing_heavy(arguments: list[str]) -> None:
    found = _imported(f"from fbnetv3_zoo.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass")
    assert "fbnetv3_zoo.cli" in found
    assert not found & HEAVY


def test_a_wrong_path_does_not_wait_for_torch(tmp_path: Path) -> None:
    arguments = ["train", str(tmp_path / "absent"), "--output", str(tmp_path / "run")]
    found = _imported(f"from fbnetv3_zoo.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass")
    assert "fbnetv3_zoo.training.data.find" in found
    assert "torch" not in found


def test_importing_the_package_imports_nothing_heavy() -> None:
    found = _imported("import fbnetv3_zoo")
    assert "fbnetv3_zoo" in found
    assert not found & (HEAVY | {"numpy", "typer", "rich"})


def test_evaluating_imports_no_transforms_and_no_compiler() -> None:
    found = _imported("from fbnetv3_zoo.training import evaluate, train")
    assert "fbnetv3_zoo.training.augmentation.images" in found
    assert not found & {"torchvision", "torch._dynamo", "sympy", "matplotlib", "sklearn"}


@pytest.mark.parametrize("arguments", [["list"], ["info", "fbnetv3_g", "--json"]], ids=["little", "much"])
def test_a_reader_that_leaves(arguments: list[str], tmp_path: Path) -> None:
    """As in ``fbnetv3 list | head -1``: not a word, whether the output fits in a buffer or not."""
    reading, writing = os.pipe()
    os.close(reading)
    process = script(*arguments, cwd=tmp_path, stdout=writing, env={**os.environ, "PYTHONUNBUFFERED": ""})
    os.close(writing)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "")
