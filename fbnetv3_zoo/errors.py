"""The one error this package raises for wrong input, and the checks that raise it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from types import UnionType
from typing import TypeVar

E = TypeVar("E", bound=Enum)


class ZooError(ValueError):
    """Wrong input: one line that says what is wrong, where, and how to mend it.

    The command line prints the line and exits with code 2; a library user catches it as ``ValueError``. Of a message
    that grew long, as a file holds long values, the beginning and the end are kept; of addresses, what is no secret.
    What a terminal would obey is written out.
    """

    def __init__(self, message: str) -> None:
        message = printable(without_secrets(message))
        super().__init__(message if len(message) <= 1200 else f"{message[:900]} ... {message[-200:]}")


class Interrupted(Exception):  # noqa: N818 - nothing has gone wrong
    """A run was ended by SIGTERM, after a checkpoint; the message says where. The command exits with code 143."""


_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s'\"<>]*)", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """``text`` with only scheme, host, port and path of every address in it.

    Users and passwords, queries (signed links carry their signature there) and fragments are for nobody else to see.
    """
    return _ADDRESS.sub(lambda found: found[1] + _place(found[2]), text) if "://" in text else text


def _place(rest: str) -> str:
    """Host, port and path of an address without its scheme; of an odd one, nothing that may be a password."""
    rest, query = re.match(r"([^?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    end = query[-1] if query.endswith((":", ";", ",", ")")) else ""  # of the sentence around it
    host, slash, path = rest.partition("/")
    if not _HOST.fullmatch(host.rpartition("@")[2]):
        host, slash, path = path.rpartition("@")[2].partition("/") if "@" in path else ("...", "", "")
    return f"{host.rpartition('@')[2]}{slash}{path}{end}"


_HOST = re.compile(r"([^:@]*|\[[0-9a-f:]+\]?)(:\d*)?[;:,.)]*", re.IGNORECASE)


def printable(text: str) -> str:
    r"""``text`` as it may be shown: what a terminal would obey, or no encoding has, is written out (``\x1b``).

    For every name that comes from outside: of files, classes, categories, tensors. A space stays a space, all other
    white space and invisible signs are written out too.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


SHOWN = 5
"""How many of a kind are named where there are more."""


def first_few(names: Sequence[object]) -> str:
    """The first :data:`SHOWN` names, as they may be shown, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(printable(str(name)) for name in names[:SHOWN]) + more


def counted(number: int, what: str) -> str:
    """So many of a thing: "1 candidate", "2,000 candidates"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def in_short(told: object) -> str:
    """What another program or a library says of a file, for an error's line.

    It is the first line that says something, without what a hostile file may have put into it; the name of an exception
    that says nothing.
    """
    lines = ("".join(filter(str.isprintable, line)).strip() for line in str(told).splitlines())
    return next(filter(None, lines), "" if isinstance(told, str) else type(told).__name__)[:300]


def shown(value: object) -> str:
    """``value`` as Python writes it, for an error's line: of a long one the beginning."""
    try:
        text = printable(repr(value))
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply"
    return text if len(text) <= 200 else f"{text[:200]}..."


LARGEST = 1_000_000
"""Upper bound of every count and number without a tighter one: products of a few of them still fit 64 bits."""


def check_whole(place: str, value: object, *, at_least: int = 1, at_most: int = LARGEST) -> None:
    """Raise unless ``value`` is an int (bools excluded) from ``at_least`` to ``at_most``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ZooError(f"{place} is {shown(value)}; it must be a whole number of at least {at_least}")
    if value > at_most:
        raise ZooError(f"{place} is {_short(value)}; it must be a whole number of at most {at_most}")


def check_number(
    place: str, value: object, *, above: float = -math.inf, at_least: float = -math.inf, below: float = LARGEST,
    at_most: float = math.inf,
) -> None:  # fmt: skip
    """Raise unless ``value`` is a number within the bounds: ``above`` and ``below`` exclude theirs."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and above < value < below and at_least <= value <= at_most:  # type: ignore[operator]
        return
    bounds = [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"at least {at_least:g}"] if at_least > -math.inf else []
    bounds += [f"below {below:g}"] if below < LARGEST else []
    bounds += [f"at most {at_most:g}"] if at_most < math.inf else []
    limit = f" and below {LARGEST}" if number and value >= LARGEST else ""  # type: ignore[operator]
    raise ZooError(f"{place} is {_short(value)}; it must be a number {' and '.join(bounds)}".rstrip() + limit)


def _short(value: object) -> str:
    return (
        f"a number of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 64 else shown(value)
    )


def check_flag(place: str, value: object) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ZooError(f"{place} is {shown(value)}; it must be True or False")


def check_type(place: str, value: object, kind: type | UnionType, remedy: str) -> None:
    """Raise unless ``value`` is an instance of ``kind``; ``remedy`` completes "it must be ..."."""
    if not isinstance(value, kind):
        raise ZooError(f"{place} is {shown(value)}; it must be {remedy}")


def parse_enum(place: str, value: object, kind: type[E]) -> E:
    """The member of ``kind`` with this value, given as text; an unknown one names the members."""
    for member in kind:
        if member.value == value or member is value:
            return member
    raise ZooError(f"{place} is {shown(value)}; choose from {', '.join(str(m.value) for m in kind)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the known word nearest to ``word``, or nothing when none is near."""
    if len(word) > 200:
        return ""
    known = list(known)
    cased = [name for name in known if name.lower() == word.lower()]
    found = cased or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""
