"""What a detector found, shown: boxes drawn on images, and a sheet of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.report.charts import SERIES

from ..data.faults import in_brief
from .evaluate import Detections

THRESHOLD = 0.5
"""Score from which a detection is drawn, where nothing else is asked for."""


def draw_boxes(
    image: Image.Image, found: Detections, class_names: Sequence[str], *, threshold: float = THRESHOLD, scale: float = 1
) -> Image.Image:
    """``image``, made larger by ``scale``, with box, class and score of all that was found, the best on top.

    Scores below ``threshold`` are left out.
    """
    picture = to_eight_bits(image, "RGB").copy()
    if scale != 1:
        picture = picture.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    width = max(1, round(min(picture.size) / 150))
    font = ImageFont.load_default(max(10.0, min(picture.size) / 25))
    pen = ImageDraw.Draw(picture)
    for box, score, label in reversed(list(zip(scale * found.boxes, found.scores, found.labels, strict=True))):
        if score >= threshold:
            colour = SERIES[(int(label) - 1) % len(SERIES)]
            pen.rectangle([*map(float, box)], outline=colour, width=width)
            _label(pen, f"{in_brief(class_names[int(label) - 1])} {score:.0%}", box, colour, font)
    return picture


def _label(pen: ImageDraw.ImageDraw, words: str, box: Any, colour: str, font: Any) -> None:
    """Words above the box's upper edge, or below it where the image ends."""
    _, _, width, height = pen.textbbox((0, 0), words, font=font)
    x = max(0.0, min(float(box[0]), pen.im.size[0] - width - 2))
    y = float(box[1]) - height - 2
    y = y if y >= 0 else float(box[1])
    pen.rectangle((x, y, x + width + 2, y + height + 2), fill=colour)
    dark = sum(ImageColor.getrgb(colour)[:3]) < 330
    pen.text((x + 1, y), words, fill="white" if dark else "black", font=font)


def sheet(
    images: Sequence[Image.Image], found: Sequence[Detections], class_names: Sequence[str], *, columns: int = 4,
    side: int = 320,
) -> Image.Image:  # fmt: skip
    """Images with what was found in them, in rows, each fitted into a square of ``side`` pixels."""
    rows = math.ceil(max(1, len(images)) / columns)
    paper = Image.new("RGB", (min(columns, max(1, len(images))) * (side + 8), rows * (side + 8)), "white")
    for n, (image, one) in enumerate(zip(images, found, strict=True)):
        picture = draw_boxes(image, one, class_names, scale=side / max(image.size))
        paper.paste(picture, (n % columns * (side + 8) + 4, n // columns * (side + 8) + 4))
    return paper
