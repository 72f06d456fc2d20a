"""Emoji as drawn by several vendors, by the groups that they are sorted into; one vendor is held out for test."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ....errors import ZooError, check_whole, first_few, in_short, printable
from ..dataset import SPLITS, Split
from .drawings import Drawing, Vendor
from .image_file import ImageFile, statistics

Pixels = npt.NDArray[np.uint8]
LARGEST_SIDE = 256
_FINER = 4
_FILLED = 0.92
_LEAST_MEANINGS = 20
"""Groups with fewer meanings are left out."""


def emoji(
    vendors: Sequence[Vendor], *, held_out: str, validation: str | None = None, side: int = 32
) -> tuple[ImageFile, list[str]]:
    """Pictures of every meaning that all ``vendors`` draw, RGB, ``side`` x ``side``; and notes on what was left out.

    The drawings of the vendor ``held_out`` are for test, those of ``validation`` (None: of the last other one) for
    validation, and those of the others for training.
    """
    check_whole("side", side, at_least=8, at_most=LARGEST_SIDE)
    splits = _splits([vendor.name for vendor in vendors], held_out, validation)
    meanings, notes = _meanings(vendors)
    classes = sorted(set(meanings.values()))
    rows = [
        (vendor, meaning)
        for split in SPLITS
        for vendor in vendors
        if splits[vendor.name] == split
        for meaning in meanings
    ]
    images, kept, failed = [], [], []
    for vendor, meaning in rows:
        try:
            images.append(draw(vendor.drawings[meaning], side))
            kept.append((vendor.name, meaning))
        except ZooError as error:
            failed.append(f"{vendor.name} {meaning} {error}")
    if failed:
        notes.append(f"{len(failed):,} drawings left out: {first_few(failed)}")
    names = list(dict.fromkeys(name for name, _ in kept))
    sizes = [sum(splits[name] == split for name, _ in kept) for split in SPLITS]
    pixels = np.stack(images)
    mean, std = statistics(pixels[: sizes[0]])
    file = ImageFile(
        "emoji", tuple(classes), tuple(names), mean, std, pixels,
        np.array([classes.index(meanings[meaning]) for _, meaning in kept]),
        np.array([names.index(name) for name, _ in kept]), (sizes[0], sizes[1], sizes[2]),
        tuple(f"{name}/{meaning}" for name, meaning in kept),
        {"made_by": "fbnetv3 data emoji", "vendors": [dict(vendor.origin) for vendor in vendors]},
    )  # fmt: skip
    return file, notes


def _splits(names: Sequence[str], held_out: str, validation: str | None) -> dict[str, Split]:
    if len(set(names)) < len(names) or len(names) < 3:
        raise ZooError(
            f"{len(set(names))} vendors are given ({first_few(names)}); at least 3 different ones are needed, one for "
            "each split"
        )
    others = [name for name in names if name != held_out]
    validation = others[-1] if validation is None else validation
    for name in (held_out, validation):
        if name not in names:
            raise ZooError(f"there is no vendor {printable(name)!r}; choose from {first_few(names)}")
    if held_out == validation:
        raise ZooError(f"vendor {printable(held_out)!r} cannot be held out for test and for validation")
    return {name: "test" if name == held_out else "validation" if name == validation else "train" for name in names}


def _meanings(vendors: Sequence[Vendor]) -> tuple[dict[str, str], list[str]]:
    """The group of every meaning that all vendors draw and sort alike, in groups of some size."""
    common = sorted(set.intersection(*(set(vendor.drawings) for vendor in vendors)))
    groups = {meaning: {vendor.drawings[meaning].group for vendor in vendors} for meaning in common}
    agreed = {meaning: group for meaning, (group, *others) in groups.items() if not others}
    counts = Counter(agreed.values())
    small = sorted(group for group, count in counts.items() if count < _LEAST_MEANINGS)
    notes = (
        [f"{len(common) - len(agreed):,} emoji left out, which vendors sort differently"]
        if len(agreed) < len(common)
        else []
    )
    if small:
        notes.append(f"groups left out with fewer than {_LEAST_MEANINGS} emoji: {first_few(small)}")
    return {meaning: group for meaning, group in agreed.items() if group not in small}, notes


def draw(drawing: Drawing, side: int) -> Pixels:
    """The drawing in the middle of a white square, (side, side, 3), as large as fits."""
    import resvg_py

    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {drawing.width:g} {drawing.height:g}">{drawing.body}</svg>'
    )
    fine = side * _FINER
    try:
        data = resvg_py.svg_to_bytes(svg_string=svg, width=fine, height=fine, skip_system_fonts=True)
        image = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    except (OSError, ValueError) as error:
        raise ZooError(f"cannot be drawn ({in_short(error)})") from None
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ZooError("draws nothing")
    image = image.crop(box)
    scale = _FILLED * fine / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas = Image.new("RGBA", (fine, fine), "white")
    canvas.alpha_composite(image, ((fine - width) // 2, (fine - height) // 2))
    return np.asarray(canvas.convert("RGB").resize((side, side), Image.Resampling.BOX))
