"""Values that show themselves as tables."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.recipes import RECIPES
from fbnetv3_zoo.training.data import SPLITS, Dataset, Example, digits
from fbnetv3_zoo.utils.tables import table
from fbnetv3_zoo.zoo import ARCHS, cost_of


def test_columns_are_aligned() -> None:
    text = table([("name", "n"), ("a", 10), ("longer", 2)])
    assert text.splitlines() == ["name     n", "a       10", "longer   2"]


@pytest.mark.parametrize("name", ARCHS)
def test_a_network_is_its_rows(name: str) -> None:
    arch = ARCHS[name]
    head, names, *rows = str(arch).splitlines()
    side = f"{arch.resolution} x {arch.resolution} pixels"
    assert head == f"{name}: {arch.in_channels} x {side}, {arch.num_classes:,} classes"
    assert names.split()[:2] == ["stage", "row"]
    assert [line.split()[:2] for line in rows] == [
        [str(s), type(row).__name__] for s, stage in enumerate(arch.stages) for row in stage
    ]
    assert max(map(len, (head, names, *rows))) <= 100


@pytest.mark.parametrize("side", [None, 320])
def test_summary(side: int | None) -> None:
    arch = ARCHS["fbnetv3_a"]
    head, _, names, *rest = arch.summary(resolution=side).splitlines()
    cost = cost_of(arch, resolution=side)
    assert head == f"fbnetv3_a, {side or 224} x {side or 224} pixels"
    assert names.split()[-3:] == ["map", "MACs", "parameters"]
    rows = [line.split() for line in rest[: len(cost.blocks)]]
    assert [row[-3:] for row in rows] == [
        [str(block.size), f"{block.macs:,}", f"{block.parameters:,}"] for block in cost.blocks
    ]
    totals = dict(line.rsplit(maxsplit=1) for line in rest[len(cost.blocks) + 1 : -1])
    assert totals == {
        "MACs": f"{cost.macs:,}", "conv weights": f"{cost.conv_weights:,}", "parameters": f"{cost.parameters:,}",
    }  # fmt: skip
    assert f"{cost.peak_activation:,}" in rest[-1]


def test_a_network_in_a_notebook(tiny_arch: Arch) -> None:
    text = tiny_arch._repr_html_()
    assert text.startswith("<pre>tiny: 3 x 32 x 32 pixels, 10 classes\n")
    assert text.endswith("</pre>")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_its_values(name: str) -> None:
    _, *lines = str(RECIPES[name]).splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES[name].values())


def test_a_dataset_is_its_counts() -> None:
    data = digits()
    head, names, *rows, total = str(data).splitlines()
    assert (head, names.split()) == ("digits: 10 classes", ["class", *SPLITS])
    assert [line.split() for line in rows] == [
        [str(n), *(str(data.counts(split)[n]) for split in SPLITS)] for n in range(10)
    ]
    assert total.split() == ["all", *(str(len(data[split])) for split in SPLITS)]
    assert np.array_equal(data.counts("test"), np.bincount([example.label for example in data["test"]]))


def test_of_many_classes_the_first_are_shown() -> None:
    names = tuple(f"<{n}>\x1b" for n in range(200))
    image = Example(lambda at_least=None: Image.new("L", (8, 8)), 7, "a")
    data = Dataset("many", names, (0.5,), (0.5,), 1.0, MappingProxyType(dict.fromkeys(SPLITS, (image,))))
    lines = str(data).splitlines()
    assert len(lines) == 19
    assert [lines[0], *(line.split()[0] for line in lines[-2:])] == ["many: 200 classes", "...", "all"]
    assert "\x1b" not in str(data)
    assert "&lt;0&gt;" in data._repr_html_()


def test_costs_by_name() -> None:
    assert cost_of("fbnetv3_a") == cost_of(ARCHS["fbnetv3_a"])
    assert cost_of("fbnetv3_a", resolution=320).macs > 2 * cost_of("fbnetv3_a").macs
