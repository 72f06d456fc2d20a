"""Recognizes which folders and files are splits, by the usual spellings and by their contents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import ZooError, first_few, printable
from ...utils.paths import composed
from .dataset import SPLITS, Split
from .folder_contents import FolderContents, folders_in, is_run, look_into, warn

SPELLINGS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "devel", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
"""Usual words for each split, in lower case; docs/data.md lists their sources."""

COMPANIONS = frozenset(
    {"data", "dataset", "dir", "files", "folder", "image", "images", "img", "imgs", "jpeg", "jpg", "photo", "photos",
     "pic", "pics", "picture", "pictures", "png", "sample", "samples", "set", "split", "subset"}
)  # fmt: skip
"""Words that may accompany a split's: ``train_images``, ``TestSet``. Numbers may, too: ``val2017``."""

_SPLIT_OF = {word: split for split, words in SPELLINGS.items() for word in words}
_BY_LENGTH = sorted(_SPLIT_OF, key=len, reverse=True)
_MOST_SPLITS = 20
REMEDY = "call the splits train, val and test"


def split_words(name: str) -> tuple[set[Split], tuple[str, ...]]:
    """The splits named by words of ``name``, and its other words without companions and numbers."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    splits: set[Split] = set()
    rest = []
    for word in re.findall(r"[^\W\d_]+", composed(spaced).casefold()):
        known = next((w for w in _BY_LENGTH if word.startswith(w) and word[len(w) :] in {"", *COMPANIONS}), None)
        if known:
            splits.add(_SPLIT_OF[known])
        elif word not in COMPANIONS:
            rest.append(word)
    return splits, tuple(rest)


def find_splits(root: Path, names: Iterable[str]) -> dict[Split, str]:
    """The folder of each split, among the folders ``names`` in ``root``; empty if they are classes.

    Raises :class:`ZooError` if this is ambiguous.
    """
    inside = {name: content for name in names if (content := look_into(root / name)).folders or content.images}
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
            f"{root / min(holders)}: has folders like a split, but {first_few(flat)} beside it have images like "
            f"classes; move one or the other away"
        )
    places = _places(root, named, inside, holders)
    if not {"train", "validation"} <= places.keys():
        _check_lookalikes(root, inside, others, places.values())
    if others:
        warn(f"{printable(str(root))}: folders left out that are not splits: {first_few(sorted(others))}")
    return places


def class_folders(root: Path) -> list[str]:
    """Sorted names of the folders in ``root`` that may be classes or splits, without those of runs of ours."""
    return [name for name in folders_in(root) if not is_run(root / name)]


def named_splits(names: Iterable[str]) -> dict[str, Split]:
    """The split of each folder that is named after one.

    It is if it has no other words, or if folders of different splits share all other words (``seg_train``,
    ``seg_test``).
    """
    words = {name: parsed for name in names if len((parsed := split_words(name))[0]) == 1}
    siblings: dict[tuple[str, ...], set[Split]] = {}
    for splits, rest in words.values():
        siblings.setdefault(rest, set()).update(splits)
    return {name: min(splits) for name, (splits, rest) in words.items() if not rest or len(siblings[rest]) > 1}


def _check_flat(root: Path, named: Mapping[str, Split], classes: Iterable[str]) -> None:
    """Raise :class:`ZooError` if split folders have images but no classes, unless two folders beside are classes."""
    splits = set(named.values())
    if "train" in splits and len(splits) > 1 and len(set(classes)) < 2:
        raise ZooError(
            f"{root}: {first_few(sorted(named))} have images, but no class folders; put the images of each split into "
            f"a folder per class, or, if these are classes, rename them"
        )


def _check_lookalikes(
    root: Path, inside: Mapping[str, FolderContents], names: Iterable[str], splits: Iterable[str] = ()
) -> None:
    """Raise :class:`ZooError` if folders ``names`` without images have the same folders as another, or as a split."""
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
                    f"({first_few(shared)}), but their names do not say which; {REMEDY}, or, if they are classes, "
                    f"rename the folders in them"
                )


def _places(
    root: Path, named: Mapping[str, Split], inside: Mapping[str, FolderContents], holders: set[str]
) -> dict[Split, str]:
    places: dict[Split, str] = {}
    for split in SPLITS:
        candidates = sorted(name for name, of in named.items() if of == split)
        if len(candidates) > 1:
            raise ZooError(f"{root}: {first_few(candidates)} are all named like the {split} split; keep only one there")
        if candidates and candidates[0] in holders:
            places[split] = candidates[0]
        elif candidates and split == "test":
            warn_unlabeled(root / candidates[0], inside[candidates[0]].images)
        elif candidates:
            raise ZooError(
                f"{root / candidates[0]}: has {inside[candidates[0]].images:,} images, but no class folders like other "
                f"splits; sort them into folders, one per class"
            )
    return places


def warn_unlabeled(split: object, images: int) -> None:
    """Log that a test split is left out because it has no labels."""
    warn(f"{printable(str(split))}: left out, since its images have no labels ({images:,} images)")


def split_of_file(root: Path, name: str) -> Split | None:
    """The split in the name of a file in ``root``, if any. Raises :class:`ZooError` if there are two."""
    splits, _ = split_words(re.split(r"\.t(?:ar|gz)", name, flags=re.IGNORECASE)[0])
    if len(splits) > 1:
        raise ZooError(f"{root / name}: names two splits, {' and '.join(sorted(splits))}; leave one in its name")
    return min(splits, default=None)
