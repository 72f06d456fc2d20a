"""The samples of other languages in ``examples/``: they read what a file says of itself, and answer as Python does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import skimage.data
from folders import HELPERS, ROOT
from PIL import Image
from programs import needed, needed_file, needed_package, with_coremltools

import fbnetv3_zoo as zoo
from fbnetv3_zoo.classify import Classifier, Prediction
from fbnetv3_zoo.export import export_coreml, export_litert, export_onnx
from fbnetv3_zoo.export.backends.coreml import quiet
from fbnetv3_zoo.export.sample_images import photographs

EXAMPLES = ROOT / "examples"
KOTLIN = EXAMPLES / "android" / "app" / "src" / "main" / "java" / "zoo" / "camera"
SOURCES = {
    "cpp": [EXAMPLES / "cpp" / "classify.cpp"],
    "node": [EXAMPLES / "node" / "classify.js"],
    "android": [KOTLIN / "MainActivity.kt", KOTLIN / "ModelFile.kt"],
    "ios": [EXAMPLES / "ios" / "Camera.swift"],
}
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "retina")
COUNT = 20
ANDROID = "{http://schemas.android.com/apk/res/android}"
KOTLIN_COMPILER = "kotlin-compiler@2.4.20"

Shared = Callable[[str, Callable[[Path], object]], Path]


@dataclass(frozen=True)
class Files:
    """The package's own network as ``net.onnx``, and images."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "net.onnx"

    @property
    def images(self) -> list[Path]:
        """Photographs and parts of them: wide, upright, large, smaller than the network's input."""
        return sorted(self.folder.glob("photo-*"))

    def expected(self) -> list[list[Prediction]]:
        return Classifier.open(self.model)([zoo.read_image(path) for path in self.images], top=5)


def _fill(folder: Path) -> None:
    export_onnx(zoo.create("fbnetv3_nano", pretrained=True).eval(), folder / "net.onnx", batch_sizes=[1])
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        photo = Image.fromarray(getattr(skimage.data, PHOTOS[number % 5])())
        if number >= 5:
            left, top, width, height = (int(one) for one in rng.integers((0, 0, 20, 20), (100, 100, 300, 300)))
            photo = photo.crop((left, top, left + width, top + height))
        photo = photo.convert("L") if number == 11 else photo
        photo.save(folder / f"photo-{number:02}.{'jpg' if number % 10 == 9 else 'png'}", quality=95)


@pytest.fixture(scope="module")
def files(shared: Shared) -> Files:
    return Files(shared("samples", _fill))


@pytest.mark.parametrize("name", SOURCES)
def test_samples_are_short(name: str) -> None:
    """Fewer than 150 lines beside comments, none of more than 120 columns."""
    lines = [line for path in SOURCES[name] for line in path.read_text(encoding="utf-8").splitlines()]
    assert max(map(len, lines)) <= 120
    assert len([line for line in lines if re.match(r"\s*(?!//|/\*\*|\*)\S", line)]) < 150


