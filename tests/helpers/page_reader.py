"""Report pages read back, strictly."""

from __future__ import annotations

import html.parser

VOID = {"br", "img", "meta"}


class Reader(html.parser.HTMLParser):
    """A page read strictly: every element is closed in order. Text by section; rows of tables; pictures; attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.section = ""
        self.texts: dict[str, list[str]] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.section = data
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data
        if data.strip() and self.open[-1] != "style":
            self.texts.setdefault(self.section, []).append(" ".join(data.split()))

    def told(self, section: str = "") -> str:
        """All text of a section in one line."""
        return " ".join(self.texts[section])

    def values(self, *names: tuple[str, str]) -> list[str | None]:
        """The values of these attributes, each named with its element."""
        return [value for tag, name, value in self.attributes if (tag, name) in names]
