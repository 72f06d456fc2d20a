"""What is wrong with a data set, counted by kind, with the first places of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fbnetv3_zoo.errors import SHOWN, ZooError, printable
from fbnetv3_zoo.utils.log import LOG


class Faults:
    """Collects faults; places may have any text in them."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._where: dict[str, list[str]] = {}

    def add(self, kind: str, where: str) -> None:
        """One more of ``kind``, such as "images that are not there, left out"."""
        self._count[kind] += 1
        if len(shown := self._where.setdefault(kind, [])) < SHOWN:
            shown.append(in_brief(where))

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for every kind: how often, and where first."""
        lines = []
        for kind, number in self._count.items():
            more = f" and {number - SHOWN} more" if number > SHOWN else ""
            lines.append(f"{number} {kind} ({', '.join(self._where[kind])}{more})")
        return tuple(lines)


class Unreadable(Faults):
    """Images that could not be read although their headers could: each is told of when it is met, and counted, once."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[tuple[Path, str]] = set()

    def lose(self, path: Path, what: str, error: ZooError) -> None:
        """``what`` became of the image: "replaced by others in training"."""
        if (path, what) not in self._told:
            self._told.add((path, what))
            self.add(f"images that could not be read, {what}", path.name)
            LOG.warning("%s; it is %s", error, what)


def in_brief(name: object) -> str:
    """A name from outside as it may be shown in a line with others."""
    text = printable(str(name))
    return text if len(text) <= 100 else f"{text[:97]}..."
