"""Convert a decoded image of any mode to 8-bit gray or RGB, the same way for classifiers and detectors.

- 16-bit gray is scaled: 65,535 becomes white. 8-bit gray is unchanged.
- 32-bit integers and floats have no fixed scale: black to white is 0 to 1 (floats only), 0 to 255 or 0 to 65,535,
  whichever is the first range that contains all values; otherwise the minimum to the maximum. NaN becomes black.
- Transparent images are composited over white.
- Palettes, CMYK, YCbCr, HSV and LAB become RGB. A TIFF in which 0 is white is inverted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..errors import ZooError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Numbers = npt.NDArray[np.generic]
    Bytes = npt.NDArray[np.uint8]

_STRIP = 1 << 20  # pixels converted at a time, if that takes more memory than the image itself
_SCALES = (1.0, 255.0, 65535.0)
_HALF_LEVEL = 0.5 / 255
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # TIFF tags: 0 if 0 is white; 1 if samples are unsigned


def to_eight_bits(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """``image`` converted to ``mode`` as described above; ``image`` itself if it is in that mode already.

    Raises :class:`ZooError` for an unknown mode.
    """
    if image.mode == mode and not _has_transparency(image):
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scaled(image)
    elif image.mode == "LAB":
        image = _from_lab(image)
    elif image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    try:
        image = _over_white(image) if _has_transparency(image) else image
        return image if image.mode == mode else image.convert(mode)
    except ValueError:
        raise ZooError(f"images of mode {image.mode} cannot be converted; save it as RGB") from None


def _has_transparency(image: Image.Image) -> bool:
    return bool(image.has_transparency_data)


def _over_white(image: Image.Image) -> Image.Image:
    """``image`` composited over white, as RGB; strip by strip, as it takes three images of four bands."""
    from PIL import Image

    picture = Image.new("RGB", image.size)
    for top, bottom in _strips(image):
        strip = image.crop((0, top, image.width, bottom)).convert("RGBA")
        picture.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return picture


def _strips(image: Image.Image) -> list[tuple[int, int]]:
    rows = max(1, _STRIP // max(1, image.width))
    return [(top, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _scaled(image: Image.Image) -> Image.Image:
    """Gray of more than 8 bits as 8 bits; the value that marks transparency becomes white."""
    import numpy as np
    from PIL import Image

    low, high = _range(image)
    table = _levels(np.arange(1 << 16), low, high) if image.mode.startswith("I;16") else None
    clear = image.info.get("transparency")
    levels = np.empty((image.height, image.width), dtype=np.uint8)
    for top, bottom in _strips(image):
        values = _numbers(image, top, bottom)
        levels[top:bottom] = _levels(values, low, high) if table is None else table[values]
        if isinstance(clear, int):
            levels[top:bottom][values == clear] = 255
    return Image.fromarray(levels)


def _range(image: Image.Image) -> tuple[float, float]:
    """The values that are black and white."""
    import numpy as np

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):  # their full scale
        low, high = 0.0, 65535.0
    else:
        finite = [part[np.isfinite(part)] for part in (_numbers(image, *strip) for strip in _strips(image))]
        ends = [(float(part.min()), float(part.max())) for part in finite if part.size]
        low, high = _natural(min((e[0] for e in ends), default=0.0), max((e[1] for e in ends), default=0.0), image.mode)
    return (high, low) if _tag(image, _PHOTOMETRIC) == 0 else (low, high)


def _natural(low: float, high: float, mode: str) -> tuple[float, float]:
    for scale in _SCALES[mode != "F" :]:
        if low >= -_HALF_LEVEL and high <= scale * (1 + _HALF_LEVEL):  # interpolation goes a little beyond
            return 0.0, scale
    return low, high


def _numbers(image: Image.Image, top: int, bottom: int) -> Numbers:
    """Rows of ``image``; 32-bit integers are unsigned if its TIFF says so, for which Pillow has no mode."""
    import numpy as np

    values = np.asarray(image.crop((0, top, image.width, bottom)))
    if image.mode == "I" and _tag(image, _SAMPLE_FORMAT) == 1:
        return values.view(np.uint32)
    return values


def _tag(image: Image.Image, number: int) -> Any:
    """The value of a tag of the TIFF that ``image`` was read from; -1 if it is no TIFF."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return -1
    value = tags.get(number, 1)
    return value[0] if isinstance(value, tuple) and value else value


def _levels(values: Numbers, black: float, white: float) -> Bytes:
    import numpy as np

    if black == white:
        return np.zeros(values.shape, dtype=np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        shares = (values.astype(np.float64) - black) * (255 / (white - black))
    return np.rint(np.clip(np.nan_to_num(shares, nan=0.0), 0, 255)).astype(np.uint8)


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    try:
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ImportError):
        raise ZooError("images of mode LAB cannot be converted here; save it as RGB") from None
    assert converted is not None
    return converted
