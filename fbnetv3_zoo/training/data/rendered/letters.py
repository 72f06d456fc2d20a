"""Characters drawn from font files, with whole font families held out for validation and test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ....errors import ZooError, check_whole, counted, first_few, nearest, printable, shown
from ....utils.serialization import from_plain
from ..dataset import SPLITS
from ..folder_contents import warn
from ..random_split import check_seed
from .dataset_file import LARGEST_IMAGES, DatasetFile, statistics
from .font_files import Face, family_key, find_fonts, read_font
from .glyphs import SKETCH
from .holding_out import draw, split_names
from .sandbox import Drawer, GivenUpError

CHARACTERS = "ABDEFGHIJLMNQRTabdefghnqrt23456789"
"""The default classes: letters and digits that can be told apart without their neighbors."""

LARGEST_SIDE, MOST_CHARACTERS = 128, 256
_COPIED = 1 / 16  # share of the ink in which the sketches of two families' faces at least differ
_AT_ONCE = 512
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A face with its ``pixels`` (characters, side, side) and ``sketches`` (characters, 16, 16) of 4 bits."""

    face: Face
    pixels: Pixels
    sketches: Pixels


Faces = dict[str, _Drawn]
"""The faces of a family by :attr:`Face.style_key`."""


def letters(
    folders: Sequence[str | Path], *, side: int = 32, seed: int = 0, faces: int = 3, characters: str = CHARACTERS,
    without: Sequence[str] = (),
) -> DatasetFile:  # fmt: skip
    """Pictures of ``characters``, gray, ``side`` x ``side``, from the fonts in ``folders``; one of each in each face.

    Characters are centered and, by ``seed``, a little turned, sheared, scaled and shifted. At most ``faces`` faces of a
    family are used, drawn by ``seed``; families named ``without`` are not. The splits share no family, and of families
    with nearly the same characters only the first by name is used. A family's split, and the pictures of a face, depend
    on its name and the seed alone, not on other fonts.

    What is left out is logged. Raises :class:`ZooError` if fewer than three families can be used.
    """
    check_whole("side", side, at_least=8, at_most=LARGEST_SIDE)
    check_whole("faces", faces, at_most=1000)
    check_seed(seed)
    classes = _classes(characters)
    families: dict[str, Faces] = {}
    room = LARGEST_IMAGES // (len(classes) * side * side)
    for drawn in _draw_all(find_fonts(folders), classes, side, seed):
        _take(families.setdefault(family_key(drawn.face.family), {}), drawn, faces, seed)
        if sum(map(len, families.values())) > room:
            raise ZooError(f"more than {room:,} faces of these characters do not fit into a file; use fewer or smaller")
    _drop_named(families, without)
    _drop_copies(families)
    if len(families) < 3:
        some = "1 font family" if len(families) == 1 else f"{len(families)} font families"
        usable = f" ({first_few(list(_names(families)))})" if families else ""
        raise ZooError(f"{some} can be used{usable}; at least 3 are needed, one for each split")
    return _assemble(families, classes, seed, faces)


def _classes(characters: str) -> tuple[str, ...]:
    classes = tuple(characters)
    if twice := sorted({c for c in classes if classes.count(c) > 1}):
        raise ZooError(f"the classes have {first_few(twice)} twice")
    if wrong := [shown(c) for c in classes if not c.isprintable() or c.isspace()]:
        raise ZooError(f"the classes have {first_few(wrong)}, which cannot be drawn")
    if not 2 <= len(classes) <= MOST_CHARACTERS:
        raise ZooError(f"the classes are {counted(len(classes), 'character')}; give 2 to {MOST_CHARACTERS}")
    return classes


def _draw_all(files: Sequence[Path], classes: Sequence[str], side: int, seed: int) -> Iterator[_Drawn]:
    """Every face of ``files`` that has all characters; the others are logged."""
    left_out: list[str] = []
    with Drawer() as drawer:
        for path in files:
            given = {"file": path.name, "characters": "".join(classes), "side": side, "seed": seed}
            try:
                faces, pictures = drawer.ask(str(path), "font", read_font(path), **given)
            except GivenUpError as error:
                raise ZooError(f"fonts cannot be drawn: {error}; leave such files out") from None
            except ZooError as error:
                left_out.append(f"{path.name} ({str(error).removeprefix(f'{path}: ')})")
                continue
            parts = iter(pictures)
            for face in faces:
                if isinstance(face, str):
                    left_out.append(f"{path.name} ({face})")
                else:
                    yield _Drawn(
                        from_plain(Face, face, "face"), _square(next(parts), side), _square(next(parts), SKETCH)
                    )
    if left_out:
        warn(f"{counted(len(left_out), 'face')} left out: {first_few(left_out)}")


