"""Mutated files of every format, read under limits of time and memory: ``python benchmarks/fuzz.py``.

A file may be read or be refused by a ``ZooError`` of one line. Everything else is an offender: another exception, a
signal, more than two seconds of processor time, more than a minute, more than a gigabyte. Offenders are kept in a
folder, and a table is printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import fuzz_data  # noqa: F401 - makes its formats known
import fuzz_drawn  # noqa: F401
import fuzz_weights  # noqa: F401
from fuzz_formats import FORMS, Form, Kind
from fuzz_mutations import of_bytes, of_json, of_lines, of_text
from fuzz_probes import use_forks, warm_up

from fbnetv3_zoo.errors import ZooError

MUTATE = {Kind.JSON: of_json, Kind.LINES: of_lines, Kind.TEXT: of_text, Kind.BINARY: of_bytes}
MEMORY = 1 << 30
GOOD = ("read", "refused")


@dataclass
class Findings:
    """What became of the mutations of a format: how many ended how, and what each offender was."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    offenders: dict[int, str] = field(default_factory=dict)

    def add(self, number: int, ending: str, told: str, seconds: float) -> None:
        self.counts[ending] += 1
        self.slowest = max(self.slowest, seconds)
        if ending not in GOOD:
            self.offenders[number] = f"{ending}: {told}"


def mutation(form: Form, number: int) -> bytes:
    """Mutation ``number`` of the format's seed; number -1 is the seed itself."""
    return form.seed if number < 0 else MUTATE[form.kind](form.seed, random.Random(number))


def fuzz(name: str, count: int, kept: Path, *, first: int = 0, seconds: float = 2.0) -> Findings:
    """Read ``count`` mutations of the format ``name`` in forked processes; offenders are written to ``kept``.

    What takes more than ``seconds`` of processor time is slow; endless is what takes thirty times as long by the clock.
    """
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        form = FORMS[name](Path(folder))
        form.read(_placed(form, Path(folder), form.seed))  # the seed must be readable; imports happen once
        start = first
        while start < first + count:
            start = _run(form, Path(folder), range(start, first + count), findings, seconds)
        for number, told in findings.offenders.items():
            kept.mkdir(parents=True, exist_ok=True)
            place = kept / f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}_{number}{form.suffix}"
            place.write_bytes(mutation(form, number))
            place.with_name(f"{place.name}.txt").write_text(told)
    return findings


def _placed(form: Form, folder: Path, content: bytes) -> Path:
    path = folder / f"{form.stem}{form.suffix}"
    path.write_bytes(content)
    return path


def _run(form: Form, folder: Path, numbers: range, findings: Findings, seconds: float) -> int:
    """Have a forked process read mutations until it is done or ends; the next number."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        ours.close()
        _serve(form, folder, numbers, theirs, seconds)
    theirs.close()
    expected, begun = numbers.start, time.monotonic()
    try:
        while expected < numbers.stop:
            if not ours.poll(30 * seconds):
                os.kill(child, signal.SIGKILL)
                findings.add(expected, "endless", f"longer than {30 * seconds:g} s", time.monotonic() - begun)
                return expected + 1
            findings.add(*(answer := ours.recv()))
            number = answer[0]
            expected, begun = number + 1, time.monotonic()
    except EOFError:
        pass
    finally:
        ours.close()
        _, status = os.waitpid(child, 0)
    if expected < numbers.stop:
        findings.add(expected, "signal", f"exit code {os.waitstatus_to_exitcode(status)}", 0.0)
        return expected + 1
    return numbers.stop


def _serve(form: Form, folder: Path, numbers: range, answers: Connection, most: float) -> None:
    """What the fork does; never returns."""
    errors = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warm_up(form.suffix)
        for number in numbers:
            path = _placed(form, folder, mutation(form, number))
            _limit_memory(limit)
            begun = _processor_seconds()
            ending, told = _attempt(form, path)
            seconds = _processor_seconds() - begun
            _limit_memory(resource.RLIM_INFINITY)  # a mutation may take more to make than to refuse
            if seconds > most and ending in GOOD:
                ending, told = "slow", f"{seconds:.1f} s ({told})"
            answers.send((number, ending, told, seconds))
        os._exit(0)
    except BaseException:  # of this program, not of what it tries
        os.write(errors, traceback.format_exc().encode())
    finally:
        os._exit(1)


def _processor_seconds() -> float:
    """Of this process and of the children it has waited for, so that other work on the machine does not count."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _limit_memory(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _attempt(form: Form, path: Path) -> tuple[str, str]:
    try:
        form.read(path)
    except ZooError as error:
        text = str(error)
        if not text.isprintable() or len(text) > 2000:
            return "message", repr(text[:2000])
        return "refused", text
    except MemoryError:
        return "memory", traceback.format_exc(limit=-6)
    except Exception:
        return "traceback", traceback.format_exc(limit=-6)
    return "read", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=int, default=1000, help="mutations of each JSON or text format")
    parser.add_argument("--binary", type=int, default=100, help="mutations of each binary format")
    parser.add_argument("--only", default="", help="formats whose name contains this")
    parser.add_argument("--skip", nargs="*", default=[], help="formats that are left out")
    parser.add_argument("--seconds", type=float, default=2.0, help="what takes more processor time is an offender")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-offenders"), help="folder for offenders")
    parser.add_argument(
        "--interpreters", action="store_true", help="try model files out in new interpreters, not forks"
    )
    arguments = parser.parse_args()
    if not arguments.interpreters:
        use_forks()
    print("| format | mutations | read | refused | offenders | slowest |\n|---|---|---|---|---|---|", flush=True)
    wrong = sum(_report(name, arguments) for name in FORMS if arguments.only in name and name not in arguments.skip)
    sys.exit(1 if wrong else 0)


def _report(name: str, arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        binary = FORMS[name](Path(folder)).kind is Kind.BINARY
    count = arguments.binary if binary else arguments.json
    found = fuzz(name, count, arguments.keep, first=arguments.first, seconds=arguments.seconds)
    others = {ending: number for ending, number in found.counts.items() if ending not in GOOD}
    print(
        f"| {name} | {count} | {found.counts['read']} | {found.counts['refused']} | "
        f"{json.dumps(others) if others else 'none'} | {found.slowest:.2f} s |",
        flush=True,
    )
    return sum(others.values())


if __name__ == "__main__":
    main()
