"""The report of a differentiable search: that it says what the record holds, for searches of all kinds."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from page_reader import Reader
from refusals import refusal
from supernet_records import (
    BLOCK_PLAN,
    RECIPE,
    WIDTH_PLAN,
    WIDTH_SPACE,
    record_of,
)

from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.search.space import parse_constraint
from fbnetv3_zoo.search.supernet import DMASKING_PLANS, DNAS_PLANS, Product, SupernetPlan, SupernetResult, charts
from fbnetv3_zoo.search.supernet.page import write_report

SECTIONS = ["", "The network found", "Cost against target", "Accuracy", "Choices", "Drawn networks", "How"]
ODD = "<script>alert(1)</script> & שלום\ud800"


def page_of(record: SupernetResult, folder: Path) -> tuple[Reader, str]:
    write_report(record, folder / "page.html")
    content = (folder / "page.html").read_text(encoding="utf-8")
    return Reader(content), content


ENDS = ((0.07, 0.8, 0.13), (0.4, 0.6))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[SupernetResult, Reader, str]:
    record = record_of(BLOCK_PLAN, last=ENDS)
    record = replace(record, found=replace(record.found, code=(2, 1)))
    return (record, *page_of(record, tmp_path_factory.mktemp("blocks")))


def test_its_head(blocks: tuple[SupernetResult, Reader, str]) -> None:
    _, page, _ = blocks
    assert [section for section in page.texts if section != "Search mine"] == SECTIONS
    told = page.told()
    for expected in (
        "Space blocks , 6 networks; data digits ; seed 11", "Supernet 90.0% ",
        "Network found, MACs 111.1 k target: macs ≤ 120k",
        "Decided 70% mean of the largest probabilities; 42% before the search",  # (0.8 + 0.6) / 2, (1/3 + 1/2) / 2
        "Epochs 4 choices are trained from epoch 3 on",
    ):  # fmt: skip
        assert expected in told


def test_the_network_found(blocks: tuple[SupernetResult, Reader, str]) -> None:
    record, page, content = blocks
    told, cost = page.told("The network found"), arch_cost(record.arch)
    assert "mine-macs-120k , the most probable network of those that meet the target: " in told
    assert (
        f"16 x 16 pixels, 1,000 outputs, {cost.macs / 1e3:.4g} k MACs, {cost.parameters / 1e3:.4g} k parameters" in told
    )
    assert "fbnetv3 train --model mine-macs-120k.arch.json --data ... --output ..." in re.sub(
        r"\s+(?=\.arch)", "", told
    )
    assert 'aria-label="blocks of mine-macs-120k"' in content


def test_a_network_found_beside_the_target(tmp_path: Path) -> None:
    page, _ = page_of(record_of(replace(BLOCK_PLAN, target=parse_constraint("119k<=macs<=120k")[0])), tmp_path)
    assert "the most probable network on one side of the target (none was found within it): " in page.told(
        "The network found"
    )


def test_cost_against_target(blocks: tuple[SupernetResult, Reader, str]) -> None:
    _, page, content = blocks
    assert page.rows["Cost against target"] == [
        ["", "MACs"], ["expected, last epoch", "137.5 k"], ["most probable network, last epoch", "147.6 k"],
        ["network found", "111.1 k"], ["target: macs ≤ 120k", "120 k"],
    ]  # fmt: skip
    assert "the mean over networks whose choices are drawn independently" in page.told("Cost against target")
    for chart in ("cost", "accuracy", "losses", "temperature", "learning rate"):
        assert content.count(f'aria-label="{chart} by epoch"') == 1


def test_choices_and_their_final_probabilities(blocks: tuple[SupernetResult, Reader, str]) -> None:
    """The value found for layer 2 is not the most probable one."""
    _, page, content = blocks
    assert page.rows["Choices"][1:] == [
        ["layer2.candidate", "skip", "0.13", "k5_e2", "0.80"], ["layer3.candidate", "k5_e2", "0.60", "k3_e2", "0.40"],
    ]  # fmt: skip
    told = page.told("Choices")
    assert "layer2.candidate k5_e2 , 0.80" in told
    assert "layer3.candidate k5_e2 , 0.60" in told
    assert "<h3>Layer" not in content  # one choice a layer


def test_drawn_networks(blocks: tuple[SupernetResult, Reader, str]) -> None:
    record, page, _ = blocks
    unlike = [str(sum(a != b for a, b in zip(one.code, (2, 1), strict=True))) for one in record.drawn]
    assert page.rows["Drawn networks"][1:] == [
        ["found", "-1.25", "111.1 k", "45.6%", "0"],
        ["drawn 1", "-3.50", "99 k", "12.3%", unlike[0]],
        ["drawn 2", "-4.50", "100 k", "12.3%", unlike[1]],
    ]
    told = page.told("Drawn networks")
    assert "2 others drawn by the probabilities among those that meet the target" in told
    assert "Shared weights rank networks badly" in told
    assert "train networks from scratch to compare them" in told
    assert "Without the target, the most probable network differs in 1 choice." in told


def test_how_it_was_done(blocks: tuple[SupernetResult, Reader, str]) -> None:
    _, page, _ = blocks
    told = page.told("How")
    for expected in (
        "blocks : 4 layers, 2 choices, 6 networks",
        "Loss of the choices Product (alpha 0.25, beta 0.7, power logarithm)",
        "macs ≤ 120k",
        "3.5 x exp(-0.125 x epoch)", "Adam at 0.03, decay 0.002, from epoch 3 on", "35% of the training images for",
        "2 of 5 asked for", "Time 2 minutes", "epochs 4", "optimizer SGD", "seed 11",
    ):  # fmt: skip
        assert expected in told


def test_a_search_of_widths_without_target(tmp_path: Path) -> None:
    record = replace(record_of(WIDTH_PLAN, data=ODD), drawn=())
    page, content = page_of(record, tmp_path)
    assert [section for section in page.texts if section != "Search masks"] == SECTIONS
    assert "no target" in page.told()
    assert "the most probable network of the space:" in page.told("The network found")
    assert [row[0] for row in page.rows["Cost against target"]] == ["", *(
        "expected, last epoch", "most probable network, last epoch", "network found"
    )]  # fmt: skip
    assert "there is no target" in page.told("Cost against target")
    assert ">target<" not in content
    told = page.told("Choices")
    assert re.findall(r"Layer \d|Resolution", told) == ["Resolution", "Layer 1", "Layer 2"]
    assert [row[0] for row in page.rows["Choices"][1:]] == [d.name for d in WIDTH_SPACE.dimensions]
    assert "The network found, and no others." in page.told("Drawn networks")
    assert "Without the target" not in page.told("Drawn networks")
    assert "Loss of the choices Sum (alpha 0.5) Target none" in page.told("How")


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    page, content = page_of(record_of(WIDTH_PLAN, data=ODD), tmp_path)
    assert "Space <i>wide</i> , 48 networks; data <script>alert(1)</script> & שלום\\ud800 ; seed 11" in page.told()
    assert not re.search(r"<script|<i>", content)


def test_a_latency_is_in_milliseconds(tmp_path: Path) -> None:
    record = record_of(replace(BLOCK_PLAN, cost="latency_ms", target=parse_constraint("latency_ms<=0.25")[0]))
    epochs = tuple(replace(epoch, cost=0.2, likeliest=0.3) for epoch in record.epochs)
    page, content = page_of(replace(record, epochs=epochs, found=replace(record.found, cost=0.1)), tmp_path)
    assert [row[1] for row in page.rows["Cost against target"]] == ["latency, ms", "0.2", "0.3", "0.1", "0.25"]
    chart = content.partition('aria-label="cost by epoch"')[2].partition("</svg>")[0]
    ticks = re.findall(r">([\d.]+[^<]*)</text>", chart)
    assert {"0.10", "0.20", "0.30"} <= set(ticks)  # not 100 m


def test_a_search_of_one_epoch(tmp_path: Path) -> None:
    plan = replace(BLOCK_PLAN, recipe=replace(RECIPE, epochs=1, warmup_epochs=0), choice_epoch=0)
    page, _ = page_of(record_of(replace(plan, loss=Product())), tmp_path)
    assert "choices are trained from epoch 1 on" in page.told()
    assert "Product (alpha 0.2, beta 0.6, power logarithm)" in page.told("How")
    assert "Without the target, the most probable network is the same." in page.told("Drawn networks")
    assert "otted" not in page.told("Choices") + page.told("Accuracy")


# Charts of probabilities


def _areas(chart: str) -> list[tuple[float, list[tuple[float, float]]]]:
    """Opacity and corners of every filled area of a chart; y grows downwards."""
    paths = dict(re.findall(r'<path id="(\w+)" d="([^"]+)"', chart))
    filled = re.findall(r'<use xlink:href="#(\w+)"[^>]*fill-opacity: ([\d.]+)', chart)
    corners = (re.findall(r"[ML] (\S+) (\S+)", paths[key]) for key, _ in filled)
    return [(float(of), [(float(x), float(y)) for x, y in at]) for at, (_, of) in zip(corners, filled, strict=True)]


@pytest.mark.parametrize("plan", [BLOCK_PLAN, WIDTH_PLAN, DMASKING_PLANS["tiny"]], ids=lambda plan: plan.name)
def test_a_band_for_every_value_as_high_as_its_probability(plan: SupernetPlan) -> None:
    record = record_of(plan)
    for number, dimension in enumerate(plan.space.dimensions):
        areas = _areas(charts.probabilities_by_epoch(record, number))
        assert len(areas) == len(dimension)
        right = max(x for _, corners in areas for x, _ in corners)
        ends = [[y for x, y in corners if x == right] for _, corners in areas]
        bottom, top = max(map(max, ends)), min(map(min, ends))
        heights = [(max(ys) - min(ys)) / (bottom - top) for ys in ends]
        assert heights == pytest.approx(record.epochs[-1].probabilities[number], abs=0.2 / (bottom - top))
        assert [max(ys) for ys in ends] == sorted((max(ys) for ys in ends), reverse=True)  # the first at the bottom
        solid = [n for n, (opacity, _) in enumerate(areas) if opacity > 0.9]
        assert solid == [record.found.code[number]]


def test_bands_are_even_until_choices_are_trained() -> None:
    record = record_of(BLOCK_PLAN, last=ENDS)
    (_, corners), *_ = _areas(charts.probabilities_by_epoch(record, 1))
    tops: dict[float, float] = {}
    for x, y in corners:
        tops[x] = min(y, tops.get(x, math.inf))
    bottom = max(y for _, y in corners)
    heights = [bottom - tops[x] for x in sorted(tops)]
    assert len(heights) == 5  # the beginning, and four epochs
    assert [height / heights[0] for height in heights] == pytest.approx([1, 1, 1, 0.9, 0.8], abs=0.005)


def test_values_that_end_as_probable_are_named() -> None:
    ends = ((0.07, 0.8, 0.13), (0.05, 0.95))
    drawn = [charts.probabilities_by_epoch(record_of(BLOCK_PLAN, last=ends), n) for n in (0, 1)]
    assert [re.findall(r">(k\w+|skip)</text>", chart) for chart in drawn] == [["k5_e2", "skip"], ["k5_e2"]]


# The page as a whole


@pytest.mark.parametrize(
    ("plan", "bands", "kilobytes"),
    [
        (DNAS_PLANS["paper"], 22 * 9, 1_500),
        (replace(DMASKING_PLANS["paper"], target=parse_constraint("macs<=300M")[0]), None, 3_000),
    ],
    ids=["v1", "v2"],
)
def test_large_spaces(plan: SupernetPlan, bands: int | None, kilobytes: int, tmp_path: Path) -> None:
    page, content = page_of(record_of(plan), tmp_path)
    assert len(content.encode()) < kilobytes * 1000
    dimensions = plan.space.dimensions
    drawn = re.findall(r'aria-label="probabilities of (\S+)"', content)
    assert drawn == [dimension.name for dimension in dimensions] == [row[0] for row in page.rows["Choices"][1:]]
    assert len(_areas(content)) == (bands or sum(map(len, dimensions)))


@pytest.mark.parametrize("plan", [BLOCK_PLAN, WIDTH_PLAN], ids=lambda plan: plan.name)
def test_it_stands_alone(plan: SupernetPlan, tmp_path: Path) -> None:
    page, content = page_of(record_of(plan), tmp_path)
    assert not re.search(r"https?:|@import|<script|<link|\bon\w+=", content)
    references = page.values(("a", "href"), ("use", "xlink:href"), ("img", "src"), ("image", "href"))
    assert references
    assert all(value is not None and value.startswith("#") for value in references)
    assert all(url.startswith("#") for url in re.findall(r"url\((.*?)\)", content))
    identifiers = [value for _, key, value in page.attributes if key == "id"]
    assert len(set(identifiers)) == len(identifiers)
    charts_only = content.partition("</style>")[2]
    assert not re.search(r"(?:fill|stroke|color): #[0-9a-f]{6}", charts_only)  # all are the page's


def test_it_is_always_the_same(tmp_path: Path) -> None:
    """By another process, too, from the files of the search."""
    record = replace(record_of(WIDTH_PLAN), folder=tmp_path)
    record.write()
    lines = (json.dumps(asdict(epoch)) + "\n" for epoch in record.epochs)
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    script = (
        "import sys\nfrom fbnetv3_zoo.search.supernet.result import SupernetResult\n"
        "from fbnetv3_zoo.search.supernet.page import write_report\n"
        "write_report(SupernetResult.read(sys.argv[1]), sys.argv[2])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, tmp_path, tmp_path / "again.html"], check=True, env=environment)
    write_report(record, tmp_path / "page.html")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "page.html").read_bytes()


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "page.html"
    assert refusal(lambda: write_report(record_of(BLOCK_PLAN), path)).startswith(f"{path}: cannot be written (")
