"""Estimate from its header the memory, and for some formats the time, that decoding an image would take.

A file of a few bytes may claim any size; decoders allocate what it claims, some of them as soon as the file is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..errors import ZooError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970
"""Largest image that is decoded, in pixels: 1/4 GiB of 24-bit pixels, twice Pillow's own warning limit."""
MAX_MEMORY = 870_000_000
"""Most bytes that decoding an image, turning it upright and converting it to RGB may take.

Enough for an upright photograph of 108 megapixels, and for 174 megapixels of gray.
"""

_MAX_SCAN_PIXELS = 2_000_000_000  # of progressive JPEG, over all its passes; about two seconds
_MAX_SAMPLES = {"zip": 650_000_000, "bmp_rle": 10_000_000, "ppm": 2_000_000, "ppm_plain": 4_000_000}
"""Bytes that Pillow's decoders of these names unpack in about two seconds; the last three are Python code."""
_MAX_TILES = 100_000  # each is a call from Python
_WEBP = 13.5  # bytes per pixel: two canvases with alpha, the frame once more, its unpacked data
_MAX_ICON = 4096 * 4096
_GRID = 4096  # tiles of a JPEG 2000 file; some kilobytes each are allocated before any is read


class _Frame(NamedTuple):
    """The header of a JPEG file before its first pass."""

    several_passes: bool
    progressive: bool
    coefficients: float  # per pixel
    begins: int  # offset of the first pass


def check_before_opening(file: BinaryIO) -> None:
    """Raise :class:`ZooError` if Pillow would take too much just to open ``file``, which is rewound."""
    head = file.read(64)
    file.seek(0)
    for matches, check in _EARLY:
        if matches(head):
            check(head, file)
            file.seek(0)


def check_before_decoding(image: Image.Image, file: BinaryIO, *, turned: bool) -> None:
    """Raise :class:`ZooError` if decoding ``image`` takes too much; ``turned``: it is not upright."""
    stored = _stored(image.mode)
    beside = _BESIDE.get(image.format or "", _nothing)(image, file)
    _check_memory(
        image.size, stored + max(beside, stored * turned, _converted(image)), f"{image.mode} ({image.format})"
    )
    _check_time(image)


def _check_memory(size: tuple[int, int], by_pixel: float, kind: str) -> None:
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS:
        raise ZooError(f"over the limit of {MAX_PIXELS:,} pixels; shrink it")
    if (needed := round(pixels * by_pixel)) > MAX_MEMORY:
        raise ZooError(
            f"{size[0]} x {size[1]} pixels of {kind} take {needed:,} bytes to decode, over the limit of "
            f"{MAX_MEMORY:,}; shrink it"
        )


