"""The one error this package raises for wrong input, and the checks that raise it."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, UnionType
from typing import NoReturn, SupportsIndex, TypeVar

E = TypeVar("E", bound=Enum)
T = TypeVar("T")


class ZooError(ValueError):
    """Wrong input: one line that says what is wrong, where, and how to fix it.

    The command line prints it and exits with code 2; a library user catches it as ``ValueError``. Long messages are cut
    in the middle, secrets are removed from addresses, and control characters are escaped.
    """

    def __init__(self, message: str) -> None:
        message = printable(without_secrets(message))
        super().__init__(message if len(message) <= 1200 else f"{message[:900]} ... {message[-200:]}")


class Interrupted(Exception):  # noqa: N818 - nothing has gone wrong
    """A run was ended by SIGTERM, after a checkpoint that the message names. The command exits with code 143."""


class LostProcess(Exception):  # noqa: N818 - nothing that its caller did
    """A process that computed together with others died; the message says which, and by what."""


def assert_never(value: NoReturn) -> NoReturn:
    """Raise AssertionError: no branch takes ``value``. mypy reports calls that can be reached (Python 3.11 has one)."""
    raise AssertionError(f"no branch for {value!r}")


_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s'\"<>]*)", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """``text`` with every address reduced to scheme, host, port and path.

    Users, passwords, queries (which contain the signature of signed links) and fragments are removed.
    """
    return _ADDRESS.sub(lambda found: found[1] + _place(found[2]), text) if "://" in text else text


def _place(rest: str) -> str:
    """Host, port and path of an address without its scheme; anything that may be a password is left out."""
    rest, query = re.match(r"([^?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    end = query[-1] if query.endswith((":", ";", ",", ")")) else ""  # of the sentence around it
    host, slash, path = rest.partition("/")
    if not _HOST.fullmatch(host.rpartition("@")[2]):
        host, slash, path = path.rpartition("@")[2].partition("/") if "@" in path else ("...", "", "")
    return f"{host.rpartition('@')[2]}{slash}{path}{end}"


_HOST = re.compile(r"([^:@]*|\[[0-9a-f:]+\]?)(:\d*)?[;:,.)]*", re.IGNORECASE)


def printable(text: str) -> str:
    r"""``text`` with control characters, invisible ones and lone surrogates escaped (``\x1b``).

    For every name from outside: of files, classes, categories, tensors. Spaces are kept; other white space is escaped.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


SHOWN = 5
"""Number of names that :func:`first_few` lists."""


def first_few(names: Sequence[object]) -> str:
    """The first :data:`SHOWN` names, made printable, and the number of the others."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(printable(str(name)) for name in names[:SHOWN]) + more


def counted(number: int, what: str) -> str:
    """A number of things: "1 candidate", "2,000 candidates"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def in_short(message: object) -> str:
    """The first line of a message from a library or another program, to be quoted in an error.

    Unprintable characters are removed, at most 300 characters kept. An exception without a message gives its name.
    """
    lines = ("".join(filter(str.isprintable, line)).strip() for line in str(message).splitlines())
    return next(filter(None, lines), "" if isinstance(message, str) else type(message).__name__)[:300]


def shown(value: object) -> str:
    """The ``repr`` of ``value``, made printable and cut to 200 characters, to be quoted in an error."""
    try:
        text = printable(repr(value))
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply"
    return text if len(text) <= 200 else f"{text[:200]}..."


LARGEST = 1_000_000
"""Default upper bound of counts and numbers: products of a few of them still fit 64 bits."""


def check_whole(name: str, value: object, *, at_least: int = 1, at_most: int = LARGEST) -> None:
    """Raise :class:`ZooError` unless ``value`` is an int (bools excluded) from ``at_least`` to ``at_most``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ZooError(f"{name} is {told(value)}; it must be a whole number of at least {at_least}{_as_int(value)}")
    if value > at_most:
        raise ZooError(f"{name} is {_short(value)}; it must be a whole number of at most {at_most}")


def _as_int(value: object) -> str:
    """What mends a whole number of another library."""
    return f"; give int({shown(value)})" if hasattr(value, "__index__") and not isinstance(value, int) else ""


def plain_whole(value: T) -> T | int:
    """The int of a whole number of another library, such as NumPy's; anything else as it is."""
    return value if isinstance(value, int) or not isinstance(value, SupportsIndex) else operator.index(value)


def check_number(
    name: str, value: object, *, above: float = -math.inf, at_least: float = -math.inf, below: float = LARGEST,
    at_most: float = math.inf,
) -> None:  # fmt: skip
    """Raise :class:`ZooError` unless ``value`` is a number within the bounds; ``above`` and ``below`` are exclusive."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and above < value < below and at_least <= value <= at_most:  # type: ignore[operator]
        return
    bounds = [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"at least {at_least:g}"] if at_least > -math.inf else []
    bounds += [f"below {below:g}"] if below < LARGEST else []
    bounds += [f"at most {at_most:g}"] if at_most < math.inf else []
    limit = f" and below {LARGEST}" if number and value >= LARGEST else ""  # type: ignore[operator]
    raise ZooError(f"{name} is {_short(value)}; it must be a number {' and '.join(bounds)}".rstrip() + limit)


def _short(value: object) -> str:
    return (
        f"a number of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 64 else told(value)
    )


def check_flag(name: str, value: object) -> None:
    """Raise :class:`ZooError` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ZooError(f"{name} is {shown(value)}; it must be True or False")


def check_type(name: str, value: object, kind: type | UnionType, remedy: str) -> None:
    """Raise :class:`ZooError` unless ``value`` is an instance of ``kind``; ``remedy`` completes "it must be ..."."""
    if not isinstance(value, kind):
        raise ZooError(f"{name} is {told(value)}; it must be {remedy}")


def told(value: object) -> str:
    """As :func:`shown`, but functions and classes by name, and by its type what has an address, lines or fields."""
    if isinstance(value, (type, FunctionType, BuiltinFunctionType, MethodType)):
        return f"the {'class' if isinstance(value, type) else 'function'} {printable(value.__name__)}"
    text = shown(value)
    unclear = not isinstance(value, str) and (" at 0x" in text or "\\n" in text or is_dataclass(value))
    return f"of type {type(value).__name__}" if unclear else text


def check_member(name: str, value: object, kind: type[Enum]) -> None:
    """Raise :class:`ZooError`, which lists the members of ``kind``, unless ``value`` is one of them."""
    *others, last = (f"{kind.__name__}.{member.name}" for member in kind)
    check_type(name, value, kind, f"{', '.join(others)} or {last}")


def parse_enum(name: str, value: object, kind: type[E]) -> E:
    """The member of ``kind`` with this value. Raises :class:`ZooError`, which lists the members, if there is none."""
    for member in kind:
        if member.value == value or member is value:
            return member
    raise ZooError(f"{name} is {shown(value)}; choose from {', '.join(str(m.value) for m in kind)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the known word closest to ``word``; "" if none is close."""
    if len(word) > 200:
        return ""
    known = list(known)
    cased = [name for name in known if name.lower() == word.lower()]
    matches = cased or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
