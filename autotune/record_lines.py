"""Records as JSON lines: what databases export and import, and what a compilation may read instead of a database."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from ..codegen.record import Record
from ..codegen.space import Config
from ..errors import DatabaseError, Error

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, Error)
"""What reading a line raises when it is no record."""


@dataclass(frozen=True)
class Lines:
    """What lines hold: texts of tasks by key, records in order, and why the other lines were refused."""

    tasks: Mapping[str, str]
    records: tuple[Record, ...]
    refused: tuple[str, ...]


def task_line(key: str, text: str) -> str:
    return json.dumps({"kind": "task", "key": key, "text": text})


def record_line(record: Record) -> str:
    return json.dumps({"kind": "record", **fields_of(record)})


def read_lines(lines: Iterable[str]) -> Lines:
    """Reads what :func:`task_line` and :func:`record_line` wrote. Other lines are refused one by one, with the reason."""
    texts: dict[str, str] = {}
    records: list[Record] = []
    refused: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if fields["kind"] == "task":
                if hashlib.sha256(fields["text"].encode()).hexdigest()[: len(fields["key"])] != fields["key"]:
                    raise ValueError("the task's key does not fit its text")
                texts[fields["key"]] = fields["text"]
            elif fields["kind"] == "record":
                records.append(record_of(fields))
            else:
                raise ValueError(f"unknown kind '{fields['kind']}'")
        except _MALFORMED as error:
            refused.append(f"line {number}: {type(error).__name__}: {error}")
    return Lines(texts, tuple(records), tuple(refused))


def fields_of(record: Record) -> dict[str, object]:
    """A record as JSON-like data, which :func:`record_of` reads."""
    return {
        "task": record.task,
        "target": record.target,
        "config": str(record.config),
        "times": list(record.times),
        "versions": record.versions,
        "timestamp": record.timestamp,
        "error": record.error,
    }


def record_of(fields: Mapping[str, object]) -> Record:
    """A record from its fields; ValueError when they make no sense."""
    texts = {name: fields[name] for name in ("task", "target", "config", "versions", "error")}
    if not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("a text field is no text")
    times, timestamp = fields["times"], fields["timestamp"]
    if isinstance(times, str):
        times = json.loads(times)
    if not isinstance(times, list) or not all(isinstance(t, float | int) and math.isfinite(t) and t > 0 for t in times):
        raise ValueError(f"times {times} are not positive seconds")
    if not isinstance(timestamp, float | int) or isinstance(timestamp, bool) or not math.isfinite(timestamp):
        raise ValueError("the timestamp is no number")
    if not times and not texts["error"]:
        raise ValueError("a record has neither times nor an error")
    return Record(
        task=str(texts["task"]),
        target=str(texts["target"]),
        config=Config.parse(str(texts["config"])),
        times=tuple(float(time) for time in times),
        versions=str(texts["versions"]),
        timestamp=float(timestamp),
        error=str(texts["error"]),
    )


def latest(records: Iterable[Record]) -> dict[Config, Record]:
    """The record that each config of one task stands by, of ``records`` from the oldest on: the last one, if it succeeded."""
    found: dict[Config, Record] = {}
    for record in records:
        if record.times:
            found[record.config] = record
        else:
            found.pop(record.config, None)
    return found


def fastest(records: Iterable[Record], among: Container[Config] | None = None) -> Record | None:
    """The fastest of one task's records, from the oldest on; each config counts with its latest measurement. Where ``among`` is given, such
    as a space that has changed since, others do not count."""
    standing = (record for record in latest(records).values() if among is None or record.config in among)
    return min(standing, key=lambda record: record.median, default=None)


class RecordFile:
    """A file of JSON lines, to take the best known configs from. DatabaseError when it cannot be read.

    ``refused`` says of each line that is no record why.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise DatabaseError(f"the tuning records {path} cannot be read: {error.strerror}; check the path and permissions") from error
        found = read_lines(text.splitlines())
        self.refused = found.refused
        self._records: dict[tuple[str, str], list[Record]] = {}
        for record in sorted(found.records, key=lambda record: record.timestamp):
            self._records.setdefault((record.task, record.target), []).append(record)

    def best(self, task: str, target: str, among: Container[Config] | None = None) -> Record | None:
        """The fastest record of a task key on a target, of the configs ``among`` them if given."""
        return fastest(self._records.get((task, target), ()), among)


def holds_lines(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of JSON lines, by its name or its beginning, rather than a database."""
    path = pathlib.Path(path)
    if path.suffix == ".jsonl":
        return True
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError:
        return False
