"""Check on one NVIDIA GPU what the project promises of GPUs: the same numbers as on a CPU, and what a step costs.

Prints a Markdown table and writes its figures to a JSON file, after every row, so that what was measured stays if the
script is interrupted. A check that fails becomes a row, and the others go on; the exit status is then 1. Without a GPU
it is 2, but ``--device cpu --quick`` goes through the same steps with tiny sizes. Runs from a checkout that is not
installed; needs timm and no network.

    python benchmarks/cuda_check.py --json cuda_check.json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cuda_checks_setup
import timm
import torch
from cuda_checks_common import Row, Setting
from cuda_checks_parity import forward, training
from cuda_checks_speed import against_timm, compiled_against_timm, memory, optimizers, peak_share, two_at_once
from cuda_checks_training import compiled, precisions, resume, synchronized_norms

Check = Callable[[Setting], Iterator[Row]]
GRACE = 30  # seconds that a check may go on after time is up
CHECKS: dict[str, tuple[str, Check, float]] = {  # title, check, and the seconds without which it does not begin
    "forward": ("forward, CPU and GPU", forward, 0),
    "training": ("training, CPU and GPU", training, 0),
    "precision": ("precision", precisions, 0),
    "resume": ("exact resuming", resume, 20),
    "processes": ("several processes", synchronized_norms, 20),
    "timm": ("speed against timm", against_timm, 0),
    "memory": ("memory", memory, 0),
    "peak": ("share of the peak", peak_share, 0),
    "two": ("two trainings at once", two_at_once, 25),
    "optimizer": ("fused optimizers", optimizers, 0),
    "compile": ("compiled", compiled, 30),
    "compiled-timm": ("compiled, against timm", compiled_against_timm, 90),
}
VERDICTS = {True: "right", False: "**wrong**", None: ""}


@dataclass
class Record:
    """All rows so far, printed and written one by one."""

    path: Path | None
    about: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, check: str, row: Row, seconds: float) -> None:
        self.rows.append({"check": check, **asdict(row), "seconds": round(seconds, 2)})
        measured = row.measured.replace("|", "/").replace("\n", " ")
        print(f"| {check} | {row.what} | {measured} | {VERDICTS[row.ok]} | {seconds:.1f} |", flush=True)
        if self.path is not None:
            beside = self.path.with_name(f".{self.path.name}.new")
            beside.write_text(json.dumps({**self.about, "rows": self.rows}, indent=1, default=str) + "\n")
            beside.replace(self.path)

    @property
    def failed(self) -> int:
        return sum(row["ok"] is False for row in self.rows)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A context that ends with a TimeoutError after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no end after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(setting: Setting, record: Record, title: str, check: Check, least: float) -> None:
    """Add the rows of ``check``, and one for its error if it fails."""
    if setting.left() <= (0 if setting.quick else least):
        record.add(title, Row("all", f"not run: no time left ({max(0, setting.left()):.0f} s)"), 0.0)
        return
    began = time.monotonic()
    try:
        with limited(setting.left() + GRACE):
            for row in check(setting):
                record.add(title, row, time.monotonic() - began)
                began = time.monotonic()
                if setting.left() <= 0:
                    record.add(title, Row("what remains", "not run: no time left"), 0.0)
                    break
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr, flush=True)
        lines = str(error).strip().splitlines() or [""]  # the last ones of a compiler are general advice
        text = f"{type(error).__name__}: {lines[0]}"
        figures = {"traceback": traceback.format_exc()[-4000:]}
        row = Row("failed", text[:400], False, figures)
        if setting.left() <= 1 - GRACE:  # ended by the limit, in whatever error of a compiler that is wrapped
            row = Row("what remains", "did not end in time", None, figures)
        record.add(title, row, time.monotonic() - began)
    torch.compiler.reset()
    setting.free()


def about(device: torch.device) -> dict[str, Any]:
    """The machine, and the versions of what counts."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "timm": timm.__version__,
        "stand-ins": cuda_checks_setup.STAND_INS,
    }  # fmt: skip
    if device.type == "cuda":
        found["memory"] = torch.cuda.get_device_properties(device).total_memory
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for all rows with their figures")
    parser.add_argument("--seconds", type=float, default=420, help="no check begins after them")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which measure nothing: does the script run?")
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="these checks alone")
    return parser.parse_args()


def main() -> int:
    given, began = parsed(), time.monotonic()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device; --device cpu --quick tries the script out")
        return 2
    device = torch.device("cuda:0" if given.device == "cuda" else "cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    warnings.filterwarnings("ignore")
    logging.getLogger("fbnetv3_zoo").setLevel(logging.ERROR)  # a few epochs are too few for the average
    setting = Setting(device, given.quick, began + given.seconds)
    record = Record(given.json, about(device))
    print("; ".join(f"{name} {value}" for name, value in record.about.items() if value), flush=True)
    print("\n| check | what | measured | verdict | seconds |\n|---|---|---|---|---:|", flush=True)
    for name in given.only or CHECKS:
        run(setting, record, *CHECKS[name])
    judged = sum(row["ok"] is not None for row in record.rows)
    print(f"\n{judged - record.failed} of {judged} right; {time.monotonic() - began:.0f} s", flush=True)
    return 1 if record.failed else 0


if __name__ == "__main__":
    sys.exit(main())
