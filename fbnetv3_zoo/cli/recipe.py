"""``fbnetv3 recipe``: the named recipes, with the source of each value."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import Json, command_group, print_json
from .output import say, say_text

app = command_group(
    """List the named recipes, and show their values with sources.

    Example: fbnetv3 recipe show fbnetv3_g
    """
)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the named recipes and their purposes.

    Example: fbnetv3 recipe list
    """
    from ..recipes import NAMED

    if as_json:
        print_json({name: named.purpose for name, named in NAMED.items()})
        return
    for name, named in NAMED.items():
        say(f"{name:11}{named.purpose}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A name from `fbnetv3 recipe list`, or a JSON file.")],
    as_json: Json = False,
) -> None:
    """Show the values of a recipe with their sources. --json prints a file for --recipe, with every value.

    Example: fbnetv3 recipe show fbnetv3_g
    """
    from ..recipes import find_preset

    chosen = find_preset(recipe)
    if as_json:
        say_text(chosen.recipe.to_json())
        return
    say(f"{recipe}: {chosen.purpose}", "")
    values = chosen.recipe.values()
    width = 2 + max(map(len, values))
    for field, value in values.items():
        say(f"{field:{width}}{value!s:18}{chosen.source_of(field) if chosen.all_sources else ''}".rstrip())
