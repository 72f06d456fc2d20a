"""Emoji as drawn by several vendors, by the groups that they are sorted into; one vendor is held out for test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ....errors import ZooError, check_whole, first_few, printable
from ..dataset import SPLITS, Split
from ..folder_contents import warn
from .dataset_file import DatasetFile, statistics
from .sandbox import Drawer, GivenUpError
from .vector import check_rasterizer
from .vendors import Vendor

Pixels = npt.NDArray[np.uint8]
LARGEST_SIDE = 128
_LEAST_MEANINGS = 20


def emoji(vendors: Sequence[Vendor], *, held_out: str, validation: str | None = None, side: int = 32) -> DatasetFile:
    """Pictures of every meaning that all ``vendors`` draw, RGB on white, ``side`` x ``side``, by group of meanings.

    The drawings of the vendor ``held_out`` are for test, those of ``validation`` (None: of the last other one) for
    validation, and those of the others for training. Meanings that vendors sort into different groups are left out, and
    groups with fewer than 20; what is left out is logged. Raises :class:`ZooError` for fewer than three vendors.
    """
    check_whole("side", side, at_least=8, at_most=LARGEST_SIDE)
    check_rasterizer()
    splits = _splits([vendor.name for vendor in vendors], held_out, validation)
    groups = _groups(vendors)
    ordered = sorted(vendors, key=lambda vendor: SPLITS.index(splits[vendor.name]))
    drawn = _draw_all(ordered, sorted(groups), side)
    keys, pixels = list(drawn), np.stack(list(drawn.values()))
    classes, names = sorted(set(groups.values())), [vendor.name for vendor in ordered]
    train, validated, test = (sum(splits[vendor] == split for vendor, _ in keys) for split in SPLITS)
    mean, std = statistics(pixels[:train])
    return DatasetFile(
        "emoji", tuple(classes), tuple(names), mean, std, pixels,
        np.array([classes.index(groups[meaning]) for _, meaning in keys]),
        np.array([names.index(vendor) for vendor, _ in keys]), (train, validated, test), tuple(map("/".join, keys)),
        json.dumps({"made_by": "fbnetv3 data emoji", "vendors": [dict(v.origin) for v in ordered]}, sort_keys=True),
    )  # fmt: skip


def _draw_all(vendors: Sequence[Vendor], meanings: Sequence[str], side: int) -> dict[tuple[str, str], Pixels]:
    """The pictures by vendor and meaning; meanings that cannot be drawn for all vendors are left out and logged."""
    pictures: dict[tuple[str, str], Pixels] = {}
    failed: dict[str, str] = {}
    with Drawer() as drawer:
        for vendor in vendors:
            for meaning in meanings:
                drawing = vendor.drawings[meaning]
                given = {"size": [drawing.width, drawing.height], "side": side}
                try:
                    told, parts = drawer.ask(f"{vendor.name} {meaning}", "drawing", drawing.body.encode(), **given)
                except GivenUpError as error:
                    raise ZooError(f"drawings cannot be drawn: {error}") from None
                except ZooError as error:
                    told, parts = [str(error)], []
                if told:
                    failed.setdefault(meaning, f"{meaning} ({vendor.name}: {told[0]})")
                else:
                    pictures[vendor.name, meaning] = np.frombuffer(parts[0], np.uint8).reshape(side, side, 3)
    if failed:
        warn(f"{len(failed):,} emoji left out: {first_few(list(failed.values()))}")
    return {key: picture for key, picture in pictures.items() if key[1] not in failed}


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


def _groups(vendors: Sequence[Vendor]) -> dict[str, str]:
    """The group of every meaning that all vendors draw and sort alike, in groups of some size."""
    common = sorted(set.intersection(*(set(vendor.drawings) for vendor in vendors)))
    sorted_into = {meaning: {vendor.drawings[meaning].group for vendor in vendors} for meaning in common}
    groups = {meaning: min(found) for meaning, found in sorted_into.items() if len(found) == 1}
    if len(groups) < len(common):
        warn(f"{len(common) - len(groups):,} emoji left out that vendors sort into different groups")
    counts = Counter(groups.values())
    small = sorted(f"{group} ({count})" for group, count in counts.items() if count < _LEAST_MEANINGS)
    if small:
        warn(f"groups left out with fewer than {_LEAST_MEANINGS} emoji that all vendors draw: {first_few(small)}")
    if len(counts) - len(small) < 2:
        raise ZooError(
            f"all vendors draw {len(common):,} emoji alike; at least 2 groups of {_LEAST_MEANINGS} are needed"
        )
    return {meaning: group for meaning, group in groups.items() if counts[group] >= _LEAST_MEANINGS}