def _converted(image: Image.Image) -> int:
    """Bytes per pixel that ``pixels.py`` needs besides the image."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return 0
    return 6 if image.mode == "F" or image.mode.startswith("I") else 4


def _check_time(image: Image.Image) -> None:
    tiles = getattr(image, "tile", ())
    if len(tiles) > _MAX_TILES:
        raise ZooError(f"{len(tiles):,} strips or tiles are over the limit of {_MAX_TILES:,}; save it again")
    if not tiles:
        return
    kind, deep = str(tiles[0][0]), "16" in str(tiles[0][3])
    samples = image.width * image.height * len(image.getbands())
    if samples * (1 + deep) > _MAX_SAMPLES.get(kind, samples * 2):
        raise ZooError(
            f"{image.width} x {image.height} pixels of {image.mode} ({image.format}, {kind}) take too long to decode; "
            f"{'shrink it' if kind == 'zip' else 'save it as PNG'}"
        )


def _stored(mode: str) -> int:
    """Bytes per pixel in Pillow."""
    return 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4


def _nothing(image: Image.Image, file: BinaryIO) -> float:
    return 0.0


def _beside_jpeg(image: Image.Image, file: BinaryIO) -> float:
    """All coefficients, if the picture comes in several passes."""
    at = file.tell()
    try:
        frame = _jpeg_frame(file)
        if frame is None or not frame.several_passes:
            return 0.0
        pixels = image.width * image.height
        passes = _passes(file, frame.begins) if frame.progressive else 1
        if passes * pixels > _MAX_SCAN_PIXELS:
            raise ZooError(
                f"{image.width} x {image.height} pixels in {passes:,} passes take too long to decode; save it again"
            )
        return 2 * frame.coefficients
    finally:
        file.seek(at)


def _jpeg_frame(file: BinaryIO) -> _Frame | None:
    """The header; None if the file ends, or is unknown to Pillow, before the first pass."""
    file.seek(2)
    progressive, components, coefficients = False, 0, 3.0
    while True:
        byte = file.read(1)
        while byte not in (b"\xff", b""):
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte:
            return None
        kind = byte[0]
        if kind in (0x00, 0x01) or 0xD0 <= kind <= 0xD8:  # no segment follows
            continue
        length = int.from_bytes(file.read(2), "big")
        if kind == 0xDA:
            named = int.from_bytes(file.read(1), "big")
            return _Frame(progressive or named < components, progressive, coefficients, file.tell())
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            body = file.read(max(0, length - 2))
            progressive, components = kind in (0xC2, 0xC6, 0xCA, 0xCE), body[5] if len(body) > 5 else 0
            coefficients = _coefficients(body[6:], components)
        else:
            file.seek(max(0, length - 2), 1)


def _coefficients(body: bytes, components: int) -> float:
    """Coefficients per pixel over all components; color is often stored at half the size."""
    factors = [(value >> 4, value & 15) for value in body[1 : 3 * components : 3]]
    across, down = max((a for a, _ in factors), default=1), max((b for _, b in factors), default=1)
    return sum(a * b for a, b in factors) / max(1, across * down) or 3.0


def _passes(file: BinaryIO, begins: int) -> int:
    """Number of passes from offset ``begins`` on."""
    file.seek(begins)
    count, last = 1, b""
    while part := file.read(1 << 20):
        count += (last + part).count(b"\xff\xda")
        last = part[-1:] if part.endswith(b"\xff") else b""
    return count


def _beside_webp(image: Image.Image, file: BinaryIO) -> float:
    return _WEBP


def _beside_jpeg2000(image: Image.Image, file: BinaryIO) -> float:
    """Every sample as a 32-bit integer, and unpacked."""
    return 5.5 * len(image.getbands())


def _beside_gif(image: Image.Image, file: BinaryIO) -> float:
    """The background that the frame leaves behind is prepared as well."""
    return 1.0


def _beside_tiff(image: Any, file: BinaryIO) -> float:
    """An unpacked strip or tile, which may be the whole picture or, as claimed by the file, larger."""
    if image.tile and image.tile[0][0] == "raw":
        return 0.0
    tags = image.tag_v2
    bits = tags.get(258, (8,))
    by_pixel: float = sum(bits if isinstance(bits, tuple) else (bits,)) / 8
    across, down = tags.get(322, image.width), tags.get(323, tags.get(278, image.height))
    if not isinstance(across, int) or not isinstance(down, int):
        return by_pixel
    rows: int = down if 323 in tags else min(down, max(image.size))
    return float(max(by_pixel, 4.0) * across * rows / max(1, image.width * image.height))


_BESIDE: dict[str, Callable[[Any, BinaryIO], float]] = {
    "JPEG": _beside_jpeg, "MPO": _beside_jpeg, "WEBP": _beside_webp, "JPEG2000": _beside_jpeg2000, "GIF": _beside_gif,
    "TIFF": _beside_tiff,
}  # fmt: skip


# --- what Pillow decodes, or allocates, as soon as it opens a file ---


def _check_webp(head: bytes, file: BinaryIO) -> None:
    kind, width, height = head[12:16], 0, 0
    if kind == b"VP8 ":
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    elif kind == b"VP8X":
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    _check_memory((width, height), 4 + _WEBP, "RGBA (WEBP)")


def _check_icon(head: bytes, file: BinaryIO) -> None:
    """An icon is decoded when it is opened, whatever its list of pictures says of their sizes."""
    count = int.from_bytes(head[4:6], "little")
    file.seek(6)
    entries = [file.read(16) for _ in range(min(count, 1024))]
    for entry in entries:
        file.seek(int.from_bytes(entry[12:16], "little"))
        header = file.read(26)
        order, spans = ("big", (16, 20)) if header.startswith(b"\x89PNG") else ("little", (4, 8))
        width, height = (int.from_bytes(header[at : at + 4], order) for at in spans)  # type: ignore[arg-type]
        if width * height > _MAX_ICON or count > len(entries):
            raise ZooError(f"an icon of {width} x {height} pixels; save it as PNG")


def _check_grid(head: bytes, file: BinaryIO) -> None:
    """Refuse a JPEG 2000 picture that claims very many tiles."""
    start = file.read(1 << 20).find(b"\xff\x4f\xff\x51")
    if start < 0:
        return
    file.seek(start + 8)
    width, height, *_, across, down = (int.from_bytes(file.read(4), "big") for _ in range(6))
    if across and down and -(-width // across) * -(-height // down) > _GRID:
        raise ZooError(f"over {_GRID:,} tiles in a JPEG 2000 file; save it with larger ones")


_EARLY: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, BinaryIO], None]], ...] = (
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _check_webp),
    (lambda head: head.startswith(b"\0\0\1\0"), _check_icon),
    (lambda head: head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")), _check_grid),
)
