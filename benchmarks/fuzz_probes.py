"""Trial processes for :mod:`fuzz`, forked from one that has the runtime imported: the start of an interpreter, which
is the same for every file, is paid once.

As a script it is that process: it reads files from standard input and answers how their trials ended.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

from fbnetv3_zoo.runtimes import sandbox, sandbox_process

_SECONDS = 60.0
_servers: dict[tuple[int, str], subprocess.Popen[bytes]] = {}


def use_forks() -> None:
    """Have files tried out in forks from now on."""
    sandbox._run = _run


def warm_up(suffix: str) -> None:
    """Start what tries out files of this ending, if there is such a runtime and forks are used."""
    if sandbox._run is _run and suffix in sandbox_process.MODULES:
        _asked(_server(suffix), [b""])


def _run(suffix: str, parts: Sequence[bytes], work: int) -> subprocess.CompletedProcess[str] | None:
    assert work == 1, "detectors are not fuzzed"
    code, told = _asked(_server(suffix), [bytes(part) for part in parts])
    return None if code is None else subprocess.CompletedProcess([], code, "", told)


def _server(suffix: str) -> subprocess.Popen[bytes]:
    """The one of this process: one that a fork shares with its parent would mix up answers."""
    key = (os.getpid(), suffix)
    if key not in _servers:
        command = [sys.executable, __file__, suffix]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        _servers[key] = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return _servers[key]


def _asked(server: subprocess.Popen[bytes], parts: list[bytes]) -> tuple[int | None, str]:
    assert server.stdin is not None
    assert server.stdout is not None
    pickle.dump(parts, server.stdin)
    server.stdin.flush()
    return pickle.load(server.stdout)  # type: ignore[no-any-return]


def main(suffix: str) -> None:
    """Answer until standard input ends."""
    runtime = __import__(f"fbnetv3_zoo.runtimes.{sandbox_process.MODULES[suffix]}", fromlist=["prepare"])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    runtime.prepare()
    while True:
        try:
            parts = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_tried(suffix, parts), answers)
        answers.flush()


def _tried(suffix: str, parts: list[bytes]) -> tuple[int | None, str]:
    """Exit code (None: endless) and last words of a fork that tries the file out."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 2)
        os.close(reading)
        sandbox_process._parts = lambda: parts
        code = 1
        try:
            code = sandbox_process.main(suffix, os.getppid(), 1)
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as words:
        told = _heard(words, child)
    return told


def _heard(words: IO[Any], child: int) -> tuple[int | None, str]:
    told = b""
    while True:
        if not select.select([words], [], [], _SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, ""
        if not (more := words.read(1 << 16)):
            break
        told = (told + more)[-(1 << 16) :]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told.decode(errors="replace")


if __name__ == "__main__":
    main(sys.argv[1])
