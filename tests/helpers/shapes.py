"""Colored shapes on photographs, in COCO's format: a data set for detectors that trains in minutes.

Discs, squares and triangles of random color, size and place on crops of scikit-image's photographs; plain or striped.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

KINDS = ("disc", "square", "triangle")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
Pixels = npt.NDArray[np.uint8]


def photographs() -> list[Pixels]:
    from skimage import data

    return [getattr(data, name)() for name in PHOTOGRAPHS]


def write(
    folder: Path, number: int, *, seed: int, side: int = 128, objects: int = 4,
    shares: tuple[float, float] = (1 / 6, 1 / 3), striped: bool = False,
) -> Path:  # fmt: skip
    """Images of ``side`` pixels with one to ``objects`` shapes each in ``folder``; returns the annotations' path.

    Shapes are ``shares`` of the side long, from the first to the second.
    """
    folder.mkdir(parents=True)
    rng, photos = np.random.default_rng(seed), photographs()
    images, annotations = [], []
    for index in range(number):
        image = _background(photos[rng.integers(len(photos))], side, rng)
        taken: list[tuple[int, int, int]] = []
        for _ in range(rng.integers(1, objects + 1)):
            size = int(rng.integers(int(shares[0] * side), int(shares[1] * side)))
            x, y = (int(value) for value in rng.integers(0, side - size, 2))
            if any(abs(x - a) < (size + s) // 2 and abs(y - b) < (size + s) // 2 for a, b, s in taken):
                continue
            taken.append((x, y, size))
            kind = int(rng.integers(len(KINDS)))
            box = _draw(image, kind, x, y, size, rng, striped=striped)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": kind + 1, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
        image.save(folder / f"{index:04}.png")
        images.append({"id": index, "file_name": f"{index:04}.png", "width": side, "height": side})
    kinds = [{"id": n, "name": name} for n, name in enumerate(KINDS, start=1)]
    path = folder / "shapes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": kinds}))
    return path


def _background(photo: Pixels, side: int, rng: np.random.Generator) -> Image.Image:
    height, width = photo.shape[:2]
    crop = int(rng.integers(side, min(height, width) + 1))
    top, left = int(rng.integers(0, height - crop + 1)), int(rng.integers(0, width - crop + 1))
    cut = Image.fromarray(photo[top : top + crop, left : left + crop]).convert("RGB")
    return cut.resize((side, side), Image.Resampling.BILINEAR)


def _draw(
    image: Image.Image, kind: int, x: int, y: int, size: int, rng: np.random.Generator, *, striped: bool
) -> list[int]:
    """Draw a shape whose box is the square at (x, y); returns x, y, width, height."""
    color = tuple(int(value) for value in rng.integers(0, 256, 3))
    mask = Image.new("1", image.size)
    pen = ImageDraw.Draw(mask)
    if kind == 0:
        pen.ellipse((x, y, x + size - 1, y + size - 1), fill=1)
    elif kind == 1:
        pen.rectangle((x, y, x + size - 1, y + size - 1), fill=1)
    else:
        pen.polygon([(x, y + size - 1), (x + size - 1, y + size - 1), (x + math.floor(size / 2), y)], fill=1)
    image.paste(_stripes(image.size, color, rng) if striped else color, mask=mask)
    return [x, y, size, size]


def _stripes(size: tuple[int, int], color: tuple[int, ...], rng: np.random.Generator) -> Image.Image:
    """Stripes of ``color`` and a random one, in a random direction, three to eight pixels wide."""
    angle, width = rng.uniform(0, math.pi), rng.uniform(3, 8)
    rows, columns = np.mgrid[: size[1], : size[0]]
    along = (rows * math.sin(angle) + columns * math.cos(angle)) // width % 2
    return Image.fromarray(np.array([color, rng.integers(0, 256, 3)], np.uint8)[along.astype(int)])
