"""Boxes drawn on images: what a detector found, and the true boxes where they are known; a sheet of such images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.report.charts import SERIES

from ..data.coco import AnnotatedImage
from ..data.faults import in_brief
from .evaluate import Detections

THRESHOLD = 0.5
"""Score from which a detection is drawn, where nothing else is asked for."""
LEGEND = "solid: found, with score; dashed: true"
_GAP = 8


def draw_boxes(
    image: Image.Image, found: Detections, class_names: Sequence[str], *, truth: AnnotatedImage | None = None,
    threshold: float = THRESHOLD, scale: float = 1,
) -> Image.Image:  # fmt: skip
    """``image``, made larger by ``scale``, with box, class and score of all that was found, the best on top.

    Scores below ``threshold`` are left out. The boxes of ``truth`` are dashed, with their class below.
    """
    picture = to_eight_bits(image, "RGB").copy()
    if scale != 1:
        picture = picture.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    width = max(1, round(min(picture.size) / 150))
    font = ImageFont.load_default(max(10.0, min(picture.size) / 25))
    pen = ImageDraw.Draw(picture)
    clear = [n for n in reversed(range(len(found.scores))) if found.scores[n] >= threshold]
    true = [] if truth is None else [*zip(scale * truth.boxes, truth.labels, strict=True)]
    for n in clear:
        pen.rectangle([*map(float, scale * found.boxes[n])], outline=_color(found.labels[n]), width=width)
    for box, label in true:
        _dashed(pen, box, _color(label), max(2, width))
    for box, label in true:  # after all boxes, so that no line runs through words
        _label(pen, in_brief(class_names[label - 1]), box, _color(label), font, below=True)
    for n in clear:
        words = f"{in_brief(class_names[found.labels[n] - 1])} {found.scores[n]:.0%}"
        _label(pen, words, scale * found.boxes[n], _color(found.labels[n]), font)
    return picture


def with_legend(picture: Image.Image) -> Image.Image:
    """``picture`` with a line below that says what solid and dashed boxes are."""
    size = max(10.0, min(24.0, picture.width / 26))
    height = round(1.8 * size)
    paper = Image.new("RGB", (picture.width, picture.height + height), "white")
    paper.paste(picture, (0, 0))
    pen = ImageDraw.Draw(paper)
    middle = picture.width / 2, picture.height + height / 2
    pen.text(middle, LEGEND, fill="black", font=ImageFont.load_default(size), anchor="mm")
    return paper


def sheet(
    images: Sequence[Image.Image], found: Sequence[Detections], class_names: Sequence[str], *,
    truths: Sequence[AnnotatedImage], columns: int = 4, side: int = 320,
) -> Image.Image:  # fmt: skip
    """Images with what was found in them and what is, in rows, each fitted into a square of ``side`` pixels."""
    rows = math.ceil(max(1, len(images)) / columns)
    place = side + _GAP
    paper = Image.new("RGB", (min(columns, max(1, len(images))) * place, rows * place), "white")
    for n, (image, one, truth) in enumerate(zip(images, found, truths, strict=True)):
        picture = draw_boxes(image, one, class_names, truth=truth, scale=side / max(image.size))
        paper.paste(picture, (n % columns * place + _GAP // 2, n // columns * place + _GAP // 2))
    return with_legend(paper)


def _color(label: int) -> str:
    return SERIES[(int(label) - 1) % len(SERIES)]


def _dashed(pen: ImageDraw.ImageDraw, box: npt.NDArray[np.float32], color: str, width: int) -> None:
    """A box of dashes in ``color`` and white by turns, so that they are seen on every background."""
    x0, y0, x1, y1 = map(float, box)
    for start, end in (((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))):
        for n, dash in enumerate(_dashes(start, end, 4.0 * width)):
            pen.line(dash, fill="white" if n % 2 else color, width=width)


def _dashes(start: tuple[float, float], end: tuple[float, float], length: float) -> Iterator[tuple[float, ...]]:
    """The line from ``start`` to ``end`` in pieces of about ``length``."""
    number = max(1, round(math.dist(start, end) / length))
    places = [tuple(a + (b - a) * n / number for a, b in zip(start, end, strict=True)) for n in range(number + 1)]
    return ((*a, *b) for a, b in pairwise(places))


def _label(
    pen: ImageDraw.ImageDraw, words: str, box: npt.NDArray[np.float32], color: str, font: Any, *, below: bool = False
) -> None:
    """Words above the box's upper edge, or ``below`` its lower one in white; inside it where the image ends."""
    _, _, width, height = pen.textbbox((0, 0), words, font=font)
    x = max(0.0, min(float(box[0]), pen.im.size[0] - width - 2))
    if below:
        y = float(box[3])
        y = y if y + height + 2 <= pen.im.size[1] else y - height - 2
        pen.rectangle((x, y, x + width + 2, y + height + 2), fill="white", outline=color)
        pen.text((x + 1, y), words, fill="black", font=font)
        return
    y = float(box[1]) - height - 2
    y = y if y >= 0 else float(box[1])
    pen.rectangle((x, y, x + width + 2, y + height + 2), fill=color)
    dark = sum(ImageColor.getrgb(color)[:3]) < 330
    pen.text((x + 1, y), words, fill="white" if dark else "black", font=font)
