"""Processes that are killed (SIGKILL) before a chosen change of theirs to the file system.

As a script, ``killed.py FOLDER WHAT OLD``: does one of :data:`WORK` again and again, each time killed one change later,
until it comes to its end; prints what each kill left, a line of JSON each.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod")


def killed_before(number: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a fork that is killed before its change ``number`` (from 1); whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            kill_before(number)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill_before(number: int) -> None:
    """Have this process killed before its change ``number`` to the file system: files that it makes count, too."""
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(count)


def count_changes() -> None:
    """Have this process say on standard error, when it ends, how many changes it has made."""
    made = 0

    def count() -> None:
        nonlocal made
        made += 1

    _watch(count)
    atexit.register(lambda: print(f"changes: {made}", file=sys.stderr))


def _watch(count: Callable[[], None]) -> None:
    process = os.getpid()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or writes) and os.getpid() == process:
            count()

    sys.addaudithook(watch)


def leave_half_a_file(folder: Path) -> Path:
    """The folder that a writer into ``folder`` leaves who is killed in the middle of its work."""
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from fbnetv3_zoo.utils.temporary_folder import marked_folder\n"
        "with marked_folder(Path(sys.argv[1])) as made:\n"
        "    (made / 'new' / 'half').write_text('ha')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    before = set(folder.glob(".fbnetv3-zoo-*"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script, str(folder)], env=environment, check=False)
    (left,) = set(folder.glob(".fbnetv3-zoo-*")) - before
    return left


def _one(folder: Path) -> None:
    from fbnetv3_zoo.utils.atomic_write import replacing

    with replacing(folder / "one.txt") as path:
        path.write_text("new")


def _pair(folder: Path) -> None:
    from fbnetv3_zoo.utils.atomic_write import replacing_together

    with replacing_together(folder / "one.txt", folder / "two.txt") as paths:
        for path in paths:
            path.write_text("new")


def _page(folder: Path) -> None:
    from fbnetv3_zoo.utils.atomic_write import replacing_folder

    with replacing_folder(folder / "page") as path:
        for name in ("one.txt", "two.txt"):
            (path / name).write_text("new")


def _all(folder: Path) -> None:
    from fbnetv3_zoo.utils.atomic_write import replacing_in

    with replacing_in(folder, "one.txt", "two.txt", "page") as path:
        (path / "page").mkdir()
        for name in ("one.txt", "two.txt", "page/one.txt", "page/two.txt"):
            (path / name).write_text("new")


WORK = {"one": _one, "pair": _pair, "page": _page, "all": _all}


def _contents(folder: Path) -> dict[str, str]:
    """All files, by their paths, that are in no folder for temporary files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(files)}
    return {name: text for name, text in found.items() if not name.startswith(".fbnetv3-zoo-")}


def _all_kills(folder: Path, what: str, *, old: bool) -> None:
    from fbnetv3_zoo.utils.atomic_write import replacing, settled

    number, killed = 0, True
    while killed:
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "page").mkdir(parents=True)
        (folder / "other.txt").write_text("mine")
        for name in ("one.txt", "two.txt", "page/one.txt", "page/two.txt") if old else ():
            (folder / name).write_text("old")
        killed = killed_before(number, lambda: WORK[what](folder))
        told: dict[str, object] = {"killed": killed, "at once": _contents(folder)}
        places = settled(folder / "one.txt", folder / "two.txt")
        told["settled"] = [path.read_text() if path.exists() else "" for path in places]
        with replacing(folder / "next.txt") as path:
            path.write_text("next")
        told["names"], told["afterwards"] = sorted(os.listdir(folder)), _contents(folder)
        print(json.dumps(told))


if __name__ == "__main__":
    _all_kills(Path(sys.argv[1]), sys.argv[2], old=sys.argv[3] == "old")
