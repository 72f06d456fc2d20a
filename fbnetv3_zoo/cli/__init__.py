"""The command line, one file a command. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer

from fbnetv3_zoo.cli import (
    benchmark,
    classify,
    demo,
    detect,
    distil,
    export,
    info,
    recipe,
    search,
    serve_demo,
    subset,
    train,
    validate,
    weights,
)
from fbnetv3_zoo.cli import list as list_command
from fbnetv3_zoo.errors import Interrupted, ZooError

app = typer.Typer(
    name="fbnetv3",
    help="FBNetV3 and its family: look up, get, train, distil, search, validate, export, classify, detect.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(list_command.list_)
for command in (
    info.info, train.train, distil.distil, validate.validate, classify.classify, subset.subset, demo.demo,
    serve_demo.serve_demo, benchmark.benchmark,
):  # fmt: skip
    app.command()(command)
app.add_typer(detect.app, name="detect")
app.add_typer(export.app, name="export")
app.add_typer(recipe.app, name="recipe")
app.add_typer(search.app, name="search")
app.add_typer(weights.app, name="weights")

# The base class of all complaints about options and arguments. Typer builds on click, newer releases on a copy of it
# that they keep private; this is the way to the class that works with both.
ClickException: Any = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``fbnetv3 ARGUMENTS``; wrong input prints one line and exits with code 2."""
    # OpenMP threads that wait by spinning make training up to 25 times slower when something else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
        status = app(args=given, prog_name="fbnetv3", standalone_mode=False)
        sys.stdout.flush()
    except ZooError as error:
        _fail(str(error))
    except Interrupted as error:
        print(error, file=sys.stderr)
        status = 128 + signal.SIGTERM
    except ClickException as error:
        _fail(f"{error.format_message()} (see `fbnetv3 --help`)")
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    except BrokenPipeError:  # the reader, such as `head`, has gone; typer, where it notices first, ends with 1 too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if status == 130:
        print("interrupted", file=sys.stderr)
    sys.exit(status or 0)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
