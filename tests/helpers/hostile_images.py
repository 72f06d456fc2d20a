"""Image files made by hand that ask for much, and mutations of sound ones; what reading them takes, measured.

``python hostile_images.py COUNT SEED`` reads so many mutations and prints, as JSON, what went wrong.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import decode_image
from fbnetv3_zoo.images.pixels import to_eight_bits


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, color: int, *chunks: bytes) -> bytes:
    """A PNG of zeros, however large, in few bytes."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    left = size[1] * (1 + -(-size[0] * depth * channels // 8))
    packer, parts, zeros = zlib.compressobj(1), [], bytes(1 << 20)
    for start in range(0, min(left, 100 << 20), len(zeros)):  # a claim of more is refused before it is unpacked
        parts.append(packer.compress(zeros[: left - start]))
    data = b"".join([*parts, packer.flush()])
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def webp(kind: bytes, body: bytes) -> bytes:
    """A WebP file of one chunk."""
    part = kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(part)) + b"WEBP" + part


def gif(screen: tuple[int, int], frame: tuple[int, int], disposal: int = 0) -> bytes:
    """A GIF of one frame that ends early, with a color that is clear."""
    head = b"GIF89a" + struct.pack("<HH", *screen) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    control = b"!\xf9\x04" + bytes([1 | disposal << 2]) + b"\0\0\0\0"
    return head + control + b"," + struct.pack("<HHHH", 0, 0, *frame) + b"\0\x02\x02\x44\x01\0;"


def jpeg_of_passes(side: int, passes: int) -> bytes:
    """A progressive gray JPEG whose passes say that all blocks stay as they are, in a few bytes each."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    blocks = (-(-side // 8)) ** 2
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    codes = b"\1" + bytes(15)
    tables += segment(0xC4, b"\0" + codes + b"\0") + segment(0xC4, b"\x10" + codes + b"\xe0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    more = segment(0xDA, b"\1\1\0\1\x3f\0") + bytes(-(-(-(-blocks // 16384) * 15) // 8))
    return b"\xff\xd8" + tables + first + more * passes + b"\xff\xd9"


def jpeg2000(side: int, tile: int) -> bytes:
    """The header of a JPEG 2000 picture of 3 components."""
    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, tile, tile, 0, 0, 3) + b"\x07\x01\x01" * 3
    coding = b"\xff\x52\0\x0c\0\0\0\x01\0\x05\x04\x04\0\x01" + b"\xff\x5c\0\x13\x40" + b"\x40\x48\x48\x50" * 4
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + coding + b"\xff\x90\0\x0a\0\0\0\0\0\x0e\0\1"


def tiff(side: int, compression: int, tile: int) -> bytes:
    """A gray TIFF of tiles larger than the picture, in a few bytes."""
    data = zlib.compress(bytes(1 << 16))
    tags = ((256, side), (257, side), (258, 8), (259, compression), (262, 1), (277, 1))
    tags += ((322, tile), (323, tile), (324, 8 + 2 + 120 + 4), (325, len(data)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


def icon(body: bytes) -> bytes:
    """An icon file whose list says that its only picture is small."""
    return b"\0\0\1\0\1\0" + bytes([32, 32, 0, 0]) + struct.pack("<HHII", 1, 32, len(body), 22) + body


def bitmap_of_runs(side: int, data: bytes) -> bytes:
    """A BMP of 256 colors, packed as runs."""
    palette = b"".join(bytes([n, n // 2, 0, 0]) for n in range(256))
    begins = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", begins + len(data), 0, 0, begins) + info + palette + data


@cache
def hostile() -> dict[str, bytes]:
    """Files of at most some hundred kB that would take gigabytes or half a minute, by name."""
    canvas = struct.pack("<I", 13_000)[:3]
    lossless = b"\x2f" + struct.pack("<I", 12_999 | 12_999 << 14) + bytes(9)
    clear = chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\x80\x90")
    dib = struct.pack("<IiiHHIIiiII", 40, 10_000, 20_000, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(100)
    return {
        "extended.webp": webp(b"VP8X", b"\2\0\0\0" + canvas + canvas),
        "lossless.webp": webp(b"VP8L", lossless),
        "lossy.webp": webp(b"VP8 ", b"\x30\1\0\x9d\1\x2a" + struct.pack("<HH", 13_000, 13_000) + bytes(20)),
        "screen.gif": gif((13_377, 13_377), (1, 1)),
        "frame.gif": gif((1, 1), (13_377, 13_377), disposal=2),
        "alpha.png": png((13_300, 13_300), 8, 6),
        "deep.png": png((13_300, 13_300), 16, 2),
        "palette.png": png((13_377, 13_377), 8, 3, clear),
        "passes.jpg": jpeg_of_passes(8000, 3000),
        "small_passes.jpg": jpeg_of_passes(1000, 40_000),
        "large.j2k": jpeg2000(13_000, 13_000),
        "grid.j2k": jpeg2000(255, 1),
        "tiles.tif": tiff(64, 8, 60_000),
        "packed.tif": tiff(13_300, 5, 13_300),
        "png.ico": icon(png((10_000, 10_000), 8, 6)),
        "dib.ico": icon(dib),
        "lines.bmp": bitmap_of_runs(13_000, bytes(26_000)),
        "scaled.pgm": b"P5 9000 9000 4095\n" + bytes(1000),
        "floating.pfm": b"Pf 13000 13000 -1\n" + bytes(1000),
    }


@cache
def sound() -> dict[str, bytes]:
    """Small whole pictures of every kind that is read."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((40, 36))
    gray, alpha = photo.convert("L"), photo.copy()
    alpha.putalpha(gray)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    made: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpg": (photo, "JPEG", {"exif": turned}), "passes.jpg": (photo, "JPEG", {"progressive": True}),
        "cmyk.jpg": (photo.convert("CMYK"), "JPEG", {}), "png": (alpha, "PNG", {"exif": turned}),
        "deep.png": (deep, "PNG", {}), "palette.png": (photo.quantize(9), "PNG", {"transparency": 3}),
        "moving.png": (photo, "PNG", {"save_all": True, "append_images": [alpha]}),
        "gif": (photo.quantize(9), "GIF", {"transparency": 3, "save_all": True, "append_images": [gray.convert("P")]}),
        "webp": (photo, "WEBP", {}), "lossless.webp": (alpha, "WEBP", {"lossless": True}),
        "moving.webp": (photo, "WEBP", {"save_all": True, "append_images": [alpha]}),
        "bmp": (photo, "BMP", {}), "tif": (photo, "TIFF", {}), "floating.tif": (gray.convert("F"), "TIFF", {}),
        "whole.tif": (gray.convert("I"), "TIFF", {}), "lzw.tif": (alpha, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (photo, "TIFF", {"compression": "tiff_deflate"}),
        "jpeg.tif": (photo, "TIFF", {"compression": "jpeg"}),
        "ico": (alpha, "ICO", {"sizes": [(32, 32)]}),
        "dib.ico": (alpha, "ICO", {"sizes": [(32, 32)], "bitmap_format": "bmp"}),
        "jp2": (photo, "JPEG2000", {}), "j2k": (gray, "JPEG2000", {"no_jp2": True, "tile_size": (16, 16)}),
        "ppm": (photo, "PPM", {}), "pgm": (deep, "PPM", {}),
    }  # fmt: skip
    pictures = {}
    for name, (image, kind, options) in made.items():
        file = io.BytesIO()
        image.save(file, kind, **options)  # type: ignore[arg-type]
        pictures[name] = file.getvalue()
    runs = bytes([5, 7, 0, 3, 1, 2, 3, 0, 8, 9, 0, 0]) + bytes([16, 4, 0, 0]) * 15 + bytes([0, 1])
    return {**pictures, "runs.bmp": bitmap_of_runs(16, runs), "plain.ppm": b"P3 4 4 255\n" + b"9 200 31 " * 16}


