"""Opening image files: what is bounded before it is decoded, and metadata that keeps no picture from being read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile_images
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from refusals import refusal

from fbnetv3_zoo.images import decode_image, read_image, size_of_image
from fbnetv3_zoo.images.limits import MAX_MEMORY
from fbnetv3_zoo.images.pixels import to_eight_bits


def _measured(count: int, seed: int = 0) -> dict[str, Any]:
    """What reading so many mutations, or for 0 the hostile files, took in a process of its own."""
    command = [sys.executable, hostile_images.__file__, str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_files_that_ask_for_much_are_refused_before_they_get_it() -> None:
    """Kilobytes that would take gigabytes or half a minute: canvases, alpha, passes, tiles, strips, icons, runs."""
    found = _measured(0)
    assert found["told"].keys() == hostile_images.hostile().keys()
    for name, told in found["told"].items():
        assert told.startswith("image: "), name
        assert told.endswith(("shrink it", "save it again", "save it as PNG", "save it with larger ones")), told
    assert found["bytes"] < 300e6


def test_mutated_files_are_read_or_refused_in_one_line() -> None:
    found = _measured(416)
    assert found["told"].keys() == hostile_images.sound().keys()
    assert found["bytes"] < MAX_MEMORY
    assert not [told for told in found["told"].values() if "\n" in told]


@pytest.mark.parametrize("name", hostile_images.sound())
def test_sound_files_of_every_kind_are_read(name: str) -> None:
    """By header and whole, to the same size; of several pictures in a file the first."""
    data = hostile_images.sound()[name]
    image = decode_image(io.BytesIO(data), name)
    assert size_of_image(io.BytesIO(data), name) == image.size
    assert to_eight_bits(image, "RGB").size == image.size
    plain = Image.open(io.BytesIO(data))
    assert sorted(plain.size) == sorted(image.size)
    if "exif" not in plain.info:
        assert image.tobytes() == plain.tobytes()


def test_large_pictures_within_the_bounds_are_read() -> None:
    """Gray of 90 megapixels; passes as cameras and tools write them."""
    gray = decode_image(io.BytesIO(hostile_images.png((9_000, 10_000), 1, 0)), "gray")
    assert (gray.mode, gray.size) == ("1", (9_000, 10_000))
    passes = decode_image(io.BytesIO(hostile_images.jpeg_of_passes(2000, 30)), "passes")
    assert passes.size == (2000, 2000)


def _claimed(data: bytes, side: int) -> io.BytesIO:
    """A progressive JPEG that says it has ``side`` pixels a side."""
    at = data.index(b"\xff\xc2") + 5
    return io.BytesIO(data[:at] + 2 * side.to_bytes(2, "big") + data[at + 4 :])


@pytest.mark.parametrize(
    ("mode", "turned", "most"), [("L", False, 13_190), ("RGB", False, 11_148), ("RGB", True, 10_428)]
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # callers look where it is ignored
def test_bounds_count_the_whole_way_to_an_upright_rgb_picture(mode: str, turned: bool, most: int) -> None:
    """All coefficients of a picture that comes in passes; a second copy where it has to be turned."""
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    file = io.BytesIO()
    Image.new(mode, (16, 16)).save(file, "JPEG", progressive=True, exif=exif)
    assert size_of_image(_claimed(file.getvalue(), most), "x") == (most, most)
    over = refusal(lambda: size_of_image(_claimed(file.getvalue(), most + 1), "x"))
    assert over.endswith(f"over the limit of {MAX_MEMORY:,}; shrink it")


TEXT = "x" * 1_200_000
XMP = '<x:xmpmeta tiff:Orientation="6"/>'


def _texts(**kept: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in kept.items():
        info.add_text(key, value, zip=True)
    return info


def _large_metadata() -> dict[str, dict[str, Any]]:
    international = PngImagePlugin.PngInfo()
    international.add_itxt("XML:com.adobe.xmp", TEXT, zip=True)
    many = PngImagePlugin.PngInfo()
    for n in range(70):
        many.add_text(f"part{n}", "x" * 1_000_000, zip=True)
    private = PngImagePlugin.PngInfo()
    private.add(b"prVt", os.urandom(3_000_000))
    plain = PngImagePlugin.PngInfo()
    plain.add_text("plain", TEXT * 60)
    return {
        "text": {"pnginfo": _texts(workflow=TEXT)}, "xmp": {"pnginfo": international},
        "profile": {"icc_profile": os.urandom(10) * 120_000}, "many": {"pnginfo": many},
        "private": {"pnginfo": private}, "plain": {"pnginfo": plain},
    }  # fmt: skip


@pytest.mark.parametrize("kind", _large_metadata())
def test_large_metadata_keeps_no_png_from_being_read(kind: str, tmp_path: Path) -> None:
    """Nor does it change Pillow's limits, which belong to the user's program."""
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png", **_large_metadata()[kind])
    image = read_image(tmp_path / "x.png")
    assert np.array_equal(np.asarray(image), pixels)
    with (tmp_path / "x.png").open("rb") as file:
        assert size_of_image(file, "x.png") == (40, 30)
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


@pytest.mark.parametrize("packed", [False, True])
def test_large_metadata_still_says_how_a_picture_lies(packed: bool, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP + TEXT, zip=packed)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "xmp.png", pnginfo=info)
    Image.new("RGB", (40, 30)).save(tmp_path / "exif.png", pnginfo=_texts(workflow=TEXT), exif=exif)
    assert [read_image(tmp_path / name).size for name in ("xmp.png", "exif.png")] == [(30, 40)] * 2


def test_small_metadata_stays(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=_texts(Title="a cat"), icc_profile=b"profile")
    info = read_image(tmp_path / "x.png").info
    assert (info["Title"], info["icc_profile"]) == ("a cat", b"profile")


def test_damaged_metadata_is_left_out_and_damaged_pixels_are_not(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG", pnginfo=_texts(Comment="of the picture" * 9))
    data = file.getvalue()
    at = data.index(b"zTXt") + 20
    (tmp_path / "text.png").write_bytes(data[:at] + b"\xff\xff" + data[at + 2 :])
    assert read_image(tmp_path / "text.png").getpixel((3, 3)) == (255, 0, 0)
    at = data.index(b"IDAT") + 20
    (tmp_path / "pixels.png").write_bytes(data[:at] + b"\xff\xff" + data[at + 2 :])
    assert "cannot be read as an image" in refusal(lambda: read_image(tmp_path / "pixels.png"))


def test_a_png_of_endless_chunks_is_refused(tmp_path: Path) -> None:
    data = hostile_images.png((4, 4), 8, 2, hostile_images.chunk(b"tEXt", b"") * 200_001)
    told = refusal(lambda: decode_image(io.BytesIO(data), "x.png"))
    assert told == "x.png: a PNG file of more than 200,000 chunks; save it again"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_files_cut_off_are_noticed_by_their_ends(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    data = file.getvalue()
    assert size_of_image(io.BytesIO(data), "x") == (300, 300)
    assert size_of_image(io.BytesIO(data + bytes(9000)), "x") == (300, 300)  # what follows is no matter
    cut = io.BytesIO(data[: len(data) // 2])
    assert refusal(lambda: size_of_image(cut, "x")).startswith("x: cannot be read as an image")


def test_names_are_shown_as_they_may_be(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31mred\n.png"
    path.write_bytes(b"none")
    told = refusal(lambda: read_image(path))
    assert told.startswith(f"{tmp_path}/a\\x1b[31mred\\n.png: cannot be read as an image")
    assert refusal(lambda: read_image(tmp_path / "no\x1bsuch")) == f"{tmp_path}/no\\x1bsuch: no such file"
    assert "File name too long" in refusal(lambda: read_image(tmp_path / ("x" * 300)))
