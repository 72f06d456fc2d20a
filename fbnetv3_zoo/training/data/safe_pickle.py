"""Reads pickles of plain values and byte arrays, such as those of CIFAR, without unpickling.

Only opcodes that build numbers, strings, lists, tuples, dicts and byte arrays are interpreted. Nothing named in a
pickle is ever imported or called.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ZooError


def read_plain(data: bytes, *, most_opcodes: int = 1_000_000) -> object:
    """The value in the pickle ``data``: a plain value, or a dict of plain values and byte arrays.

    Raises :class:`ZooError`, without the file's name, for any other pickle, for one of more than ``most_opcodes``, and
    for one that expands to much more than its size.
    """
    state = _State(bytes_left=2 * len(data) + _ROOM)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name not in _FOLLOW:
                raise ZooError(f"has contents that such a file does not need ({opcode.name})")
            if count >= most_opcodes:
                raise ZooError(f"has more than {most_opcodes:,} opcodes, which such a file does not need")
            _FOLLOW[opcode.name](state, argument)
        (value,) = state.stack
        if type(value) is dict:
            return {key: item.pixels(state) if type(item) is _Array else item for key, item in value.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError("is a damaged pickle") from None
    return value


_ROOM = 1 << 16
_LONGEST_KEY = 1000
_MOST_SIDES, _LONGEST_SIDE = 8, 1 << 40


@dataclass(slots=True)
class _State:
    """The state of the interpreter; ``bytes_left`` is the remaining allowance for new bytes objects."""

    bytes_left: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def encoded(self, text: str) -> bytes:
        """Bytes stored as text; each call creates new ones, so that a short file could fill the memory."""
        self.bytes_left -= len(text)
        if self.bytes_left < 0:
            raise ZooError("expands to more bytes than it has, which such a file does not need")
        return text.encode("latin-1")

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise LookupError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items


@dataclass(frozen=True, slots=True)
class _Named:
    """A known global named in a pickle."""

    name: str


@dataclass(slots=True)
class _Array:
    """An array, initially without contents."""

    state: Any = None

    def pixels(self, state: _State) -> npt.NDArray[np.uint8]:
        _, shape, dtype, fortran, data = self.state
        raw = state.encoded(data) if isinstance(data, str) else data
        if len(shape) > _MOST_SIDES or not all(type(side) is int and 0 <= side <= _LONGEST_SIDE for side in shape):
            raise TypeError
        if dtype != _Named("bytes") or math.prod(shape) != len(raw):
            raise TypeError
        pixels: npt.NDArray[np.uint8] = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
        return pixels


def _push(state: _State, argument: Any) -> None:
    state.stack.append(argument)


def _new(make: Callable[[], Any]) -> Callable[[_State, Any], None]:
    return lambda state, _: state.stack.append(make())


def _tuple(count: int) -> Callable[[_State, Any], None]:
    return lambda state, _: state.stack.append(tuple(state.last(count)))


def _put(state: _State, argument: int) -> None:
    state.memo[argument] = state.stack[-1]


def _append(state: _State, items: list[Any]) -> None:
    target = state.stack[-1]
    if type(target) is not list:
        raise TypeError
    target.extend(items)


def _set(state: _State, items: list[Any]) -> None:
    target, keys = state.stack[-1], items[::2]
    if type(target) is not dict:
        raise TypeError
    if any(len(key) > _LONGEST_KEY for key in keys):
        raise ValueError
    names = [key if isinstance(key, str) else key.decode("latin-1") for key in keys]  # nothing else is hashed
    target.update(zip(names, items[1::2], strict=True))


_KNOWN = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}


def _name(state: _State, argument: str) -> None:
    if argument not in _KNOWN:
        raise ZooError(f"has contents that such a file does not need ({'.'.join(argument.split())[:60]!r})")
    state.stack.append(_Named(_KNOWN[argument]))


def _call(state: _State, _: Any) -> None:
    function, arguments = state.last(2)
    if function == _Named("array") and arguments[0] == _Named("ndarray"):
        state.stack.append(_Array())
    elif function == _Named("dtype") and arguments[0] in ("u1", b"u1"):
        state.stack.append(_Named("bytes"))
    elif function == _Named("encode") and arguments[1] in ("latin1", "latin-1"):
        state.stack.append(state.encoded(arguments[0]))
    else:
        raise TypeError


def _build(state: _State, _: Any) -> None:
    """Set the contents of an array; the state of a dtype is ignored."""
    target, contents = state.last(2)
    if type(target) is _Array:
        target.state = contents
    elif target != _Named("bytes"):
        raise TypeError
    state.stack.append(target)


_FOLLOW: dict[str, Callable[[_State, Any], None]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "BINBYTES", "SHORT_BINBYTES"), _push),
    "NONE": _new(lambda: None),
    "NEWTRUE": _new(lambda: True),
    "NEWFALSE": _new(lambda: False),
    "EMPTY_LIST": _new(list),
    "EMPTY_DICT": _new(dict),
    "EMPTY_TUPLE": _new(tuple),
    "MARK": lambda state, _: state.marks.append(len(state.stack)),
    "TUPLE": lambda state, _: state.stack.append(tuple(state.since_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda state, _: _append(state, state.last(1)),
    "APPENDS": lambda state, _: _append(state, state.since_mark()),
    "SETITEM": lambda state, _: _set(state, state.last(2)),
    "SETITEMS": lambda state, _: _set(state, state.since_mark()),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "BINGET": lambda state, argument: state.stack.append(state.memo[argument]),
    "LONG_BINGET": lambda state, argument: state.stack.append(state.memo[argument]),
    "GLOBAL": _name,
    "REDUCE": _call,
    "BUILD": _build,
    "PROTO": lambda state, _: None,
    "STOP": lambda state, _: None,
}
