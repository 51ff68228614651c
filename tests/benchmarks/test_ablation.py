"""Searches replayed over a space of which every time is known."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from mlc.autotune.database import Database
from mlc.autotune.tuning import template_space
from mlc.benchmarks import ablation
from mlc.codegen.record import Record
from mlc.codegen.target import Target
from mlc.costmodel.sampling import Family, sample_tasks

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two tasks measured whole, where more unrolling and fewer vectors are better, and one of which a config only is known."""
    path = tmp_path / "tuning.db"
    whole, other, partial = sample_tasks(3, 5, TARGET, 2, [Family.LINEAR])
    with Database(path) as database:
        for task in (whole, other, partial):
            space = template_space(task)
            assert space is not None and len(space) > 16
            for number, config in enumerate(space.configs if task is not partial else space.configs[:1]):
                seconds = 1e-4 * (1 + config["vectors"]) / config["unroll"] + 1e-7 * number
                database.add([Record(task.key, str(TARGET), config, (seconds, 1.01 * seconds, 1.02 * seconds), "v", 0.0)], [task])
    return path


def test_more_trials_find_no_worse_and_a_whole_space_finds_the_best(path: pathlib.Path) -> None:
    with Database(path) as database:
        tasks = list(ablation.measured_tasks(database))
    assert len(tasks) == 2
    rows = {row.searcher: row.slowdown for row in ablation.compare(tasks, ablation.searchers({}))}
    for slowdown in rows.values():
        assert all(slowdown[few] >= slowdown[more] >= 1 for few, more in ((8, 16), (16, 32), (32, 64)))
    largest = max(len(measured.space) for measured in tasks)
    assert largest <= 64 and rows["random"][64] == rows["roofline"][64] == pytest.approx(1)
    assert rows["random"][8] > 1


def test_the_command_prints_and_writes_the_table(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ablation.json"
    monkeypatch.setattr(sys, "argv", ["ablation", str(path), "--tasks", "1", "--json", str(output)])
    ablation.main()
    written = json.loads(output.read_text())
    assert written["tasks"] == 1
    assert {row["searcher"] for row in written["rows"]} == set(ablation.searchers({}))
    assert "simulated annealing" in capsys.readouterr().out
