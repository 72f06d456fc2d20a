"""Kill a search at random moments until it has ended; damage its journal at every byte.

A tiny search with a fast evaluator, in processes of its own, gets SIGKILL at moments drawn evenly over the time that
an uninterrupted one takes, and is resumed; a search that ends is followed by another, until there were so many kills.
After every kill: no row of the journal is gone or other, whatever an observer was told is there, the lock is free, no
worker process is left. At the end of every search: all trials, outcomes, notes and files equal those of the
uninterrupted one, and no finished candidate was evaluated again. Then one journal is cut, torn and altered at every
byte.

    python benchmarks/search_kills.py
    python benchmarks/search_kills.py --kills 50 --pool-kills 20 --stride 1
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from search_jobs import Account, Job, killed, result, session, started

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.evaluation import Failure, Outcome, Trial
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.utils.paths import JOURNAL

WAL = f"{JOURNAL}-wal"


def uninterrupted(job: Job) -> float:
    """Seconds that ``job`` takes from its start, without the imports."""
    with started(job) as process:
        begun = time.monotonic()
        assert process.wait() == 0
        return time.monotonic() - begun


def campaign(folder: Path, workers: int, kills: int, rng: random.Random) -> None:
    """So many kills, over as many searches as that takes; print what there was."""
    plain = Job(str(folder / "uninterrupted"), pretraining=True)
    whole = uninterrupted(plain)
    expected = result(plain)
    stages: Counter[str] = Counter()
    searches = repeated = 0
    longest = 0.0
    while stages.total() < kills:
        job = Job(str(folder / f"killed-{searches}"), workers=workers, pretraining=True)
        account = Account(job)
        while stages.total() + len(account.kills) < kills and killed(job, rng.uniform(0, whole)):
            longest = max(longest, last_worker(job))
            account.check()
        with started(job) as process:
            assert process.wait() == 0
        repeated += account.finish(expected)
        stages.update(account.kills)
        searches += 1
    print(f"\n{kills} kills of {searches} searches of {len(expected['trials'])} trials, {workers or 'no'} workers")
    print(f"  killed in: {', '.join(f'{stage} {count}' for stage, count in sorted(stages.items()))}")
    print(
        f"  results equal to the uninterrupted search: {searches} of {searches}; finished candidates lost or twice: 0"
    )
    print(
        f"  unfinished evaluations begun again: {repeated}; longest life of a worker after its search: {longest:.2f} s"
    )


def last_worker(job: Job) -> float:
    """Seconds until no process of the killed search was left."""
    begun = time.monotonic()
    starts = [line.split() for line in job.log.read_text().splitlines() if line.startswith("start ")]
    number = int(starts[-1][2])
    while session(number):
        assert time.monotonic() - begun < 20, "a worker lives on"
        time.sleep(0.01)
    return time.monotonic() - begun


State = tuple[tuple[Trial, ...], dict[int, Outcome], dict[str, object]]


def journal(folder: Path) -> tuple[list[State], list[int]]:
    """A journal written event by event, not closed: its states, and the length of its WAL at each."""
    (folder / "made").mkdir()
    states, sizes = [], []
    with Journal.write(folder / "made") as made:
        for event in events(made):
            event()
            states.append((made.trials(), made.outcomes(), dict(made.notes())))
            sizes.append((folder / "made" / WAL).stat().st_size)
        for name in (JOURNAL, WAL):
            shutil.copy(folder / "made" / name, folder / name)
    shutil.copy(folder / "made" / JOURNAL, folder / "checkpointed")
    return states, sizes


def events(made: Journal) -> Iterator[Callable[[], None]]:
    trials = [Trial(n, 1, (n, 1, 0), 3) for n in range(4)]
    yield lambda: made.note("plan", "a plan")
    yield lambda: made.ask(trials)
    for n in range(3):
        yield lambda n=n: made.tell(Outcome(n, (0.1 * n, 0.25), None, "", 1, 0.5))  # type: ignore[misc]
    yield lambda: made.tell(Outcome(3, (), Failure.ERROR, "ValueError: no", 2, 0.25))


def read(folder: Path) -> State | str:
    """What the journal in ``folder`` says, or the one line in which it is refused."""
    try:
        with Journal.read(folder) as found:
            return found.trials(), found.outcomes(), dict(found.notes())
    except ZooError as error:
        return str(error)


def damages(folder: Path, stride: int) -> None:
    """Cut, torn and altered files; print what became of them."""
    states, sizes = journal(folder)
    main, wal, after = (folder / name for name in (JOURNAL, WAL, "checkpointed"))
    whole, log, done = main.read_bytes(), wal.read_bytes(), after.read_bytes()
    cases: dict[str, Iterator[tuple[bytes, bytes, int]]] = {
        "WAL cut at byte n": ((whole, log[:n], reached(sizes, n)) for n in range(0, len(log) + 1, stride)),
        "checkpoint torn at byte n": (
            (done[:n] + whole[n:] if n < len(whole) else done[:n], log, len(states))
            for n in range(1, len(done), stride)
        ),
        "WAL byte n altered": ((whole, altered(log, n), -1) for n in range(0, len(log), stride)),
        "file byte n altered": ((altered(done, n), b"", -1) for n in range(0, len(done), stride)),
        "file cut at byte n": ((done[:n], b"", -1) for n in range(0, len(done), stride)),
    }
    for label, files in cases.items():
        count: Counter[str] = Counter()
        for data, beside, least in files:
            count[judged(folder / "case", data, beside, states, least)] += 1
        print(f"  {label}: " + ", ".join(f"{what} {number:,}" for what, number in sorted(count.items())))


def altered(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ random.Random(place).randrange(1, 256)]) + data[place + 1 :]


def reached(sizes: list[int], size: int) -> int:
    """How many events a WAL of ``size`` bytes holds."""
    return sum(size >= wanted for wanted in sizes)


def judged(folder: Path, data: bytes, wal: bytes, states: list[State], wanted: int) -> str:
    """Write the files and read them. ``wanted``: the events that must be there; -1: any number, or a refusal."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / JOURNAL).write_bytes(data)
    if wal:
        (folder / WAL).write_bytes(wal)
    found = read(folder)
    empty = wanted <= 0 and found == ((), {}, {})
    if isinstance(found, str):
        assert wanted <= 0, found
        assert found.isprintable()
        return "refused"
    assert empty or found in states, found
    events = 0 if empty else states.index(found) + 1
    assert wanted == -1 or events == wanted, f"{events} events instead of {wanted}"
    return "whole" if events == len(states) else "an earlier state"


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill searches and damage journals.")
    parser.add_argument("--kills", type=int, default=50, help="of searches in one process")
    parser.add_argument("--pool-kills", type=int, default=20, help="of searches with two worker processes")
    parser.add_argument("--stride", type=int, default=1, help="damage every so many bytes; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with TemporaryDirectory() as folder:
        for workers, kills in ((0, given.kills), (2, given.pool_kills)):
            if kills:
                (place := Path(folder) / str(workers)).mkdir()
                campaign(place, workers, kills, rng)
    if given.stride:
        print(f"\na journal of 6 events, damaged at every byte of its files (step {given.stride})")
        with TemporaryDirectory() as folder:
            damages(Path(folder), given.stride)


if __name__ == "__main__":
    main()
