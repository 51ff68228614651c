"""A file of JSON lines instead of a database: what a compilation takes from it, and what is refused."""

from __future__ import annotations

import json
import pathlib
import warnings

import pytest
import torch

import mlc
from mlc.autotune.choose import open_database
from mlc.autotune.database import Database
from mlc.autotune.record_lines import RecordFile, record_line
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.templates import template_for
from mlc.errors import DatabaseError
from mlc.options import check_options
from mlc.tuning import model_tasks


def record(seconds: float, number: int, timestamp: float = 0.0) -> Record:
    times = (seconds,) if seconds else ()
    return Record("t", "cpu", Config.of("synthetic", {"number": number}), times, "v", timestamp, "" if times else "crashed")


RECORDS = (record(1.0, 1), record(3.0, 2), record(0.5, 3), record(4.0, 1, timestamp=2.0), record(0.0, 3, timestamp=1.0))

REFUSED = {
    "torn": record_line(RECORDS[0])[:40],
    "no record": '["kind"]',
    "foreign": '{"kind": "poem"}',
    "no seconds": record_line(RECORDS[0]).replace("[1.0]", "[-1.0]"),
    "beyond floats": record_line(RECORDS[0]).replace("[1.0]", f"[{10**400}]"),
    "too deep": "[" * 100_000,
    "no time": record_line(RECORDS[0]).replace('"timestamp": 0.0', '"timestamp": NaN'),
}


def test_a_file_knows_the_same_best_as_the_database_it_came_from(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(f"{record_line(each)}\n" for each in reversed(RECORDS)))
    with Database(tmp_path / "a.db") as database:
        database.add(RECORDS)
        best = RecordFile(path).best("t", "cpu")
        assert best == database.best("t", "cpu") == RECORDS[1]
    assert RecordFile(path).best("t", "another target") is None
    with pytest.raises(DatabaseError, match="cannot be read"):
        RecordFile(tmp_path)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_line_that_is_no_record_is_passed_over_with_a_reason(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join([REFUSED[kind], record_line(RECORDS[1]), ""]))
    with pytest.warns(RuntimeWarning, match=r"1 lines are no tuning records and count for nothing \(line 1: "):
        opened = open_database(path)
    assert opened is not None
    assert opened.best("t", "cpu") == RECORDS[1]


@pytest.mark.parametrize("name", ["shipped.jsonl", "shipped.db", "shipped"])
def test_a_compilation_takes_the_configs_of_a_file(tmp_path: pathlib.Path, name: str) -> None:
    model, x = torch.nn.Linear(40, 24), torch.randn(8, 40)
    (kernel,) = model_tasks(model, (x,), {}, check_options(threads=1))
    template = template_for(kernel.task.graph)
    assert template is not None
    space = template.space(kernel.task)
    chosen = next(config for config in reversed(space.configs) if config != space.default)
    winner = Record(kernel.task.key, str(kernel.task.target), chosen, (1e-6,), "v", 0.0)
    path = tmp_path / name
    path.write_text(record_line(winner) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        compiled = mlc.compile(model, example_inputs=(x,), threads=1, database=path)
    assert [used.config for used in compiled.report().programs[0].kernels] == [str(chosen)]
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), model(x))


def test_a_file_of_something_else_never_stops_a_compilation(tmp_path: pathlib.Path) -> None:
    model, x = torch.nn.Linear(40, 24), torch.randn(8, 40)
    path = tmp_path / "shipped.jsonl"
    path.write_bytes(b"\xff\x00 a picture \n" + json.dumps({"kind": "record"}).encode())
    with pytest.warns(RuntimeWarning, match="2 lines are no tuning records"):
        compiled = mlc.compile(model, example_inputs=(x,), threads=1, database=path)
    with pytest.warns(RuntimeWarning, match="cannot be read.*Compiling without it"):
        mlc.compile(model, example_inputs=(x,), threads=1, database=tmp_path / "missing.jsonl")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), model(x))
