"""Frozen dataclasses to and from plain JSON data; all values of the package are written and read this way.

A member of a union of dataclasses has an ``"op"`` key with the class name in snake case. A field is stored under
its name, or under the ``"key"`` of its metadata.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ZooError, nearest, parse_enum, printable, shown, told
from .paths import exists, is_file, read_file

T = TypeVar("T")


def to_json(value: object, *, defaults: bool = False) -> str:
    """JSON text of ``value`` with its format (``fbnetv3_zoo.arch``, ``fbnetv3_zoo.recipe``) and version.

    ``defaults``: whether fields with default values are written, too.
    """
    plain = to_plain(value, defaults=defaults)
    return json_text({"format": f"fbnetv3_zoo.{_tag(type(value))}", "version": 1, **plain}, indent=1)


def from_json(kind: type[T], text: str | bytes, *, at_most: int = 1 << 19) -> T:
    """The ``kind`` in ``text``, written by :func:`to_json`, of at most ``at_most`` bytes.

    Raises :class:`ZooError` naming the key that is wrong.
    """
    name = _tag(kind)
    if len(text) > at_most:
        raise ZooError(f"{name} JSON is larger than {at_most:,} bytes, too large for what it describes")
    data = parse_json(text, f"{name} JSON")
    if not isinstance(data, dict) or data.pop("format", None) != f"fbnetv3_zoo.{name}":
        raise ZooError(f'{name} JSON lacks "format": "fbnetv3_zoo.{name}"; write such files with to_json()')
    if (version := data.pop("version", None)) != 1:
        raise ZooError(f"{name} JSON has version {shown(version)}; this release reads version 1")
    return from_plain(kind, data, name)


def format_of(text: str | bytes, name: str) -> str | None:
    """The format that JSON ``text`` names. Raises :class:`ZooError`, beginning with ``name``, if it is not JSON."""
    data = parse_json(text, name)
    found = data.get("format") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None


def read_json(kind: type[T], path: Path) -> T:
    """The ``kind`` in a JSON file written by :func:`to_json`. Raises :class:`ZooError` naming the file."""
    data = read_file(path, f"a JSON file of format fbnetv3_zoo.{_tag(kind)}")
    try:
        return from_json(kind, data)
    except ZooError as error:
        raise in_file(path, error) from None


def in_file(path: str | Path, error: ZooError) -> ZooError:
    """``error`` as one about the file at ``path``, with a remedy if its contents are no JSON."""
    remedy = "; correct the file, or write it again" if isinstance(error, InvalidJSONError) else ""
    return ZooError(f"{path}: {error}{remedy}")


def json_text(data: object, *, indent: int | None = None) -> str:
    r"""JSON text of plain ``data`` that any reader accepts; paths and other types are written as text.

    NaN and infinite floats become null, as JSON has no such numbers. Lone surrogates, which stand for bytes of file
    names that are not UTF-8, are escaped (``\udcff``), as most readers refuse them.
    """
    return json.dumps(_for_all(data), indent=indent, allow_nan=False)


def _for_all(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {_for_all(key): _for_all(item) for key, item in data.items()}
    if isinstance(data, (list, tuple)):
        return [_for_all(item) for item in data]
    if data is None or isinstance(data, int):
        return data
    text = data if isinstance(data, str) else str(data)
    return text.encode("utf-8", "backslashreplace").decode()


class InvalidJSONError(ZooError):
    """A text is not JSON."""


def parse_json(text: str | bytes, name: str) -> Any:
    """Parse JSON ``text``; every JSON text from outside is read here.

    Stricter than Python: NaN, infinities, numbers beyond 64 bits and lone surrogates raise :class:`InvalidJSONError`,
    as invalid text does; errors begin with ``name``. A byte order mark is ignored.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        data = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise InvalidJSONError(f"{name} cannot be read: nested too deeply") from None
    except ValueError as error:
        reason = printable(str(error)) if text else "it is empty"
        raise InvalidJSONError(f"{name} cannot be read: {reason}") from None
    if _SURROGATE.search(text) and (wrong := _lone_surrogate(data)) is not None:
        raise InvalidJSONError(f"{name} cannot be read: {printable(wrong)[:80]!r} is not Unicode text")
    return data


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be encoded as UTF-8; JSON can contain lone surrogates, which cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= (value := int(digits)) < 1 << 64:
        raise ValueError(f"the number {digits[:20]}{'...' if len(digits) > 20 else ''} is beyond 64 bits")
    return value


def _lone_surrogate(data: Any) -> str | None:
    """The first text in ``data`` that cannot be encoded as UTF-8; None if there is none."""
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if not is_unicode(item):
                return item
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
    return None


def find(kind: type[T], source: object, known: Mapping[str, T], *, what: str, rest: str) -> T:
    """The ``kind`` given by ``source``: a value, a ``known`` name, or the path of a JSON file.

    Raises :class:`ZooError` for an unknown name (the message says ``what`` is unknown and ends with ``rest``) and for a
    file that cannot be read.
    """
    if isinstance(source, kind):
        return source
    if not isinstance(source, (str, os.PathLike)):
        own = "; that of a network is network.arch" if isinstance(getattr(source, "arch", None), kind) else ""
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ZooError(f"a {what} is named by text, a path or {article} {kind.__name__}; this is {told(source)}{own}")
    if str(source) in known:
        return known[str(source)]
    path = Path(str(source))
    if path.suffix != ".json":
        _check_no_path(path, what, rest)
        raise ZooError(f"unknown {what} {str(source)!r}{nearest(str(source), known)}; {rest}")
    return read_json(kind, path)


