"""Processes of this machine that compute together, as torchrun's do, for as long as one call takes."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from typing import Any, TypeVar

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ...errors import Interrupted, LostProcess, ZooError, in_short
from ...utils.processes import end_group_with_parent, kill_group
from .world import World, join

T = TypeVar("T")

GRACE = 2.0
"""Seconds after the first failure in which another process may show that it was the cause."""
_ENDING = 10.0  # seconds for processes that have answered to end by themselves


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a process returned, or the error that it raised at ``at``."""

    value: Any = None
    error: BaseException | None = None
    at: float = 0.0


def together(function: Callable[[World], T], processes: int, device: str = "cpu") -> T:
    """What ``function`` returns in the leading one of ``processes`` new processes, which all call it with their world.

    Each uses the GPU of its rank if ``device`` is ``cuda``. ``function`` is pickled, and so is what it returns. When a
    process raises, or dies (:class:`LostProcess`), all are ended, and the error is raised here. A SIGTERM is passed on
    to them. They end with this process, even if it is killed.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    settings = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
    }  # fmt: skip
    pickled, members = pickle.dumps(function, pickle.HIGHEST_PROTOCOL), list[_Member]()
    with _passing_on(members) as terminated:
        try:
            for rank in range(processes):
                own = {**settings, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                members.append(_Member(own, pickled, device))
            value: T = _value(members)
        except LostProcess:
            if not terminated:
                raise
        else:
            return value
        finally:
            for member in members:
                member.end()
    signal.raise_signal(signal.SIGTERM)  # they did not survive it, and neither does this process
    raise Interrupted("ended by SIGTERM")


@contextmanager
def _passing_on(members: Sequence[_Member]) -> Iterator[list[int]]:
    """A context in which a SIGTERM goes to ``members``; the signals received."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        for member in members:
            member.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _value(members: Sequence[_Member]) -> Any:
    """What the leading process returns, once all have answered."""
    answers: dict[int, _Answer | None] = {}
    failed = False
    while len(answers) < len(members):
        waiting = {rank: member for rank, member in enumerate(members) if rank not in answers}
        awaited = [item for member in waiting.values() for item in member.awaited]
        if not connection.wait(awaited, GRACE if failed else None):
            break
        for rank, member in waiting.items():
            if not member.silent:
                answers[rank] = answer = member.hear()
                failed = failed or answer is None or answer.error is not None
    if failed:
        raise _cause(members, answers)
    leading = answers[0]
    assert leading is not None
    return leading.value


def _cause(members: Sequence[_Member], answers: Mapping[int, _Answer | None]) -> BaseException:
    """Why ``members`` failed: because one died without an answer, or else the first error."""
    for rank, answer in answers.items():
        if answer is None:
            return LostProcess(f"process {rank} of {len(members)} died ({members[rank].end()})")
    errors = [answer for answer in answers.values() if answer and answer.error]
    first = min(errors, key=lambda answer: answer.at).error
    assert first is not None
    return first


class _Member:
    """One of the processes."""

    def __init__(self, settings: Mapping[str, str], function: bytes, device: str) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(theirs, dict(settings), function, device))
        self._answered = False
        try:
            self._process.start()
        finally:
            theirs.close()

    @property
    def awaited(self) -> list[connection.Connection | int]:
        """What to pass to :func:`multiprocessing.connection.wait`."""
        return [self._pipe, self._process.sentinel]

    @property
    def silent(self) -> bool:
        """Whether the process is alive and has not answered."""
        return self._process.exitcode is None and not self._pipe.poll()

    def hear(self) -> _Answer | None:
        """The answer; None if the process died without one."""
        with suppress(EOFError, OSError):
            if self._pipe.poll():
                answer: _Answer = self._pipe.recv()
                self._answered = answer.error is None
                return answer
        return None

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def end(self) -> str:
        """End the process, by force unless it has returned; the signal or exit code that it ended with."""
        if self._answered:
            self._process.join(_ENDING)
        if self._process.exitcode is None:
            kill_group(self._process.pid or 0)
            self._process.kill()
        self._process.join()
        self._pipe.close()
        code = self._process.exitcode or 0
        return f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _serve(pipe: connection.Connection, settings: Mapping[str, str], function: bytes, device: str) -> None:
    """Main function of a process."""
    end_group_with_parent()
    os.environ.update(settings)
    try:
        with join(device) as world:
            _answer(pipe, world, function)
    except BaseException as error:
        with suppress(OSError):
            pipe.send(_Answer(None, _portable(error), time.monotonic()))


def _answer(pipe: connection.Connection, world: World, function: bytes) -> None:
    """Answer before the others see this process leave them: their errors follow from its own."""
    try:
        value = pickle.loads(function)(world)
    except BaseException as error:
        pipe.send(_Answer(None, _portable(error), time.monotonic()))
    else:
        pipe.send(_Answer(value if world.leads else None))


def _portable(error: BaseException) -> BaseException:
    """``error``, or one that says the same if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind = ZooError if isinstance(error, ZooError) else RuntimeError
        return kind(f"{type(error).__name__}: {in_short(error)}")
    return error
