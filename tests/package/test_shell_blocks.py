"""The commands of README and docs: all of a page run one after the other, in a folder with the files that they name.

Networks, data sets and runs are small: options are added to a command that make it so, and the package's own network
stands for those whose weights would have to be fetched. A block that does not run says why, in a comment before it:
``<!-- not run: REASON -->``.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import drawings
import fonts
import numpy as np
import pytest
import shapes
import shell
import torch
from folders import ROOT
from pages import FENCED, PAGES, lines, shell_blocks
from PIL import Image

import fbnetv3_zoo as zoo
from fbnetv3_zoo.detection import RCNNSettings
from fbnetv3_zoo.utils.serialization import to_json

_LARGE = re.compile(r"\bfbnetv3_[a-g]\b|\bfbnetv2_l3\b")
_SLIM = "--small-images --width 0.25 --depth 0.25"
LESS = {
    "train": "--epochs 1 --batch-size 8 --workers 0",
    "distil": f"--epochs 1 --batch-size 8 {_SLIM}",
    "export all": "--no-timing",
    "benchmark": "--rounds 3 --batches 1 --threads 1",
    "search run": "--rounds 1 --batch 2 --epochs 1 --finalists 1 --pool 200",
    "search dnas": "--epochs 1 --draws 0",
    "search dmasking": "--data digits --epochs 1 --draws 0",
    "search lut": "--rounds 3 --check 0",
    "detect train": "--epochs 1 --batch-size 4 --settings settings.json --width 0.25 --depth 0.25",
    "subset": "--classes 2 --held-out 3",
}
"""What is added to a command; of an option given twice, the last one counts."""
ELSEWHERE = {"demo": "tests/cli/test_cli_demo.py", "serve-demo": "tests/export/test_web.py"}
"""Commands that other tests run."""
NOT_RUN = {"make": "runs the tests, or the demo", "pip": "installs", "python benchmarks/": "takes minutes to hours"}
"""What the lines begin with that are not run anywhere, and why."""


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [page for page, text in PAGES.items() if re.search("^    fbnetv3 ", text, re.MULTILINE)]
)
def test_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    if page == "docs/detection.md":
        prepare_boxes(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in shell_blocks(PAGES[page]):
        for line in () if block["reason"] else lines(block["code"]):
            if not line.startswith((*NOT_RUN,)):
                run(line)


def run(line: str) -> None:
    """Run a line of a shell that calls `fbnetv3`."""
    line, _, written = line.partition(" > ")
    program, *words = shlex.split(smaller(line))
    assert program == "fbnetv3", line
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in {*LESS, words[0]})
    if name in ELSEWHERE:
        return
    words = [path for word in words for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    ended = shell.run(*words, *LESS.get(name, "").split())
    assert ended.code == 0, f"{line}\n{ended.err}"
    if written:
        Path(written.strip()).write_text(ended.out)


def smaller(line: str) -> str:
    """The same with the package's own network, a slim one of torchvision, and the files of :func:`prepare`."""
    if not line.startswith(("fbnetv3 distil", "fbnetv3 recipe")):
        line = _LARGE.sub("fbnetv3_nano", line)
    line = line.replace("torchvision:resnet50", "torchvision:resnet18@width=0.25").replace("/data/imagenet", "PHOTOS")
    if "runs/search/NAME" in line:
        (recipe,) = Path("runs/search").glob("*.recipe.json")
        line = line.replace("runs/search/NAME.recipe.json", str(recipe))
    line = re.sub(r"latency_ms<=[\d.]+", "latency_ms<=100", line)  # this machine may be busy
    return line.replace("IMAGENET", "PHOTOS").replace("/usr/share/fonts", "fonts")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_or_says_why_not(page: str) -> None:
    text, found = PAGES[page], [*shell_blocks(PAGES[page])]
    for block in found:
        for line in () if block["reason"] else lines(block["code"]):
            assert line.startswith(("fbnetv3 ", *NOT_RUN)), line
            if script := re.match(r"python (\S+)", line):
                assert (ROOT / script[1]).is_file(), line
    fenced = FENCED.findall(text)
    for block in fenced:
        runs = block.startswith("```python\n")  # in test_code_blocks.py
        assert runs or block.startswith(("```text\n", "```json\n", "```output\n")) or f" -->\n{block}" in text, block
    reasons = [block["reason"] for block in found if block["reason"]]
    assert text.count("<!-- not run: ") == len(reasons) + len(re.findall(r"<!-- not run: .+? -->\n```", text))


def photos(folder: Path, per_class: int = 10) -> Path:
    """Pieces of photographs in three class folders."""
    rng = np.random.default_rng(0)
    for photo, name in zip(shapes.photographs(), ("astronaut", "cat", "coffee"), strict=False):
        (folder / name).mkdir(parents=True)
        for n in range(per_class):
            top, left = (int(rng.integers(0, side - 96)) for side in photo.shape[:2])
            Image.fromarray(photo[top : top + 96, left : left + 96]).save(folder / name / f"{n}.png")
    return folder


def prepare(folder: Path) -> None:
    """The files that the pages name."""
    photos(folder / "PHOTOS")
    shutil.copytree(folder / "PHOTOS", folder / "photos")
    shutil.copytree(folder / "PHOTOS" / "cat", folder / "NEW_PHOTOS")
    for name in ("cat.jpg", "photo.jpg"):
        Image.open(folder / "PHOTOS" / "cat" / "0.png").save(folder / name)
    nano = zoo.create("fbnetv3_nano", pretrained=True)
    for place in ("run7", "fonts"):
        (folder / place).mkdir()
    zoo.save(nano, folder / "model.safetensors")
    zoo.export_onnx(nano.eval(), folder / "model.onnx")
    run(f"fbnetv3 train {folder}/PHOTOS --model fbnetv3_nano --output {folder}/runs/g")
    torch.save({"state_dict": nano.state_dict()}, folder / "run7" / "best.pth")
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in nano.class_names))
    for name in ("cmr10.ttf", "cmss10.ttf", "cmtt10.ttf"):  # of three families
        shutil.copy(fonts.SHIPPED / name, folder / "fonts" / name)
    for vendor, color in zip(("noto", "twemoji", "fluent", "openmoji"), ("#f00", "#0a0", "#00f", "#a0a"), strict=True):
        drawings.write_vendor(folder / vendor / "package", color)


def prepare_boxes(folder: Path) -> None:
    """Images with boxes in ``photos``, ``test`` and ``val``, and settings for a small detector."""
    shutil.rmtree(folder / "photos")
    for place, file in (("photos", "boxes.json"), ("test", "test.json"), ("val", "val.json")):
        shapes.write(folder / place, 10, seed=len(place), side=64, objects=2).rename(folder / file)
    Image.open(folder / "test" / "0000.png").save(folder / "street.jpg")
    settings = RCNNSettings(min_size=64, max_size=64, anchor_sizes=(12, 18), proposals=20, score_threshold=0.0)
    (folder / "settings.json").write_text(to_json(settings))
