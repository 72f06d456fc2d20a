"""``fbnetv3 export all``: what is in the folder, what the page and the JSON say of it, and what cannot be written."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from networks import SHORT, settled
from page_reader import Reader
from shell import run, succeed

from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import FormatsReport, TimingOptions, export_all
from fbnetv3_zoo.export.bench.hardware import machine_here
from fbnetv3_zoo.export.formats.formats import FORMATS, Format, find_formats
from fbnetv3_zoo.export.formats.page import write_page
from fbnetv3_zoo.export.formats.results import ExportedFile, FileTiming
from fbnetv3_zoo.export.formats.run import Progress
from fbnetv3_zoo.images import read_image
from fbnetv3_zoo.models.network import Network
from fbnetv3_zoo.training.data import digits
from fbnetv3_zoo.utils.serialization import read_json
from fbnetv3_zoo.weights.serialization import save

TRAIN = digits()["train"]
FEW = find_formats("int8")


@pytest.fixture(scope="module")
def network() -> Network:
    return settled(SHORT, tuple("0123456789"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for n, example in enumerate(TRAIN[:45]):
        example.read().save(folder / f"{n:02}.png")
    return folder


def _text(page: Path) -> str:
    """All text of a page, read strictly."""
    return " ".join(text for part in Reader(page.read_text()).texts.values() for text in part)


def _export(
    network: Network, folder: Path, images: object, formats: Sequence[Format] = FEW, **more: Any
) -> FormatsReport:
    return export_all(network, folder, images, formats=formats, timing=None, **more)  # type: ignore[arg-type]


def test_what_is_written_is_compared_on_images_held_out(network: Network, pictures: Path, tmp_path: Path) -> None:
    report = _export(network, tmp_path / "all", pictures)
    assert (report.calibrated_on, report.compared_on, report.held_out) == (36, 9, True)
    assert read_json(FormatsReport, tmp_path / "all" / "report.json") == report
    graph, int8 = report.exports
    assert (graph.file, graph.images, graph.same_class) == ("model.onnx", 9, 9)
    assert graph.difference < 1e-4 < int8.difference
    assert int8.size == (tmp_path / "all" / "model-int8.onnx").stat().st_size
    assert sorted(os.listdir(tmp_path / "all")) == [*report.files]
    images = [read_image(path) for path in sorted(pictures.iterdir())[4::5]]
    for one in report.exports:
        logits = Classifier.open(tmp_path / "all" / one.file).logits
        prepared = network.preprocess(images)
        expected, found = Classifier.of(network).logits(prepared.numpy()), logits(prepared.numpy())
        assert one.same_class == (expected.argmax(1) == found.argmax(1)).sum()
        assert one.difference == pytest.approx(abs(found - expected).max() / abs(expected).max(), rel=1e-3, abs=1e-5)


def test_few_images_serve_for_both(network: Network, pictures: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pictures.iterdir())[:8]:
        (few / path.name).write_bytes(path.read_bytes())
    report = _export(network, tmp_path / "all", few)
    assert (report.calibrated_on, report.compared_on, report.held_out) == (8, 8, False)
    assert "compared on the images that it was calibrated with" in _text(tmp_path / "all" / "report.html")


def test_what_cannot_be_written_is_listed(
    network: Network, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is not installed, a converter that fails; the others are still written."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    ncnn = importlib.import_module("fbnetv3_zoo.export.backends.ncnn_param")

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("pnnx has no such operator")

    monkeypatch.setattr(ncnn, "export_ncnn", fails)
    report = _export(network, tmp_path / "all", pictures, find_formats("openvino,litert,ncnn"))
    assert [one.file for one in report.exports] == ["model.onnx", "model.tflite"]
    assert {one.format: one.reason for one in report.unavailable} == {
        "openvino": 'needs OpenVINO, which is not installed; pip install "fbnetv3-zoo[openvino]"',
        "ncnn": "RuntimeError: pnnx has no such operator",
    }
    page = _text(tmp_path / "all" / "report.html")
    assert "RuntimeError: pnnx has no such operator" in page
    assert "of 4 formats" in page


def test_a_file_that_cannot_be_compared_is_not_left(
    network: Network, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damages(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-200])

    whole = FEW[1].write
    torn = replace(FEW[1], write=lambda task, path: (whole(task, path), damages(path))[0])
    report = _export(network, tmp_path / "all", pictures, (FEW[0], torn))
    assert [one.format for one in report.unavailable] == ["int8"]
    assert sorted(os.listdir(tmp_path / "all")) == ["model.onnx", "report.html", "report.json"]


def test_only_that_file_is_not_left(network: Network, pictures: Path, tmp_path: Path) -> None:
    """OpenVINO's `model.bin` stays where another format of `model` fails, halfway through a folder."""

    def fails(_: object, path: Path) -> Any:
        path.mkdir()
        (path / "weights").mkdir()
        (path / "weights" / "1.bin").write_bytes(b"half")
        raise ZooError("the rest cannot be written")

    openvino = find_formats("openvino")
    wrong = replace(find_formats("coreml")[-1], write=fails)
    report = _export(network, tmp_path / "all", pictures, (*openvino, wrong))
    assert [one.format for one in report.unavailable] == [wrong.name]
    assert sorted(os.listdir(tmp_path / "all")) == [
        "model.bin",
        "model.onnx",
        "model.xml",
        "report.html",
        "report.json",
    ]


