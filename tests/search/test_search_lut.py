"""``fbnetv3 search lut``: all blocks of a space, what the command measures, says and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from killed import leave_half_a_file
from refusals import refusal

from fbnetv3_zoo.arch import Activation
from fbnetv3_zoo.arch.latency import LatencyTable, distinct_blocks
from fbnetv3_zoo.cli.search.lut import lut
from fbnetv3_zoo.export.onnx.latency import conditions_here, measure_blocks
from fbnetv3_zoo.search.space import (
    PAPER,
    PAPER_RECIPE,
    TINY,
    ConvChoices,
    NetworkCosts,
    Networks,
    PoolingChoices,
    Range,
    ResidualChoices,
    Space,
    choices,
)

SMALL = Space(
    "small",
    Networks(
        choices(40, 32),
        (
            (ConvChoices(choices(3), choices(8, 6), 2),),
            (ResidualChoices(choices(5, 3), choices(1, 2), choices(1, 3), choices(8, 12), Range(1, 3), 2, True),),
            (PoolingChoices(choices(2, 1), choices(16, 24)),),
        ),
        num_classes=5,
    ),
)


def test_all_blocks_of_a_small_space() -> None:
    """Those of every one of its networks."""
    codes = np.array(list(product(*(range(len(d)) for d in SMALL.dimensions))))
    assert len(codes) == SMALL.count() > 1000
    assert SMALL.blocks() == distinct_blocks(SMALL.tabulate(codes))


def test_all_blocks_of_a_space_of_single_networks() -> None:
    space = SMALL.hold({d.name: d.options.values[0] for d in SMALL.dimensions})
    assert space.blocks() == distinct_blocks(space.tabulate(np.zeros((1, len(space.dimensions)), np.int64)))


@pytest.mark.parametrize("space", [TINY, PAPER.hold({"resolution": 224})], ids=lambda space: space.name)
def test_all_blocks_of_shipped_spaces(space: Space) -> None:
    """Many networks have no other blocks, and together hardly fewer."""
    found = space.blocks()
    drawn = distinct_blocks(space.tabulate(space.sample(4000, np.random.default_rng(0), method="uniform")))
    assert set(drawn) <= set(found)
    assert len(drawn) > 0.98 * len(found)
    assert len(found) == {"tiny": 670, "paper": 3596}[space.name]


def test_a_space_without_networks() -> None:
    expected = "space paper_recipe: searches no networks"
    assert refusal(lambda: PAPER_RECIPE.blocks()) == expected


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.json").write_text(SMALL.to_json())
    file, space = tmp_path / "new" / "table.json", str(tmp_path / "small.json")
    lut(space, file, networks=4, check=3, rounds=3)
    table = LatencyTable.load(file)
    assert table.conditions == conditions_here(rounds=3)
    check = table.check
    assert check is not None
    assert check.networks == 3
    assert check.shortest < check.longest
    lines = capsys.readouterr().out.splitlines()
    number = len(table.blocks)
    assert lines[0].startswith(f"space small: {number} blocks, of which {number} were measured now, in ")
    assert lines[1:3] == [f"on {table.conditions}", f"{check}; estimates are multiplied by {table.scale:.3f}"]
    assert lines[3].startswith(f"{file} (")
    lut(space, file, resolution=32, check=0, rounds=3, as_json=True)  # adds the rest of one resolution
    everything, told = LatencyTable.load(file), json.loads(capsys.readouterr().out)
    wanted = SMALL.at_resolution(32).blocks()
    assert not everything.lacks(wanted)
    assert everything.blocks.items() >= table.blocks.items()
    assert told.pop("seconds") >= 0
    measured = len(everything.blocks) - number
    assert 0 < measured < len(wanted)
    assert told == {
        "file": str(file), "space": "small", "blocks": len(wanted), "measured": measured, "scale": table.scale,
        "check": {**told["check"], "networks": 3},
    }  # fmt: skip


def test_costs_of_a_space_with_a_table() -> None:
    blocks = SMALL.blocks()
    table = LatencyTable(conditions_here(), SMALL.networks.activation, dict.fromkeys(blocks, 0.5), call=0.25)  # type: ignore[union-attr]
    codes = SMALL.sample(64, np.random.default_rng(0), method="uniform")
    costs = NetworkCosts(SMALL, latency=table)
    depth = [SMALL.values(code)["row2.depth"] for code in codes]
    assert costs.names[-1] == "latency_ms"
    assert costs(codes)["latency_ms"].tolist() == [0.25 + 0.5 * (d + 3) for d in depth]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"space": "papers"}, "unknown space 'papers' (did you mean 'paper'?); shipped are "),
        ({"space": "paper_recipe"}, "space paper_recipe: has no dimension 'resolution' to hold"),
        ({"resolution": 225}, "resolution: 225 is not among 224, 232, 240, 248, 256, 264, 272"),
        ({"check": 2}, "--check is 2; give at least 3 networks, or 0"),
        ({"check": -1}, "--check is -1; it must be a whole number of at least 0"),
        ({"networks": 9}, "--networks is 9; it must be a whole number of at least 10"),
        ({"rounds": 2}, "rounds is 2; it must be a whole number of at least 3"),
        ({"threads": 0}, "Conditions.threads is 0; it must be a whole number of at least 1"),
    ],
)
def test_what_it_refuses(options: dict[str, object], complaint: str, tmp_path: Path) -> None:
    given = {"space": "paper", "output": tmp_path / "table.json", "resolution": 224, **options}
    assert refusal(lambda: lut(**given)).startswith(complaint)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_tables_of_another_machine_are_left_alone(tmp_path: Path) -> None:
    file, here = tmp_path / "table.json", conditions_here()
    there = replace(here, processor="another")
    LatencyTable(there, PAPER.networks.activation, {}).save(file)  # type: ignore[union-attr]
    before = file.read_bytes()
    expected = f"latency table of {there}: this is {here}; measure into another file"
    assert refusal(lambda: lut("tiny", file)) == expected
    assert file.read_bytes() == before


def test_a_table_that_lacks_nothing_clears_what_a_killed_writer_left(tmp_path: Path) -> None:
    leftover = leave_half_a_file(tmp_path)
    measure_blocks((), Activation.RELU, path=tmp_path / "t.json")
    assert not leftover.exists()
