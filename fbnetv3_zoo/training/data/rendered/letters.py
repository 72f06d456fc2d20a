"""Characters drawn from font files, with whole font families held out for validation and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ....errors import ZooError, check_whole, counted, first_few, nearest, printable, shown
from ..dataset import SPLITS
from ..splitting import check_seed
from .drawing import draw, split_names
from .font_files import Face, count_faces, family_key, find_fonts, read_face, read_font
from .glyphs import FacePictures, draw_face
from .image_file import ImageFile, statistics

CHARACTERS = "ABDEFGHIJLMNQRTabdefghnqrt23456789"
"""The default classes: letters and digits that can be told apart without their neighbours."""

LARGEST_SIDE = 256
_COPIED = 1 / 16  # share of the ink in which the sketches of two families' faces at least differ
_AT_ONCE = 512


@dataclass(slots=True)
class LeftOut:
    """What was left out, and why: files and faces that cannot be used, and families that copy another."""

    faces: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line each, with the number and the first five."""
        lines = [f"{counted(len(self.faces), 'face')} left out: {first_few(self.faces)}"] if self.faces else []
        if self.copies:
            lines.append(f"{len(self.copies):,} families left out, which copy another: {first_few(self.copies)}")
        return lines


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    face: Face
    pictures: FacePictures


def letters(
    folders: Sequence[str | Path], *, side: int = 32, seed: int = 0, faces: int = 3, characters: str = CHARACTERS,
    without: Sequence[str] = (),
) -> tuple[ImageFile, LeftOut]:  # fmt: skip
    """Pictures of ``characters``, grey, ``side`` x ``side``, from the fonts in ``folders``; and what was left out.

    At most ``faces`` faces of a family are used, drawn by ``seed``. The splits share no family. Raises
    :class:`ZooError` if there are fewer than three families.
    """
    check_whole("side", side, at_least=8, at_most=LARGEST_SIDE)
    check_whole("faces", faces, at_most=1000)
    check_seed(seed)
    classes = _classes(characters)
    left_out = LeftOut()
    families: dict[str, dict[str, _Drawn]] = {}
    for drawn in _draw_all(find_fonts(folders), classes, side, seed, left_out):
        _take(families.setdefault(family_key(drawn.face.family), {}), drawn, faces, seed)
    _drop_named(families, without)
    _drop_copies(families, left_out)
    if len(families) < 3:
        names = first_few([next(iter(family.values())).face.family for family in families.values()])
        raise ZooError(
            f"{counted(len(families), 'font family').replace('familys', 'families')} can be used"
            f"{f' ({names})' if names else ''}; at least 3 are needed, one for each split"
        )
    return _assemble(families, classes, seed, faces), left_out


def _classes(characters: str) -> tuple[str, ...]:
    classes = tuple(characters)
    if twice := [c for n, c in enumerate(classes) if c in classes[:n]]:
        raise ZooError(f"classes have {first_few(twice)} twice")
    if wrong := [shown(c) for c in classes if not c.isprintable() or c.isspace()]:
        raise ZooError(f"classes have {first_few(wrong)}, which cannot be drawn")
    if not 2 <= len(classes) <= 1000:
        raise ZooError(f"classes are {len(classes)} characters; give 2 to 1,000")
    return classes


def _draw_all(
    files: Sequence[Path], classes: Sequence[str], side: int, seed: int, left_out: LeftOut
) -> Iterator[_Drawn]:
    for path in files:
        try:
            data = read_font(path)
        except ZooError as error:
            left_out.faces.append(str(error))
            continue
        for index in range(count_faces(data)):
            try:
                face = read_face(data, index, path.name)
                numbers = [seed, round(draw(0, face.style_key) * (1 << 48))]
                yield _Drawn(face, draw_face(data, index, classes, side=side, seed=numbers))
            except ZooError as error:
                left_out.faces.append(f"{path} {error}")


