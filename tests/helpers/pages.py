"""README and the pages of docs: their texts by path, and the shell commands that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator

from folders import ROOT

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n\n)?(?<=\n\n)(?P<code>(?:^    .*\n)(?:^    .*\n|^\n(?=    ))*)",
    re.MULTILINE,
)


def shell_blocks(text: str) -> Iterator[re.Match[str]]:
    """The indented blocks of a page: their ``code``, and the ``reason`` of one that is marked not to be run."""
    yield from _INDENTED.finditer(FENCED.sub("", text))


def lines(code: str) -> Iterator[str]:
    """The lines of a shell block, continued ones as one, without variables and comments."""
    for line in code.replace("\\\n", " ").splitlines():
        if command := re.sub(r"^\s*[A-Z_]+=\S+|\s+#.*", "", line).strip():
            yield re.sub(r"\s+", " ", command)
