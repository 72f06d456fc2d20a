"""Ten thousand damaged images through the real loader: no process dies, and every bad one is counted.

``python test_bad_images.py FOLDER`` takes one epoch of the data in FOLDER and prints what it came to.
"""

from __future__ import annotations

import gc
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import HELPERS
from PIL import Image
from refusals import refusal
from waiting import PATIENCE

from fbnetv3_zoo.preprocess import FORMATS, MAX_PIXELS, Preprocess
from fbnetv3_zoo.recipes import SGD, Augmentation, Recipe
from fbnetv3_zoo.training.data import folder
from fbnetv3_zoo.training.data.folder_source import FileReader
from fbnetv3_zoo.training.execution import Execution, OnBadImage
from fbnetv3_zoo.training.loader import TrainingBatches

COUNT, WHOLE, BATCH = 10_000, 5_000, 500

# --- pictures: a few small files of every kind ---


@cache
def pictures() -> dict[str, bytes]:
    """File name by kind, with the bytes of a small picture of it."""
    from skimage.data import astronaut

    photo = Image.fromarray(np.ascontiguousarray(astronaut()[::8, ::8]))
    gray16 = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "baseline.jpg": saved(photo, "JPEG"),
        "progressive.jpg": saved(photo, "JPEG", progressive=True, quality=90),
        "gray.jpg": saved(photo.convert("L"), "JPEG"),
        "cmyk.jpg": saved(photo.convert("CMYK"), "JPEG"),
        "turned.jpg": saved(photo.crop((0, 0, 64, 48)), "JPEG", exif=turned),
        "rgb.png": saved(photo, "PNG"),
        "gray16.png": saved(gray16, "PNG"),
        "palette.png": saved(photo.quantize(64), "PNG"),
        "alpha.png": saved(photo.convert("RGBA"), "PNG"),
        "interlaced.png": _interlaced(photo),
        "lossy.webp": saved(photo, "WEBP"),
        "lossless.webp": saved(photo, "WEBP", lossless=True),
        "plain.bmp": saved(photo, "BMP"),
        "plain.tif": saved(photo, "TIFF"),
        "lzw.tiff": saved(photo, "TIFF", compression="tiff_lzw"),
        "deflate.tiff": saved(photo, "TIFF", compression="tiff_deflate"),
        "gif.jpg": saved(photo.quantize(32), "GIF"),
    }


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _interlaced(image: Image.Image) -> bytes:
    """A PNG in seven passes (Adam7), which Pillow reads but does not write."""
    pixels = np.asarray(image)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right]]
    header = struct.pack(">2I5B", image.width, image.height, 8, 2, 0, 0, 1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


# --- damage ---

Damage = Callable[[bytes, np.random.Generator], bytes]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 9))):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _flip_in_header(data: bytes, rng: np.random.Generator) -> bytes:
    return _flip(data[:64], rng) + data[64:]


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
    return (data[:start] + rng.bytes(length) + data[start + length :])[: len(data)]


def _blank_tail(data: bytes, rng: np.random.Generator) -> bytes:
    kept = _cut(data, rng)
    return kept + bytes(len(data) - len(kept))


def _remove(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 40)) :]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + rng.bytes(int(rng.integers(1, 40))) + data[start:]


def _length(data: bytes, rng: np.random.Generator) -> bytes:
    """Two or four bytes that may be a length or an offset made extreme."""
    size = int(rng.choice([2, 4]))
    at = int(rng.integers(0, min(len(data) - size, 300)))
    value = [b"\xff" * size, bytes(size), b"\x7f" + b"\xff" * (size - 1), rng.bytes(size)][int(rng.integers(4))]
    return data[:at] + value + data[at + size :]


def _empty(data: bytes, rng: np.random.Generator) -> bytes:
    return b""


def _garbage(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(1, 3000)))


def _zeros(data: bytes, rng: np.random.Generator) -> bytes:
    return bytes(len(data))


def _claim(data: bytes, rng: np.random.Generator) -> bytes:
    """Dimensions claimed that the data does not have; far over the limit, but for a few."""
    return claim(data, *(int(side) for side in rng.integers(20_000, 60_000, 2)))