def mutations(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many damaged files with the names of what they were made from, the same for the same ``seed``."""
    pictures = list(sound().items())
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        name, data = pictures[n % len(pictures)]
        yield name, _mutated(bytearray(data), rng)


def _mutated(data: bytearray, rng: np.random.Generator) -> bytes:
    """Bytes changed, numbers made extreme, parts cut out, repeated or put in; mostly near the beginning."""
    for _ in range(int(rng.integers(1, 5))):
        reach = len(data) if rng.random() < 0.3 else min(len(data), 120)
        at, size = int(rng.integers(0, max(1, reach))), int(rng.choice([1, 2, 4]))
        kind = int(rng.integers(6))
        if kind == 0:
            data[at : at + size] = rng.bytes(size)
        elif kind == 1:
            data[at : at + size] = bytes([[0, 255, 127, 1][int(rng.integers(4))]]) * size
        elif kind == 2:
            data[at : at + size] = (int(rng.choice([5000, 13_000, 65_535, 100_000, 2**31])) % 256**size).to_bytes(
                size, "big"
            )
        elif kind == 3:
            data[at : at + size] = (int(rng.choice([5000, 13_000, 65_535])) % 256**size).to_bytes(size, "little")
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 30))]
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 30))] * int(rng.integers(1, 20))
    return bytes(data)


def examine(data: bytes) -> str:
    """What became of an image that is read and made RGB: its mode, or the line of its refusal; raises on any other."""
    try:
        image = decode_image(io.BytesIO(data), "image")
        to_eight_bits(image, "RGB")
    except ZooError as error:
        return str(error)
    return image.mode


def peak() -> int:
    """Most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(count: int, seed: int) -> None:
    """Examine ``count`` mutations, or for 0 the hostile files; print the slowest, the peak and what was raised."""
    Image.init()
    files = mutations(count, seed) if count else iter(hostile().items())
    before, slowest, told = peak(), ("", 0.0), {}
    for n, (name, data) in enumerate(files):
        began = time.process_time()
        said = examine(data)
        slowest = max(slowest, (f"{n} {name}", time.process_time() - began), key=lambda pair: pair[1])
        told[name] = said
    print(json.dumps({"slowest": slowest, "bytes": peak() - before, "told": told}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
