"""The command line, one file per command. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import typer

from ..errors import Interrupted
from . import (
    benchmark,
    classify,
    demo,
    distil,
    guard,
    info,
    output,
    recipe,
    serve_demo,
    subset,
    train,
    usage,
    validate,
    weights,
)
from . import list as list_command
from .data import commands as data
from .detect import commands as detect
from .export import commands as export
from .search import commands as search


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.say(f"fbnetv3-zoo {version('fbnetv3-zoo')}")
        raise typer.Exit


app = typer.Typer(
    name="fbnetv3",
    help="FBNetV3 networks: list, fetch, train, distil, search, validate, export, classify, detect.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def _program(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


app.command("list")(list_command.list_)
for command in (info.info, train.train, distil.distil, validate.validate, classify.classify):
    app.command()(command)
app.command("predict", help="The same as classify.\n\nExample: fbnetv3 predict photos --model model.onnx")(
    classify.classify
)
for command in (subset.subset, demo.demo, serve_demo.serve_demo, benchmark.benchmark):
    app.command()(command)
app.add_typer(data.app, name="data")
app.add_typer(detect.app, name="detect")
app.add_typer(export.app, name="export")
app.add_typer(recipe.app, name="recipe")
app.add_typer(search.app, name="search")
app.add_typer(weights.app, name="weights")

# The base class of all errors about options and arguments. Typer builds on click, newer releases on a private copy of
# it; this works with both.
ClickException: Any = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``fbnetv3 ARGUMENTS``; wrong input prints one line and exits with code 2."""
    # spinning OpenMP threads make training up to 25 times slower if another program uses a core
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    output.prepare()
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    status = _carry_out(words)
    if status == output.INTERRUPTED:
        with _not_interrupted_again() if arguments is None else nullcontext():
            output.complain(usage.interrupted(typer.main.get_command(app), words))
    output.drop()
    sys.exit(status)


@contextmanager
def _not_interrupted_again() -> Iterator[None]:
    """Ctrl-C does nothing; afterwards it ends the program at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, lambda *_: os._exit(output.INTERRUPTED))


def _carry_out(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    try:
        usage.check_given(arguments)
        status = app(args=arguments, prog_name="fbnetv3", standalone_mode=False) or 0
        output.flush()
    except guard.EXPECTED as error:
        line = guard.line_of(error)
        if line is None:  # 1 as in typer, if the reader of standard output has gone
            return 1
        return _fail(usage.with_options(line, typer.main.get_command(app), arguments))
    except Interrupted as error:
        output.complain(error)
        return 128 + signal.SIGTERM
    except ClickException as error:
        return _fail(usage.line_of(error, typer.main.get_command(app), arguments))
    except (typer.Abort, KeyboardInterrupt):
        status = output.INTERRUPTED
    return int(status)


def _fail(message: str) -> int:
    output.complain(f"error: {message}")
    return 2