def claim(data: bytes, width: int, height: int) -> bytes:
    """``data`` with other dimensions in its header."""
    changed = bytearray(data)
    if data.startswith(b"\x89PNG"):
        changed[16:24] = struct.pack(">2I", width, height)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    elif data.startswith(b"\xff\xd8"):
        at = next(n for n in range(len(data)) if data[n] == 0xFF and data[n + 1] in (0xC0, 0xC2))
        changed[at + 5 : at + 9] = struct.pack(">2H", height, width)
    elif data.startswith(b"RIFF") and data[12:16] == b"VP8 ":
        changed[26:30] = struct.pack("<2H", min(width, 16383), min(height, 16383))
    elif data.startswith(b"RIFF"):
        changed[21:25] = struct.pack("<I", min(width, 16384) - 1 | (min(height, 16384) - 1) << 14)
    elif data.startswith(b"BM"):
        changed[18:26] = struct.pack("<2i", width, height)
    elif data.startswith(b"GIF"):
        changed[6:10] = struct.pack("<2H", width, height)
    else:
        start = struct.unpack_from("<I", data, 4)[0] + 2
        for at in range(start, start + 24, 12):  # the first two tags: width and height
            changed[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if at == start else height)
    return bytes(changed)


DAMAGE: tuple[Damage, ...] = (
    _flip, _flip, _flip_in_header, _flip_in_header, _cut, _cut, _overwrite, _blank_tail, _remove, _insert, _length,
    _length, _length, _claim, _empty, _garbage, _zeros,
)  # fmt: skip


def damaged(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many files with names, the same every time: every kind of picture with every kind of damage."""
    kinds = list(pictures().items())
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        name, data = kinds[n % len(kinds)]
        kind = DAMAGE[(n + n // len(kinds)) % len(DAMAGE)]  # neighbors are damaged in different ways
        yield f"{n:05d}_{name}", kind(data, rng)


def bombs() -> dict[str, bytes]:
    """Files that claim nearly as many pixels as are allowed: what they cost is what the worst image costs."""
    made = pictures()
    return {f"bomb_{name}": claim(made[name], 13_000, 13_000) for name in ("rgb.png", "baseline.jpg", "gif.jpg")}


# --- the loader, in a process of its own ---


def one_epoch(path: Path) -> dict[str, Any]:
    """What an epoch of two workers came to, as plain values; the memory of the larger worker in bytes.

    ``before`` is what the process had before the workers began, most of which they share.
    """
    recipe = Recipe(1, BATCH, SGD(), 0.1, augmentation=Augmentation(crop_area=0.3, flip=0.5))
    execution = Execution(workers=2, on_bad_image=OnBadImage.SKIP)
    batches = TrainingBatches(folder(path)["train"], Preprocess(32, 32), recipe, execution=execution)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken, bad = Counter[str](), Counter[str]()
    for parts in batches.epoch(0):
        for batch in parts:
            taken[str(tuple(batch.images.shape))] += 1
            bad.update(key for key, _ in batch.bad)
    del batches
    gc.collect()  # ends the workers, whose memory is told when they have ended
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"taken": taken, "bad": sorted(bad), "before": before * 1024, "memory": memory * 1024}


def is_bad(path: Path) -> bool:
    """Whether Pillow cannot read an image, or it is over the limit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                return image.width * image.height > MAX_PIXELS
    except Exception:
        return True


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten thousand damaged files in two classes, whole ones after every two of them, and some to validate on."""
    root = tmp_path_factory.mktemp("many")
    whole = pictures()["rgb.png"]
    files = {**dict(damaged(COUNT)), **bombs()}
    files |= {f"{2 * n:05d}_whole.png": whole for n in range(WHOLE - len(bombs()))}
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
        (root / "val" / name).mkdir(parents=True)
        (root / "val" / name / "whole.png").write_bytes(whole)
    for name in files:
        (root / "train" / ("a" if name < "05" else "b") / name).write_bytes(files[name])
    return root


@pytest.mark.long
def test_ten_thousand_damaged_images(many: Path) -> None:
    """As many batches as ever, every image that Pillow cannot read is told, and no other."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), *filter(None, sys.path)])}
    command, pipe = [sys.executable, __file__, many], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment) as running:
        files = list(many.glob("train/*/*"))
        bad = {path.relative_to(many).as_posix() for path in files if is_bad(path)}
        out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, err.decode()[-2000:]
    found = json.loads(out)
    assert len(files) == COUNT + WHOLE
    assert found["taken"] == {str((BATCH, 3, 32, 32)): (COUNT + WHOLE) // BATCH}
    assert set(found["bad"]) == bad
    assert COUNT // 2 < len(bad) < COUNT * 9 // 10
    assert 13_000 * 13_000 < found["memory"] < found["before"] + 1.5 * 4 * MAX_PIXELS, "what the largest image takes"


# --- one kind at a time ---


def _reader(folder: Path, name: str, data: bytes) -> FileReader:
    (folder / name).write_bytes(data)
    return FileReader(str(folder), name)


@pytest.mark.parametrize("name", pictures())
def test_whole_pictures_are_read_as_pillow_reads_them(name: str, tmp_path: Path) -> None:
    data = pictures()[name]
    image = _reader(tmp_path, name, data)()
    plain = Image.open(io.BytesIO(data))
    if name == "turned.jpg":
        plain = plain.transpose(Image.Transpose.ROTATE_270)
    assert (image.mode, image.size) == (plain.mode, plain.size)
    assert image.tobytes() == plain.tobytes()
    assert Preprocess(32, 32).convert(image).mode == "RGB"


TRUNCATED = r"image file is truncated \(\d+ bytes not processed\)"
UNKNOWN = re.escape(f"none of {', '.join(FORMATS)}")
JPEG, PNG = pictures()["baseline.jpg"], pictures()["rgb.png"]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        pytest.param(*case, id=case[0])
        for case in (
            ("truncated.jpg", JPEG[:1000], TRUNCATED),
            ("truncated.png", PNG[:1000], "image file is truncated"),
            ("header.jpg", JPEG[:100], "Truncated File Read"),
            ("corrupt.png", PNG[:60] + b"\xff" * 40 + PNG[100:], "broken data stream when reading image file"),
            ("empty.jpg", b"", "the file is empty"),
            ("zeros.jpg", bytes(5000), UNKNOWN),
            ("text.png", b"<html>404 not found</html>", UNKNOWN),
            ("archive.jpg", zlib.compress(JPEG), UNKNOWN),
        )
    ],
)
def test_unreadable_files(name: str, data: bytes, what: str, tmp_path: Path) -> None:
    start = f"{tmp_path}/{name}: cannot be read as an image ("
    said = refusal(_reader(tmp_path, name, data))
    assert said.startswith(start)
    assert re.fullmatch(what, said.removeprefix(start).removesuffix(")")), said