_IN_RUNS = {"model": "model.safetensors", "recipe": "recipe.json", "plan": "plan.json"}
"""What a run's folder has of it."""


def _check_no_path(path: Path, what: str, rest: str) -> None:
    """Raise :class:`ZooError` if ``path``, given as the name of a ``what``, is there, though not as a file of one."""
    if not exists(path):
        return
    own = path / _IN_RUNS.get(what, f"{what}.json")
    if is_file(own):
        raise ZooError(f"{path}: is a folder; give the {what} in it, {own}")
    raise ZooError(f"{path}: is a {'file' if is_file(path) else 'folder'}, not a {what}; {rest}")


def to_plain(value: object, *, defaults: bool = False) -> Any:
    """``value`` as dicts, lists, strings, numbers, booleans and None.

    ``defaults``: whether fields with default values are included.
    """
    if is_dataclass(value):
        values = {_key(f): (getattr(value, f.name), f.default) for f in fields(value)}
        return {name: _tagged(item, defaults) for name, (item, usual) in values.items() if defaults or item != usual}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [_tagged(item, defaults) for item in value]
    if isinstance(value, Mapping):
        return {name: _tagged(item, defaults) for name, item in value.items()}
    return value


def _key(field: Field[Any]) -> str:
    """The JSON key under which ``field`` of a dataclass is stored."""
    key: str = field.metadata.get("key", field.name)
    return key


def from_plain(kind: type[T], data: object, where: str) -> T:
    """A ``kind`` built from the output of :func:`to_plain`. Errors begin with ``where``."""
    built: T = _build(kind, data, where)
    return built


def _tagged(value: object, defaults: bool) -> Any:
    plain = to_plain(value, defaults=defaults)
    return {"op": _tag(type(value)), **plain} if is_dataclass(value) else plain


def _tag(kind: type) -> str:
    """The name of a class in files: its ``FORMAT``, or its name in snake case."""
    name: str = vars(kind).get("FORMAT", "")
    return name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.__name__).lower()


def _build(hint: Any, data: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(data, list):
            raise ZooError(f"{where} is {shown(data)}; it must be a list")
        return _build_tuple(get_args(hint), data, where)
    if origin is Mapping:
        if not isinstance(data, dict):
            raise ZooError(f"{where} is {shown(data)}; it must be an object")
        return MappingProxyType({key: _build(get_args(hint)[1], item, f"{where}.{key}") for key, item in data.items()})
    if origin in (Union, UnionType):
        return _build_union(get_args(hint), data, where)
    if hint is Any:
        return data
    if origin is Literal:
        if data not in get_args(hint):
            raise ZooError(f"{where} is {shown(data)}; choose from {', '.join(map(str, get_args(hint)))}")
        return data
    if isinstance(hint, type) and issubclass(hint, Enum):
        return parse_enum(where, data, hint)
    if is_dataclass(hint):
        return _build_dataclass(hint, data, where)
    if hint is float and data is None:
        return math.nan  # as written by json_text()
    if hint in _PLAIN and not (isinstance(data, _PLAIN[hint][0]) and isinstance(data, bool) == (hint is bool)):
        raise ZooError(f"{where} is {shown(data)}; it must be {_PLAIN[hint][1]}")
    return data  # the range is checked by the dataclass


_PLAIN: dict[type, tuple[Any, str]] = {
    str: (str, "text"),
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
}


_LONGEST = 2_000_000  # items of a list; subsets of a data set have the longest


def _build_tuple(hints: tuple[Any, ...], data: list[Any], where: str) -> tuple[Any, ...]:
    if len(data) > _LONGEST:
        raise ZooError(f"{where} has {len(data)} items; it may have at most {_LONGEST}")
    if hints[-1] is Ellipsis:
        return tuple(_build(hints[0], item, f"{where}[{n}]") for n, item in enumerate(data))
    if len(hints) != len(data):
        raise ZooError(f"{where} has {len(data)} items; it must have {len(hints)}")
    return tuple(_build(hint, item, f"{where}[{n}]") for n, (hint, item) in enumerate(zip(hints, data, strict=True)))


def _build_union(hints: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in hints:
        return None
    kinds = {_tag(hint): hint for hint in hints if isinstance(hint, type) and is_dataclass(hint)}
    if not kinds:
        hint = next(hint for hint in hints if hint is not type(None))
        return _build(hint, data, where)
    op = data.get("op") if isinstance(data, dict) else None
    op = op if op is None or isinstance(op, str) else shown(op)
    if len(kinds) > 1 and op not in kinds:
        raise ZooError(f"{where}.op is {shown(op)}; choose from {', '.join(kinds)}")
    return _build(kinds[op] if op in kinds else next(iter(kinds.values())), data, where)


_hints = cache(get_type_hints)  # a network has a hundred rows of four kinds


def _build_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ZooError(f"{where} is {shown(data)}; it must be an object")
    data = {key: item for key, item in data.items() if key != "op"}
    known = {_key(f): f for f in fields(kind)}
    for key in data:
        if key not in known:
            raise ZooError(f"{where} has an unknown key {shown(key)}{nearest(key, known)}")
    for key, f in known.items():
        if key not in data and f.default is MISSING and f.default_factory is MISSING:
            raise ZooError(f"{where} lacks {key!r}")
    hints = _hints(kind)
    values = {known[key].name: _build(hints[known[key].name], item, f"{where}.{key}") for key, item in data.items()}
    try:
        return kind(**values)
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from None
