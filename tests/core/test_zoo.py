"""The published networks, row by row against the publishers' records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from golden import facts

from fbnetv3_zoo.arch import Arch, Conv, InvertedResidual, PoolingHead, Row, Skip
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.weights.registry import list_models
from fbnetv3_zoo.zoo import ARCHS, PUBLISHED, find_arch

RECORDS = facts()
WITH_FIGURES = [name for name, record in RECORDS.items() if "published" in record]
OPTIONAL = {
    "squeeze_excite": None,
    "se_reduces": None,
    "depthwise_padding": None,
    "conv_bias": False,
    "groups_1x1": 1,
    "depthwise_channels_per_group": 1,
    "zero_init_last_norm": False,
}


def test_names_are_the_facts_in_their_order() -> None:
    assert len(RECORDS) == 22
    names = [*RECORDS, "fbnetv3_nano"]
    assert list(ARCHS) == list_models() == names
    assert [arch.name for arch in ARCHS.values()] == names


@pytest.mark.parametrize("name", RECORDS)
def test_rows_are_the_facts(name: str) -> None:
    expected = [[_complete(row) for row in stage] for stage in RECORDS[name]["stages"]]
    assert [[_as_facts(row) for row in stage] for stage in ARCHS[name].stages] == expected


@pytest.mark.parametrize("name", RECORDS)
def test_sizes_are_the_facts(name: str) -> None:
    arch, record = ARCHS[name], RECORDS[name]
    assert (arch.resolution, arch.width_divisor) == (record["input_size"], record["width_divisor"])
    assert (arch.in_channels, arch.num_classes) == (3, 1000)


def test_a_and_b_share_every_block() -> None:
    assert ARCHS["fbnetv3_a"].stages == ARCHS["fbnetv3_b"].stages


def test_squeeze_excite_ratio_is_a_quarter_everywhere() -> None:
    rows = [row for arch in ARCHS.values() for stage in arch.stages for row in stage]
    squeezing = [row.squeeze_excite for row in rows if isinstance(row, InvertedResidual) and row.squeeze_excite]
    assert {se.ratio for se in squeezing} == {0.25}


def test_every_published_figure_is_here() -> None:
    assert len(WITH_FIGURES) == 20
    assert list(PUBLISHED) == WITH_FIGURES


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_figures_are_the_facts(name: str) -> None:
    figures, published = RECORDS[name]["published"], PUBLISHED[name]
    for key in ("resolution", "resize", "macs", "conv_weights"):
        assert getattr(published, key) == figures[key]
    assert (published.top1, published.top5) == (round(figures["top1"], 4), round(figures["top5"], 4))
    assert published.resolution == ARCHS[name].resolution


def test_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ARCHS["fbnetv3_a"] = ARCHS["fbnetv3_b"]  # type: ignore[index]
    with pytest.raises(TypeError):
        del PUBLISHED["fbnetv3_a"]  # type: ignore[attr-defined]


def test_list_models_takes_wildcards() -> None:
    assert list_models("fbnetv2_l?") == ["fbnetv2_l1", "fbnetv2_l2", "fbnetv2_l3"]
    assert list_models("*resnet*") == []


def test_find_arch_takes_a_value_a_name_or_a_file(tmp_path: Path, tiny_arch: Arch) -> None:
    file = tmp_path / "net.json"
    file.write_text(tiny_arch.to_json())
    assert find_arch(tiny_arch) is tiny_arch
    assert find_arch("fbnetv3_a") is ARCHS["fbnetv3_a"]
    assert find_arch(file) == find_arch(str(file)) == tiny_arch


def test_find_arch_refuses_an_unknown_name() -> None:
    with pytest.raises(ZooError) as caught:
        find_arch("fbnetv3_h")
    near = [name for name in ARCHS if f"(did you mean '{name}'?)" in str(caught.value)]
    assert str(caught.value) == f"unknown model 'fbnetv3_h' (did you mean '{near[0]}'?); `fbnetv3 list` shows all"
    assert near[0].startswith("fbnetv3_")


def test_find_arch_refuses_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    with pytest.raises(ZooError) as caught:
        find_arch(file)
    assert str(caught.value) == f"{file}: no such file"


def _complete(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the facts with what it leaves out."""
    return {**OPTIONAL, **row} if row["op"] == "inverted_residual" else dict(row)


def _as_facts(row: Row) -> dict[str, Any]:
    """``row`` in the words of the facts."""
    if isinstance(row, PoolingHead):
        own = {"op": "pooling_head", "stride": 1, "repeats": 1, "expansion": row.expansion}
        return {**own, "out_channels": row.out_channels, "activation": row.activation.value}
    shape = {"out_channels": row.out_channels, "stride": row.stride, "repeats": row.repeats}
    if isinstance(row, Skip):
        return {"op": "skip", **shape}
    shape |= {"kernel_size": row.kernel_size, "activation": row.activation.value}
    if isinstance(row, Conv):
        assert row.bias
        return {"op": "conv", **shape}
    se = row.squeeze_excite
    return {
        "op": "inverted_residual",
        **shape,
        "expansion": row.expansion,
        "squeeze_excite": se.gate.value if se else None,
        "se_reduces": se.reduces if se else None,
        "depthwise_padding": row.depthwise_padding,
        "conv_bias": row.conv_bias,
        "groups_1x1": row.groups_1x1,
        "depthwise_channels_per_group": row.channels_per_group,
        "zero_init_last_norm": row.zero_init_last_norm,
    }
