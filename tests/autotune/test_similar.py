"""What a search takes over from similar tasks in the database."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from mlc.autotune.database import Database
from mlc.autotune.similar import SimilarTasks
from mlc.codegen.record import Record
from mlc.codegen.space import Config, Space
from mlc.codegen.task import Task


def config(rows: int, unroll: int = 1, vectors: int = 1, template: str = "synthetic") -> Config:
    return Config.of(template, {"rows": rows, "unroll": unroll, "vectors": vectors})


def record(task: Task, config: Config, seconds: float = 1.0) -> Record:
    return Record(task.key, str(task.target), config, (seconds,), "v", 0.0)


def test_winners_of_the_nearest_tasks_come_first(tmp_path: pathlib.Path, space: Space, make_task: Callable[..., Any]) -> None:
    mine, near, further, far = make_task(64, 64, 64), make_task(64, 64, 72), make_task(64, 96, 96), make_task(1, 4096, 4096)
    with Database(tmp_path / "tuning.db") as database:
        records = [
            record(mine, config(1)),
            record(near, config(4), 2.0),
            record(near, config(8)),
            record(further, config(6)),
            record(far, config(14)),
        ]
        database.add(records, [mine, near, further, far])
        assert SimilarTasks(database).configs(mine, space) == [config(8), config(6)]


def test_a_config_of_another_space_becomes_the_nearest_of_this_one(
    tmp_path: pathlib.Path, space: Space, make_task: Callable[..., Any]
) -> None:
    mine, near = make_task(64, 64, 64), make_task(64, 64, 72)
    with Database(tmp_path / "tuning.db") as database:
        database.add([record(near, config(7, unroll=16, vectors=3))], [near])
        assert SimilarTasks(database).configs(mine, space) == [config(6, unroll=8, vectors=3)]


def test_other_templates_targets_and_tasks_without_text_say_nothing(
    tmp_path: pathlib.Path, space: Space, make_task: Callable[..., Any]
) -> None:
    mine, near, unknown = make_task(64, 64, 64), make_task(64, 64, 72), make_task(64, 64, 80)
    with Database(tmp_path / "tuning.db") as database:
        foreign = Record(near.key, "cpu -mcpu=znver5 -threads=2", config(4), (1.0,), "v", 0.0)
        database.add([foreign, record(near, config(4, template="other"))], [near])
        database.add([record(unknown, config(4))])
        assert SimilarTasks(database).configs(mine, space) == []
