"""The journal of a search: an SQLite file to which each event is written in a transaction of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from fbnetv3_zoo.errors import ZooError, shown
from fbnetv3_zoo.utils.atomic_write import scratch
from fbnetv3_zoo.utils.file_systems import network_file_system
from fbnetv3_zoo.utils.move_together import sync_folder
from fbnetv3_zoo.utils.paths import JOURNAL, LOCK
from fbnetv3_zoo.utils.serialization import from_plain, parse_json

from .evaluation.trial import Outcome, Trial

_VERSION = 1
T = TypeVar("T")
_LARGEST = 256 << 20  # bytes of a journal: a search of 100,000 trials has a tenth
_KIND = 0x466E5A6A  # SQLite's application_id: "FnZj"
_SCHEMA = f"""
BEGIN;
CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE trial (
  number INTEGER PRIMARY KEY, round INTEGER NOT NULL, code TEXT NOT NULL, epochs INTEGER NOT NULL, digest TEXT NOT NULL
);
CREATE TABLE outcome (
  number INTEGER PRIMARY KEY REFERENCES trial, curve TEXT NOT NULL, failure TEXT, reason TEXT NOT NULL,
  attempts INTEGER NOT NULL, seconds REAL NOT NULL, digest TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
PRAGMA application_id = {_KIND};
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_COLUMNS = {
    "note": "key, value",
    "trial": "number, round, code, epochs",
    "outcome": "number, curve, failure, reason, attempts, seconds",
}


class Journal:
    """The journal of the search in a folder: one writer, any number of readers at the same time (:meth:`read`).

    Methods that write return once the data is on disk (synchronous FULL; WAL, or on network file systems a rollback
    journal): SIGKILL or a power failure cannot undo it, and an interrupted write leaves no trace. Each row has a digest
    of its values, and SQLite checks the rest when a journal is opened, so that a damaged one is refused, not misread.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        self.folder, self._connection, self._lock = folder, connection, lock

    @classmethod
    def write(cls, folder: str | Path) -> Journal:
        """Open the journal in ``folder`` for writing, creating it if necessary. A second writer is refused."""
        folder = Path(folder)
        lock = _locked(folder)
        try:
            _check_files(folder / JOURNAL)
            connection = _connect(folder / JOURNAL, "rwc")
            try:
                with _explained(folder / JOURNAL):
                    _prepare(folder / JOURNAL, connection)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            lock.release()
            raise
        return cls(folder, connection, lock)

    @classmethod
    def read(cls, folder: str | Path) -> Journal:
        """A snapshot of the journal in ``folder`` for reading, whether or not a search is running."""
        folder = Path(folder)
        try:
            (folder / JOURNAL).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ZooError(
                f"{folder}: holds no search of `fbnetv3 search run` (there is no {JOURNAL}); start one with it"
            ) from None
        except OSError as error:
            raise ZooError(f"{folder}: cannot be read ({error.strerror})") from None
        connection = _snapshot(folder / JOURNAL)
        try:
            with _explained(folder / JOURNAL):
                _check(folder / JOURNAL, connection)
        except BaseException:
            connection.close()
            raise
        return cls(folder, connection, None)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release the lock."""
        try:
            self._connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def note(self, key: str, value: Any) -> None:
        """Store ``value`` (plain JSON data) under ``key``, replacing an earlier one."""
        self._insert("note", [(key, json.dumps(value))], replacing=True)

    def notes(self) -> Mapping[str, Any]:
        """All notes, by key."""
        return {str(key): self._parsed(value, f"note {key!r}") for key, value in self._rows("note")}

    def ask(self, trials: Sequence[Trial]) -> None:
        """Store the trials of a round, all or none."""
        self._insert("trial", [(t.number, t.round, json.dumps(t.code), t.epochs) for t in trials])

    def tell(self, outcome: Outcome) -> None:
        """Store the outcome of a trial, which has only one."""
        failure, curve = outcome.failure.value if outcome.failure else None, json.dumps(outcome.curve)
        seconds = float(outcome.seconds)
        self._insert("outcome", [(outcome.number, curve, failure, outcome.reason, outcome.attempts, seconds)])

    def trials(self) -> tuple[Trial, ...]:
        """All trials, in order."""
        trials = []
        for number, round_, code, epochs in self._rows("trial"):
            fields = {"number": number, "round": round_, "code": self._parsed(code, "code"), "epochs": epochs}
            trials.append(self._built(Trial, fields, f"trial {number!r}"))
        return tuple(trials)

    def outcomes(self) -> dict[int, Outcome]:
        """All outcomes, by their trial's number."""
        outcomes = {}
        for number, curve, failure, reason, attempts, seconds in self._rows("outcome"):
            fields = {"number": number, "curve": self._parsed(curve, "curve"), "failure": failure, "reason": reason}
            fields |= {"attempts": attempts, "seconds": seconds}
            outcomes[number] = self._built(Outcome, fields, f"outcome {number!r}")
        return outcomes

    def times(self) -> dict[int, float]:
        """When outcomes were stored, in seconds since 1970, by their trial's number; to the second."""
        path = self.folder / JOURNAL
        with _explained(path):
            rows = self._connection.execute("SELECT number, strftime('%s', at) FROM outcome").fetchall()
        return {number: float(at) for number, at in rows if at is not None}

    def _parsed(self, text: object, place: str) -> Any:
        if not isinstance(text, str):
            raise _damaged(self.folder / JOURNAL, f"{place} is no text")
        try:
            return parse_json(text, place)
        except ZooError as error:
            raise _damaged(self.folder / JOURNAL, str(error)) from None

    def _built(self, kind: type[T], fields: object, place: str) -> T:
        try:
            return from_plain(kind, fields, place)
        except ZooError as error:
            raise _damaged(self.folder / JOURNAL, str(error)) from None

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]], *, replacing: bool = False) -> None:
        columns = _COLUMNS[table]
        slots = ", ".join("?" * (columns.count(",") + 2))
        statement = "INSERT OR REPLACE" if replacing else "INSERT"
        with _explained(self.folder / JOURNAL), self._transaction():
            self._connection.executemany(
                f"{statement} INTO {table} ({columns}, digest) VALUES ({slots})",
                [(*row, _digest(table, row)) for row in rows],
            )

    def _rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """The rows of ``table``, in order of their key. Raises :class:`ZooError` if one was changed."""
        path, columns = self.folder / JOURNAL, _COLUMNS[table]
        with _explained(path):
            rows = self._connection.execute(f"SELECT {columns}, digest FROM {table} ORDER BY 1").fetchall()
        for *row, digest in rows:
            if digest != _digest(table, row):
                raise _damaged(path, f"{table} {shown(row[0])} is not as it was written")
            yield tuple(row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # on a full disk, SQLite has already undone it
                self._connection.execute("ROLLBACK")
            raise


def _locked(folder: Path) -> FileLock:
    """Lock ``folder``, creating it if necessary."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_folder(path.parent)  # SQLite syncs its own folder
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise ZooError(
            f"{folder}: another process is running this search; wait for it, or give another folder"
        ) from None
    except FileExistsError:
        raise ZooError(f"{folder}: is no folder; give another one") from None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise ZooError(f"{folder}: cannot be written ({getattr(error, 'strerror', error)})") from None
    return lock


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    with _explained(path):
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        return _decoding(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10, check_same_thread=False))


def _decoding(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let ``connection`` read damaged text, too: the digest of its row reveals the damage."""
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.execute("PRAGMA trusted_schema = OFF")
    if hasattr(connection, "setlimit"):  # from Python 3.11 on
        for limit, most in (("LENGTH", 16 << 20), ("COLUMN", 100), ("ATTACHED", 0), ("TRIGGER_DEPTH", 1)):
            connection.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{limit}"), most)
    return connection


def _check_files(path: Path) -> None:
    """Raise :class:`ZooError` if SQLite would discard the -wal file."""
    sizes = [file.stat().st_size if file.exists() else 0 for file in (path, path.with_name(f"{path.name}-wal"))]
    if sum(sizes) > _LARGEST:
        raise ZooError(f"{path}: is larger than {_LARGEST:,} bytes, too large for a journal")
    if sizes[1] and sizes[0] < 2:  # SQLite takes a file of one byte for an empty one
        raise _damaged(path, f"it is empty, and {path.name}-wal is not")


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Prepare ``connection`` for writing, and create the tables if there are none."""
    for setting in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")
    if _is_empty(connection):  # a new file, or one whose creation was interrupted
        connection.executescript(_SCHEMA)
    _check(path, connection)
    # WAL shares memory between processes, which those of other machines cannot see
    connection.execute(f"PRAGMA journal_mode = {'TRUNCATE' if network_file_system(path.parent) else 'WAL'}")


def _snapshot(path: Path) -> sqlite3.Connection:
    """A copy of the journal at ``path`` in memory, so that a slow reader does not block the writer."""
    _check_files(path)
    with suppress(sqlite3.Error, ZooError):
        return _in_memory(path)
    with scratch() as folder:  # SQLite needs files next to a journal, and may not be allowed to create them
        for name in (JOURNAL, f"{JOURNAL}-wal"):
            with suppress(FileNotFoundError), _readable(path.with_name(name)):
                shutil.copyfile(path.with_name(name), folder / name)
        with _explained(path):
            return _in_memory(folder / JOURNAL)


def _in_memory(path: Path) -> sqlite3.Connection:
    memory = _decoding(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
    try:
        with closing(_connect(path, "rw")) as source:
            source.backup(memory)
    except BaseException:
        memory.close()
        raise
    return memory


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror})") from None


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _is_empty(connection: sqlite3.Connection) -> bool:
    return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Raise :class:`ZooError` unless the file is an intact journal of this version."""
    kind, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if _is_empty(connection):
        raise ZooError(f"{path}: is empty; its search has not begun, start it again with `fbnetv3 search run`")
    if kind != _KIND:
        raise ZooError(f"{path}: is no journal of a search; give another folder")
    if version != _VERSION:
        raise ZooError(f"{path}: is a journal of version {version}; this release reads version {_VERSION}")
    if connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall() != _own_schema():
        raise _damaged(path, "it has other tables, views or triggers than a journal")
    if (answer := _pragma(connection, "integrity_check(1)")) != "ok":
        raise _damaged(path, str(answer))


@cache
def _own_schema() -> list[tuple[str, str, str | None]]:
    """The schema of a new journal, as SQLite reports it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        fresh.executescript(_SCHEMA)
        return fresh.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def _digest(table: str, row: Sequence[Any]) -> str:
    return hashlib.blake2b(repr((table, *row)).encode(), digest_size=8).hexdigest()


def _damaged(path: Path, what: str) -> ZooError:
    shown = "".join(c if c.isprintable() else " " for c in what)
    return ZooError(f"{path}: is damaged ({shown}); bring back a copy of it, or give another folder")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ZooError(f"{path}: refuses the row ({error})") from None
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
        raise ZooError(f"{path}: the journal cannot be used ({error}); mend that and resume the search") from None
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None
