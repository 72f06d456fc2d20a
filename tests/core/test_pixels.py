"""Pixels of every kind of image, which classifiers and detectors read alike: right values, made by hand."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from fbnetv3_zoo.detection.training.predict import to_pixels
from fbnetv3_zoo.images import read_image
from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.preprocess import Preprocess

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)
LEVELS = np.rint(RAMP * 255)
DEEP = {
    "16 bits": (RAMP * 65535).astype(np.uint16),
    "whole to 255": (RAMP * 255).astype(np.int32),
    "whole to 65535": (RAMP * 65535).astype(np.int32),
    "whole to 2^31": (RAMP * (2**31 - 1)).astype(np.int32),
    "whole around 0": ((RAMP - 0.5) * 2000).astype(np.int32),
    "floating to 1": RAMP.astype(np.float32),
    "floating beyond 1 by rounding": (RAMP * 1.002 - 0.001).astype(np.float32),
    "floating to 255": (RAMP * 255).astype(np.float32),
    "floating to 65535": (RAMP * 65535).astype(np.float32),
    "floating around 0": (RAMP * 2 - 1).astype(np.float32),
    "floating, tiny and large": (RAMP * 1e30 + 1e28).astype(np.float32),
}


def _every_reading(image: Image.Image) -> list[np.ndarray]:
    """Levels of RGB as a classifier, a detector and a gray network see them."""
    side = image.width
    rgb, gray = Preprocess(side, side), Preprocess(side, side, mean=(0.5,), std=(0.5,))
    detector = (to_pixels(image) * 255).round().permute(1, 2, 0).numpy()
    return [np.asarray(rgb.crop(image)), detector, np.repeat(np.asarray(gray.crop(image))[..., None], 3, axis=2)]


@pytest.mark.parametrize("kind", DEEP)
def test_grays_of_many_bits_are_a_whole_ramp_everywhere(kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(DEEP[kind])
    image.save(tmp_path / "ramp.tif")
    for one in (image, read_image(tmp_path / "ramp.tif")):
        for seen in _every_reading(one):
            assert np.abs(seen - LEVELS[..., None]).max() <= 1, kind


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_the_order_of_bytes_is_no_matter(mode: str) -> None:
    order = ">u2" if mode == "I;16B" else "=u2" if mode == "I;16N" else "<u2"
    image = Image.frombytes(mode, (64, 64), (RAMP * 65535).astype(order).tobytes())
    for seen in _every_reading(image):
        assert np.abs(seen - LEVELS[..., None]).max() <= 1


def _tiff(array: np.ndarray, *, photometric: int = 1, sample_format: int = 1) -> bytes:
    """A TIFF written by hand: what its numbers mean stands in its tags."""
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    at = 8 + 2 + 12 * 10 + 4
    tags = ((256, array.shape[1]), (257, array.shape[0]), (258, 8 * array.itemsize), (259, 1), (262, photometric))
    tags += ((273, at), (277, 1), (278, array.shape[0]), (279, len(data)), (339, sample_format))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


@pytest.mark.parametrize(
    ("array", "photometric", "sample_format"),
    [
        pytest.param((RAMP * (2**32 - 1)).astype(np.uint32), 1, 1, id="without sign"),
        pytest.param((RAMP * (2**31 - 1)).astype(np.int32), 1, 2, id="with sign"),
        pytest.param(((1 - RAMP) * 65535).astype(np.uint16), 0, 1, id="white is 0"),
        pytest.param((1 - RAMP).astype(np.float32), 0, 3, id="white is 0.0"),
    ],
)
def test_tiff_says_what_its_numbers_mean(
    array: np.ndarray, photometric: int, sample_format: int, tmp_path: Path
) -> None:
    (tmp_path / "x.tif").write_bytes(_tiff(array, photometric=photometric, sample_format=sample_format))
    for seen in _every_reading(read_image(tmp_path / "x.tif")):
        assert np.abs(seen - LEVELS[..., None]).max() <= 1


def test_a_portable_graymap_has_the_scale_of_its_header(tmp_path: Path) -> None:
    """Its greatest value, whether or not a pixel has it: a dark picture stays dark."""
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 4095\n" + struct.pack(">2H", 0, 15))
    assert np.asarray(to_eight_bits(read_image(tmp_path / "x.pgm"), "L")).tolist() == [[0, 1]]


def test_what_is_no_number_is_black() -> None:
    values = np.array([[np.nan, 0.5], [np.inf, -np.inf]], dtype=np.float32)
    assert np.asarray(to_eight_bits(Image.fromarray(values), "L")).tolist() == [[0, 128], [255, 0]]
    for value in (np.nan, -np.inf, 7e9):
        flat = Image.fromarray(np.full((2, 2), value, dtype=np.float32))
        assert np.asarray(to_eight_bits(flat, "RGB")).max() == 0


MODES = ("1", "L", "P", "LA", "La", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")


@pytest.mark.parametrize("mode", MODES)
def test_white_and_black_are_so_in_every_mode(mode: str) -> None:
    for level in (0, 255):
        source = Image.new("RGB", (8, 8), (level, level, level))
        through = {"La": "LA", "RGBa": "RGBA"}.get(mode, "L" if mode == "PA" else source.mode)
        image = source.convert(through).convert(mode)
        for seen in _every_reading(image):
            assert (seen == level).all()


def test_lab_is_converted_by_its_profile() -> None:
    red = Image.new("LAB", (2, 2), (138, 128 + 81, 128 + 70))  # L 54, a 81, b 70
    assert np.abs(np.array(to_eight_bits(red, "RGB").getpixel((0, 0))) - (255, 0, 0)).max() < 12


def test_what_is_clear_is_white_everywhere(tmp_path: Path) -> None:
    """In pixels, palettes and single colors that stand for it."""
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    clear = {"rgba": Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "la": Image.new("LA", (8, 8), (0, 0))}
    for name, image in clear.items():
        image.save(tmp_path / f"{name}.png")
    Image.new("P", (8, 8)).save(tmp_path / "palette.png", transparency=b"\0")
    Image.new("P", (8, 8)).save(tmp_path / "palette.gif", transparency=0)
    Image.new("L", (8, 8)).save(tmp_path / "gray.png", transparency=0)
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png", transparency=(0, 0, 0))
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png", transparency=0)
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "clear.webp", lossless=True, exact=True)
    for path in sorted(tmp_path.iterdir()):
        for seen in _every_reading(read_image(path)):
            assert (seen == 255).all(), path.name
    for seen in _every_reading(half):
        assert (seen == 127).all()


def test_large_images_are_laid_over_white_as_small_ones_are() -> None:
    """In strips, of which nothing is seen."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (1500, 1600, 4), dtype=np.uint8))
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert to_eight_bits(image, "RGB").tobytes() == whole.tobytes()


def test_an_unknown_mode_is_refused() -> None:
    class Odd(Image.Image):
        mode = "BGR;15"

        def convert(self, *args: object, **rest: object) -> Image.Image:
            raise ValueError("conversion not supported")

    odd = Odd()
    told = "images of mode BGR;15 cannot be converted; save it as RGB"
    assert refusal(lambda: to_eight_bits(odd, "RGB")) == told


def test_cmyk_of_photoshop_is_no_negative() -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK").save(file, "JPEG", quality=100)
    seen = to_eight_bits(Image.open(file), "RGB").getpixel((3, 3))
    assert np.abs(np.array(seen) - (250, 20, 20)).max() < 12
