"""A job that is killed at any moment loses at most the batch in flight, and ends where an undisturbed one ends."""

from __future__ import annotations

import json
import pathlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest
import replayed_job

from mlc.autotune.database import Database

KILLS = 10
BATCH_SECONDS = 0.1


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Times of every config of every task, without any order."""
    generator = random.Random(0)
    times = {
        task.key: {str(config): [generator.uniform(1e-5, 1e-4)] * 3 for config in replayed_job.space(task).configs}
        for task in replayed_job.tasks()
    }
    path = tmp_path_factory.mktemp("log") / "times.json"
    path.write_text(json.dumps(times))
    return path


def started(database: pathlib.Path, log: pathlib.Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, replayed_job.__file__, str(database), str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(database: pathlib.Path, log: pathlib.Path) -> Mapping[str, str]:
    """The winners, by task, of a job that is left alone."""
    with started(database, log, 0.0) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    best: Mapping[str, str] = json.loads(output.splitlines()[-1])
    return best


def test_a_job_killed_ten_times_ends_with_the_same_winners(tmp_path: pathlib.Path, log: pathlib.Path) -> None:
    undisturbed = finished(tmp_path / "undisturbed.db", log)
    path, generator = tmp_path / "killed.db", random.Random(1)
    grown, kept = 0, 0
    for _ in range(KILLS):
        with started(path, log, BATCH_SECONDS) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it measures
            time.sleep(generator.uniform(0, 3 * BATCH_SECONDS))
            process.kill()
        with Database(path) as database:
            count = len(database)
        assert count >= kept
        grown, kept = grown + (count > kept), count
    assert grown >= KILLS // 2  # the job gets on between the kills
    assert finished(path, log) == undisturbed
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with Database(path) as killed, Database(tmp_path / "undisturbed.db") as other:
        assert {(record.task, record.config) for record in killed} == {(record.task, record.config) for record in other}
