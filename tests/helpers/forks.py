"""Training jobs in processes of their own, several at a time, killed at given moments.

Importing torch takes seconds, so a :class:`Server` has it and forks the processes of every job; a job that is to be
``fresh`` gets interpreters of its own. As a script, with a job in JSON, it does that job: what torchrun is given.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
}

Job = dict[str, Any]
Tell = Callable[[str], None]


def do(job: Job, tell: Tell) -> int:
    """Do ``job`` in this process; the exit status."""
    import jobs

    if job.get("lingers"):  # with every file before it is whole, so that a kill meets it
        flush = os.fsync
        os.fsync = lambda file: (time.sleep(0.1), flush(file))[1]
    return jobs.do(job, tell)


class Server:
    """Does jobs, one after the other. See :func:`serving`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, name: str, *, size: int = 1, kill: Job | None = None, fresh: bool = False, **rest: Any) -> Job:
        """What became of the job ``name`` in ``size`` processes: ``codes`` they ended with, and ``lines`` they told.

        ``kill``: all are killed once ``steps`` steps have been told (and half a file stands in the ``folder`` given as
        ``writing``), ``delay`` seconds later, or when the next step is told before. ``first`` and ``last``: seconds to
        the first step told and to the last.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"name": name, "size": size, "kill": kill, "fresh": fresh, **rest}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server has ended"
        found: Job = json.loads(answer)
        return found


@contextmanager
def serving() -> Iterator[Server]:
    """A server while the block lasts."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, __file__], stdin=pipe, stdout=pipe, env=ENVIRONMENT, text=True, start_new_session=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def _serve() -> None:
    import jobs

    jobs.warm_up()
    for line in sys.stdin:
        print(json.dumps(_carry_out(json.loads(line))), flush=True)


def _carry_out(job: Job) -> Job:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    begin = _spawn if job["fresh"] else _fork
    group = _Group(reader, [begin(job, rank, environment, writer) for rank, environment in enumerate(_places(job))])
    os.close(writer)
    if job["kill"]:
        group.wait_for(**job["kill"])
        group.kill()
    group.wait_for_end()
    os.close(reader)
    return {"codes": group.codes, "lines": group.lines, "first": group.first, "last": group.last}


def _places(job: Job) -> list[dict[str, str]]:
    """What torchrun would say to each process; nothing to one alone."""
    if job["size"] == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(job["size"])}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(job["size"])]


def _fork(job: Job, rank: int, environment: dict[str, str], writer: int) -> int:
    if child := os.fork():
        return child
    status = 70
    try:
        os.setpgid(0, 0)
        os.environ.update(environment)
        os.dup2(2, 1)  # standard output belongs to the server's answers
        status = do(job, lambda text: _write(writer, rank, text))
    except BaseException as error:
        _write(writer, rank, repr(error))
    finally:
        os._exit(status)


def _spawn(job: Job, rank: int, environment: dict[str, str], writer: int) -> int:
    command = [sys.executable, __file__, json.dumps({**job, "writer": writer, "rank": rank})]
    process = subprocess.Popen(
        command, env={**ENVIRONMENT, **environment}, pass_fds=[writer], stdout=2, start_new_session=True
    )
    process.returncode = 0  # its end is waited for below
    return process.pid


def _write(writer: int, rank: int, text: str) -> None:
    os.write(writer, f"{rank} {text}\n".encode())


class _Group:
    def __init__(self, reader: int, pids: list[int]) -> None:
        self._reader, self._pids, self._began = reader, pids, time.monotonic()
        self._running, self._rest = set(pids), b""
        self.codes: list[int | None] = [None] * len(pids)
        self.lines: list[list[str]] = [[] for _ in pids]
        self.first = self.last = 0.0

    def wait_for(self, *, steps: int = 0, delay: float = 0.0, writing: str | None = None) -> None:
        while self._running and self._steps() < steps:
            self._look(0.02)
        while writing and self._running and not _is_writing(Path(writing)):
            self._look(0.0005)
        ends = time.monotonic() + delay
        while self._running and time.monotonic() < ends and self._steps() <= steps:  # the job may be faster than before
            self._look(max(0.0, min(0.002, ends - time.monotonic())))

    def kill(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)

    def wait_for_end(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._running:
            self._look(0.02)
            if time.monotonic() > deadline:
                self.kill()
        self._look(0)

    def _steps(self) -> int:
        return sum(line.startswith("step") for line in self.lines[0])

    def _look(self, patience: float) -> None:
        before = self._steps()
        if select.select([self._reader], [], [], patience)[0]:
            self._rest += os.read(self._reader, 1 << 16)
        *whole, self._rest = self._rest.split(b"\n")
        for line in whole:
            rank, text = line.decode().split(" ", 1)
            self.lines[int(rank)].append(text)
        if self._steps() > before:
            self.last = time.monotonic() - self._began
            self.first = self.first or self.last
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._running.remove(pid)
                self.codes[self._pids.index(pid)] = os.waitstatus_to_exitcode(status)


def _is_writing(folder: Path) -> bool:
    """Whether half a checkpoint stands in ``folder``."""
    try:
        return any(folder.glob(".fbnetv3-zoo-*/new/epoch-*"))
    except FileNotFoundError:  # it has just come to its end
        return False


def _once(job: Job) -> int:
    """The job of this process; what it tells goes to the pipe it was given, else to standard output."""
    if "writer" in job:
        return do(job, lambda text: _write(job["writer"], job["rank"], text))
    faulthandler.dump_traceback_later(0.9 * PATIENCE)  # before its test's patience ends: where it hangs, if it does
    return do(job, lambda text: print(text, flush=True))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(_once(json.loads(sys.argv[1])))
    _serve()
