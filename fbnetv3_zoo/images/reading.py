"""Open image files: every image, from a data set or named by a user, is read here.

Files may be damaged or hostile: memory and time are checked before decoding (``limits.py``), and whatever Pillow raises
becomes a :class:`ZooError` that names the file. Only the first frame of an animation is read.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar

from ..errors import ZooError, in_short, printable
from ..utils.paths import exists, is_folder, reason_of, to_path
from .formats import FORMATS
from .limits import MAX_PIXELS, check_before_decoding, check_before_opening
from .png import SIGNATURE, without_metadata

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 1 << 30
"""Largest image file, in bytes: no image within the limits of pixels and memory needs more."""

LeastSize: TypeAlias = Callable[[tuple[int, int]], tuple[int, int]]
"""Maps width and height of an upright image to the smallest width and height that its reader can use."""

T = TypeVar("T")

_ORIENTATION = 0x0112  # the EXIF tag; above 4 the image is turned by 90 degrees
_TURNED = range(2, 9)  # all orientations but upright
_TAIL = 4096  # bytes at the end of a file that are searched for its end marker
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}


def read_image(path: str | Path) -> Image.Image:
    """The image file at ``path``, decoded and turned upright as its EXIF orientation says, in its own mode.

    Raises :class:`ZooError` for a missing, unreadable, truncated or too large file (:data:`MAX_BYTES`, and
    ``MAX_PIXELS`` and ``MAX_MEMORY`` of ``limits.py``).
    """
    to_path("path", path, "the path of an image file; an open one: decode_image(file, NAME)")
    shown = printable(str(path))
    if is_folder(path):
        raise ZooError(f"{shown}: is a folder; name image files")
    if not exists(path):
        raise ZooError(f"{shown}: no such file")
    with open_image_file(path) as file:
        return decode_image(file, str(path))


def open_image_file(path: str | Path) -> BinaryIO:
    """Open the file at ``path``. Pillow gets the handle: it would map a path, and crash if the file shrinks.

    Raises :class:`ZooError` unless it is a regular file (reading a pipe could wait for ever) of at most
    :data:`MAX_BYTES`.
    """
    shown = printable(str(path))
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ZooError(f"{shown}: is not a regular file; remove it")
        if status.st_size > MAX_BYTES:
            raise ZooError(f"{shown}: {status.st_size:,} bytes are over the limit of {MAX_BYTES:,}; shrink it")
        return open(path, "rb")
    except ZooError:
        raise
    except OSError as error:
        raise ZooError(f"{shown}: cannot be read ({reason_of(error)})") from None
    except ValueError as error:  # a NUL, or text that cannot be a name on this system
        raise ZooError(f"{shown}: cannot be a path ({error})") from None


def decode_image(file: BinaryIO, name: str, *, at_least: LeastSize | None = None) -> Image.Image:
    """The image in ``file``, as :func:`read_image` returns it; errors begin with ``name``.

    With ``at_least`` a JPEG may be decoded smaller, by a factor of 2, 4 or 8 but not below that size, which takes a
    fraction of the time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warning limit is half of ours
        return _guarded(lambda source: _decoded(source, at_least), file, name)


def size_of_image(file: BinaryIO, name: str) -> tuple[int, int]:
    """Width and height of the upright image in ``file``, from its header; errors begin with ``name``.

    Raises :class:`ZooError` as :func:`decode_image` does, as far as the header shows. A file without an end marker is
    decoded to find out whether it is truncated. Call it with warnings ignored: Pillow emits many.
    """
    size, whole = _guarded(_looked_at, file, name)
    if not whole:
        file.seek(0)
        size = _guarded(lambda source: _decoded(source, None), file, name).size
    return size


def _guarded(read: Callable[[BinaryIO], T], file: BinaryIO, name: str) -> T:
    """``read(file)``; any failure becomes a :class:`ZooError` that begins with ``name``."""
    from PIL import Image, UnidentifiedImageError

    try:
        check_before_opening(file)
        return _read_png(read, file) if _is_png(file) else read(file)
    except ZooError as error:
        raise ZooError(f"{printable(name)}: {error}") from None
    except Image.DecompressionBombError:
        raise ZooError(f"{printable(name)}: over the limit of {MAX_PIXELS:,} pixels; shrink it") from None
    except UnidentifiedImageError:
        file.seek(0)
        reason = f"none of {', '.join(FORMATS)}" if file.read(1) else "the file is empty"
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        reason = in_short(error) or type(error).__name__
    raise ZooError(f"{printable(name)}: cannot be read as an image ({reason})")


def _is_png(file: BinaryIO) -> bool:
    head = file.read(len(SIGNATURE))
    file.seek(0)
    return head == SIGNATURE


def _read_png(read: Callable[[BinaryIO], T], file: BinaryIO) -> T:
    """Read a PNG file, without its texts and profiles if those are what cannot be read."""
    from PIL import Image

    try:
        return read(without_metadata(file))
    except (ZooError, Image.DecompressionBombError):
        raise
    except Exception:
        bare = without_metadata(file, all_of_it=True)
        if bare is file:
            raise
        return read(bare)


def _decoded(file: BinaryIO, at_least: LeastSize | None) -> Image.Image:
    from PIL import Image

    with Image.open(file, formats=FORMATS) as image:
        turned = _orientation_before_loading(image) in _TURNED
        check_before_decoding(image, file, turned=turned)
        if at_least is not None and image.format == "JPEG":
            aside = _orientation(image) in (5, 6, 7, 8)
            width, height = at_least(image.size[::-1] if aside else image.size)
            image.draft(None, (height, width) if aside else (width, height))
        image.load()
        return _upright(image)  # after loading, which turns a TIFF by itself


def _upright(image: Image.Image) -> Image.Image:
    """``image``, turned in place as its EXIF says; as it is where EXIF is damaged."""
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # the parser raises many kinds, and the picture may be whole all the same
        pass
    return image


def _looked_at(file: BinaryIO) -> tuple[tuple[int, int], bool]:
    """Upright width and height, and whether the file is complete."""
    from PIL import Image

    with Image.open(file, formats=FORMATS) as image:
        orientation = _orientation_before_loading(image)
        check_before_decoding(image, file, turned=orientation in _TURNED)
        aside = orientation in (5, 6, 7, 8) and image.format != "TIFF"  # whose size is upright already
        return image.size[::-1] if aside else image.size, _ends_well(image, file)


def _ends_well(image: Any, file: BinaryIO) -> bool:
    """Whether the end of the file is present, as far as can be seen without decoding it."""
    size = file.seek(0, os.SEEK_END)
    if image.format == "TIFF":
        tags = image.tag_v2
        starts, lengths = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
        return all(start + length <= size for start, length in zip(starts, lengths, strict=False))
    if image.format == "WEBP":
        file.seek(4)
        return 8 + int.from_bytes(file.read(4), "little") <= size
    if (mark := _ENDS.get(image.format)) is None:
        return True
    file.seek(max(0, size - _TAIL))
    return mark in file.read(_TAIL)


def _orientation_before_loading(image: Image.Image) -> object:
    """As :func:`_orientation`; a PNG is not decoded for it."""
    return 1 if image.format == "PNG" and "exif" not in image.info else _orientation(image)


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation; 1, upright, if there is no EXIF or it is damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the parser raises many kinds, and the picture may be whole all the same
        return 1
