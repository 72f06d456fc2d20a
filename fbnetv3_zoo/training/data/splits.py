"""Which folders and files are splits: told by usual spellings, and by what lies in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import ZooError, first_few, printable
from .dataset import SPLITS, Split, composed
from .listing import FolderContents, folders_in, is_run, look_into, tell

SPELLINGS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "devel", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
"""Usual words for each split, in small letters; docs/data.md says where they are from."""

COMPANIONS = frozenset(
    {"data", "dataset", "dir", "files", "folder", "image", "images", "img", "imgs", "jpeg", "jpg", "photo", "photos",
     "pic", "pics", "picture", "pictures", "png", "sample", "samples", "set", "split", "subset"}
)  # fmt: skip
"""Words beside a split's that change nothing: ``train_images``, ``TestSet``. Numbers do not either: ``val2017``."""

_SPLIT_OF = {word: split for split, words in SPELLINGS.items() for word in words}
_BY_LENGTH = sorted(_SPLIT_OF, key=len, reverse=True)
_MOST_SPLITS = 20
REMEDY = "call the splits train, val and test"


def split_words(name: str) -> tuple[set[Split], tuple[str, ...]]:
    """The splits that words of ``name`` stand for, and its other words without companions and numbers."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    found: set[Split] = set()
    rest = []
    for word in re.findall(r"[^\W\d_]+", composed(spaced).casefold()):
        known = next((w for w in _BY_LENGTH if word.startswith(w) and word[len(w) :] in {"", *COMPANIONS}), None)
        if known:
            found.add(_SPLIT_OF[known])
        elif word not in COMPANIONS:
            rest.append(word)
    return found, tuple(rest)


def find_splits(root: Path, names: Iterable[str]) -> dict[Split, str]:
    """Which of the folders ``names`` in ``root`` holds each split; of none where they are classes.

    Raises :class:`ZooError` where it cannot be told.
    """
    inside = {name: found for name in names if (found := look_into(root / name)).folders or found.images}
    named = named_splits(inside)
    others = inside.keys() - named.keys()
    holders = {name for name in named if len(inside[name].folders) > (1 if inside[name].images else 0)}
    flat = sorted(name for name in others if inside[name].images)
    if not holders:
        _check_flat(root, named, flat)
        _check_lookalikes(root, inside, others)
        return {}
    if len(holders) == 1 and flat:
        raise ZooError(
            f"{root / min(holders)}: holds folders as a split does, but {first_few(flat)} beside it hold images as "
            f"classes do; move one or the other away"
        )
    places = _places(root, named, inside, holders)
    if not {"train", "validation"} <= places.keys():
        _check_lookalikes(root, inside, others, places.values())
    if others:
        tell(f"{printable(str(root))}: left out, as no split: {first_few(sorted(others))}")
    return places


def class_places(root: Path) -> list[str]:
    """Names of the folders in ``root`` that may be classes or splits, sorted: those left by runs of ours are not."""
    return [name for name in folders_in(root) if not is_run(root / name)]


def named_splits(names: Iterable[str]) -> dict[str, Split]:
    """The split that each folder is called after, where it is.

    A folder is, if all its words say so; or if two of different splits share all other words (``seg_train``,
    ``seg_test``).
    """
    words = {name: found for name in names if len((found := split_words(name))[0]) == 1}
    siblings: dict[tuple[str, ...], set[Split]] = {}
    for splits, rest in words.values():
        siblings.setdefault(rest, set()).update(splits)
    return {name: min(found) for name, (found, rest) in words.items() if not rest or len(siblings[rest]) > 1}


def _check_flat(root: Path, named: Mapping[str, Split], classes: Iterable[str]) -> None:
    """Raise where images lie in what can only be splits, without classes; two folders beside them are classes."""
    splits = set(named.values())
    if "train" in splits and len(splits) > 1 and len(set(classes)) < 2:
        raise ZooError(
            f"{root}: {first_few(sorted(named))} hold images, but no class folders; put the images of each split into "
            f"a folder for every class, or give folders that are classes other names"
        )


def _check_lookalikes(
    root: Path, inside: Mapping[str, FolderContents], names: Iterable[str], splits: Iterable[str] = ()
) -> None:
    """Raise where the folders ``names`` hold no images, and one the same folders as another or as one of ``splits``."""
    alike, known = sorted(names), sorted(splits)
    if len(alike) > _MOST_SPLITS or any(inside[name].images for name in alike):
        return
    for n, one in enumerate(alike):
        for other in known + alike[:n]:
            first, second = (set(map(composed, inside[name].folders)) for name in (other, one))
            shared = sorted(first & second)
            if len(shared) > 1 and 2 * len(shared) >= min(len(first), len(second)):
                raise ZooError(
                    f"{root}: {first_few([other, one])} look like splits, with the same folders in each "
                    f"({first_few(shared)}), but their names do not say which; {REMEDY}, or, where they are classes, "
                    f"give the folders in them names of their own"
                )


def _places(
    root: Path, named: Mapping[str, Split], inside: Mapping[str, FolderContents], holders: set[str]
) -> dict[Split, str]:
    places: dict[Split, str] = {}
    for split in SPLITS:
        ours = sorted(name for name, of in named.items() if of == split)
        if len(ours) > 1:
            raise ZooError(f"{root}: {first_few(ours)} are all called as the {split} split is; keep one of them there")
        if ours and ours[0] in holders:
            places[split] = ours[0]
        elif ours and split == "test":
            tell_unlabelled(root / ours[0], inside[ours[0]].images)
        elif ours:
            raise ZooError(
                f"{root / ours[0]}: holds {inside[ours[0]].images:,} images, but no class folders as other splits do; "
                f"sort them into folders, one for every class"
            )
    return places


def tell_unlabelled(place: object, images: int) -> None:
    """Say that a test split has no labels and is left out."""
    tell(f"{printable(str(place))}: left out, as its images have no labels ({images:,} images)")


def split_of_file(root: Path, name: str) -> Split | None:
    """The split that the name of a file in ``root`` says. Raises :class:`ZooError` where it says two."""
    found, _ = split_words(re.split(r"\.t(?:ar|gz)", name, flags=re.IGNORECASE)[0])
    if len(found) > 1:
        raise ZooError(f"{root / name}: names two splits, {' and '.join(sorted(found))}; leave one in its name")
    return min(found, default=None)
