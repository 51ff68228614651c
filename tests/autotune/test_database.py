"""The database: several writers, kills, foreign and damaged files, lines in and out."""

from __future__ import annotations

import json
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from mlc.autotune.database import Database
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.task import Task
from mlc.errors import DatabaseError

WRITER = """
import sys, time
from mlc.autotune.database import Database
from mlc.codegen.record import Record
from mlc.codegen.space import Config
database = Database(sys.argv[1])
for number in range(int(sys.argv[3])):
    config = Config.of("synthetic", {"writer": int(sys.argv[2]), "number": number})
    database.add([Record("t", "cpu", config, (1.0 + number,) * 3, "v", float(number))])
    print(number, flush=True)
"""


def record(seconds: float, *, task: str = "t", number: int = 0, timestamp: float = 0.0, error: str = "") -> Record:
    times = () if error else (seconds,)
    return Record(task, "cpu", Config.of("synthetic", {"number": number}), times, "v", timestamp, error)


def writer(path: pathlib.Path, number: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number), str(count)], stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once_and_none_loses_a_record(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tuning.db"
    processes = [writer(path, number, 60) for number in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    with Database(path) as database:
        found = {record.config for record in database}
    assert len(found) == 4 * 60


def test_a_killed_writer_loses_nothing_it_reported(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tuning.db"
    process = writer(path, 0, 100_000)
    assert process.stdout is not None
    reported = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    reported += [int(line) for line in process.stdout.read().split()]
    process.wait(30)
    process.stdout.close()
    with Database(path) as database:
        found = {record.config["number"] for record in database}
        assert found >= set(reported)
        assert database.add([record(1.0, number=-1)]) == 1
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_best_is_the_fastest_latest_success(tmp_path: pathlib.Path) -> None:
    with Database(tmp_path / "a.db") as database:
        assert database.best("t", "cpu") is None
        database.add([record(1.0, number=1), record(3.0, number=2), record(0.5, number=3), record(0.1, task="other")])
        database.add([record(4.0, number=1, timestamp=1.0)])  # measured anew: slower than it seemed
        database.add([record(0.0, number=3, timestamp=1.0, error="wrong result")])
        best = database.best("t", "cpu")
        assert best is not None
        assert best.config["number"] == 2
        assert database.best("t", "another target") is None
        assert database.statistics().failed == 1


def test_records_are_in_the_order_of_their_measurement(tmp_path: pathlib.Path) -> None:
    with Database(tmp_path / "a.db") as database:
        database.add([record(2.0, timestamp=20.0), record(4.0, number=1, timestamp=20.0)])
        database.add([record(1.0, timestamp=10.0)])  # of an older export, imported later
        assert [record.timestamp for record in database] == [10.0, 20.0, 20.0]
        best = database.best("t", "cpu")
        assert best is not None and best.median == 2.0
        assert database.winners() == [best] and database.winners("another target") == []


def test_lines_go_out_and_in_and_bad_ones_are_refused_with_a_reason(tmp_path: pathlib.Path, task: Task) -> None:
    with Database(tmp_path / "a.db") as first, Database(tmp_path / "b.db") as second:
        first.add([record(1.5, task=task.key), record(0, number=1, error="crashed")], [task])
        lines = list(first.export_lines())
        torn = json.loads(lines[1])
        bad = [lines[1][:30], "[]", json.dumps({**torn, "times": [-1.0]}), json.dumps({**torn, "config": "nonsense"}), '{"kind": "poem"}']
        forged = json.dumps({**json.loads(lines[0]), "text": "{}"})
        result = second.import_lines([*lines, *bad, forged, ""])
        assert (result.added, result.known, len(result.refused)) == (2, 0, len(bad) + 1)
        assert all(reason.startswith("line ") for reason in result.refused)
        assert list(second) == list(first)
        assert second.tasks() == {task.key: task}
        assert second.import_lines(lines).known == 2


def test_prune_keeps_the_fastest(tmp_path: pathlib.Path) -> None:
    with Database(tmp_path / "a.db") as database:
        database.add([record(float(number), number=number) for number in range(1, 9)])
        assert database.prune(3) == 5
        assert sorted(record.median for record in database) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", ["text", "foreign", "version", "truncated", "missing", "folder"])
def test_files_that_are_no_databases_say_what_to_do(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "tuning.db"
    if kind == "text":
        path.write_text("this is a shopping list\n" * 100)
    elif kind == "foreign":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE fruit (name TEXT)")
        connection.commit()
        connection.close()
    elif kind in ("version", "truncated"):
        with Database(path) as database:
            database.add([record(float(number), number=number) for number in range(1, 200)])
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if kind == "version":
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:5000] + b"\x5a" * 3000)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(DatabaseError, match=r"tuning\.db") as caught:
        Database(path, create=kind != "missing").best("t", "cpu")
    assert any(remedy in str(caught.value) for remedy in ("another file", "export", "mlc.tune", "check the path"))


def test_a_database_follows_a_fork(tmp_path: pathlib.Path) -> None:
    script = """
import os, sys
from mlc.autotune.database import Database
from mlc.codegen.record import Record
from mlc.codegen.space import Config
database = Database(sys.argv[1])
child = os.fork()
database.add([Record("t", "cpu", Config.of("c", {"child": int(child == 0)}), (1.0,), "v", 0.0)])
if child == 0: os._exit(0)
os.waitpid(child, 0)
print(len(database))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.db")], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2"], done.stderr


def test_reading_is_quick_enough_for_every_compile(tmp_path: pathlib.Path) -> None:
    """No timing: looking up one task must not read the others' records."""
    with Database(tmp_path / "a.db") as database:
        database.add([record(1.0 + number, task=f"t{number}", timestamp=time.time()) for number in range(100)])
        plan = database._connection.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM records WHERE task = ? AND target = ?", ("t1", "cpu")
        ).fetchall()
    assert "records_by_task" in str(plan)
