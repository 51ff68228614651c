"""mlc db: counts, best records, and records that move between files."""

from __future__ import annotations

import io
import json
import pathlib

import pytest
from command_line import CommandLine

from mlc.autotune.database import Database
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.ir import DType, GraphBuilder, TensorType

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=1")


def task(size: int) -> Task:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (size,)))
    return Task(builder.finish([builder.call("exp", builder.call("neg", x))]), frozenset(), TARGET, 1)


def record(of: Task, lanes: int, seconds: float, error: str = "") -> Record:
    config = Config.of("elementwise", {"lanes": lanes, "parallel": 0})
    return Record(of.key, str(TARGET), config, () if error else (seconds,) * 3, "v", float(lanes), error)


SMALL, LARGE = task(100), task(100_000)


@pytest.fixture
def tuned(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two tasks, three records of one and one of the other, of which one more failed."""
    path = tmp_path / "tuning.db"
    with Database(path) as database:
        database.add([record(SMALL, 8, 2e-6), record(SMALL, 16, 1e-6), record(SMALL, 32, 3e-6), record(SMALL, 4, 0.0, "crashed")], [SMALL])
        database.add([record(LARGE, 8, 5e-4)], [LARGE])
    return path


def test_stats_count(mlc: CommandLine, tuned: pathlib.Path) -> None:
    assert mlc("db", "stats", str(tuned), "--json").json == {"tasks": 2, "records": 5, "failed": 1, "targets": [str(TARGET)]}
    assert "2 tasks, 5 records, 1 of them failed" in mlc("db", "stats", str(tuned)).out


def test_best_lists_the_slowest_task_first(mlc: CommandLine, tuned: pathlib.Path) -> None:
    found = mlc("db", "best", str(tuned), "--json").json
    assert [entry["seconds"] for entry in found] == [5e-4, 1e-6]
    assert found[1]["config"] == "elementwise{lanes=16,parallel=0}" and found[1]["operations"] == "neg+exp"
    text = mlc("db", "best", str(tuned)).out
    assert "500.0" in text and SMALL.key[:12] in text
    assert mlc("db", "best", str(tuned), "--target", "cpu -mcpu=znver4 -threads=9", "--json").json == []


def test_an_export_is_imported_once(mlc: CommandLine, tuned: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, fresh = tmp_path / "records.jsonl", tmp_path / "fresh.db"
    assert mlc("db", "export", str(tuned), "-o", str(lines)).code == 0
    assert mlc("db", "export", str(tuned)).out == lines.read_text()
    assert mlc("db", "import", str(fresh), str(lines), "--json").json == {"added": 5, "known": 0, "refused": []}
    assert mlc("db", "import", str(fresh), str(tuned), "--json").json == {"added": 0, "known": 5, "refused": []}
    monkeypatch.setattr("sys.stdin", io.StringIO(lines.read_text()))
    assert mlc("db", "import", str(tmp_path / "piped.db"), "-", "--json").json["added"] == 5
    with Database(tuned) as one, Database(fresh) as other:
        assert list(one) == list(other) and one.tasks() == other.tasks()


def test_the_winners_alone_are_exported(mlc: CommandLine, tuned: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines = tmp_path / "best.jsonl"
    assert mlc("db", "export", str(tuned), "--best", "-o", str(lines)).code == 0
    found = {fields["task"]: fields for fields in map(json.loads, lines.read_text().splitlines())}
    assert len(found) == 2 and {fields["kind"] for fields in found.values()} == {"record"}
    assert found[SMALL.key]["times"] == [1e-6] * 3 and found[LARGE.key]["times"] == [5e-4] * 3
    assert mlc("db", "export", str(tuned), "--best").out == lines.read_text()
    assert mlc("db", "import", str(tmp_path / "fresh.db"), str(lines), "--json").json["added"] == 2


def test_several_databases_are_merged(mlc: CommandLine, tuned: pathlib.Path, tmp_path: pathlib.Path) -> None:
    more = tmp_path / "more.db"
    with Database(more) as database:
        database.add([record(LARGE, 16, 4e-4)], [LARGE])
    merged = tmp_path / "merged.db"
    assert mlc("db", "import", str(merged), str(tuned), str(more), "--json").json["added"] == 6
    with Database(merged) as database:
        best = database.best(LARGE.key, str(TARGET))
        assert best is not None and best.median == 4e-4


def test_refused_lines_are_told_and_the_others_kept(mlc: CommandLine, tuned: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines = tmp_path / "records.jsonl"
    mlc("db", "export", str(tuned), "-o", str(lines))
    good = lines.read_text().splitlines()
    torn = json.dumps({**json.loads(good[-1]), "times": [-1.0]})
    lines.write_text("\n".join([*good, torn, good[0][:40]]))
    done = mlc("db", "import", str(tmp_path / "fresh.db"), str(lines))
    assert done.code == 1
    assert "5 records added, 0 known already, 2 lines refused" in done.out
    assert "line 8: ValueError: times [-1.0] are not positive seconds" in done.err


def test_prune_keeps_the_fastest(mlc: CommandLine, tuned: pathlib.Path) -> None:
    assert mlc("db", "prune", str(tuned), "--keep", "1", "--json").json == {"removed": 2, "records": 3}
    assert mlc("db", "best", str(tuned), "--json").json[1]["seconds"] == 1e-6


def test_what_is_no_database_is_refused(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    assert "there is no tuning database" in mlc("db", "stats", str(tmp_path / "none.db")).err
    (tmp_path / "text.db").write_text("no database " * 100)
    done = mlc("db", "best", str(tmp_path / "text.db"))
    assert done.code == 1 and "is damaged or no tuning database" in done.err
    assert "cannot be read: No such file" in mlc("db", "import", str(tmp_path / "fresh.db"), str(tmp_path / "none.jsonl")).err
