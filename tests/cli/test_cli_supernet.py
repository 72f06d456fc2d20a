"""``fbnetv3 search dnas`` and ``dmasking``, and the commands that take the spaces of supernets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from shell import run, succeed

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, Skip
from fbnetv3_zoo.arch.cost import arch_cost, tabulate
from fbnetv3_zoo.arch.latency import LatencyTable, distinct_blocks
from fbnetv3_zoo.cli.common import program
from fbnetv3_zoo.search import SupernetPlan, SupernetResult
from fbnetv3_zoo.search.supernet import DMASKING_PLANS, DNAS_PLANS, LAYER_SPACES, Layer, LayerSpace
from fbnetv3_zoo.search.supernet.space import fixed

HSWISH = Activation.HARD_SWISH
MINUTE = LayerSpace("minute", (32,), (
    fixed(Conv(3, 8, 2, HSWISH)),
    (Layer((InvertedResidual(3, 8, 1, 1, 2, HSWISH), InvertedResidual(5, 8, 1, 1, 2, HSWISH), Skip(8))),),
    (Layer((InvertedResidual(3, 16, 2, 1, 2, HSWISH),), (8, 16), (2, 3)),),
    fixed(PoolingHead(32, 2, HSWISH)),
), num_classes=10)  # fmt: skip


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of two epochs in a space of twelve networks."""
    tiny = DNAS_PLANS["tiny"]
    plan = replace(tiny, name="minute", space=MINUTE, recipe=replace(tiny.recipe, batch_size=128)).with_epochs(2)
    path = tmp_path_factory.mktemp("plan") / "minute.plan.json"
    path.write_text(replace(plan, target=None, loss=DNAS_PLANS["paper"].loss, choice_epoch=1).to_json())
    return path


