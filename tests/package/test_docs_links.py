"""The pages: links lead to files and headings that exist, and the built site is complete and open to everyone."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from browser import AXE, browser, plainly_served, playwright
from folders import ROOT
from pages import FENCED
from programs import needed_package

from fbnetv3_zoo.export.web.ort_web import package_files

HOOK = runpy.run_path(str(ROOT / "docs" / "pages.py"))
PAGES = [*(ROOT / name for name in HOOK["OUTSIDE"]), *sorted((ROOT / "docs").glob("*.md"))]
MODULES = ("fbnetv3_zoo", *(f"fbnetv3_zoo.{name}" for name in ("recipes", "training", "search", "detection", "export")))


def _anchors(text: str) -> Iterator[str]:
    """The anchors of the headings, formed as in repositories and by ``toc`` in ``mkdocs.yml``."""
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE):
        shown = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        if anchor not in seen:  # what a repeated one is called differs
            yield anchor
        seen[anchor] = 1


def _broken(page: Path, text: str) -> list[str]:
    """The links of ``page`` that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", HOOK["CODE"].sub("", text)):
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        if "://" in link or (file.exists() and not anchor):
            continue
        if not file.is_file() or anchor not in _anchors(file.read_text(encoding="utf-8") if target else text):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert _broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lists_follow_an_empty_line(page: Path) -> None:
    """Otherwise they are part of the paragraph before them on the site, though not in the repository."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    assert re.findall(r"^(?!- |\d+\. |  ).+\n(?:- |\d+\. ).*", text, re.MULTILINE) == []


def test_broken_links_are_found() -> None:
    text = "# A `few` words\n\n[a](#a-few-words) [b](#none) [c](data.md#splits) [d](data.md#none) [e](../none.py)\n\n"
    code = "`[f](none)`\n\n    [g](none)\n\n```\n[h](none)\n# No heading\n```\n[i](../benchmarks) [j](#no-heading)\n"
    assert _broken(ROOT / "docs" / "index.md", text + code) == ["#none", "data.md#none", "../none.py", "#no-heading"]


def test_links_that_leave_the_pages_lead_to_the_repository() -> None:
    address, page = HOOK["address"], ROOT / "docs" / "page.md"
    assert address("data.md", page, None) == "data.md"
    assert address("docs/data.md", ROOT / "README.md", None) == "data.md"
    assert address("../README.md", page, None) == "project/readme.md"
    assert address("../hubconf.py", page, "https://host.test/zoo/") == "https://host.test/zoo/blob/main/hubconf.py"
    assert address("../hubconf.py", page, None) == "files/hubconf.py"  # copied there: no repository is named
    assert (
        HOOK["linked"]("[a](b#c) `[a](b)` [d](https://e) [f](#g)", str.upper)
        == "[a](B#c) `[a](b)` [d](https://e) [f](#g)"
    )


def test_every_extra_is_explained() -> None:
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    explained = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    needed_package("mkdocs", "docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_nothing_on_the_site_keeps_anyone_out(width: int, scheme: Literal["light", "dark"], site: Path) -> None:
    """axe-core finds nothing to complain of on any page, nothing is cut off, and no script complains."""
    script, complaints = package_files(AXE)["axe.min.js"].decode(), []
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert len(names) > 25
    with playwright() as driver, plainly_served(site) as address, browser(driver) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for name in names:
            page.goto(address + name)
            page.evaluate(f"(() => {{ {script} }})()")
            found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            assert len(found["passes"]) > 15, name
            told = [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found["violations"]]
            complaints += [f"{name}: {one}" for one in told]
            if page.evaluate("document.documentElement.scrollWidth") > width:
                complaints.append(f"{name}: wider than the screen")
    assert complaints == []


@pytest.mark.long
def test_the_site_is_complete_and_loads_nothing_from_elsewhere(site: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert {path.name for path in texts} >= {"index.html", *(page.with_suffix(".html").name.lower() for page in PAGES)}
    loaded = r"<(?:script|img|iframe|source)[^>]* src=\"?(?:https?:)?//|<link[^>]* href=\"?(?:https?:)?//"
    assert [path for path, text in texts.items() if re.search(loaded, text)] == []
    styles = [
        path for path in site.rglob("*.css") if re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", path.read_text())
    ]
    assert styles == []
    for name in MODULES:
        module = importlib.import_module(name)
        text = texts[site / "reference" / f"{name.rpartition('.')[2]}.html"]
        public = {public for public in module.__all__ if not isinstance(getattr(module, public), ModuleType)}
        missing = {public for public in public - {"__version__"} if f'id="{name}.{public}"' not in text}
        assert missing == set(), name
        about = {one: text.partition(f'id="{name}.{one}"')[2].partition("<h2")[0] for one in public - {"__version__"}}
        assert [one for one, described in about.items() if "<p>" not in described] == [], name
        assert re.search(r":(?:class|func|meth|mod|data|attr):", text) is None