def _take(family: dict[str, _Drawn], drawn: _Drawn, faces: int, seed: int) -> None:
    """Add a face to its family, of which those that are drawn first are kept; one of two equal names."""
    key = drawn.face.style_key
    if key in family and family[key].face.digest <= drawn.face.digest:
        return
    family[key] = drawn
    if len(family) > faces:
        del family[max(family, key=lambda name: draw(seed, name))]


def _drop_named(families: dict[str, dict[str, _Drawn]], without: Sequence[str]) -> None:
    """Remove the families named ``without``. Raises :class:`ZooError` if there is none of that name."""
    keys = {name: family_key(name) for name in without}
    if missing := [name for name, key in keys.items() if key not in families]:
        raise ZooError(
            f"no usable font is of the family {printable(missing[0])}{nearest(missing[0], _names(families))}"
        )
    for key in set(keys.values()):
        del families[key]


def _names(families: dict[str, dict[str, _Drawn]]) -> list[str]:
    return [next(iter(faces.values())).face.family for faces in families.values()]


def _drop_copies(families: dict[str, dict[str, _Drawn]], left_out: LeftOut) -> None:
    """Remove families of which a face draws its characters as one of another family does, which comes before it.

    Many fonts have the Latin letters of another one: in two splits, they would be seen in training.
    """
    names = sorted(families)
    owners = np.array([row for row, name in enumerate(names) for _ in families[name]])
    sketches = np.stack([d.pictures.sketches.ravel() for name in names for d in families[name].values()])
    # whole numbers below 2 ** 24, for which float32 is exact: the sums do not depend on their order
    flat = sketches.astype(np.float32)
    ink = (flat**2).sum(1)
    copied: set[int] = set()
    pairs = np.concatenate([_near(flat, ink, start) for start in range(0, len(flat), _AT_ONCE)])
    for one, other in sorted({(int(owners[a]), int(owners[b])) for a, b in pairs if owners[a] < owners[b]}):
        if one not in copied and other not in copied:
            copied.add(other)
            first, second = (next(iter(families[names[row]].values())).face.family for row in (one, other))
            left_out.copies.append(f"{second} ({first})")
    for row in copied:
        del families[names[row]]


def _near(flat: npt.NDArray[np.float32], ink: npt.NDArray[np.float32], start: int) -> npt.NDArray[np.int64]:
    """Pairs (pairs, 2) of rows, the first from ``start``, whose pictures are nearly equal."""
    part = slice(start, start + _AT_ONCE)
    distance = ink[part, None] + ink - 2 * (flat[part] @ flat.T)
    first, second = np.nonzero(distance < _COPIED * np.minimum(ink[part, None], ink))
    return np.stack([first + start, second], 1)


def _assemble(families: dict[str, dict[str, _Drawn]], classes: Sequence[str], seed: int, faces: int) -> ImageFile:
    splits = split_names(families, seed)
    names = sorted(families, key=lambda name: (SPLITS.index(splits[name]), name))
    drawn = [(row, families[name][key]) for row, name in enumerate(names) for key in sorted(families[name])]
    images = np.concatenate([one.pictures.pixels for _, one in drawn])
    sizes = [sum(len(classes) for row, _ in drawn if splits[names[row]] == split) for split in SPLITS]
    mean, std = statistics(images[: sizes[0]])
    keys = [f"{names[row]}/{one.face.family} {one.face.style}/{c}" for row, one in drawn for c in classes]
    return ImageFile(
        "letters", tuple(classes), tuple(names), mean, std, images, np.tile(np.arange(len(classes)), len(drawn)),
        np.repeat([row for row, _ in drawn], len(classes)), (sizes[0], sizes[1], sizes[2]), tuple(keys),
        {"made_by": "fbnetv3 data letters", "seed": seed, "faces": faces, "fonts": [_origin(o.face) for _, o in drawn]},
    )  # fmt: skip


def _origin(face: Face) -> dict[str, str | int]:
    return {
        "family": face.family, "style": face.style, "version": face.version, "licence": face.licence,
        "file": face.file, "index": face.index, "sha256": face.digest,
    }  # fmt: skip
