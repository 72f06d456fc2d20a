"""Characters drawn from fonts: what is in the file, which fonts are left out, and that bad ones do no harm."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fonts import SHIPPED, changed, mapped
from refusals import refusal

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.data import SPLITS
from fbnetv3_zoo.training.data.dataset import labels_of
from fbnetv3_zoo.training.data.rendered import CHARACTERS, DatasetFile, letters, sandbox
from fbnetv3_zoo.training.data.rendered.font_files import family_key
from fbnetv3_zoo.training.data.rendered.holding_out import split_names

SMALL = ("cmr10.ttf", "cmss10.ttf", "cmtt10.ttf", "cmb10.ttf")
"""Four families in small files."""


@pytest.fixture(scope="module")
def drawn() -> DatasetFile:
    """All fonts that matplotlib ships."""
    return letters([SHIPPED])


@pytest.fixture
def fonts(tmp_path: Path) -> Path:
    """A folder of four families."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    for name in SMALL:
        shutil.copy(SHIPPED / name, folder / name)
    return folder


def _families(file: DatasetFile) -> dict[str, set[str]]:
    data = file.dataset()
    return {split: {example.key.partition("/")[0] for example in data[split]} for split in SPLITS}


def _log(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_what_is_drawn(drawn: DatasetFile) -> None:
    data = drawn.dataset()
    assert (data.name, "".join(data.class_names)) == ("letters", CHARACTERS)
    assert drawn.images.shape == (sum(drawn.sizes), 32, 32)
    assert set(np.bincount(drawn.labels)) == {len(drawn.images) // len(CHARACTERS)}
    pixels = np.stack([np.asarray(example.read()) for example in data["train"]]) / 255
    assert (pixels.mean(), pixels.std()) == pytest.approx((data.mean[0], data.std[0]), abs=1e-4)
    where = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1)
    weights = drawn.images / drawn.images.sum((1, 2), keepdims=True, dtype=np.float64)
    centers = np.einsum("nij,ijk->nk", weights, where)
    assert np.abs(centers - 15.5).max() < 6
    assert drawn.images.max((1, 2)).min() > 80
    assert "dejavusans/DejaVu Sans Bold/A" in drawn.keys


def test_no_family_is_in_two_splits(drawn: DatasetFile) -> None:
    families = _families(drawn)
    assert all(families.values())
    assert sum(map(len, families.values())) == len(set.union(*families.values())) == len(drawn.group_names)
    assert {"dejavusans", "dejavusansmono", "dejavuserif", "stixgeneral", "cmr"} <= set.union(*families.values())


def test_fonts_without_all_characters_are_left_out(drawn: DatasetFile) -> None:
    fonts = json.loads(drawn.provenance)["fonts"]
    files = [font["file"] for font in fonts]
    assert not {"LastResortHE-Regular.ttf", "STIXNonUni.ttf", "DejaVuSansDisplay.ttf", "cmex10.ttf"} & set(files)
    (bold,) = (font for font in fonts if font["file"] == "DejaVuSans-Bold.ttf")
    assert bold["version"].startswith("Version 2.")
    assert len(bold["sha256"]) == 64


def test_the_same_fonts_give_the_same_bytes(fonts: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        letters([fonts], side=16, characters="ABab").save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_further_font_changes_nothing_for_the_others(drawn: DatasetFile, fonts: Path) -> None:
    shutil.copy(SHIPPED / "DejaVuSans-Bold.ttf", fonts / "other.otf")
    few, all_of = letters([fonts]), dict(zip(drawn.keys, drawn.images, strict=True))
    assert len(few.group_names) == 5
    for key, image in zip(few.keys, few.images, strict=True):
        assert (image == all_of[key]).all(), key
    names = [f"family {n}" for n in range(200)]
    before, after = split_names(names[:100], 3), split_names(names, 3)
    assert {name: after[name] for name in names[:100]} == before
    assert 100 < list(after.values()).count("train") < 140


def test_the_seed_changes_pictures_and_splits(fonts: Path) -> None:
    one, other = (letters([fonts], seed=seed, side=16, characters="ABab") for seed in (0, 1))
    assert dict(zip(one.keys, one.images.tolist(), strict=True)) != dict(
        zip(other.keys, other.images.tolist(), strict=True)
    )
    assert len({str(split_names(map(str, range(40)), seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("count", range(3, 9))
def test_few_families_fill_all_splits(count: int) -> None:
    for seed in range(20):
        assert set(split_names([f"family {n}" for n in range(count)], seed).values()) == set(SPLITS)


def test_three_families_are_needed(fonts: Path) -> None:
    for name in SMALL[2:]:
        (fonts / name).unlink()
    told = "2 font families can be used (cmr10, cmss10); at least 3 are needed, one for each split"
    assert refusal(lambda: letters([fonts])) == told
    (fonts / SMALL[0]).unlink()
    assert refusal(lambda: letters([fonts])).startswith("1 font family can be used (cmss10); ")


def test_families_are_told_apart_by_their_names(fonts: Path, tmp_path: Path) -> None:
    """Typographic names go before others; words of style do not count, nor do folders and file names."""
    changed("DejaVuSans.ttf", fonts / "a.ttf", n1="Own Light", n16="Own  Sans", n2="Regular", n17="Light")
    changed("DejaVuSansMono.ttf", fonts / "b" / "b.ttf", n1="OWN SANS Condensed", n16="", n17="", n2="Regular")
    changed("DejaVuSerif.ttf", fonts / "c" / "b.ttf", n1="own-sans", n16=" ", n17="", n2="Book")
    file = letters([fonts], characters="ABab")
    assert len(file.group_names) == 5
    assert {key.rpartition("/")[0] for key in file.keys if key.startswith("ownsans/")} == {
        "ownsans/Own Sans Light", "ownsans/OWN SANS Condensed Regular", "ownsans/own-sans Book",
    }  # fmt: skip
    names = ["Noto Sans", "noto  sans Bold", "NotoSans SemiCondensed ExtraLight", "Noto-Sans 12pt"]
    assert {family_key(name) for name in names} == {"notosans"}
    assert [family_key(name) for name in ("Bold", "Black Ops", "日本")] == ["bold", "blackops", "日本"]


def test_at_most_so_many_faces_of_a_family() -> None:
    for faces in (1, 2):
        file = letters([SHIPPED], faces=faces, characters="ABab")
        own = {key.rpartition("/")[0] for key in file.keys}
        counts = [sum(face.startswith(f"{family}/") for face in own) for family in file.group_names]
        assert max(counts) == faces


def test_copies_of_a_family_are_left_out(fonts: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed("cmr10.ttf", fonts / "copy.ttf", n1="Another", n2="Regular", n4="Another")
    with caplog.at_level(logging.WARNING):
        file = letters([fonts], characters=CHARACTERS)
    assert _log(caplog) == "font families left out that draw the same characters as another: 1: cmr10 (Another)"
    assert "another" in file.group_names
    assert "cmr" not in file.group_names


def test_families_are_left_out_by_name(fonts: Path) -> None:
    assert "cmr" not in letters([fonts], without=["CMR 10"], characters="ABab").group_names
    told = "no usable font is of the family 'cmr11 x', which is to be left out (did you mean 'cmr10'?)"
    assert refusal(lambda: letters([fonts], without=["cmr11 x"], characters="ABab")) == told


def _no_letters(font: object) -> None:
    (table, *_) = (table for table in font["cmap"].tables if table.platformID == 3)  # type: ignore[index]
    table.platEncID = 0
    font["cmap"].tables = [table]  # type: ignore[index]


def _pictures(font: object) -> None:
    font["OS/2"].panose.bFamilyType = 5  # type: ignore[index]


def test_fonts_that_lack_characters(fonts: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed("DejaVuSans.ttf", fonts / "1.ttf", mapped({"A": None, "b": None}))
    changed("DejaVuSans.ttf", fonts / "2.ttf", mapped({"B": "A"}))
    changed("DejaVuSans.ttf", fonts / "3.ttf", mapped({"B": " "}))
    changed("DejaVuSans.ttf", fonts / "4.ttf", _no_letters)
    changed("DejaVuSans.ttf", fonts / "5.ttf", _pictures)
    with caplog.at_level(logging.WARNING):
        letters([fonts], characters="ABab")
    told = (
        "5 faces left out: 1.ttf (lacks A, b), 2.ttf (draws the same for A and B), 3.ttf (draws nothing for B), "
        "4.ttf (has symbols in place of letters), 5.ttf (has symbols in place of letters)"
    )
    assert _log(caplog) == told


def test_capitals_for_small_letters(fonts: Path, caplog: pytest.LogCaptureFixture) -> None:
    def smaller(font: object) -> None:
        mapped({"a": "A", "b": "B", "d": "D"})(font)

    changed("DejaVuSans.ttf", fonts / "1.ttf", smaller)
    with caplog.at_level(logging.WARNING):
        letters([fonts], characters="ABDabd23")
    assert _log(caplog) == "1 face left out: 1.ttf (draws the same for A and a, B and b, D and d)"


def test_bad_files_are_left_out(fonts: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (SHIPPED / "cmr10.ttf").read_bytes()
    for name, data in (("1", b""), ("2", b"hello" * 99), ("3", whole[:9000]), ("4", b"\0\1\0\0" + b"\xff" * 500),
                       ("5", b"ttcf\0\1\0\0" + b"\xff" * 50), ("9", b"ttcf" + bytes(20))):  # fmt: skip
        (fonts / f"{name}.ttf").write_bytes(data)
    (fonts / "6.ttf").symlink_to("nowhere")
    os.mkfifo(fonts / "7.ttf")
    (fonts / "8.ttf").mkdir()
    (fonts / ".hidden.ttf").write_bytes(whole)
    with caplog.at_level(logging.WARNING):
        assert len(letters([fonts], characters="ABab").group_names) == 4
    told = _log(caplog)
    assert told.startswith("71 faces left out: 1.ttf (is no TrueType or OpenType font), 2.ttf (is no TrueType or Op")
    assert told.endswith(" and 66 more")


def test_wrong_arguments(fonts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for call, told in (
        (lambda: letters([tmp_path / "none"]), f"{tmp_path}/none: no such folder; give folders of font files"),
        (lambda: letters([tmp_path / "empty"]), f"{tmp_path}/empty: has no font files (.otc, .otf, .ttc, .ttf)"),
        (lambda: letters([fonts], characters="ABA"), "the classes have A twice"),
        (lambda: letters([fonts], characters="A"), "the classes are 1 character; give 2 to 256"),
        (lambda: letters([fonts], characters="A b"), "the classes have ' ', which cannot be drawn"),
        (lambda: letters([fonts], side=4), "side is 4; it must be a whole number of at least 8"),
        (lambda: letters([fonts], faces=0), "faces is 0; it must be a whole number of at least 1"),
        (lambda: letters([fonts], seed=-1), "seed is -1; it must be a whole number of at least 0"),
    ):
        assert refusal(call) == told


@pytest.fixture
def misdrawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that crash and hang, and little patience."""
    monkeypatch.setattr(sandbox, "process", SimpleNamespace(__name__="misdrawing"))
    monkeypatch.setattr(sandbox, "_SECONDS", 2.0)


@pytest.mark.usefixtures("misdrawing")
def test_a_font_may_crash_or_stall_the_process_that_draws() -> None:
    with sandbox.Drawer() as drawer:
        assert drawer.ask("a", "echo", b"one") == (["one"], [])
        for task, told in (
            ("crash", "crashes the process that draws it"),
            ("hang", "takes more than 2 s to draw"),
            ("fill", "crashes the process that draws it"),
        ):
            with pytest.raises(ZooError, match=f"^{told}$"):
                drawer.ask(task, task, b"")
            assert drawer.ask("a", "echo", b"again") == (["again"], [])


@pytest.mark.usefixtures("misdrawing")
def test_many_crashes_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_MOST_ENDED", 2)
    with sandbox.Drawer() as drawer:
        with pytest.raises(ZooError, match=r"^crashes "):
            drawer.ask("a.ttf", "crash", b"")
        with pytest.raises(sandbox.GivenUpError, match=r"^2 of them crash or stall the process that draws: a\.ttf, b"):
            drawer.ask("b.ttf", "crash", b"")


def test_labels_are_whole_numbers_of_the_classes(drawn: DatasetFile) -> None:
    data = drawn.dataset()
    for split in SPLITS:
        assert set(labels_of(data[split])) == set(range(len(CHARACTERS)))
