"""Emoji drawn by several vendors: what is in the file, which vendors are held out, and which drawings are left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawings import COLORS, GROUPS, write_vendor
from refusals import refusal

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.data import SPLITS
from fbnetv3_zoo.training.data.rendered import Vendor, emoji, read_vendor
from fbnetv3_zoo.training.data.rendered.vector import draw_vector


@pytest.fixture
def vendors(tmp_path: Path) -> list[Vendor]:
    return [read_vendor(name, write_vendor(tmp_path / name, color)) for name, color in COLORS.items()]


def test_what_is_drawn(vendors: list[Vendor], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        file = emoji(vendors, held_out="theirs", side=24)
    told = "groups left out with fewer than 20 emoji that all vendors draw: Few (3)"
    assert [record.getMessage() for record in caplog.records] == [told]
    data = file.dataset()
    assert (data.name, data.class_names, file.images.shape) == (
        "emoji",
        ("Round things", "Square flat"),
        (129, 24, 24, 3),
    )
    assert {split: len(data[split]) for split in SPLITS} == dict.fromkeys(SPLITS, 43)
    for split, vendor, channel in (("train", "ours", 0), ("validation", "others", 2), ("test", "theirs", 1)):
        for example in data[split]:  # type: ignore[index]
            pixels = np.asarray(example.read())
            assert example.key.startswith(f"{vendor}/{'1f6' if example.label == 0 else '1f4'}")
            assert (pixels[0, 0] == 255).all()
            assert pixels[12, 12].argmax() == channel
    assert data["train"][0].key == "ours/1f400"


def test_drawings_are_centered_and_fill_the_picture() -> None:
    pixels = draw_vector('<path d="M2 3h4v2h-4z"/>', (32, 32), 32)
    dark = np.argwhere(pixels[..., 0] < 128)
    assert (dark.min(0).tolist(), dark.max(0).tolist()) == ([9, 1], [22, 30])


def test_the_origin_is_kept(vendors: list[Vendor]) -> None:
    told = json.loads(emoji(vendors, held_out="ours").provenance)
    assert [vendor["vendor"] for vendor in told["vendors"]] == ["theirs", "others", "ours"]
    assert told["vendors"][0]["license"] == {"spdx": "CC-BY-4.0"}
    assert (told["vendors"][0]["name"], told["vendors"][0]["version"]) == ("some-drawings", "1.2.3")
    assert len({vendor["sha256"] for vendor in told["vendors"]}) == 3


def test_vendors_are_held_out(vendors: list[Vendor]) -> None:
    file = emoji(vendors, held_out="ours", validation="theirs")
    assert file.group_names == ("others", "theirs", "ours")
    for held_out, validation, told in (
        ("nobody", None, "there is no vendor 'nobody'; choose from ours, theirs, others"),
        ("ours", "nobody", "there is no vendor 'nobody'; choose from ours, theirs, others"),
        ("ours", "ours", "vendor 'ours' cannot be held out for test and for validation"),
    ):
        assert refusal(lambda h=held_out, v=validation: emoji(vendors, held_out=h, validation=v)) == told  # type: ignore[misc]
    for some in (vendors[:2], [*vendors[:2], vendors[0]]):
        told = "2 vendors are given (ours, theirs"
        assert refusal(lambda some=some: emoji(some, held_out="ours")).startswith(told)  # type: ignore[misc]


def _spoil(files: dict[str, Any]) -> None:
    icons = files["icons"]["icons"]
    icons["icon-1f600"] = {"body": '<image href="file:///etc/passwd"/>'}
    icons["icon-1f601"] = {"body": "<path"}
    icons["icon-1f602"] = {"body": "<g/>"}
    files["metadata"]["categories"]["Square & flat"].remove("icon-1f400")
    files["metadata"]["categories"]["Round things"].append("icon-1f400")


def test_drawings_are_left_out(vendors: list[Vendor], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoilt = read_vendor("spoilt", write_vendor(tmp_path / "spoilt", "#ff0", _spoil))
    with caplog.at_level(logging.WARNING):
        file = emoji([*vendors, spoilt], held_out="ours")
    one, _, other = (record.getMessage() for record in caplog.records)
    assert one == "1 emoji left out that vendors sort into different groups"
    assert other.startswith("3 emoji left out: 1f600 (spoilt: has '<image'), 1f601 (spoilt: cannot be drawn (")
    assert other.endswith("1f602 (spoilt: draws nothing)")
    assert {split: len(file.dataset()[split]) for split in SPLITS} == {"train": 78, "validation": 39, "test": 39}


@pytest.mark.parametrize(
    "body",
    [
        '<image width="9" height="9" xlink:href="a.png"/>', "<text>a</text>", "<style>*{}</style>", "< image/>",
        '<use href="other.svg#a"/>', "<use xlink:href = 'http://localhost/a'/>", '<path fill="url(a.svg#b)"/>',
        "<foreignObject/>", "<script/>", "&bomb;", "</svg>", "", "<path d='M0 0h1e9v1e9z' transform='scale(0)'/>",
        "\0", "\ud800", "x" * (1 << 21), "<g>" * 5000, '<path d="M2 2h28v2-9999999998H2z"/>',
        '<circle cx="9" cy="9" r="41e9"/>',
    ],
)  # fmt: skip
def test_hostile_drawings_are_refused(body: str) -> None:
    with pytest.raises((ZooError, UnicodeEncodeError)):
        draw_vector(body, (32, 32), 16)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda files: files.pop("icons"), "{here}/icons.json: no such file"),
        (lambda files: files.update(icons=[]), "{here}/icons.json: has no object; give the folder of a package of"),
        (lambda files: files["icons"].update(icons=3), "{here}/icons.json: has no icons; give the folder of a package"),
        (lambda files: files.update(metadata={}), "{here}/metadata.json: has no categories; give the folder of a pack"),
    ],
)
def test_packages_of_another_form(tmp_path: Path, change: Callable[[Any], object], told: str) -> None:
    place = write_vendor(tmp_path / "vendor", "#000", change)
    assert refusal(lambda: read_vendor("vendor", place)).startswith(told.format(here=place))


def test_odd_entries_are_passed_over(tmp_path: Path) -> None:
    def change(files: dict[str, Any]) -> None:
        files["chars"] |= {"zz": "icon-1f600", "1f700": 3, "1f701": "none", "1f4ff": "icon-odd", "": "icon-1f600"}
        files["icons"]["icons"]["icon-odd"] = []
        files["metadata"]["categories"]["odd"] = {"a": 1}
        files["icons"]["width"] = "wide"
        files["info"] = [1]
        del files["package"]

    vendor = read_vendor("vendor", write_vendor(tmp_path / "vendor", "#000", change))
    assert len(vendor.drawings) == sum(map(len, GROUPS.values()))
    assert vendor.drawings["1f600"].width == 16
    (tmp_path / "vendor" / "chars.json").write_text("{")
    assert "chars.json cannot be read" in refusal(lambda: read_vendor("vendor", tmp_path / "vendor"))
    assert refusal(lambda: read_vendor("vendor", tmp_path / "none")).startswith(f"{tmp_path}/none: no such folder; ")


def test_too_few_groups(vendors: list[Vendor]) -> None:
    few = [Vendor(v.name, {m: d for m, d in v.drawings.items() if m < "1f410"}, v.origin) for v in vendors]
    told = "all vendors draw 16 emoji alike; at least 2 groups of 20 are needed"
    assert refusal(lambda: emoji(few, held_out="ours")) == told


def test_without_the_library(vendors: list[Vendor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = 'drawings need resvg-py, which is not installed; pip install "fbnetv3-zoo[drawings]"'
    assert refusal(lambda: emoji(vendors, held_out="ours")) == told
