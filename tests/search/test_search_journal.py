"""The journal of a search: what was written is there, or the journal is refused in one line."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from disks import small_disk, without_privileges
from refusals import refusal
from search_jobs import ENVIRONMENT

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.evaluation import Failure, Outcome, Trial
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.utils import file_systems
from fbnetv3_zoo.utils.paths import JOURNAL, LOCK

WAL = f"{JOURNAL}-wal"
TRIALS = [Trial(n, 1, (n, 1, 0), 3) for n in range(3)]
OUTCOMES = {
    0: Outcome(0, (0.1, 0.25, 1 / 3), None, "", 1, 0.5),
    2: Outcome(2, (), Failure.ERROR, "ValueError: ä\N{SNOWMAN} 'x'", 2, 7.0),
    1: Outcome(1, (), Failure.NOT_FINITE, "the score after epoch 1 of 3 is nan"),
}
State = tuple[tuple[Trial, ...], dict[int, Outcome], dict[str, object]]
EMPTY: State = ((), {}, {})


def events() -> list[Callable[[Journal], None]]:
    tells = [lambda journal, outcome=outcome: journal.tell(outcome) for outcome in OUTCOMES.values()]
    return [
        lambda journal: journal.note("plan", {"name": "ä", "numbers": [1, 0.1, None]}),
        lambda journal: journal.ask(TRIALS),
        *tells,
        lambda journal: journal.note("plan", "another"),
    ]


def state(journal: Journal) -> State:
    return journal.trials(), journal.outcomes(), dict(journal.notes())


def filled(folder: Path) -> State:
    with Journal.write(folder) as journal:
        for event in events():
            event(journal)
        return state(journal)


@dataclass(frozen=True)
class Torn:
    """``states`` after every event and ``sizes`` of the WAL, from before the first on; the files as SIGKILL leaves them
    (``before`` and ``log``), and the file ``after`` the checkpoint.
    """

    states: list[State]
    sizes: list[int]
    before: bytes
    log: bytes
    after: bytes


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(folder: Path, data: bytes, wal: bytes = b"") -> State | str:
    """What a journal of these bytes says, or how it is refused."""
    for name, content in ((JOURNAL, data), (WAL, wal), (f"{JOURNAL}-shm", b"")):
        (folder / name).unlink(missing_ok=True)
        if content:
            (folder / name).write_bytes(content)
    try:
        with Journal.read(folder) as journal:
            return state(journal)
    except ZooError as error:
        return str(error)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = filled(tmp_path / "deep" / "search")
    assert written == (tuple(TRIALS), OUTCOMES, {"plan": "another"})
    assert list(written[1]) == [0, 1, 2]
    assert files(tmp_path / "deep" / "search") == [LOCK, JOURNAL]  # nothing of SQLite's own
    for opened in (Journal.read, Journal.write):
        with opened(tmp_path / "deep" / "search") as journal:
            assert state(journal) == written
        assert files(tmp_path / "deep" / "search") == [LOCK, JOURNAL]


def test_a_row_is_written_once_and_belongs_to_a_trial(tmp_path: Path) -> None:
    with Journal.write(tmp_path) as journal:
        journal.ask(TRIALS)
        journal.tell(OUTCOMES[0])
        place = f"{tmp_path}/{JOURNAL}: refuses the row "
        twice = refusal(lambda: journal.tell(Outcome(0, (0.9,))))
        assert twice == place + "(UNIQUE constraint failed: outcome.number)"
        assert refusal(lambda: journal.tell(Outcome(7, (0.9,)))) == place + "(FOREIGN KEY constraint failed)"
        some = [Trial(8, 2, (0,), 1), TRIALS[0]]
        assert refusal(lambda: journal.ask(some)) == place + "(UNIQUE constraint failed: trial.number)"
        assert state(journal) == (tuple(TRIALS), {0: OUTCOMES[0]}, {})  # trial 8 is not there


def test_every_event_reaches_the_disk_before_the_next(tmp_path: Path) -> None:
    with Journal.write(tmp_path) as journal:
        connection = journal._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        for event in events():
            event(journal)
            assert not connection.in_transaction
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            for name in (JOURNAL, WAL):
                shutil.copy(tmp_path / name, copy)
            with Journal.read(copy) as found:
                assert state(found) == state(journal)


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Torn:
    """A journal as SIGKILL leaves it after all events."""
    folder, states, sizes = tmp_path_factory.mktemp("torn"), [EMPTY], [0]
    with Journal.write(folder) as journal:
        for event in events():
            event(journal)
            states.append(state(journal))
            sizes.append((folder / WAL).stat().st_size)
        before, log = (folder / JOURNAL).read_bytes(), (folder / WAL).read_bytes()
    return Torn(states, sizes, before, log, (folder / JOURNAL).read_bytes())


def test_of_a_torn_write_nothing_is_there_and_of_earlier_ones_all(torn: Torn, tmp_path: Path) -> None:
    edges = {edge + near for edge in torn.sizes for near in (-1, 0, 1)}
    for cut in sorted({*range(0, len(torn.log), 211), *edges} & set(range(len(torn.log) + 1))):
        whole = sum(cut >= size for size in torn.sizes) - 1
        assert read(tmp_path, torn.before, torn.log[:cut]) == torn.states[whole], cut


def test_a_torn_checkpoint_is_done_again(torn: Torn, tmp_path: Path) -> None:
    longer = torn.before.ljust(len(torn.after), b"\0")
    for cut in [2, 15, 16, 28, 99, 100, *range(101, len(torn.after), 211)]:
        for rest in (longer[cut:], torn.before[cut:]):  # no checkpoint makes the file shorter than it was
            assert read(tmp_path, torn.after[:cut] + rest, torn.log) == torn.states[-1], cut


def test_writing_goes_on_after_a_torn_write(torn: Torn, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(torn.before)
    (tmp_path / WAL).write_bytes(torn.log[:-5])
    with Journal.write(tmp_path) as journal:
        assert state(journal) == torn.states[-2]
        events()[-1](journal)
        assert state(journal) == torn.states[-1]
    with Journal.read(tmp_path) as journal:
        assert state(journal) == torn.states[-1]


def test_altered_bytes_are_never_taken_for_results(torn: Torn, tmp_path: Path) -> None:
    places = [*range(0, 110), *range(110, len(torn.after), 73)]
    found = [read(tmp_path, _altered(torn.after, place)) for place in places]
    refused = [answer for answer in found if isinstance(answer, str)]
    assert all(answer in refused or answer == torn.states[-1] for answer in found)
    assert all(answer.startswith(f"{tmp_path}/{JOURNAL}: ") for answer in refused)
    assert len(refused) > 20
    assert all(answer.isprintable() for answer in refused)
    for place in range(0, len(torn.log), 211):
        assert read(tmp_path, torn.before, _altered(torn.log, place)) in torn.states
    for cut in [*range(0, 110), *range(110, len(torn.after), 211)]:
        assert isinstance(read(tmp_path, torn.after[:cut]), str), cut


def _altered(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 + place % 255)]) + data[place + 1 :]


def test_an_altered_value_is_named(torn: Torn, tmp_path: Path) -> None:
    """SQLite alone would not notice: the file is as sound as before."""
    for table, change in (
        ("outcome", "seconds = 0.25"), ("outcome", "failure = NULL"), ("trial", "number = 9"),
        ("trial", "epochs = 4"), ("note", "value = '1'"), ("note", "key = 'stop'"),
    ):  # fmt: skip
        (tmp_path / JOURNAL).write_bytes(torn.after)
        with closing(sqlite3.connect(tmp_path / JOURNAL, isolation_level=None)) as connection:
            key = "key" if table == "note" else "number"
            connection.execute(f"UPDATE {table} SET {change} WHERE rowid = 2 OR {key} = 'plan'")
        (tmp_path / WAL).unlink(missing_ok=True)
        with Journal.read(tmp_path) as journal:
            said = refusal(lambda: state(journal))
        assert f"{tmp_path}/{JOURNAL}: is damaged ({table} " in said
        assert said.endswith(" is not as it was written); bring back a copy of it, or give another folder")


def test_rows_that_damage_hides_are_missed(torn: Torn, tmp_path: Path) -> None:
    """The number of rows on a page is lowered; the digests of the others are right."""
    leaves = [start for start in range(4096, len(torn.after), 4096) if torn.after[start] == 13]
    several = [start for start in leaves if torn.after[start + 4] > 1]
    assert len(several) == 2  # trials and outcomes
    for start in several:
        hidden = bytearray(torn.after)
        hidden[start + 4] -= 1
        said = read(tmp_path, bytes(hidden))
        assert isinstance(said, str)
        assert said.startswith(f"{tmp_path}/{JOURNAL}: is damaged (")


def test_files_that_are_no_journals_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    theirs = path.read_bytes()
    for opened in (Journal.read, Journal.write):
        assert refusal(lambda o=opened: o(tmp_path)) == f"{path}: is no journal of a search; give another folder"
    assert path.read_bytes() == theirs
    path.write_text("Dear diary, " * 100)
    said = f"{path}: is damaged (file is not a database); bring back a copy of it, or give another folder"
    for opened in (Journal.read, Journal.write):
        assert refusal(lambda o=opened: o(tmp_path)) == said
    path.unlink()
    path.mkdir()
    for opened in (Journal.read, Journal.write):
        assert refusal(lambda o=opened: o(tmp_path)).startswith(f"{path}: ")


def test_a_journal_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = (tmp_path / JOURNAL).read_bytes()
    for opened in (Journal.read, Journal.write):
        said = refusal(lambda o=opened: o(tmp_path))
        assert said == f"{tmp_path}/{JOURNAL}: is a journal of version 2; this release reads version 1"
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_what_is_missing_is_said(torn: Torn, tmp_path: Path) -> None:
    missing = "holds no search of `fbnetv3 search run` (there is no journal.sqlite); start one with it"
    (tmp_path / "notes.txt").touch()
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "notes.txt"):
        assert refusal(lambda p=place: Journal.read(p)) == f"{place}: {missing}"
    assert (
        refusal(lambda: Journal.write(tmp_path / "notes.txt"))
        == f"{tmp_path}/notes.txt: is no folder; give another one"
    )
    said = refusal(lambda: Journal.write(tmp_path / "notes.txt" / "search"))
    assert said == f"{tmp_path}/notes.txt/search: cannot be written (Not a directory)"
    empty = f"{tmp_path}/{JOURNAL}: is empty; its search has not begun, start it again with `fbnetv3 search run`"
    (tmp_path / JOURNAL).touch()
    assert refusal(lambda: Journal.read(tmp_path)) == empty
    (tmp_path / WAL).write_bytes(torn.log)  # SQLite would throw it away
    for opened, size in ((Journal.read, 0), (Journal.write, 0), (Journal.read, 1), (Journal.write, 1)):
        (tmp_path / JOURNAL).write_bytes(b"S" * size)
        assert refusal(lambda o=opened: o(tmp_path)) == (
            f"{tmp_path}/{JOURNAL}: is damaged (it is empty, and {WAL} is not); bring back a copy of it, or give "
            "another folder"
        )
    assert (tmp_path / WAL).read_bytes() == torn.log


def test_reading_while_it_is_written(tmp_path: Path) -> None:
    with Journal.write(tmp_path) as writer:
        for event in events():
            event(writer)
            with Journal.read(tmp_path) as reader:
                now = state(writer)
                assert state(reader) == now
        with Journal.read(tmp_path) as reader:
            writer.note("later", 1)
            writer._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert state(reader) == now  # as it was when it was opened
            said = refusal(lambda: reader.note("mine", 1)) if reader._lock else ""
            assert said == ""
    assert files(tmp_path) == [LOCK, JOURNAL]


@pytest.mark.parametrize("kind", ["nfs4", "ext4"])
def test_on_a_network_file_system_nothing_needs_shared_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shared folder"
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "21 1 0:20 / / rw - ext4 /dev/vda rw\n"
        f"99 21 0:77 / {tmp_path}/shared\\040folder rw,relatime shared:1 - {kind} server:/x rw\n"
    )
    monkeypatch.setattr(file_systems, "MOUNTS", mounts)
    with Journal.write(folder) as journal:
        for event in events():
            event(journal)
            with Journal.read(folder) as seen:  # while it is written
                assert state(seen) == state(journal)
        assert set(files(folder)) & {"journal.sqlite-shm", "journal.sqlite-wal"} == (
            set() if kind == "nfs4" else {"journal.sqlite-shm", "journal.sqlite-wal"}
        )
        expected = state(journal)
    monkeypatch.undo()  # a journal that is moved to a disk of one machine goes on there
    with Journal.write(folder) as journal:
        assert state(journal) == expected
        assert "journal.sqlite-wal" in files(folder)


@pytest.mark.parametrize("killed", [False, True])
def test_reading_where_nothing_may_be_written(torn: Torn, tmp_path: Path, killed: bool) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    (tmp_path / JOURNAL).write_bytes(torn.before if killed else torn.after)
    if killed:
        (tmp_path / WAL).write_bytes(torn.log)
    for path in tmp_path.iterdir():
        path.chmod(0o444)
    tmp_path.chmod(0o555)
    before = files(tmp_path)
    with without_privileges():
        with Journal.read(tmp_path) as journal:
            assert state(journal) == torn.states[-1]
        said = refusal(lambda: Journal.write(tmp_path))
    assert said == f"{tmp_path}: cannot be written (Permission denied)"
    assert files(tmp_path) == before
    (tmp_path / JOURNAL).chmod(0)
    with without_privileges():
        assert refusal(lambda: Journal.read(tmp_path)) == f"{tmp_path}/{JOURNAL}: cannot be read (Permission denied)"
    tmp_path.chmod(0)
    with without_privileges():
        assert refusal(lambda: Journal.read(tmp_path)) == f"{tmp_path}: cannot be read (Permission denied)"
    tmp_path.chmod(0o755)


def test_a_full_disk_is_said_and_costs_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 200_000):
        with Journal.write(disk / "search") as journal:
            journal.ask(TRIALS)
            journal.tell(OUTCOMES[0])
            (disk / "filler").write_bytes(b"0" * 60_000)
            said = refusal(lambda: journal.note("large", "0123456789" * 30_000))
            assert said.startswith(f"{disk}/search/{JOURNAL}: the journal cannot be used (")
            assert said.endswith("); mend that and resume the search")
            assert any(reason in said for reason in ("database or disk is full", "disk I/O error"))
            assert state(journal) == (tuple(TRIALS), {0: OUTCOMES[0]}, {})
            (disk / "filler").unlink()
            journal.tell(OUTCOMES[1])
        with Journal.read(disk / "search") as found:
            assert state(found) == (tuple(TRIALS), {0: OUTCOMES[0], 1: OUTCOMES[1]}, {})


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    said = f"{tmp_path}: another process is running this search; wait for it, or give another folder"
    with holding(tmp_path, "time.sleep(1000)") as process:
        assert refusal(lambda: Journal.write(tmp_path)) == said
        process.kill()
        process.wait()
        with Journal.write(tmp_path) as journal:
            assert journal.trials() == (Trial(0, 1, (0,), 1),)
            assert refusal(lambda: Journal.write(tmp_path)) == said
            os.chdir(tmp_path.parent)
            assert refusal(lambda: Journal.write(tmp_path.name)) == said.replace(str(tmp_path), tmp_path.name)
    Journal.write(tmp_path).close()


def test_what_an_evaluator_started_does_not_keep_the_lock(tmp_path: Path) -> None:
    child = "child = subprocess.Popen(['sleep', '1000']); print(child.pid, flush=True); time.sleep(1000)"
    with holding(tmp_path, child) as process:
        assert process.stdout is not None
        other = int(process.stdout.readline())
        process.kill()
        process.wait()
        Journal.write(tmp_path).close()
        os.kill(other, signal.SIGKILL)


@contextmanager
def holding(folder: Path, then: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the journal in ``folder`` open for writing."""
    code = f"""
import subprocess, sys, time
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.search.evaluation import Trial
journal = Journal.write({str(folder)!r})
journal.ask([Trial(0, 1, (0,), 1)])
print("open", flush=True)
{then}
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW more AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
        "CREATE TRIGGER more AFTER INSERT ON trial BEGIN DELETE FROM outcome; END",
        "CREATE TABLE more (x)",
        "ALTER TABLE note ADD COLUMN more GENERATED ALWAYS AS (zeroblob(1000000000))",
    ],
)
def test_a_journal_with_more_than_its_tables_is_refused(statement: str, tmp_path: Path) -> None:
    with Journal.write(tmp_path) as journal:
        journal.note("plan", "x")
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()
    for opening in (Journal.read, Journal.write):
        with pytest.raises(ZooError, match=r"is damaged \(it has other tables, views or triggers than a journal\)"):
            opening(tmp_path)
