"""Whose class is whose: the classes that a network answers with, matched with those of a data set."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, printable

Order = npt.NDArray[np.int64]


def match_classes(own: Sequence[str] | None, count: int, names: Sequence[str], *, network: str, data: str) -> Order:
    """For every class of the data, in order, the number that the network gives it.

    Args:
        own: the network's names of its classes; None where it does not know them: the order is then taken as it is.
        count: how many classes the network tells apart.
        names: the data's names of its classes.
        network: what errors call the network.
        data: what errors call the data.

    Names are matched where both have the same (in whatever order), and where each differs from one of the other's only
    in case, spaces, hyphens and underscores or by synonyms ("tench, Tinca tinca"). ImageNet's 1,000 classes in their
    own order are known by their names, by sorted WordNet ids (``n01440764``), or by the numbers of unnamed shards.
    Raises :class:`ZooError` that names the first class in which they differ.
    """
    if count != len(names):
        raise ZooError(f"{network}: tells {count} classes apart; {data} has {len(names)}")
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

    Told by 1,000 ids in order; by the numbers 0 to 999, as shards without names have them; or by names of which at
    least 900 are those that torchvision lists, which leaves room for other choices among synonyms.
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
    """The spellings of ImageNet's classes that torchvision lists."""
    from torchvision.models import MobileNet_V2_Weights

    return tuple(frozenset(_spellings(name)) for name in MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


def _by_name(own: Sequence[set[str]], names: Sequence[str]) -> Order | None:
    """The numbers of the classes called ``names``; None unless each is one spelling of exactly one class."""
    known: dict[str, list[int]] = {}
    for number, spellings in enumerate(own):
        for spelling in spellings:
            known.setdefault(spelling, []).append(number)
    found = [known.get(name, []) for name in names]
    if any(len(numbers) != 1 for numbers in found) or len({numbers[0] for numbers in found}) < len(names):
        return None
    return np.array([numbers[0] for numbers in found], dtype=np.int64)


def _spellings(name: str) -> set[str]:
    """``name`` and each of its synonyms, between commas, without case and in words with single spaces."""
    return {_plain(name), *map(_plain, name.split(","))} - {""}


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFC", name).casefold().strip(" _-")))


def _difference(own: Sequence[str], names: Sequence[str], network: str, data: str) -> str:
    at = next(n for n, (one, other) in enumerate(zip(own, names, strict=True)) if one != other)
    return (
        f"{network}: its classes are not those of {data}; class {at} is {printable(own[at])!r}, but "
        f"{printable(names[at])!r} in {data}"
    )
