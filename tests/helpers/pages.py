"""README and the pages of docs: their texts by path."""

from folders import ROOT

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
