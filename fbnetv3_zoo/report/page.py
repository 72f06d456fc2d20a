"""Report pages from templates: one file each, no script, nothing fetched, light or dark as the reader's system is.

Every report has a folder ``templates`` beside its code. Its templates extend ``base.html.jinja`` and use the macros of
``parts.html.jinja``, which lie here with ``report.css``. Whatever is not ``Markup`` is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..errors import counted
from ..utils.atomic_write import replacing

Figure: TypeAlias = tuple[Markup, object, str]
"""A chart, its title, what it shows."""


def name(value: object) -> Markup:
    """A name from outside, whose direction of writing stays its own."""
    return Markup("<bdi>{}</bdi>").format(value)


def names(values: Sequence[object], most: int) -> Markup:
    """The first ``most`` names in a line."""
    return Markup(", ").join([*map(name, values[:most]), *(["..."] if len(values) > most else [])])


def render(package: str, template: str, /, **values: object) -> str:
    """``template`` of the folder ``templates`` in ``package``, filled in with ``values``.

    In templates, ``name``, ``names`` and ``counted`` are filters, and ``value|fmt(".2%")`` formats as Python does.
    """
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"name": name, "names": names, "counted": counted, "fmt": format}
    return environment


def write_page(path: str | Path, package: str, template: str, /, **values: object) -> None:
    """:func:`render` into the file ``path``, whole or not at all; names of files in it need not be Unicode."""
    content = render(package, template, **values).encode("utf-8", "backslashreplace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