def test_an_image_that_cannot_be_read_is_told_at_once(network: Network, pictures: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (broken / "07.png").write_bytes((broken / "07.png").read_bytes()[:60])
    asked: list[str] = []
    with pytest.raises(ZooError, match=r"pictures/07\.png: "):
        _export(network, tmp_path / "all", broken, progress=Progress(on_format=lambda one: asked.append(one.name)))
    assert not asked


def test_nothing_is_written_where_no_format_can_be(pictures: Path, tmp_path: Path, network: Network) -> None:
    def fails(*_: object) -> Any:
        raise ZooError("is not possible")

    with pytest.raises(ZooError, match=r"no format could be written \(onnx: is not possible\)"):
        _export(network, tmp_path / "all", pictures, (replace(FEW[0], write=fails),))
    assert os.listdir(tmp_path) == []


def test_an_interrupted_export_leaves_the_older_one(network: Network, pictures: Path, tmp_path: Path) -> None:
    _export(network, tmp_path / "all", pictures, FEW[:1])
    before = {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()}

    def interrupts(one: Format) -> None:
        if one.name == "int8":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _export(network, tmp_path / "all", pictures, progress=Progress(on_format=interrupts))
    assert {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()} == before
    assert os.listdir(tmp_path) == ["all"]
    _export(network, tmp_path / "all", pictures)
    assert "model-int8.onnx" in os.listdir(tmp_path / "all")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["notes.txt"], "has other files than an export of this command; give another folder"),
        (
            ["report.json", "notes.txt"],
            "has notes.txt, which is not part of the export; move it, or give another folder",
        ),
    ],
)
def test_folders_of_others_stay(
    files: Sequence[str], told: str, network: Network, pictures: Path, tmp_path: Path
) -> None:
    card = {"format": "fbnetv3_zoo.export", "version": 1, "files": ["report.json"]}
    for name in files:
        (tmp_path / name).write_text(json.dumps(card))
    with pytest.raises(ZooError) as caught:
        _export(network, tmp_path, pictures)
    assert str(caught.value) == f"{tmp_path}: {told}"
    assert sorted(os.listdir(tmp_path)) == sorted(files)


def test_files_are_timed_in_turn_with_the_graph(network: Network, pictures: Path, tmp_path: Path) -> None:
    report = export_all(network, tmp_path / "all", pictures, formats=FEW, timing=TimingOptions(threads=(1,), rounds=3))
    graph, int8 = report.exports
    assert (graph.times[0].threads, graph.times[0].ratio) == (1, 1.0)
    assert int8.times[0].milliseconds > 0
    page = _text(tmp_path / "all" / "report.html")
    assert f"{int8.times[0].milliseconds:.2f}" in page
    assert "in turn" in page


def _timed(ratio: float, spread: float, *, int8: bool) -> ExportedFile:
    timing = FileTiming(2, 3 * ratio, (2.9 * ratio, 3.1 * ratio), ratio, (ratio - spread, ratio + spread))
    return ExportedFile("int8", "model-int8.onnx", "servers", 1000, 9, 0.02, 9, int8=int8, times=(timing,))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (_timed(1.6, 0.1, int8=True), ("model-int8.onnx is slower than float here on 2 threads: 1.60 of the time of "
                                       "model.onnx (1.50 to 1.70)",)),
        (_timed(1.05, 0.1, int8=True), ()),
        (_timed(0.7, 0.1, int8=True), ()),
        (_timed(1.6, 0.1, int8=False), ()),
    ],
)  # fmt: skip
def test_int8_that_is_slower_is_named(one: ExportedFile, said: tuple[str, ...], tmp_path: Path) -> None:
    report = FormatsReport("short", 32, False, 36, 9, True, machine_here(), 20, (one,))
    assert report.slow_int8 == said
    write_page(report, tmp_path / "report.html")
    assert ("is slower than float" in _text(tmp_path / "report.html")) is bool(said)


def test_command(network: Network, pictures: Path, tmp_path: Path) -> None:
    model = tmp_path / "net.safetensors"
    save(network, model)
    options = ("--output", tmp_path / "all", "--formats", "int8", "--no-timing")
    lines = succeed("export", "all", model, "--images", pictures, *options).splitlines()
    assert [line.split()[0] for line in lines] == ["file", "model.onnx", "model-int8.onnx", "compared", "all"]
    assert lines[-2:] == ["compared with PyTorch on 9 images", f"all about it: {tmp_path}/all/report.html"]
    data = json.loads(succeed("export", "all", model, "--data", "digits", *options, "--formats", "onnx", "--json"))
    assert data["folder"] == str(tmp_path / "all")
    assert [(one["images"], one["same_class"]) for one in data["exports"]] == [(len(digits()["test"]),) * 2]
    assert (
        "unknown format 'tflit' (did you mean 'litert'?); choose from onnx, int8, "
        in run("export", "all", model, "--images", pictures, "--output", tmp_path / "new", "--formats", "tflit").err
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_all_formats(network: Network, pictures: Path, tmp_path: Path) -> None:
    formats = [one for one in FORMATS if one.name != "web"]  # whose runtime may have to be fetched
    report = export_all(network, tmp_path / "all", pictures, formats=formats, timing=TimingOptions((1, 2), 3))
    assert report.unavailable == ()
    assert [one.file for one in report.exports] == [one.file for one in formats]
    for one in report.exports:
        assert one.difference < (0.2 if one.int8 or one.format == "coreml" else 1e-4)
        assert [timing.threads for timing in one.times] == ([] if one.untimed else [1, 2])
        assert Classifier.open(tmp_path / "all" / one.file).description.arch == network.arch
