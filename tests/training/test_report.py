"""The report page: what it says, for runs of all kinds, and that it stands alone."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from page_reader import Reader
from PIL import Image
from refusals import refusal

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import LeastSize, Preprocess
from fbnetv3_zoo.recipes import NAMED, RECIPES, AdamW, CosineDecay, preset_of
from fbnetv3_zoo.training.callbacks import Epoch
from fbnetv3_zoo.training.data import Dataset, Example
from fbnetv3_zoo.training.evaluation import Evaluation
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.report import Report, write_report
from fbnetv3_zoo.training.report.curves import curve_charts, draw_curve

VOID = {"br", "img", "meta"}
EPOCHS = tuple(
    Epoch(n, learning_rate, loss, loss + 0.1, top1, skipped=n, images_per_second=rate, seconds=1800.0 * n)
    for n, learning_rate, loss, top1, rate in ((1, 0.1, 2.0, 0.25, 100.0), (2, 0.05, 1.5, 0.5, 300.0))
)


@dataclass
class Case:
    """A run on images of one shade; image n is ``labels[n]``, answered ``predicted[n]`` at such a loss.

    It has no epochs unless ``changes`` has: they take time to draw.
    """

    labels: Sequence[int] = (0, 0, 0, 0, 1, 1, 1, 2)
    predicted: Sequence[int] = (0, 0, 0, 1, 1, 1, 2, 2)
    losses: Sequence[float] = (0.1, 0.1, 0.1, 2.0, 0.2, 0.2, 3.0, 0.3)
    names: Sequence[str] = ("cat", "dog", "owl")
    skipped: tuple[str, ...] = ()
    unreadable: Sequence[int] = ()
    keys: dict[int, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)

    def report(self, arch: Arch) -> Report:
        labels, predicted = np.array(self.labels), np.array(self.predicted)
        found = Evaluation(
            labels=labels,
            predicted=predicted,
            ranks=(labels != predicted).astype(np.int64),
            losses=np.array(self.losses),
            probabilities=np.full(len(labels), 0.75),
            positions=np.arange(len(labels)),
            skipped=self.skipped,
            seconds=0.5,
            class_names=tuple(self.names),
        )
        examples = [
            Example(partial(self.read, n), int(label), self.keys.get(n, f"{n}.png")) for n, label in enumerate(labels)
        ]
        splits = MappingProxyType({"train": [], "validation": examples, "test": examples})
        data = Dataset("pets", tuple(self.names), (0.5,), (0.25,), 1.0, splits)  # type: ignore[arg-type]
        arch = replace(arch, num_classes=len(self.names), in_channels=1)
        preprocess = Preprocess(36, 32, mean=(0.5,), std=(0.25,))
        report = Report(arch, data, NAMED["digits"], preprocess, (), "test", found, Execution(workers=3))
        return replace(report, **self.changes)

    def read(self, n: int, at_least: LeastSize | None = None) -> Image.Image:
        if n in self.unreadable:
            raise ZooError(f"{n}.png: no such file")
        return Image.new("RGB", (50, 40), (20 + n,) * 3)


@pytest.fixture
def page(tiny_arch: Arch, tmp_path: Path) -> Any:
    """From a case to its page."""

    def written(case: Case) -> Reader:
        write_report(tmp_path / "report.html", case.report(tiny_arch))
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
        return Reader((tmp_path / "report.html").read_text(encoding="utf-8"))

    return written


def test_the_head(page: Any) -> None:
    told = page(Case(changes={"notes": ["teacher big: 80 %"]})).told()
    assert told.startswith("tiny on pets tiny on pets A training run, 20")  # once as the window's title
    for figures in (
        "Top-1 on test 75.00% 95 %: 40.93% to 92.85%",
        "Images 8 2 answered wrong",
        "Loss 0.7500 mean cross entropy in nats",
    ):
        assert figures in told
    assert told.endswith("teacher big: 80 %")


def test_it_stands_alone(page: Any) -> None:
    """Nothing is fetched and nothing runs: no address but those within the page, no script."""
    read = page(Case(changes={"epochs": EPOCHS}))
    addresses = [value for _, name, value in read.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert addresses
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in addresses)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _, _ in read.attributes}
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert not [value for *_, value in read.attributes if re.search(r"https?:|@import|url\((?!#)", value or "")]
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(set(ids)) == len(ids)


def test_light_and_dark_and_narrow(page: Any, tmp_path: Path) -> None:
    page(Case(changes={"epochs": EPOCHS}))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "@media (prefers-color-scheme: dark)" in text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "http:" not in text
    assert "https:" not in text


def test_curves(page: Any) -> None:
    told = page(Case(changes={"epochs": EPOCHS})).told("Training")
    for title in ("Loss", "Validation accuracy", "Learning rate", "training, as optimized", "validation", "epoch"):
        assert title in told


def test_classes(page: Any) -> None:
    assert page(Case()).rows["Classes, worst first"] == [
        ["class", "images", "right", "accuracy", "95 % interval", ""],
        ["dog", "3", "2", "66.67%", "20.77% to 93.85%", ""],
        ["cat", "4", "3", "75.00%", "30.06% to 95.44%", ""],
        ["owl", "1", "1", "100.00%", "20.65% to 100.00%", ""],
    ]


def test_confusion_matrix(page: Any) -> None:
    read = page(Case())
    assert read.rows["Confusion matrix"] == [
        ["", "cat", "dog", "owl"],
        ["cat", "3", "1", ""],
        ["dog", "", "2", "1"],
        ["owl", "", "", "1"],
    ]
    assert "cat answered as dog: 1" in read.values(("td", "title"))
    assert read.values(("td", "style"))[:2] == ["--share: 0.866", "--share: 0.500"]  # roots of 3 / 4 and 1 / 4


@pytest.mark.parametrize(("classes", "counted", "dense"), [(20, True, False), (21, False, True), (50, False, True)])
def test_a_large_matrix_has_no_numbers(classes: int, counted: bool, dense: bool, page: Any) -> None:
    names = [f"class {n}" for n in range(classes)]
    read = page(Case(labels=(0, 1), predicted=(0, 2), losses=(0.1, 2.0), names=names))
    head, *rows = read.rows["Confusion matrix"]
    assert (len(head), len(rows), {len(row) for row in rows}) == (classes + 1, classes, {classes + 1})
    assert rows[0][1] == ("1" if counted else "")
    assert ("confusion dense" in read.values(("table", "class"))) == dense
    assert "class 1 answered as class 2: 1" in read.values(("td", "title"))


def test_mistakes(page: Any) -> None:
    read = page(Case())
    assert read.told("Costliest mistakes") == (
        "Costliest mistakes All 2, by loss; cropped as the network saw them. In brackets: the probability it gave. "
        "6.png is dog (5.0%) answered owl (75.0%) loss 3.00 3.png is cat (13.5%) answered dog (75.0%) loss 2.00"
    )
    assert read.values(("img", "title"))[:2] == ["6.png", "3.png"]
    for source, shade in zip(read.values(("img", "src"))[:2], (26, 23), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (32, 32))
        assert picture.getcolors() == [(32 * 32, shade)]


def test_names_of_images_are_shown_and_long_ones_shortened(page: Any) -> None:
    case = Case()
    names = {n: f"cat/DSC_{n:04}_of_the_last_summer_{n}.jpg" for n in range(8)}
    read = page(replace(case, keys=names))
    assert "DSC_0006_of…summer_6.jpg is dog" in read.told("Costliest mistakes")
    assert names[6] in read.values(("span", "title"))


def test_right_answers_the_least_certain_first(page: Any) -> None:
    read = page(Case(losses=(0.1, 0.4, 0.2, 2.0, 0.3, 0.6, 3.0, 0.5)))
    assert read.values(("img", "title"))[2:] == ["5.png", "7.png", "1.png", "4.png", "2.png", "0.png"]
    assert read.told("Right answers, the least certain first").count("is ") == 6


def test_frequent_confusions_are_named(page: Any) -> None:
    case = Case([0, 0, 0, 1, 1, 2], [1, 1, 0, 1, 2, 2], [0.1] * 6, names=("cat", "dog", "owl"))
    assert "Most frequent: cat taken for dog : 2; dog taken for owl : 1." in page(case).told("Confusion matrix")


def test_pictures_are_made_small(page: Any) -> None:
    preprocess = Preprocess(300, 300, mean=(0.5,), std=(0.25,))
    source, *_ = page(Case(changes={"preprocess": preprocess})).values(("img", "src"))
    assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size == (128, 128)


def test_pictures_are_those_of_the_positions(page: Any, tiny_arch: Arch) -> None:
    """Where images were left out, a row of the record is not the example of that number."""
    found = Case().report(tiny_arch).evaluation
    moved = replace(found, positions=7 - found.positions)
    read = page(Case(changes={"evaluation": moved}))
    assert read.values(("img", "title"))[:2] == ["1.png", "4.png"]


def test_more_mistakes_than_are_shown(page: Any) -> None:
    count = 40
    case = Case([0] * count, [1] * count, [n / 10 for n in range(count)], names=("a", "b"))
    read = page(case)
    assert len(read.values(("img", "src"))) == 32
    assert read.values(("img", "title"))[:2] == ["39.png", "38.png"]
    assert "The 32 costliest of 40, by loss" in read.told("Costliest mistakes")


def test_no_mistakes(page: Any) -> None:
    read = page(Case((0, 1), (0, 1), (0.1, 0.1), ("a", "b")))
    assert read.told("Costliest mistakes") == "Costliest mistakes Every image was answered right."
    assert "Images 2 0 answered wrong" in read.told()
    names = [f"class {n}" for n in range(51)]
    read = page(Case((0, 1), (0, 1), (0.1, 0.1), names))
    assert read.told("Most frequent confusions") == "Most frequent confusions No class was taken for another."


def test_a_class_without_images(page: Any) -> None:
    read = page(Case(names=("cat", "dog", "owl", "newt", "auk")))
    assert [row[0] for row in read.rows["Classes, worst first"]] == ["class", "dog", "cat", "owl"]
    assert read.told("Classes, worst first").endswith("Classes without images here: newt , auk .")
    assert read.rows["Confusion matrix"][4] == ["newt", "", "", "", "", ""]


def test_a_thousand_classes(page: Any) -> None:
    """Class n of 1000 has two images and is taken for the next as often as n % 3."""
    labels = np.repeat(np.arange(1000), 2)
    wrong = np.arange(2000) % 2 < np.repeat(np.arange(1000) % 3, 2)
    case = Case(labels, np.where(wrong, (labels + 1) % 1000, labels), wrong * 2.0, [f"n{n}" for n in range(1000)])
    read = page(case)
    head, *rows = read.rows["Classes, worst first"]
    assert [row[0] for row in rows] == [f"n{n}" for n in range(1000) if n % 3 == 2][:50]
    assert "The 50 classes with the lowest accuracy, of 1,000." in read.told("Classes, worst first")
    assert "Confusion matrix" not in read.texts
    head, *rows = read.rows["Most frequent confusions"]
    assert head == ["is", "answered", "images", "of the class"]
    assert rows == [[f"n{n}", f"n{n + 1}", "2", "100.0%"] for n in range(1000) if n % 3 == 2][:50]
    assert "Images 2,000 999 answered wrong" in read.told()


def test_losses_that_are_not_finite(page: Any) -> None:
    case = Case(losses=(0.1, 0.1, 0.1, math.nan, 0.2, 0.2, math.inf, 0.3))
    report_epochs = (replace(EPOCHS[0], train_loss=math.nan, validation_loss=math.inf), EPOCHS[1])
    read = page(replace(case, changes={"epochs": report_epochs}))
    assert "Loss not finite mean cross entropy in nats" in read.told()
    assert "is cat (not finite) answered dog (75.0%) loss not finite" in read.told("Costliest mistakes")
    assert "is dog (0) answered owl (75.0%) loss not finite" in read.told("Costliest mistakes")


def test_an_evaluation_of_validation(page: Any) -> None:
    told = page(Case(changes={"split": "validation"})).told()
    assert "Top-1 on validation 75.00%" in told
    assert told.endswith("The figures are of the validation images, which the training itself was watched with.")


def test_images_left_out(page: Any) -> None:
    told = page(Case(skipped=("a.png", "b<i>.png"))).told()
    assert told.endswith("Images that could not be read and were left out: 2 ( a.png , b<i>.png ).")
    told = page(Case(skipped=tuple(f"{n}.png" for n in range(1234)))).told()
    assert told.endswith("were left out: 1,234 ( 0.png , 1.png , 2.png , 3.png , 4.png , 5.png , 6.png , 7.png , 8.png"
                         " , 9.png , ...).")  # fmt: skip


def test_a_picture_that_can_no_longer_be_read(page: Any) -> None:
    read = page(Case(unreadable=(6,)))
    assert read.values(("img", "title"))[0] == "3.png"
    assert "cannot be read 6.png is dog (5.0%) answered owl" in read.told("Costliest mistakes")


def test_no_epochs(page: Any) -> None:
    read = page(Case())
    assert "Training" not in read.texts
    assert "Epochs 0 Training 0.0 s, no images/s while training" in read.told("Run")


NAMES = ("<script>alert(1)</script>", '"it\'s" & more', "قطة", "ネコ 🐈‍⬛", "a\nb", "</bdi></table>")


def test_names_of_all_kinds(page: Any) -> None:
    """Names come back from the page as they are, in tables, titles and captions."""
    labels = list(range(6)) * 2
    predicted = labels[:6] + [(n + 1) % 6 for n in range(6)]
    read = page(Case(labels, predicted, [0.1] * 6 + [2.0] * 6, NAMES, skipped=NAMES, changes={"notes": NAMES}))
    assert sorted(row[0] for row in read.rows["Classes, worst first"][1:]) == sorted(NAMES)
    assert [row[0] for row in read.rows["Confusion matrix"][1:]] == list(NAMES)
    assert f"{NAMES[0]} answered as {NAMES[1]}: 1" in read.values(("td", "title"))
    for name in NAMES:
        shown = " ".join(name.split())
        assert read.told().count(shown) == 2
        assert read.told("Costliest mistakes").count(shown) == 2


def test_names_that_are_no_unicode(page: Any) -> None:
    read = page(Case(names=("cat\udcff", "dog", "owl"), skipped=("\udc80.png",)))
    assert read.rows["Confusion matrix"][0][1] == "cat\\udcff"
    assert "\\udc80.png" in read.told()


def test_a_named_recipe_with_its_sources(page: Any) -> None:
    own = replace(RECIPES["fbnetv3_b"], epochs=10, seed=4)
    head, *rows = page(Case(changes={"recipe": preset_of(own)})).rows["Recipe"]
    assert head == ["field", "value", "source"]
    told = {field: rest for field, *rest in rows}
    assert list(told) == [field for field in own.values() if field not in ("augmentation", "distillation")]
    assert told["epochs"] == ["10", "chosen for this run"]
    assert told["seed"] == ["4", "chosen for this run"]
    assert told["warmup_epochs"] == ["5", "FBNetV3 paper (arXiv 2006.02049), final training: 5"]
    assert told["optimizer"] == ["RMSProp", "this project's choice, one of the two of Table 2"]
    assert told["weight_decay"][0] == "1e-05"
    assert told["augmentation.shift"][0] == "no"
    assert told["ema_warmup"][0] == "yes"


def test_a_recipe_without_a_name(page: Any) -> None:
    own = replace(RECIPES["digits"], label_smoothing=0.2)
    head, *rows = page(Case(changes={"recipe": preset_of(own)})).rows["Recipe"]
    assert head == ["field", "value"]
    assert ["label_smoothing", "0.2"] in rows
    assert ["augmentation.policy", "none"] in rows


@pytest.mark.parametrize("name", sorted(NAMED))
def test_sources_of_every_named_recipe(name: str) -> None:
    named = NAMED[name]
    sources = {key: named.source_of(key) for key in named.recipe.values()}
    assert preset_of(named.recipe, arch=name).all_sources == sources
    for field_, value in (("epochs", 3), ("batch_size", 18), ("learning_rate", 1.5), ("ema_decay", 0.5), ("seed", 99)):
        found = preset_of(replace(named.recipe, **{field_: value}), arch=name)  # type: ignore[arg-type]
        assert found.all_sources == {**sources, field_: "chosen for this run"}
    for change in ({"optimizer": AdamW()}, {"schedule": CosineDecay()}, {"clip_norm": 0.1}):
        assert preset_of(replace(named.recipe, **change), arch=name).all_sources == {}  # type: ignore[arg-type]


def test_network_run_and_machine(page: Any, tiny_arch: Arch) -> None:
    read = page(Case(changes={"processes": 2, "epochs": EPOCHS}))
    cost = arch_cost(replace(tiny_arch, num_classes=3, in_channels=1))
    assert read.told("Network") == (
        f"Network Name tiny Parameters {cost.parameters:,} MACs {cost.macs:,} for one image "
        "Input 1 x 32 x 32 (channels, height, width) Classes 3 "
        "Preprocessing shorter side to 36 pixels (bilinear), center crop of 32; values from 0 to 1, less 0.5, divided "
        "by 0.25"
    )
    assert read.told("Run") == (
        "Run Data pets Images train 0, validation 8, test 8 Epochs 2 Training 1 h 30 min, 150 images/s while training "
        "Evaluation 0.5 s, 16 images/s with reading and preparing Images left out none "
        "Processes 2, each with 3 to prepare images Device cpu, float32"
    )
    machine = read.told("Machine")
    for fact in (
        r"Processor \S+",
        r"Cores \d+ Memory [\d.]+ GiB",
        rf"torch {re.escape(torch.__version__)}",
        "Python 3",
    ):
        assert re.search(fact, machine)


def test_it_replaces_the_old_page(page: Any, tiny_arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    assert page(Case()).told().startswith("tiny on pets")
    (tmp_path / "folder.html").mkdir()
    told = refusal(lambda: write_report(tmp_path / "folder.html", Case().report(tiny_arch)))
    assert told == f"{tmp_path}/folder.html: cannot be written (Is a directory)"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html", "report.html"]


def _epochs(count: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": n,
            "learning_rate": 0.1 / n,
            "train_loss": 2 / n,
            "validation_loss": 3 / n,
            "validation_top1": 1 - 1 / n,
        }
        for n in range(1, count + 1)
    ]


def test_charts_take_the_pages_colors() -> None:
    charts = curve_charts(_epochs(3))
    assert list(charts) == ["Loss", "Validation accuracy", "Learning rate"]
    for title, chart in charts.items():
        Reader(chart)
        assert chart.startswith(f'<svg role="img" aria-label="{title} by epoch" ')
        assert "fill: var(--ink)" in chart
        assert not re.search(r"(?<!url\()#[0-9a-f]{6}\b|<style|font-family: (?!inherit)", chart)
    assert charts == curve_charts(_epochs(3))


def test_long_runs_are_drawn_in_little_room() -> None:
    """A point an epoch and no marks: about 16 bytes an epoch and line."""
    short, long = (sum(map(len, curve_charts(_epochs(count)).values())) for count in (100, 400))
    assert long - short < 4 * 300 * 40


@pytest.mark.parametrize("count", [1, 2, 60])
def test_the_curve_as_a_file(count: int, tmp_path: Path) -> None:
    draw_curve(_epochs(count), tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1560, 432))
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50
