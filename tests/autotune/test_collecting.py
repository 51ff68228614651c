"""Collecting a data set: the same kernels for the same seed, nothing twice, nothing lost; and real kernels described."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pytest

from mlc.autotune.collecting import adopt, collect, wanted_configs
from mlc.autotune.database import Database
from mlc.autotune.describing import Describer, Description
from mlc.autotune.measure import Measurer
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.costmodel.assembly_facts import KernelFacts
from mlc.costmodel.dataset import read_dataset
from mlc.costmodel.sampling import sample_tasks

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")
TASKS = sample_tasks(3, 0, TARGET, 2)


class Scripted(Measurer):
    """Gives times without a machine; is interrupted when it is asked for the task ``stop_at``."""

    def __init__(self, stop_at: Task | None = None) -> None:
        self.asked: list[str] = []
        self.stop_at = stop_at

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        if task == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(task.key)
        return [Record(task.key, str(task.target), config, (1e-3 + 1e-6 * n,) * 3, "v", float(n)) for n, config in enumerate(configs)]

    def close(self) -> None:
        pass


class ScriptedDescriber:
    def describe(self, task: Task, configs: Sequence[Config]) -> list[Description]:
        return [(f"loops of {config}", KernelFacts(3, 2, 1, 0, 9)) for config in configs]


def run(path: pathlib.Path, measurer: Scripted, tasks: Sequence[Task] = TASKS, seconds: float = 60.0) -> tuple[int, int, int]:
    result = collect(path, tasks, measurer, ScriptedDescriber(), configs=4, seconds=seconds)
    return result.added, result.failed, result.total


def test_an_interrupted_job_goes_on_where_it_ended(tmp_path: pathlib.Path) -> None:
    path, measurer = tmp_path / "kernels.parquet", Scripted(stop_at=TASKS[2])
    with pytest.raises(KeyboardInterrupt):
        run(path, measurer)
    assert len(read_dataset(path).kernels) == 8
    measurer.stop_at = None
    assert run(path, measurer) == (4, 0, 12)
    assert measurer.asked == [task.key for task in TASKS]  # each once
    assert run(path, measurer) == (0, 0, 12)
    whole = tmp_path / "whole.parquet"
    run(whole, Scripted())
    assert read_dataset(whole) == read_dataset(path)


def test_a_job_ends_when_its_time_is_over(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path / "kernels.parquet", Scripted(), seconds=0.0) == (0, 0, 0)


def test_the_default_is_measured_and_the_sample_follows_from_the_task() -> None:
    for task in TASKS:
        configs = wanted_configs(task, 5)
        assert configs == wanted_configs(task, 5) and len(set(configs)) == len(configs)
        assert configs[0] == wanted_configs(task, 2)[0]


def test_records_of_a_tuning_database_become_a_data_set(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kernels.parquet"
    configs = wanted_configs(TASKS[0], 3)
    with Database(tmp_path / "tuning.db") as database:
        failed = Record(TASKS[0].key, str(TARGET), configs[2], (), "v", 5.0, "crashed")
        database.add([*Scripted().measure(TASKS[0], configs[:2]), failed], [TASKS[0]])
        result = adopt(path, database, ScriptedDescriber())
        assert (result.added, result.total) == (2, 2)
        assert adopt(path, database, ScriptedDescriber()).added == 0
    assert [kernel.loops for kernel in read_dataset(path).kernels] == [f"loops of {config}" for config in configs[:2]]


def test_workers_describe_real_kernels_and_survive_bad_ones() -> None:
    task = next(task for task in sample_tasks(20, 0, TARGET, 2) if task.graph.nodes[0].op == "linear")
    good = wanted_configs(task, 2)[0]
    bad = Config.of(good.template, {**dict(good.knobs), "rows": 77})
    with Describer(workers=1) as describer:
        (loops, facts), nothing = describer.describe(task, [good, bad])
    assert "llvm.fma" in loops
    assert facts is not None and facts.vector_instructions > 10 and facts.code_bytes > 100
    assert nothing == ("", None)
