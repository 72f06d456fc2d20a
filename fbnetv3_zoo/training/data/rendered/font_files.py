"""Font files: finding them, and what their name tables say."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import ZooError, in_short, printable
from ....images.listing import is_debris, unreadable
from ....utils.paths import is_folder, read_file

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont

SUFFIXES = frozenset((".ttf", ".otf", ".ttc", ".otc"))
LARGEST_FONT = 1 << 26
"""Largest font file, in bytes."""

_MAGIC = (b"\0\1\0\0", b"OTTO", b"true", b"ttcf")
_MOST_FACES = 64
_TYPOGRAPHIC, _PLAIN, _VERSION, _LICENSE = (16, 17), (1, 2), 5, (13, 14)
_WINDOWS, _SYMBOLS = 3, 0  # a platform of encodings, and one of its encodings
_PANOSE, _PICTORIAL = 32, 5  # where the family kind is in the table OS/2, and the kind of pictures
_STYLE = re.compile(
    r"(?<=.)(?:thin|hairline|(?:extra|ultra|semi|demi|x)?(?:light|bold|black|condensed|expanded|extended)|regular|roman"
    r"|normal|book|medium|demi|heavy|fat|narrow|cond|wide|compressed|italic|oblique|slanted|caps|smallcaps|\d+(?:pt)?)$"
)


@dataclass(frozen=True, slots=True)
class Face:
    """A face of a font file, by the file's name table.

    ``digest`` is the SHA-256 of the file, ``index`` the face's number in it (collections have several).
    """

    family: str
    style: str
    version: str
    license: str
    digest: str
    index: int
    file: str

    @property
    def style_key(self) -> str:
        """Tells the faces of one family apart: the family name and the style, without case, spaces and punctuation."""
        return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", f"{self.family}{self.style}").casefold()))


def family_key(family: str) -> str:
    """A family's name without what faces of one design differ in.

    Case, spaces and punctuation do not count, nor do words for weight, width, slope and size at the end: fonts without
    a typographic family name have them in their family name.
    """
    text = unicodedata.normalize("NFKC", family).casefold()
    key = "".join(filter(str.isalnum, text)) or text
    while (shorter := _STYLE.sub("", key)) != key:
        key = shorter
    return key


def find_fonts(folders: Sequence[str | Path]) -> list[Path]:
    """The font files in ``folders`` and their subfolders, sorted; links to folders are not followed.

    Raises :class:`ZooError` for a folder that is missing, cannot be read or has none.
    """
    files: list[Path] = []
    for folder in folders:
        if not is_folder(folder):
            raise ZooError(f"{printable(str(folder))}: no such folder; give folders of font files")
        own = sorted(_fonts_in(str(folder)))
        if not own:
            raise ZooError(f"{printable(str(folder))}: has no font files ({', '.join(sorted(SUFFIXES))})")
        files += map(Path, own)
    return list(dict.fromkeys(files))


def _fonts_in(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise unreadable(error.filename or folder, error)

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not is_debris(name)]
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES and not is_debris(name):
                yield os.path.join(parent, name)


def read_font(path: Path) -> bytes:
    """The bytes of a TrueType or OpenType file. Raises :class:`ZooError` for anything else."""
    data = read_file(path, "a font file", at_most=LARGEST_FONT)
    if data[:4] not in _MAGIC:
        raise ZooError(f"{path}: is no TrueType or OpenType font")
    return data


def count_faces(data: bytes) -> int:
    """The number of faces that the font file ``data`` says it has, from 1 to 64."""
    if data[:4] != b"ttcf" or len(data) < 12:
        return 1
    return max(1, min(_MOST_FACES, int(struct.unpack(">I", data[8:12])[0])))


def read_face(data: bytes, index: int, file: str) -> Face:
    """Face ``index`` of the font file ``data`` with the name ``file``.

    Raises :class:`ZooError` if the font cannot be read, has no family name, or has symbols in place of letters.
    """
    from fontTools.ttLib import TTFont

    try:
        font = TTFont(io.BytesIO(data), fontNumber=index, lazy=True)
        if _has_symbols(font):
            raise ZooError("has symbols in place of letters")
        names = font["name"]
        family, style = (_name(names, *pair) for pair in zip(_TYPOGRAPHIC, _PLAIN, strict=True))
        version, license = _name(names, _VERSION), _name(names, *_LICENSE)
    except ZooError:
        raise
    except Exception as error:  # fontTools raises many kinds for damaged files
        raise ZooError(f"has names that cannot be read ({in_short(error)})") from None
    if not any(map(str.isalnum, family)):
        raise ZooError("has no family name")
    return Face(family, style, version, license, hashlib.sha256(data).hexdigest(), index, file)


def _name(table: object, *numbers: int) -> str:
    """The first of these entries of a name table that is there, in English if possible; cut to 200 characters."""
    texts = (table.getDebugName(number) for number in numbers)  # type: ignore[attr-defined]
    text = next((text for text in texts if text and text.strip()), "")
    return "".join(filter(str.isprintable, " ".join(text.split())))[:200]


def _has_symbols(font: TTFont) -> bool:
    """Whether the face has no encoding of letters, or names itself a font of pictures."""
    if "cmap" not in font.reader:
        raise ZooError("has no characters")
    table = font.reader["cmap"]
    (count,) = struct.unpack(">H", table[2:4])
    records = {struct.unpack(">HH", table[4 + 8 * n : 8 + 8 * n]) for n in range(min(count, _MOST_FACES))}
    windows = {encoding for platform, encoding in records if platform == _WINDOWS}
    kind = font.reader["OS/2"][_PANOSE] if "OS/2" in font.reader else 0
    return kind == _PICTORIAL or windows == {_SYMBOLS}
