"""What mkdocs does with links that leave ``docs/``: they work in the repository, and on the site as well.

The pages in ``OUTSIDE`` are part of the site. Links to other files lead to the repository, if ``pyproject.toml`` names
its address (``Repository`` in ``[project.urls]``); otherwise the file is put on the site.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = {
    name: f"project/{name.lower()}"
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "MODEL_CARD.md", "SECURITY.md")
}
"""Pages outside ``docs/``, and where they are on the site."""
CODE = re.compile(
    r"^(`{3,}|~{3,})[\s\S]*?^\1"  # fenced
    r"|(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+"  # indented
    r"|(?<!`)(`+)(?!`)(?:.|\n(?!\n))+?(?<!`)\2(?!`)",  # in a line
    re.MULTILINE,
)
OPTION = re.compile(r"(?<=[\s>\[])--?[a-z][\w-]*(?![^<]*>)")
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
BADGES = re.compile(r"^(?:\[!\[[^\]]*\]\[[^\]]* badge\]\]\[[^\]]*\]\s)+\n", re.MULTILINE)
"""A line of badges, which are pictures from elsewhere."""


def linked(text: str, change: Callable[[str], str]) -> str:
    """``text`` with the target of every relative link changed; code stays as it is."""
    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(lambda link: change(link[1]), text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(lambda link: change(link[1]), text[end:])])


def address(target: str, source: Path, repository: str | None) -> str:
    """Where ``target``, linked in the file ``source``, is on the site: from its root, or in the repository."""
    name = Path(os.path.normpath(source.parent / target)).relative_to(ROOT).as_posix()
    if name in OUTSIDE:
        return OUTSIDE[name]
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"{repository.rstrip('/')}/blob/main/{name}" if repository else f"files/{name}"


def _repository() -> str | None:
    named = re.search(r'^Repository = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return named and named[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside ``docs/``, and the files that pages link to where there is no repository to link to."""
    from mkdocs.structure.files import File

    for name, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    wanted: set[str] = set()
    for source in [*DOCS.glob("*.md"), *map(ROOT.joinpath, OUTSIDE)]:

        def note(target: str, source: Path = source) -> str:
            wanted.add(address(target, source, _repository()))
            return target

        linked(source.read_text(encoding="utf-8"), note)
    for uri in sorted(wanted):
        if uri.startswith("files/") and (ROOT / uri.removeprefix("files/")).is_file():
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri.removeprefix("files/"))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links into those between the pages of the site, and leave out badges: the site loads nothing."""
    source = Path(page.file.abs_src_path or DOCS / page.file.src_uri)

    def change(target: str) -> str:
        found = address(target, source, _repository())
        return found if "://" in found else os.path.relpath(found, os.path.dirname(page.file.src_uri) or ".")

    return linked(BADGES.sub("", markdown), change)


def on_page_content(html: str, **_: object) -> str:
    """Mark lines of commands, and options such as ``--epochs`` in them, so that ``site.css`` can wrap them well."""
    html = re.sub(
        r"(?<=<pre><span></span><code>)[^<]+(?=</code>)",
        lambda code: re.sub(r".+\n?|\n", r'<span class="line">\g<0></span>', code[0]),
        html,
    )
    options = partial(OPTION.sub, r'<span class="option">\g<0></span>')
    return re.sub(r"<code>.*?</code>", lambda code: options(code[0]), html, flags=re.DOTALL)


NAMES = {
    '<div class="md-search" data-md-component="search" role="dialog">': (
        '<div class="md-search" data-md-component="search" role="dialog" aria-label="Search">'
    ),
    '<nav class="md-search__options" aria-label="Search">': '<nav class="md-search__options" aria-label="Options">',
}
"""Elements of the theme that screen readers could not tell apart, and what they become."""


def on_post_page(output: str, **_: object) -> str:
    """Name the elements in :data:`NAMES`."""
    for element, named in NAMES.items():
        if element not in output:
            raise ValueError(f"the theme has changed: no {element}")
        output = output.replace(element, named)
    return output


def on_post_template(output_content: str, *, template_name: str, **_: object) -> str:
    """The same for the page of what is not found."""
    return on_post_page(output_content) if template_name == "404.html" else output_content
