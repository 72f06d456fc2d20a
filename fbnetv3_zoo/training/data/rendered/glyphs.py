"""Pictures of characters: from a font file to gray pixels, with small distortions drawn by a seed."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

from ....errors import ZooError, first_few, in_short

Pixels = npt.NDArray[np.uint8]
SKETCH = 16
"""Side of the small pictures by which faces are compared, in pixels."""

_FINER = 4  # pictures are drawn at this multiple of their side
_FILLED = 0.72  # share of the side that tall and wide characters take
_MEASURED = 128  # size of the em at which a face is measured, in pixels
_NOT_CHARACTERS = "\uffff\ufffe\U0010ffff"  # which no font has: it draws its picture of a missing one
_SAME = 0.02  # share of the ink in which the pictures of two characters at least differ
_CAPITALS = 0.12  # and those of a letter in both cases, if they are not both capitals


@dataclass(frozen=True, slots=True)
class FacePictures:
    """The characters of a face: ``pixels`` (characters, side, side), and ``sketches`` (characters, 16, 16) of 4 bits.

    Ink is bright, on a black ground. Sketches are neither distorted nor do they depend on a seed.
    """

    pixels: Pixels
    sketches: Pixels


def draw_face(data: bytes, index: int, characters: Sequence[str], *, side: int, seed: Sequence[int]) -> FacePictures:
    """The pictures of ``characters`` in face ``index`` of the font file ``data``, distorted by ``seed``.

    Raises :class:`ZooError` if the face cannot be drawn, or lacks one of the characters: it draws nothing, what it
    draws for missing ones, or the same picture for two of them.
    """
    try:
        masks = _masks(data, index, characters, side)
    except ZooError:
        raise
    except (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ZooError(f"cannot be drawn ({in_short(error)})") from None
    _check_differ(masks, characters)
    canvases = [_centered(mask, side * _FINER) for mask in masks]
    rngs = (np.random.default_rng(_numbers(character, *seed)) for character in characters)
    pixels = np.stack([_distorted(canvas, side, rng) for canvas, rng in zip(canvases, rngs, strict=True)])
    small = [canvas.resize((SKETCH, SKETCH), Image.Resampling.BOX) for canvas in canvases]
    return FacePictures(pixels, np.stack([np.asarray(image) for image in small]) // np.uint8(16))


def _masks(data: bytes, index: int, characters: Sequence[str], side: int) -> list[Image.Image]:
    """The ink of every character, all at one scale, at which tall and wide ones fill their part of the picture."""
    font = _font(data, index, _MEASURED)
    boxes = np.array([_box(font, character) for character in characters])
    sizes = np.sort(boxes[:, 2:] - boxes[:, :2], axis=0)
    if blank := [c for c, box in zip(characters, boxes, strict=True) if min(box[2] - box[0], box[3] - box[1]) <= 0]:
        raise ZooError(f"draws nothing for {first_few(blank)}")
    extent = int(sizes[int(0.9 * (len(sizes) - 1))].max())
    size = round(_MEASURED * side * _FINER * _FILLED / extent)
    font = _font(data, index, min(max(size, 8), 16 * side * _FINER))
    missing = {_ink(font, character) for character in _NOT_CHARACTERS}
    inks = [_ink(font, character) for character in characters]
    if lacking := [c for c, ink in zip(characters, inks, strict=True) if ink is None or ink in missing]:
        raise ZooError(f"lacks {first_few(lacking)}")
    return [Image.frombytes("L", *ink) for ink in inks if ink is not None]


def _font(data: bytes, index: int, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(io.BytesIO(data), size, index=index, layout_engine=ImageFont.Layout.BASIC)


def _box(font: ImageFont.FreeTypeFont, character: str) -> tuple[float, ...]:
    """Left, top, right and bottom of the ink in pixels. Raises if it is far larger than a character."""
    box = font.getbbox(character)
    if max(map(abs, box)) > 32 * font.size:
        raise ZooError(f"draws {character} more than 32 em wide or high")
    return box


def _ink(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes] | None:
    """Size and gray values of the ink, without empty margins; None if there is none."""
    _box(font, character)
    mask = font.getmask(character, mode="L")
    if 0 in mask.size:
        return None
    image = Image.frombytes("L", mask.size, bytes(mask))
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    return image.size, image.tobytes()


def _check_differ(masks: Sequence[Image.Image], characters: Sequence[str]) -> None:
    """Raise :class:`ZooError` if two characters have the same picture but for its size, as in fonts of capitals."""
    small = np.stack([np.asarray(mask.resize((SKETCH, SKETCH), Image.Resampling.BOX)) for mask in masks])
    flat = small.reshape(len(small), -1).astype(np.int64)
    ink = (flat**2).sum(1)
    distance = (ink[:, None] + ink - 2 * flat @ flat.T) / np.minimum(ink[:, None], ink).clip(1)
    same = np.argwhere(np.triu(distance < _SAME, 1))
    if len(same):
        pairs = [f"{characters[one]} and {characters[other]}" for one, other in same.tolist()]
        raise ZooError(f"draws the same for {first_few(pairs)}")
    rows = {character: row for row, character in enumerate(characters)}
    both = [(row, rows[c.lower()]) for c, row in rows.items() if c != c.lower() and c.lower() in rows]
    if both and np.median(distance[tuple(np.transpose(both))]) < _CAPITALS:
        raise ZooError("has capitals for small letters")


def _centered(mask: Image.Image, side: int) -> Image.Image:
    """The ink in the middle of a square, made smaller if it would not fit."""
    if (share := max(mask.size) / (0.94 * side)) > 1:
        mask = mask.resize((max(1, int(mask.width / share)), max(1, int(mask.height / share))), Image.Resampling.BOX)
    canvas = Image.new("L", (side, side))
    canvas.paste(mask, ((side - mask.width) // 2, (side - mask.height) // 2))
    return canvas


def _distorted(canvas: Image.Image, side: int, rng: np.random.Generator) -> Pixels:
    """Turned by at most 8 degrees, sheared by 0.12, scaled by 0.85 to 1.05 and shifted by a twentieth, at ``side``."""
    angle, shear = rng.uniform(-math.radians(8), math.radians(8)), rng.uniform(-0.12, 0.12)
    scale, shift = rng.uniform(0.85, 1.05), rng.uniform(-0.05, 0.05, 2) * canvas.width
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    back = np.linalg.inv(turned @ np.array([[1, shear], [0, 1]]) * scale)  # from a place in the result to its origin
    middle = canvas.width / 2
    offset = middle - back @ (middle + shift)
    affine = (*back[0].tolist(), float(offset[0]), *back[1].tolist(), float(offset[1]))
    changed = canvas.transform(canvas.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(changed.resize((side, side), Image.Resampling.BOX))


def _numbers(text: str, *numbers: int) -> list[int]:
    """Seeds for a generator: ``numbers``, and a digest of ``text``."""
    return [*numbers, int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")]