@pytest.mark.parametrize("name", SOURCES)
def test_samples_say_how_they_are_built_and_what_was_checked(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert ("not built here" in text.lower()) is (name in ("android", "ios"))
    assert "## What differs from Python" in text


@pytest.mark.parametrize(
    ("language", "files"),
    [
        ("swift", sorted((EXAMPLES / "ios").glob("*.swift"))),
        ("kotlin", sorted((EXAMPLES / "android").rglob("*.kt*"))),
    ],
)
def test_syntax_of_what_is_not_built_here(language: str, files: list[Path]) -> None:
    """By tree-sitter's grammars, which see a missing bracket, and no wrong name."""
    needed_package(f"tree_sitter_{language}", "dev")
    import tree_sitter

    grammar = __import__(f"tree_sitter_{language}")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    assert files
    for path in files:
        text = path.read_bytes()
        assert not parser.parse(text).root_node.has_error, path
        assert parser.parse(text.replace(b")", b"", 1)).root_node.has_error, path


def test_names_in_the_android_sample_exist() -> None:
    """XML is well-formed; classes, strings, layouts and views that are named are there."""
    main = KOTLIN.parents[2]
    manifest = ET.parse(main / "AndroidManifest.xml").getroot()
    (activity,) = (one.attrib[f"{ANDROID}name"] for one in manifest.iter("activity"))
    assert (KOTLIN / f"{activity.removeprefix('.')}.kt").exists()
    strings = {one.attrib["name"] for one in ET.parse(main / "res" / "values" / "strings.xml").iter("string")}
    layouts = {path.stem: ET.parse(path) for path in (main / "res" / "layout").glob("*.xml")}
    ids = {one.attrib.get(f"{ANDROID}id", "").removeprefix("@+id/") for tree in layouts.values() for one in tree.iter()}
    code = (KOTLIN / "MainActivity.kt").read_text()
    named = set(re.findall(r"\bR\.(\w+\.\w+)", code)) | {
        text.removeprefix("@").replace("/", ".") for text in re.findall(r"@string/\w+", str(_attributes(manifest)))
    }
    assert {"layout.main", "id.answer", "string.name"} <= named
    there = {f"string.{name}" for name in strings} | {f"layout.{name}" for name in layouts} | {f"id.{n}" for n in ids}
    assert named <= there


def _attributes(root: ET.Element) -> list[dict[str, str]]:
    return [dict(one.attrib) for one in root.iter()]


@with_coremltools
@pytest.mark.long  # importing coremltools takes most of it
def test_core_ml_packages_have_what_the_ios_sample_reads(model_files: Path, tmp_path: Path) -> None:
    with quiet():
        import coremltools

    code = SOURCES["ios"][0].read_text()
    (key,) = re.findall(r'"(fbnetv3_zoo\.\w+)"', code)
    values = re.findall(r'preprocess\["(\w+)"\] as\? Double', code)
    export_coreml(model_files / "net.onnx", tmp_path / "net.mlpackage", images=photographs(1))
    description = coremltools.utils.load_spec(str(tmp_path / "net.mlpackage")).description
    preprocess = json.loads(description.metadata.userDefined[key])
    assert values == ["resize", "resolution"]
    assert {type(preprocess[value]) for value in values} == {int}
    # what makes Vision take an image and give VNClassificationObservation
    assert [one.type.WhichOneof("Type") for one in description.input] == ["imageType"]
    assert description.predictedFeatureName == "classLabel"


def _run(*command: object, **options: object) -> str:
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return str(ended.stdout)


def _answers(printed: str) -> list[list[tuple[str, float]]]:
    """Classes and percentages of each image, from what a sample prints, which is what ``classify`` prints."""
    lines = printed.splitlines()
    starts = [n for n, line in enumerate(lines) if not line.startswith("  ")]
    found = [lines[start + 1 : end] for start, end in pairwise([*starts, len(lines)])]
    rows = [[re.fullmatch(r" *([\d.]+)%  (.+)", line) for line in lines] for lines in found]
    return [[(row[2], float(row[1])) for row in one if row is not None] for one in rows]


def _check(command: list[object], files: Files, tmp_path: Path, *, codecs_agree: bool) -> None:
    """The sample ``command`` answers as Python does, and complains in one line."""
    expected, answers = files.expected(), _answers(_run(*command, files.model, *files.images))
    assert len({row[0].name for row in expected}) > 5
    assert [row[0][0] for row in answers] == [row[0].name for row in expected]
    for path, row, answer in zip(files.images, expected, answers, strict=True):
        if path.suffix == ".png" or codecs_agree:
            assert [name for name, _ in answer] == [one.name for one in row], path
            percentages = [100 * one.probability for one in row]
            np.testing.assert_allclose([percent for _, percent in answer], percentages, rtol=0, atol=0.02)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    foreign, proto = tmp_path / "foreign.onnx", onnx.load(files.model)
    del proto.metadata_props[:]
    onnx.save(proto, foreign)
    wrong = [[], [files.model], [files.model, broken], [tmp_path / "none.onnx", broken], [broken, broken]]
    for arguments in [*wrong, [foreign, files.images[0]]]:
        ended = subprocess.run(list(map(str, [*command, *arguments])), capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (2, ""), arguments
        assert re.fullmatch(r"error: .+\n", ended.stderr), ended.stderr


@pytest.mark.long
def test_cpp_answers_as_python_does(files: Files, tmp_path: Path) -> None:
    """Built against the library in onnxruntime's wheel, which is newer than the headers."""
    cmake, _ = needed("cmake"), needed("g++")
    includes = ("usr/include", "usr/local/include")
    headers = [f"{one}/{part}onnxruntime_cxx_api.h" for one in includes for part in ("", "onnxruntime/")]
    needed_file("libonnxruntime-dev", headers)
    needed_file("libstb-dev", [f"{one}/stb/stb_image.h" for one in includes])
    needed_file("nlohmann-json3-dev", [f"{one}/nlohmann/json.hpp" for one in includes])
    spec = find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None  # noqa: PT018
    (library,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.1*")
    (tmp_path / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / "lib" / name).symlink_to(library)
    _run(
        cmake,
        "-S",
        EXAMPLES / "cpp",
        "-B",
        tmp_path / "build",
        f"-DONNXRUNTIME={tmp_path}",
        "-DCMAKE_CXX_FLAGS=-Werror",
    )
    _run(cmake, "--build", tmp_path / "build")
    _check([tmp_path / "build" / "classify"], files, tmp_path, codecs_agree=False)


@pytest.mark.long
def test_node_answers_as_python_does(files: Files, tmp_path: Path) -> None:
    node, npm = needed("node"), needed("npm")
    sample = shutil.copytree(EXAMPLES / "node", tmp_path / "node")
    _run(npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", cwd=sample)
    _check([node, sample / "classify.js"], files, tmp_path, codecs_agree=True)


@pytest.mark.long
def test_kotlin_reads_and_prepares_as_python_does(files: Files, tmp_path: Path) -> None:
    """The part of the Android sample without Android, compiled by Kotlin's own compiler and run on a real file."""
    java, npm = needed("java"), needed("npm")
    json_jar = needed_file("libandroid-json-java", ["usr/share/java/com.android.json.jar"])
    needed_package("ai_edge_litert", "litert")
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefix", tmp_path)
    _run(npm, "install", *options, KOTLIN_COMPILER)
    home = tmp_path / "node_modules" / "kotlin-compiler"
    compiler = [java, "-cp", home / "lib" / "*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-kotlin-home", home]
    sources = [KOTLIN / "ModelFile.kt", HELPERS / "ModelFileReader.kt"]
    _run(*compiler, "-no-reflect", "-Werror", "-cp", json_jar, "-d", tmp_path / "classes", *sources)
    export_litert(files.model, tmp_path / "net.tflite")
    description = Classifier.open(tmp_path / "net.tflite").description
    classes = os.pathsep.join(map(str, (tmp_path / "classes", home / "lib" / "kotlin-stdlib.jar", json_jar)))
    for path in files.images[:8]:
        image = zoo.read_image(path).convert("RGB")
        argb = np.dstack([np.full((image.height, image.width), 255, np.uint8), np.asarray(image)])
        (tmp_path / "pixels").write_bytes(argb.tobytes())
        command = [java, "-cp", classes, "ModelFileReaderKt", tmp_path / "net.tflite", image.width, image.height]
        names, sizes, numbers, best = _run(*command, tmp_path / "pixels").splitlines()
        assert tuple(names.split("\t")) == description.class_names
        assert sizes == f"{description.preprocess.resize} {description.preprocess.resolution}"
        side = description.preprocess.resolution
        given = np.array(numbers.split(), np.float32).reshape(side, side, 3).transpose(2, 0, 1)
        apart = np.abs(given - description.preprocess.array(image)) * 255 * np.array(description.preprocess.std)[0]
        assert apart.max() < 1.01, path  # gray levels: Pillow rounds twice
        assert re.fullmatch(r"\[\(character B, 0\.665\d*\), \(character D, 0\.244\d*\)\]", best)