@pytest.fixture(scope="module")
def searched(plan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a search, and what the command printed."""
    folder = tmp_path_factory.mktemp("searched") / "run"
    ended = run("search", "dnas", "--plan", plan_file, "--target", "macs<=130k", "--draws", "2", "--output", folder)
    assert ended.code == 0, ended.err
    first, second = ended.err.splitlines()
    assert first.startswith("epoch   1/2  loss ")
    assert second.startswith("epoch   2/2  loss ")
    return folder, ended.out


def printed(*arguments: object) -> str:
    """What a search printed on standard output."""
    ended = run("search", *arguments)
    assert ended.code == 0, ended.err
    return ended.out


def test_its_network_is_a_file_for_the_other_commands(searched: tuple[Path, str]) -> None:
    folder, told = searched
    path = folder / "minute-macs-130k.arch.json"
    arch = Arch.from_json(path.read_bytes())
    record = SupernetResult.read(folder)
    assert record.arch == arch
    assert arch_cost(arch).macs == record.found.cost <= 130_000
    assert f"minute-macs-130k: {record.found.cost:,.6g} macs (target macs<=130k)" in told
    assert f"{program()} train --model {path}" in told
    assert succeed("info", path).startswith("minute-macs-130k")
    assert (folder / "report.html").stat().st_size > 10_000


def test_its_plan_is_a_file_to_search_again(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = searched
    told = json.loads(printed("dmasking", "--plan", folder / "plan.json", "--output", tmp_path, "--json"))
    record = SupernetResult.read(folder)
    assert tuple(told["found"]["code"]) == record.found.code
    assert told["found"]["cost"] == record.found.cost
    assert told["found"]["values"] == MINUTE.values(record.found.code)


def test_a_finished_search_is_told_again_by_resume(searched: tuple[Path, str]) -> None:
    folder, told = searched
    files = [path for path in folder.glob("*.*") if path.name != "config.json"]  # the plan was another file
    before = [path.read_bytes() for path in files]
    assert printed("dnas", "--plan", folder / "plan.json", "--resume", "--output", folder) == told
    assert [path.read_bytes() for path in files] == before


def test_its_page_is_written_again(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = searched
    page = tmp_path / "again.html"
    assert str(page) in succeed("search", "report", folder, "--output", page)
    assert page.read_bytes() == (folder / "report.html").read_bytes()


def test_another_seed_and_length(plan_file: Path) -> None:
    from fbnetv3_zoo.cli.search.supernet import PlanOptions

    options = PlanOptions(str(plan_file), target="parameters<=9k", epochs=8, seed=5, draws=0)
    plan = options.search_plan(DNAS_PLANS)
    before = SupernetPlan.from_json(plan_file.read_text())
    assert (plan.recipe.epochs, plan.recipe.seed, plan.draws, plan.choice_epoch) == (8, 5, 0, 4)
    assert plan.temperature_at(8) == pytest.approx(before.temperature_at(2))
    assert (plan.cost, str(plan.target)) == ("parameters", "parameters<=9k")


def test_latency_is_a_cost_where_there_is_a_table(plan_file: Path, tmp_path: Path) -> None:
    table = tmp_path / "here.json"
    succeed("search", "space", "tiny_dnas")
    space_file = tmp_path / "minute.json"
    space_file.write_text(MINUTE.to_json())
    told = succeed("search", "lut", "--space", space_file, "--check", "0", "--rounds", "3", "--output", table)
    blocks = MINUTE.blocks()
    assert told.startswith(f"space minute: {len(blocks)} blocks, of which {len(blocks)} were measured now")
    assert set(LatencyTable.load(table).blocks) == set(blocks)
    found = json.loads(
        printed("dnas", "--plan", plan_file, "--latency", table, "--target", "latency_ms<=1000",
                "--output", tmp_path / "run", "--json")
    )["found"]  # fmt: skip
    (expected,) = LatencyTable.load(table)(tabulate([MINUTE.arch(found["code"], "found")]))
    assert found["cost"] == pytest.approx(expected)


@pytest.mark.parametrize("space", [*LAYER_SPACES.values(), MINUTE], ids=lambda space: space.name)
def test_all_blocks_of_a_space_are_in_what_is_measured(space: LayerSpace) -> None:
    import numpy as np

    codes = space.sample(40, np.random.default_rng(0), method="uniform")
    known = set(space.blocks())
    assert set(distinct_blocks(tabulate([space.arch(code, "drawn") for code in codes]))) <= known


def test_spaces_are_shown() -> None:
    lines = succeed("search", "space", "v1").splitlines()
    assert len(lines) == 23
    assert lines[0].startswith("layer2.candidate   k3_e1, k3_e1_g2, k3_e3, k3_e6, k5_e1, k5_e1_g2, k5_e3, k5_e6, skip")
    assert lines[-1] == "9.848e+20 points of 24 layers"
    assert LayerSpace.from_json(succeed("search", "space", "v2", "--json")) == LAYER_SPACES["v2"]
    inside = succeed("search", "space", "v1_a", "--contains", "fbnet_a")
    assert inside.splitlines()[:3] == [
        "fbnet_a is a network of space v1_a",
        "  layer2.candidate: skip",
        "  layer3.candidate: k3_e3",
    ]
    outside = succeed("search", "space", "v1", "--contains", "fbnet_a")
    assert outside == "fbnet_a is no network of space v1\n  layer 24 is conv_k1 of 1504 channels\n"


def test_both_plans_are_there() -> None:
    assert (DNAS_PLANS.keys(), DMASKING_PLANS.keys()) == ({"paper", "tiny"}, {"paper", "tiny"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "dnas --target macs<=100k",
            "target macs<=100k: the cheapest network of space tiny_dnas has 265,984 macs; raise the target, or widen "
            "the space",
        ),
        (
            "dmasking --target 3M<=macs<=4M",
            "target 3M<=macs<=4M: the dearest network of space tiny_dmasking has 2,790,464 macs; lower the target, "
            "or widen the space",
        ),
        (
            "dnas --target macs<=1M,parameters<=1M",
            "--target is 'macs<=1M,parameters<=1M'; give one bound, such as 'macs<=1M'",
        ),
        (
            "dnas --target mac<=1M",
            "SupernetPlan.cost is 'mac' (did you mean 'macs'?); choose from macs, parameters, latency_ms",
        ),
        (
            "dnas --target latency_ms<=1",
            "latency_ms needs a table of measured blocks; make one with `fbnetv3 search lut` and give it",
        ),
        ("dnas --plan tinny", "unknown plan 'tinny' (did you mean 'tiny'?); shipped are paper, tiny, others are files"),
        ("dnas --epochs 0", "epochs is 0; it must be a whole number of at least 1"),
        (
            "lut --space v2 --check 0",
            "space v2: its blocks have the activations hard_swish, relu; a latency table has one",
        ),
        ("lut --space v1 --resolution 230", "space v1: resolution 230 is not among 224"),
        (
            "lut --space v4",
            "unknown space 'v4' (did you mean 'v2'?); shipped are paper, paper_recipe, tiny, letters, v1, v1_a, v2, "
            "tiny_dnas, tiny_dmasking, others are JSON files",
        ),
    ],
)  # fmt: skip
def test_wrong_calls(arguments: str, said: str, tmp_path: Path) -> None:
    output = tmp_path / "new"
    ended = run("search", *arguments.split(), "--output", output)
    assert (ended.code, ended.err.strip()) == (2, f"error: {said}")
    assert not output.exists()
