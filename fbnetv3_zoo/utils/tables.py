"""Plain tables for values that print themselves, and sizes as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..errors import printable


def table(rows: Sequence[Sequence[object]], *, left: int = 1) -> str:
    """``rows``, the first of which is the heading, in columns: the first ``left`` aligned left, the others right.

    Cells are made printable, so that each row is one line.
    """
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = (
        "  ".join(
            text.ljust(width) if n < left else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    )
    return "\n".join(line.rstrip() for line in lines)


def in_notebook(text: str) -> str:
    """A table as HTML, for ``_repr_html_``."""
    return f"<pre>{escape(text)}</pre>"


def size_text(size: int) -> str:
    """A number of bytes as people read it, such as 650 kB."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
