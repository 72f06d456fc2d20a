"""Pages for mkdocs about the public names: a page per module, made from the docstrings, without importing anything.

The rooms beside ``fbnetv3_zoo/`` are copied into one package, in ``build/reference``, which griffe reads.
"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "build" / "reference" / "fbnetv3_zoo"
ROOMS = ("search", "detection", "export")
MODULES = {
    "fbnetv3_zoo": "Networks: define, create, load, save.",
    "recipes": "Training recipes as values, and the named ones.",
    "training": "Training, evaluation, data sets.",
    "search": "Joint and differentiable search.",
    "detection": "Detectors on torchvision.",
    "export": "Files for runtimes.",
}
"""The modules with a page, and its first line."""


def public_names(module: str) -> list[str]:
    """The public names of a module: those of its stub, or of ``__all__`` where it has none; submodules left out."""
    folder = PACKAGE if module == "fbnetv3_zoo" else PACKAGE / module
    file = folder / "__init__.pyi" if (folder / "__init__.pyi").exists() else folder / "__init__.py"
    names = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [alias.asname or alias.name for alias in node.names]
    return [name for name in names if not name.startswith("_")]


def page(module: str) -> str:
    """The page of a module: an instruction to mkdocstrings for each public name."""
    path = "fbnetv3_zoo" if module == "fbnetv3_zoo" else f"fbnetv3_zoo.{module}"
    names = sorted(public_names(module), key=lambda name: (name.isupper(), not name[0].isupper(), name.lower()))
    return "\n\n".join([f"# {path}", MODULES[module], *(f"::: {path}.{name}" for name in names)]) + "\n"


def on_startup(**_: Any) -> None:
    """Copy the rooms into one package, before mkdocstrings looks for its folder."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    for folder, copy in {"fbnetv3_zoo": PACKAGE, **{room: PACKAGE / room for room in ROOMS}}.items():
        for source in (ROOT / folder).rglob("*.py*"):
            if source.suffix in (".py", ".pyi"):
                made = copy / source.relative_to(ROOT / folder)
                made.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, made)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each module."""
    from mkdocs.structure.files import File

    for module in MODULES:
        files.append(File.generated(config, f"reference/{module}.md", content=page(module)))
    return files


class Roles(griffe.Extension):
    """Turn Sphinx's roles in docstrings (``:func:`create```) into links, to where the site describes the name."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r":\w+:`(~?)([\w.]+)`", lambda role: _link(obj, *role.groups()), obj.docstring.value
            )


def _link(scope: griffe.Object, short: str, name: str) -> str:
    shown = name.rpartition(".")[2] if short else name
    try:
        path = scope.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
