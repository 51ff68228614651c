"""A tuning job in a process of its own, whose measurements are taken from a log: ``replayed_job.py DATABASE LOG [SECONDS]``.

Prints a line for each batch, and at last the best config of each task. Each batch takes SECONDS.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Sequence

from mlc.autotune.database import Database
from mlc.autotune.measure import Measurer
from mlc.autotune.scheduler import WeightedTask
from mlc.autotune.search import ModelSearcher
from mlc.autotune.tuning import Job, Progress, run
from mlc.codegen.record import Record
from mlc.codegen.space import Config, Space
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.ir import DType, GraphBuilder, TensorType, canonicalise

CHOICES = (("rows", (1, 2, 3, 4, 6, 8, 12, 14)), ("unroll", (1, 2, 4, 8)), ("vectors", (1, 2, 3, 4)))
TRIALS = 40
"""Per task, on average."""


def tasks() -> list[Task]:
    found = []
    for columns in (16, 32, 48):
        builder = GraphBuilder()
        operands = [builder.input(TensorType(DType.FLOAT32, shape)) for shape in ((8, 24), (columns, 24))]
        graph = canonicalise(builder.finish([builder.call("linear", *operands)]))
        found.append(Task(graph, frozenset({1}), Target.parse("cpu -mcpu=x86-64-v4 -threads=2"), 2))
    return found


def space(task: Task) -> Space:
    return Space("synthetic", CHOICES, Config.of("synthetic", {"rows": 1, "unroll": 1, "vectors": 1}))


class Replay(Measurer):
    """Gives the times that the log has, task by task and config by config."""

    def __init__(self, log: pathlib.Path, seconds: float) -> None:
        self._times: dict[str, dict[str, list[float]]] = json.loads(log.read_text())
        self._seconds = seconds

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        time.sleep(self._seconds)
        return [
            Record(task.key, str(task.target), config, tuple(self._times[task.key][str(config)]), "replayed", time.time())
            for config in configs
        ]

    def close(self) -> None:
        pass


def main() -> None:
    database, log, *rest = sys.argv[1:]

    def tell(progress: Progress) -> None:
        print(progress.trials, flush=True)

    measurer = Replay(pathlib.Path(log), float(rest[0]) if rest else 0.0)
    job = Job(measurer, space, lambda task, space: ModelSearcher(task, space), tell, batch=4)
    weighted = [WeightedTask(task, number + 1) for number, task in enumerate(tasks())]
    with Database(database) as opened:
        result = run(job, weighted, trials=TRIALS, seconds=None, database=opened)
    print(json.dumps({tuned.task.key: str(tuned.best) for tuned in result.tasks}))


if __name__ == "__main__":
    main()
