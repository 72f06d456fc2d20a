"""Reads the lists in a COCO file entry by entry: unused parts are never parsed, however large the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fbnetv3_zoo.errors import ZooError, printable
from fbnetv3_zoo.utils.paths import read_file

LARGEST_FILE = 2 << 30
"""Maximum size of a file in bytes, some four times that of the annotations of COCO's training images."""
LARGEST_ENTRY = 16 << 20
"""Maximum length of an entry in characters."""
_SPACE = re.compile(r"[ \t\n\r]*")
_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_WORD = re.compile(r'[^\s,:"\[\]{}]+')
_SIGN = re.compile(rf"""[^"\[\]{{}}]*({_TEXT.pattern}|[\[\]{{}}])""", re.DOTALL)
_DEEPEST = 500


class Entries:
    """The lists ``names`` of the object in the JSON file ``path``, read one entry at a time.

    Everything else is skipped unchecked. Raises :class:`ZooError` if the file cannot be read, is too large
    (:data:`LARGEST_FILE`) or not a JSON object, or if it lacks a list or has it twice.
    """

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path, data = path, read_file(path, "a file in COCO format", at_most=LARGEST_FILE)
        try:
            self._text = data.decode("utf-8-sig")
            self._starts = self._find(names)
        except (ValueError, RecursionError) as error:
            raise self._refusal(error) from None
        for name in names:
            if self._text[self._starts.get(name, 0) : self._starts.get(name, 0) + 1] != "[":
                raise ZooError(f"{path}: has no list {name!r}; give box annotations in COCO format")

    def __getitem__(self, name: str) -> Iterator[Any]:
        """The entries of a list in order."""
        try:
            at = self._after(self._starts[name] + 1)
            if self._text[at : at + 1] == "]":
                return
            while True:
                if (end := self._end(at)) - at > LARGEST_ENTRY:
                    raise ValueError(f"an entry of {name!r} has {end - at:,} characters")
                yield _DECODER.decode(self._text[at:end])
                sign, at = self._sign(end, ",]")
                if sign == "]":
                    return
        except (ValueError, RecursionError) as error:
            raise self._refusal(error) from None

    def _find(self, names: tuple[str, ...]) -> dict[str, int]:
        """The positions at which the values of ``names`` begin."""
        starts: dict[str, int] = {}
        sign, at = self._sign(0, "{")
        if self._text[at : at + 1] == "}":
            return starts
        while sign != "}":
            match = _TEXT.match(self._text, at)
            if match is None:
                raise ValueError(f"no name at character {at}")
            key, (_, at) = json.loads(match[0]), self._sign(match.end(), ":")
            if key in names and starts.setdefault(key, at) != at:
                raise ValueError(f"has {key!r} twice")
            sign, at = self._sign(self._end(at), ",}")
        if at < len(self._text):
            raise ValueError(f"trailing text at character {at}")
        return starts

    def _after(self, at: int) -> int:
        """The first position from ``at`` on that is not white space."""
        match = _SPACE.match(self._text, at)
        assert match is not None
        return match.end()

    def _sign(self, at: int, allowed: str) -> tuple[str, int]:
        """The next character, which must be one of ``allowed``, and the position of what follows it."""
        at = self._after(at)
        sign = self._text[at : at + 1]
        if not sign or sign not in allowed:
            raise ValueError(f"no {' or '.join(allowed)} at character {at}")
        return sign, self._after(at + 1)

    def _end(self, at: int) -> int:
        """The end of the value that begins at ``at``."""
        if (first := self._text[at : at + 1]) not in ("{", "["):
            match = (_TEXT if first == '"' else _WORD).match(self._text, at)
            if match is None:
                raise ValueError(f"no value at character {at}")
            return match.end()
        depth = 0
        while (match := _SIGN.match(self._text, at)) is not None:
            sign, at = self._text[match.start(1)], match.end()
            depth += 1 if sign in "{[" else -1 if sign in "}]" else 0
            if depth == 0:
                return at
            if depth > _DEEPEST:
                raise RecursionError
        raise ValueError("ends too early")

    def _refusal(self, error: Exception) -> ZooError:
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))
        return ZooError(f"{self._path}: is not valid JSON ({reason}); correct the file, or write it again")


_DECODER = json.JSONDecoder()
