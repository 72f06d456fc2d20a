"""Faults of a dataset, counted by kind, with the first occurrences of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fbnetv3_zoo.errors import SHOWN, ZooError, printable
from fbnetv3_zoo.utils.log import LOG


class Faults:
    """Collects faults; their locations may contain any text."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._where: dict[str, list[str]] = {}

    def add(self, kind: str, where: str) -> None:
        """Count a fault of ``kind``, such as "images that do not exist, left out"."""
        self._count[kind] += 1
        if len(shown := self._where.setdefault(kind, [])) < SHOWN:
            shown.append(in_brief(where))

    @property
    def lines(self) -> tuple[str, ...]:
        """One line per kind: the count and the first occurrences."""
        lines = []
        for kind, number in self._count.items():
            more = f" and {number - SHOWN} more" if number > SHOWN else ""
            lines.append(f"{number} {kind} ({', '.join(self._where[kind])}{more})")
        return tuple(lines)


class Unreadable(Faults):
    """Images that could not be read although their headers could; each is counted once, and logged if ``log``."""

    def __init__(self, *, log: bool = True) -> None:
        super().__init__()
        self._log = log
        self._recorded: set[tuple[Path, str]] = set()

    def record(self, path: Path, consequence: str, error: ZooError) -> None:
        """``consequence`` for the image: "replaced by others in training"."""
        if (path, consequence) not in self._recorded:
            self._recorded.add((path, consequence))
            self.add(f"images that could not be read, {consequence}", path.name)
            if self._log:
                LOG.warning("%s; it is %s", error, consequence)


def in_brief(name: object) -> str:
    """An untrusted name as printable text of at most 100 characters."""
    text = printable(str(name))
    return text if len(text) <= 100 else f"{text[:97]}..."