def _square(data: bytes, side: int) -> Pixels:
    return np.frombuffer(data, np.uint8).reshape(-1, side, side)


def _take(family: Faces, drawn: _Drawn, faces: int, seed: int) -> None:
    """Add a face to its family, of which those that come first by ``seed`` are kept; one of two with equal names."""
    key = drawn.face.style_key
    if key in family and family[key].face.digest <= drawn.face.digest:
        return
    family[key] = drawn
    if len(family) > faces:
        del family[max(family, key=lambda name: draw(seed, name))]


def _drop_named(families: dict[str, Faces], without: Sequence[str]) -> None:
    """Remove the families named ``without``. Raises :class:`ZooError` if there is none of that name."""
    keys = {name: family_key(name) for name in without}
    if missing := [name for name, key in keys.items() if key not in families]:
        guess = nearest(missing[0], _names(families))
        raise ZooError(f"no usable font is of the family {printable(missing[0])!r}, which is to be left out{guess}")
    for key in set(keys.values()):
        del families[key]


def _names(families: Mapping[str, Faces]) -> Iterator[str]:
    return (next(iter(faces.values())).face.family for faces in families.values())


def _drop_copies(families: dict[str, Faces]) -> None:
    """Remove families of which a face draws the characters nearly as one of a family does that comes before it.

    Many fonts of other scripts have the Latin letters of a common one: in another split, they would have been seen in
    training.
    """
    names = sorted(families)
    owners = [row for row, name in enumerate(names) for _ in families[name]]
    copied: dict[int, int] = {}
    for one, other in sorted({(owners[a], owners[b]) for a, b in _near_pairs(families, names)}):
        if one < other and one not in copied:
            copied.setdefault(other, one)
    titles = dict(zip(families, _names(families), strict=True))
    for row in copied:
        del families[names[row]]
    if copied:
        pairs = [f"{titles[names[row]]} ({titles[names[of]]})" for row, of in sorted(copied.items())]
        warn(f"font families left out that draw the same characters as another: {len(pairs):,}: {first_few(pairs)}")


def _near_pairs(families: Mapping[str, Faces], names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of faces, numbered in the order of ``names``, whose sketches are nearly equal.

    Sums of products of 4 bits are whole numbers below 2 ** 24, which float32 holds exactly: no machine rounds them
    differently.
    """
    sketches = np.stack([drawn.sketches.ravel() for name in names for drawn in families[name].values()])
    flat = sketches.astype(np.float32)
    ink = (flat**2).sum(1)
    for start in range(0, len(flat), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        distance = ink[part, None] + ink - 2 * (flat[part] @ flat.T)
        rows = np.argwhere(distance < _COPIED * np.minimum(ink[part, None], ink))
        yield from ((int(a) + start, int(b)) for a, b in rows)


def _assemble(families: Mapping[str, Faces], classes: Sequence[str], seed: int, faces: int) -> DatasetFile:
    splits = split_names(families, seed)
    names = sorted(families, key=lambda name: (SPLITS.index(splits[name]), name))
    drawn = [(row, families[name][key]) for row, name in enumerate(names) for key in sorted(families[name])]
    pixels = np.concatenate([one.pixels for _, one in drawn])
    train, validation, test = (
        len(classes) * sum(len(families[name]) for name in names if splits[name] == split) for split in SPLITS
    )
    mean, std = statistics(pixels[:train])
    keys = [f"{names[row]}/{one.face.family} {one.face.style}/{c}" for row, one in drawn for c in classes]
    return DatasetFile(
        "letters", tuple(classes), tuple(names), mean, std, pixels, np.tile(np.arange(len(classes)), len(drawn)),
        np.repeat([row for row, _ in drawn], len(classes)), (train, validation, test), tuple(keys),
        json.dumps({"made_by": "fbnetv3 data letters", "seed": seed, "faces": faces,
                    "fonts": [_origin(one.face) for _, one in drawn]}, sort_keys=True),
    )  # fmt: skip


def _origin(face: Face) -> dict[str, str | int]:
    return {
        "family": face.family, "style": face.style, "version": face.version, "licence": face.license,
        "file": face.file, "index": face.index, "sha256": face.digest,
    }  # fmt: skip
