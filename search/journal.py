"""The record of a search: an SQLite file that every event reaches in a transaction of its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.trials import Failure, Outcome, Trial

FILE = "journal.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trial (number INTEGER PRIMARY KEY, round INTEGER NOT NULL, code TEXT NOT NULL, epochs INTEGER NOT NULL);
CREATE TABLE outcome (
  number INTEGER PRIMARY KEY REFERENCES trial, curve TEXT NOT NULL, failure TEXT, reason TEXT NOT NULL,
  attempts INTEGER NOT NULL, seconds REAL NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


class Journal:
    """The journal of the search in a folder. One process writes; any number may read meanwhile (:meth:`read`).

    Every method that writes returns after the data has reached the disk (WAL, synchronous FULL): neither SIGKILL nor a
    loss of power undoes it, and a write that was cut short leaves no trace.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        self.folder, self._connection, self._lock = folder, connection, lock

    @classmethod
    def write(cls, folder: str | Path) -> Journal:
        """Open the journal in ``folder`` for writing, made where there is none. A second writer is refused."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise ZooError(
                f"{folder}: another process is running this search; wait for it, or give another folder"
            ) from None
        except OSError as error:
            raise ZooError(f"{folder}: cannot be made a folder ({error.strerror})") from None
        try:
            connection = _connect(folder / FILE, "rwc")
            with _explained(folder / FILE):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                if not _version(connection):
                    connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
                _check_version(folder / FILE, connection)
        except BaseException:
            lock.release()
            raise
        return cls(folder, connection, lock)

    @classmethod
    def read(cls, folder: str | Path) -> Journal:
        """Open the journal in ``folder`` for reading, whether or not a search is running."""
        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise ZooError(f"{folder}: holds no search (there is no {FILE}); start one with `fbnetv3 search run`")
        connection = _connect(folder / FILE, "ro")
        with _explained(folder / FILE):
            _check_version(folder / FILE, connection)
        return cls(folder, connection, None)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, and of the lock."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def note(self, key: str, value: Any) -> None:
        """Keep ``value`` (plain JSON data) under ``key``; an earlier one is replaced."""
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (key, json.dumps(value)))

    def notes(self) -> Mapping[str, Any]:
        """Everything noted, by key."""
        with _explained(self.folder / FILE):
            return {key: json.loads(value) for key, value in self._connection.execute("SELECT key, value FROM note")}

    def ask(self, trials: Sequence[Trial]) -> None:
        """Keep the trials of a round, all or none."""
        rows = [(t.number, t.round, json.dumps(t.code), t.epochs) for t in trials]
        with self._transaction():
            self._connection.executemany("INSERT INTO trial VALUES (?, ?, ?, ?)", rows)

    def tell(self, outcome: Outcome) -> None:
        """Keep one outcome. A trial has one outcome only."""
        failure = outcome.failure.value if outcome.failure else None
        row = (outcome.number, json.dumps(outcome.curve), failure, outcome.reason, outcome.attempts, outcome.seconds)
        with self._transaction():
            self._connection.execute(
                "INSERT INTO outcome (number, curve, failure, reason, attempts, seconds) VALUES (?, ?, ?, ?, ?, ?)", row
            )

    def trials(self) -> tuple[Trial, ...]:
        """All trials, in order."""
        with _explained(self.folder / FILE):
            rows = self._connection.execute("SELECT number, round, code, epochs FROM trial ORDER BY number").fetchall()
        return tuple(Trial(number, round_, tuple(json.loads(code)), epochs) for number, round_, code, epochs in rows)

    def outcomes(self) -> dict[int, Outcome]:
        """All outcomes, by their trial's number."""
        query = "SELECT number, curve, failure, reason, attempts, seconds FROM outcome ORDER BY number"
        with _explained(self.folder / FILE):
            rows = self._connection.execute(query).fetchall()
        return {
            number: Outcome(
                number, tuple(json.loads(curve)), Failure(failure) if failure else None, reason, attempts, seconds
            )
            for number, curve, failure, reason, attempts, seconds in rows
        }

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.folder / FILE):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    with _explained(path):
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10, check_same_thread=False)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    if (version := _version(connection)) != _VERSION:
        raise ZooError(f"{path}: is a journal of version {version}; this release reads version {_VERSION}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ZooError(f"{path}: the journal cannot be used ({error})") from None
