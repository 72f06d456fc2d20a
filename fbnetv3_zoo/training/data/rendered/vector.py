"""From vector graphics to pixels."""

from __future__ import annotations

import importlib.util
import io
import re

import numpy as np
import numpy.typing as npt
from PIL import Image

from ....errors import ZooError, in_short

LARGEST_BODY = 1 << 20
"""Largest drawing, in characters."""

_FINER = 4  # pictures are drawn at this multiple of their side
_FILLED = 0.92  # share of the side that a drawing takes
_OUTSIDE = re.compile(r"<\s*(?:image|text|style|script|foreignObject)\b|href\s*=\s*(?![\"']#)|url\s*\(\s*(?!#)", re.I)


def check_rasterizer() -> None:
    """Raise :class:`ZooError` if the library that draws vector graphics is not installed."""
    if importlib.util.find_spec("resvg_py") is None:
        raise ZooError('drawings need resvg-py, which is not installed; pip install "fbnetv3-zoo[drawings]"')


def draw_vector(body: str, size: tuple[float, float], side: int) -> npt.NDArray[np.uint8]:
    """The drawing with this SVG ``body`` and drawn area in the middle of a white square, as large as fits.

    Shape (side, side, 3). Raises :class:`ZooError` if it cannot be drawn, draws nothing, or has texts, styles or
    anything from outside.
    """
    import resvg_py

    if len(body) > LARGEST_BODY:
        raise ZooError(f"has more than {LARGEST_BODY:,} characters")
    if outside := _OUTSIDE.search(body):
        raise ZooError(f"has {outside[0]!r}")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {names} viewBox="0 0 {size[0]:g} {size[1]:g}">{body}</svg>'
    fine = side * _FINER
    try:
        data = resvg_py.svg_to_bytes(svg_string=svg, width=fine, height=fine, skip_system_fonts=True)
        image = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    except BaseException as error:  # a panic in Rust, as at places beyond 10^9, is no Exception
        if not isinstance(error, (OSError, ValueError)) and type(error).__name__ != "PanicException":
            raise
        raise ZooError(f"cannot be drawn ({in_short(error)})") from None
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ZooError("draws nothing")
    return np.asarray(_on_white(image.crop(box), fine).resize((side, side), Image.Resampling.BOX))


def _on_white(image: Image.Image, side: int) -> Image.Image:
    scale = _FILLED * side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = Image.new("RGBA", (side, side), "white")
    large = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas.alpha_composite(large, ((side - width) // 2, (side - height) // 2))
    return canvas.convert("RGB")
