"""The tuning database: an SQLite file that several processes may write at once.

A record is committed before anything else happens to it, so a kill loses at most the batch in flight. Tasks are stored with their
text, so that records can be read back, exported and learned from without the model they came from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import sqlite3
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import DatabaseError, Error
from .record_lines import fastest, fields_of, read_lines, record_line, record_of, task_line

APPLICATION_ID = 0x6D6C6331
"""'mlc1' in SQLite's header: tells a tuning database from any other SQLite file."""

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE tasks (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    target TEXT NOT NULL,
    config TEXT NOT NULL,
    times TEXT NOT NULL,
    median REAL,
    versions TEXT NOT NULL,
    timestamp REAL NOT NULL,
    error TEXT NOT NULL
);
CREATE INDEX records_by_task ON records (task, target, config);
"""

_COLUMNS = "task, target, config, times, versions, timestamp, error"
_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Statistics:
    """How much a database holds. ``tasks`` are those with records, ``failed`` the records of configs that did not work."""

    records: int
    failed: int
    tasks: int
    targets: tuple[str, ...]


@dataclass(frozen=True)
class ImportResult:
    """What an import did: new records, records that were there already, and why lines were refused."""

    added: int
    known: int
    refused: tuple[str, ...] = field(default=())


class Database:
    """Records of measurements in the SQLite file ``path``. Safe to use from several threads and processes.

    Without ``create`` a missing file is a DatabaseError. So is a file that is damaged, no tuning database, or of another schema;
    the message says what to do.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self.path = pathlib.Path(path)
        self._lock = threading.RLock()
        self._process = os.getpid()
        if not create and not self.path.is_file():
            raise DatabaseError(f"there is no tuning database {self.path}; make one with mlc.tune(..., database='{self.path}')")
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        with self._explained():
            # Autocommit mode: transactions are begun by hand, as writers, so that none fails half-way on a lock.
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "application_id") != APPLICATION_ID:
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have made the tables while this one waited.
            if _pragma(connection, "application_id") != APPLICATION_ID:
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise DatabaseError(f"{self.path} is an SQLite file of something else, not a tuning database; name another file")
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        version = _pragma(connection, "user_version")
        if version != SCHEMA_VERSION:
            raise DatabaseError(
                f"the tuning database {self.path} has schema {version}, this version of mlc reads {SCHEMA_VERSION}; "
                "export it with the version that wrote it and import the lines into a new file"
            )
        with contextlib.suppress(sqlite3.OperationalError):  # a read-only file or folder: keep the journal there is
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns SQLite's errors into a DatabaseError with a remedy."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise DatabaseError(f"the tuning database {self.path} cannot be used: {error}; check the path, permissions and disk") from error
        except sqlite3.DatabaseError as error:
            raise DatabaseError(
                f"{self.path} is damaged or no tuning database ({error}); move it away and start a new one, or restore it from an export"
            ) from error

    @contextlib.contextmanager
    def _session(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            if self._process != os.getpid():  # SQLite connections do not survive a fork
                self._process, self._connection = os.getpid(), self._open()
            yield self._connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._session() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            if self._process == os.getpid():
                self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def add(self, records: Iterable[Record], tasks: Iterable[Task] = ()) -> int:
        """Stores ``records``, all or none, and the texts of ``tasks``; the number of records that were new."""
        return self._add(records, {task.key: task.text for task in tasks})

    def _add(self, records: Iterable[Record], texts: Mapping[str, str]) -> int:
        rows = [_row(record) for record in records]
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO tasks (key, text) VALUES (?, ?)", texts.items())
            before = connection.total_changes
            connection.executemany(
                "INSERT OR IGNORE INTO records (digest, task, target, config, times, median, versions, timestamp, error) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            return connection.total_changes - before

    def records(self, task: str | None = None, target: str | None = None) -> list[Record]:
        """Records, oldest first, of one task key and one target text where given. Unreadable ones are left out."""
        conditions = [(name, value) for name, value in (("task", task), ("target", target)) if value is not None]
        where = " WHERE " + " AND ".join(f"{name} = ?" for name, _ in conditions) if conditions else ""
        with self._session() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM records{where} ORDER BY timestamp, id", [value for _, value in conditions]
            ).fetchall()
        found = []
        for row in rows:
            with contextlib.suppress(ValueError, TypeError, Error):
                found.append(record_of(dict(zip(_COLUMNS.split(", "), row, strict=True))))
        return found

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records())

    def __len__(self) -> int:
        with self._session() as connection:
            return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])

    def best(self, task: str, target: str, among: Container[Config] | None = None) -> Record | None:
        """The fastest record of a task key on a target, of the configs ``among`` them if given; each config counts with its latest
        successful measurement."""
        return fastest(self.records(task, target), among)

    def winners(self, target: str | None = None) -> list[Record]:
        """The fastest record of every task on every target, or on one."""
        by_task: dict[tuple[str, str], list[Record]] = {}
        for record in self.records(target=target):
            by_task.setdefault((record.task, record.target), []).append(record)
        return [best for records in by_task.values() if (best := fastest(records)) is not None]

    def tasks(self) -> dict[str, Task]:
        """The stored tasks by key; those whose text this version cannot read are left out."""
        with self._session() as connection:
            rows = connection.execute("SELECT key, text FROM tasks").fetchall()
        found = {}
        for key, text in rows:
            with contextlib.suppress(Error, ValueError, TypeError):
                found[key] = Task.parse(text)
        return found

    def statistics(self) -> Statistics:
        with self._session() as connection:
            records, failed, tasks = connection.execute(
                "SELECT count(*), coalesce(sum(median IS NULL), 0), count(DISTINCT task) FROM records"
            ).fetchone()
            targets = connection.execute("SELECT DISTINCT target FROM records ORDER BY target").fetchall()
        return Statistics(records, failed, tasks, tuple(target for (target,) in targets))

    def export_lines(self) -> Iterator[str]:
        """Everything as JSON lines: the tasks, then the records."""
        with self._session() as connection:
            texts = connection.execute("SELECT key, text FROM tasks ORDER BY key").fetchall()
        for key, text in texts:
            yield task_line(key, text)
        for record in self.records():
            yield record_line(record)

    def import_lines(self, lines: Iterable[str]) -> ImportResult:
        """Adds what :meth:`export_lines` wrote. Lines that cannot be read are refused one by one, with the reason."""
        found = read_lines(lines)
        added = self._add(found.records, found.tasks)
        return ImportResult(added, len(found.records) - added, found.refused)

    def prune(self, keep: int) -> int:
        """Keeps the ``keep`` fastest and all failed records of each task and target; the number removed."""
        with self._transaction() as connection:
            before = connection.total_changes
            connection.execute(
                "DELETE FROM records WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
                "(PARTITION BY task, target ORDER BY median) AS place FROM records WHERE median IS NOT NULL) WHERE place > ?)",
                (keep,),
            )
            return connection.total_changes - before


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _row(record: Record) -> Sequence[object]:
    fields = fields_of(record)
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    median = record.median if record.times else None
    return (
        digest,
        record.task,
        record.target,
        fields["config"],
        json.dumps(fields["times"]),
        median,
        record.versions,
        record.timestamp,
        record.error,
    )