@pytest.mark.parametrize("name", pictures())
def test_huge_images_are_refused_before_they_are_decoded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    data = claim(pictures()[name], 16_383, 16_383)
    expected = f"{tmp_path}/{name}: over the limit of 178,956,970 pixels; shrink it"
    assert refusal(_reader(tmp_path, name, data)) == expected
    assert "decoded" in refusal(_reader(tmp_path, name, pictures()[name]))


def test_the_extension_is_no_matter(tmp_path: Path) -> None:
    for name in ("x.jpg", "x.tiff", "x.webp"):
        assert _reader(tmp_path, name, PNG)().tobytes() == Image.open(io.BytesIO(PNG)).tobytes()
    assert _reader(tmp_path, "x.png", JPEG)(lambda size: (8, 8)).size == (8, 8)


def test_other_kinds_of_color(tmp_path: Path) -> None:
    to_rgb, to_gray = Preprocess(32, 32), Preprocess(32, 32, mean=(0.5,), std=(0.5,))
    original = np.asarray(_reader(tmp_path, "rgb.png", PNG)()).astype(int)
    cmyk = _reader(tmp_path, "cmyk.jpg", pictures()["cmyk.jpg"])()
    assert cmyk.mode == "CMYK"
    assert np.abs(np.asarray(to_rgb.convert(cmyk)) - original).mean() < 12
    deep = _reader(tmp_path, "gray16.png", pictures()["gray16.png"])()
    assert deep.mode.startswith("I")
    gray = np.asarray(Image.open(io.BytesIO(PNG)).convert("L"))
    assert np.array_equal(np.asarray(to_gray.convert(deep)), gray)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    """Stored as a camera would, so that turning by the tag gives the upright image back."""
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    upright = Image.open(io.BytesIO(PNG)).crop((0, 0, 64, 48))
    stored = upright.transpose(Image.Transpose[turns[orientation]]) if orientation > 1 else upright
    tags = Image.Exif()
    tags[0x0112] = orientation
    assert _reader(tmp_path, "x.png", saved(stored, "PNG", exif=tags))().tobytes() == upright.tobytes()
    read = _reader(tmp_path, "x.jpg", saved(stored, "JPEG", exif=tags))
    assert read().size == (64, 48)
    assert read(lambda size: (size[0] // 2, size[1] // 2)).size == (32, 24)


if __name__ == "__main__":
    print(json.dumps(one_epoch(Path(sys.argv[1]))))
