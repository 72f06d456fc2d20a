"""Matches the classes of a network with those of a dataset."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, nearest, printable

Order = npt.NDArray[np.int64]


def match_classes(own: Sequence[str] | None, count: int, names: Sequence[str], *, network: str, data: str) -> Order:
    """The network's index of every class of the data, in order.

    Args:
        own: class names of the network; None if unknown: the order is then assumed to be the same.
        count: number of classes of the network.
        names: class names of the data.
        network: what errors call the network.
        data: what errors call the data.

    Names may be in any order, and may differ in case, spaces, hyphens, underscores and synonyms ("tench, Tinca tinca").
    ImageNet's 1,000 classes in their usual order are recognized by their names, by sorted WordNet ids (``n01440764``),
    or by the numbers of unnamed shards. Raises :class:`ZooError`, which names the first class that differs.
    """
    if count != len(names):
        hint = "" if own is None else _hint(own, names, data)
        raise ZooError(f"{network}: has {count} classes, but {data} has {len(names)}{hint}")
    if own is None or tuple(own) == tuple(names):
        return np.arange(count)
    if in_imagenet_order(own) and in_imagenet_order(names):
        return np.arange(count)
    order = _by_name([{name} for name in own], names)
    if order is None:
        order = _by_name([_spellings(name) for name in own], [_plain(name) for name in names])
    if order is None:
        order = _by_name([{_plain(name)} for name in own], [_plain(name.split(",")[0]) for name in names])
    if order is None:
        raise ZooError(_difference(own, names, network, data))
    return order


def in_imagenet_order(names: Sequence[str]) -> bool:
    """Whether these are ImageNet's 1,000 classes in their usual order: that of their WordNet ids.

    Recognized are 1,000 ids in order; the numbers 0 to 999, as in shards without names; or names of which at least 900
    agree with torchvision's list, which leaves room for other choices among synonyms.
    """
    if len(names) != 1000:
        return False
    if all(re.fullmatch(r"n\d{8}", name) for name in names):
        return sorted(set(names)) == list(names)
    if list(names) == [str(n) for n in range(1000)]:
        return True
    return sum(bool(_spellings(name) & known) for name, known in zip(names, _imagenet(), strict=True)) >= 900


@cache
def _imagenet() -> tuple[frozenset[str], ...]:
    """The spellings of ImageNet's classes in torchvision's list."""
    from torchvision.models import MobileNet_V2_Weights

    return tuple(frozenset(_spellings(name)) for name in MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


def _by_name(own: Sequence[set[str]], names: Sequence[str]) -> Order | None:
    """The indices of the classes ``names``; None unless each is a spelling of exactly one class."""
    known: dict[str, list[int]] = {}
    for number, spellings in enumerate(own):
        for spelling in spellings:
            known.setdefault(spelling, []).append(number)
    matches = [known.get(name, []) for name in names]
    if any(len(numbers) != 1 for numbers in matches) or len({numbers[0] for numbers in matches}) < len(names):
        return None
    return np.array([numbers[0] for numbers in matches], dtype=np.int64)


def _spellings(name: str) -> set[str]:
    """``name`` and each of its comma-separated synonyms, in lower case with single spaces."""
    return {_plain(name), *map(_plain, name.split(","))} - {""}


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFC", name).casefold().strip(" _-")))


def _difference(own: Sequence[str], names: Sequence[str], network: str, data: str) -> str:
    at = next(n for n, (one, other) in enumerate(zip(own, names, strict=True)) if one != other)
    return (
        f"{network}: its classes differ from those of {data}; class {at} is {printable(own[at])!r}, but "
        f"{printable(names[at])!r} in {data}{_hint(own, names, data)}"
    )


def _hint(own: Sequence[str], names: Sequence[str], data: str) -> str:
    """What may be meant by the first class of the data that the network does not have; "" if nothing is near it."""
    known = set().union(*map(_spellings, own))
    lacking = [name for name in own if not _spellings(name) & {_plain(other) for other in names}]
    for name in names:
        if _plain(name) not in known and (guess := nearest(name, lacking)):
            return f"; {printable(name)!r} of {data} is not among them{printable(guess)}"
    return ""
