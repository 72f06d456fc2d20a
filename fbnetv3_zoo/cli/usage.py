"""Error messages for wrong options and arguments, with a suggestion of what was meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ZooError, nearest, printable, shown
from ..utils.paths import JOURNAL
from .output import in_shell

_ELSEWHERE = {
    "amp": "--precision", "arch": "--model", "architecture": "--model", "b": "--batch-size", "c": "--classes",
    "ckpt": "--weights", "checkpoint": "--weights", "gpu": "--device", "gpus": "--device", "image-size": "--resolution",
    "img": "--resolution", "img-size": "--resolution", "imgsz": "--resolution", "input-size": "--resolution",
    "j": "--workers", "o": "--output", "size": "--resolution", "source": "--data",
}  # fmt: skip
"""Names of options in other programs, without leading hyphens."""
_CHECKPOINTS = ("checkpoints/*", "*/checkpoints/*")
"""In the folder of a run, or of several."""


def check_given(arguments: Sequence[str]) -> None:
    """Raise :class:`ZooError` if one of ``arguments`` is empty: as a path it would be the current folder."""
    for before, word in zip(("", *arguments[:-1]), arguments, strict=True):
        if word == "":
            where = f"the value after {before} is" if before.startswith("-") else "an argument is"
        elif word.startswith("--") and word.find("=") == len(word) - 1:
            where = f"the value of {word[:-1]} is"
        else:
            continue
        raise ZooError(f"{where} empty; give one, or leave it out (is a variable of the shell not set?)")


def line_of(error: Any, program: Any, arguments: Sequence[str]) -> str:
    """One line for an error of typer: its message, what was probably meant, and whose help to read.

    ``program`` is the command called with ``arguments``, for errors that do not say which of its commands they are
    about.
    """
    text, context = error.format_message(), getattr(error, "ctx", None)
    if hasattr(error, "possibilities") and context is not None:
        known = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)]
        text = f"{error.message}{meant(error.option_name, known)}"
    text = text.replace(": Value error, ", ": ")  # pydantic's, within typer
    text = _of_number(text, getattr(getattr(error, "param", None), "opts", ()), arguments)
    command = _named_in(program, arguments) if context is None else context.command_path
    return f"{' '.join(text.split())} (see `{command} --help`)"


_NUMBERS = (
    (r"valid integer()", "a whole number"),
    (r"valid (?:number|float)()", "a number"),
    (r"(?:greater than or equal to |x>=)([0-9.]*[0-9])", "at least {}"),
    (r"(?:less than or equal to |x<=)([0-9.]*[0-9])", "at most {}"),
)
"""How libraries beneath typer say what a number must be, and how it is said here."""


def _of_number(text: str, names: Sequence[str], arguments: Sequence[str]) -> str:
    """``text``, about the option called ``names``, in this program's words if a number is refused."""
    given = [(name, word) for name, word in pairwise(arguments) if name in names]
    given += [(name, word) for name, _, word in (one.partition("=") for one in arguments) if word and name in names]
    for pattern, must in _NUMBERS:
        if given and (found := re.search(pattern, text)):
            name, word = given[-1]
            return f"{name} is {printable(word) if found[1] else shown(word)}; it must be {must.format(found[1])}"
    return text


def with_options(line: str, program: Any, arguments: Sequence[str]) -> str:
    """``line``, an error's, with options by the names that they were given by: not "Recipe.epochs is 0"."""
    if not (start := re.match(r"[A-Z]\w+\.(\w+) ", line)):
        return line
    option = f"--{start[1].replace('_', '-')}"
    parameters = getattr(_called(program, arguments)[1], "params", ())
    names = next((one.opts for one in parameters if option in one.opts), [option])
    given = next((name for word in arguments if (name := word.split("=")[0]) in names), None)
    return f"{given} {line[start.end() :]}" if given else line


def interrupted(program: Any, arguments: Sequence[str]) -> str:
    """The line for a command of ``program`` that Ctrl-C has ended, and how to continue it."""
    name, command = _called(program, arguments)
    resumes = any("--resume" in parameter.opts for parameter in getattr(command, "params", ()))
    folders = [*_outputs(arguments)]
    begun = [folder for folder in folders for place in _CHECKPOINTS for _ in folder.glob(place)]
    if resumes and (begun or not folders):
        return "interrupted; the same command with --resume continues"
    for folder in folders:
        if name == "fbnetv3 search run" and os.path.exists(folder / JOURNAL):
            return f"interrupted; `fbnetv3 search resume {in_shell(folder)}` continues"
    return "interrupted"


def _outputs(arguments: Sequence[str]) -> Iterator[Path]:
    """The folder that ``--output`` names, if it is given."""
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option == "--output":
            yield Path(value if equals else after)


def _named_in(program: Any, arguments: Sequence[str]) -> str:
    """The command named by the first of ``arguments``, such as "fbnetv3 export onnx"."""
    return _called(program, arguments)[0]


def _called(program: Any, arguments: Sequence[str]) -> tuple[str, Any]:
    """The command named by the first of ``arguments``, and its name, such as "fbnetv3 export onnx"."""
    name = "fbnetv3"
    for word in arguments:
        below = getattr(program, "commands", {}).get(word)
        if below is None:
            break
        name, program = f"{name} {word}", below
    return name, program


def meant(given: str, known: Sequence[str]) -> str:
    """``" (did you mean '--learning-rate'?)"`` for the option nearest to ``given``, or "" if none is near."""
    options = [name for name in known if name.startswith("--")]
    word = given.lstrip("-").lower().replace("_", "-")
    initials = [name for name in options if "".join(part[:1] for part in name[2:].split("-")) == word and len(word) > 1]
    begun = [name for name in options if name[2:].startswith(word) and len(word) > 1]
    elsewhere = [_ELSEWHERE[word]] if _ELSEWHERE.get(word) in options else []
    for option in (*elsewhere, *initials, *begun):
        return f" (did you mean {option!r}?)"
    return printable(nearest(f"--{word}", options))
