"""Data sets of kernels: what is written is read, tasks are divided without a leak, and models are judged by what they never saw."""

from __future__ import annotations

import dataclasses
import pathlib

import pyarrow
import pyarrow.parquet
import pytest

from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.costmodel import GradientBoostedModel, RooflineModel
from mlc.costmodel.assembly_facts import KernelFacts
from mlc.costmodel.comparison import ALL, TRAINED_ON, agreement, compare, unseen
from mlc.costmodel.dataset import HELD_OUT, HELD_OUT_SHARE, TRAIN, DataSet, Kernel, family_of, read_dataset, split_of, write_dataset
from mlc.costmodel.sampling import Family, sample_tasks
from mlc.errors import DataSetError

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")
CONFIGS = tuple(Config.of("matmul", {"rows": rows, "vectors": 2}) for rows in (1, 2, 4, 6))


def kernel(task: Task, config: Config, seconds: float | None = 1e-3) -> Kernel:
    if seconds is None:
        return Kernel(task, Record(task.key, str(TARGET), config, (), "", 2.5, "build: crashed"))
    record = Record(task.key, str(TARGET), config, (seconds, 1.1 * seconds, seconds / 3), "tvm-1", 1.5)
    return Kernel(task, record, f"for i in range({config['rows']}):\n    x[i] = y", KernelFacts(9, 5, 1, 2, 77))


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return sample_tasks(60, 7, TARGET, 2, (Family.LINEAR, Family.BATCHED_MATMUL, Family.CONVOLUTION))


@pytest.fixture(scope="module")
def data(tasks: list[Task]) -> DataSet:
    return DataSet(tuple(kernel(task, config, 1e-3 / config["rows"]) for task in tasks for config in CONFIGS))


def test_what_is_written_is_read(data: DataSet, tasks: list[Task], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kernels.parquet"
    failed = kernel(tasks[0], Config.of("matmul", {"rows": 9, "vectors": 9}), None)
    write_dataset(path, [*data.kernels, failed])
    assert read_dataset(path).kernels == (*data.kernels, failed)
    columns = pyarrow.parquet.read_table(path).to_pydict()
    assert set(columns["split"]) == {TRAIN, HELD_OUT}
    assert columns["task_text"][0] == tasks[0].text
    assert columns["vector_instructions"][0] == 5 and columns["vector_instructions"][-1] is None
    assert list(tmp_path.iterdir()) == [path]


def test_the_latest_measurement_of_a_config_counts(tasks: list[Task], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kernels.parquet"
    write_dataset(path, [kernel(tasks[0], CONFIGS[0], 1.0), kernel(tasks[0], CONFIGS[0], 2.0)])
    assert [found.record.times[0] for found in read_dataset(path).kernels] == [2.0]


def test_tasks_are_divided_without_a_leak(data: DataSet, tasks: list[Task]) -> None:
    training, held_out = data.for_training(), data.held_out()
    assert set(training.tasks) | set(held_out.tasks) == set(data.tasks)
    assert not set(training.tasks) & set(held_out.tasks)
    assert len(training.kernels) + len(held_out.kernels) == len(data.kernels)
    # The division follows from the task alone, so that a larger data set keeps it.
    few = set(DataSet(data.kernels[:80]).held_out().tasks)
    assert few == {task.key for task in tasks[:20] if split_of(task.key) == HELD_OUT} != set()


def test_about_the_share_that_is_named_is_held_out() -> None:
    keys = [f"{number * 2654435761 % 2**32:08x}{'0' * 16}" for number in range(1000)]
    assert sum(split_of(key) == HELD_OUT for key in keys) == pytest.approx(1000 * HELD_OUT_SHARE, abs=30)


def test_a_family_is_held_out_as_a_whole(data: DataSet) -> None:
    training, held_out = data.for_training(["conv"]), data.held_out(["conv"])
    assert {family_of(task) for task in held_out.tasks.values()} == {"conv"}
    assert "conv" not in {family_of(task) for task in training.tasks.values()}
    assert len(held_out.tasks) == sum(family_of(task) == "conv" for task in data.tasks.values()) > 5
    assert training.tasks
    with pytest.raises(DataSetError, match="no family convolutions; there are attention, conv"):
        data.held_out(["convolutions"])


def test_what_a_model_has_seen_does_not_judge_it(data: DataSet, tasks: list[Task]) -> None:
    model = GradientBoostedModel()
    model.notes = {TRAINED_ON: [task.key for task in tasks[:50]]}
    left = unseen(data, {"roofline": RooflineModel(), "boosted": model})
    assert set(left.tasks) == {task.key for task in tasks[50:]}
    model.notes = {TRAINED_ON: list(data.tasks)}
    with pytest.raises(DataSetError, match="learned from every held-out task"):
        unseen(data, {"boosted": model})


def test_models_stand_side_by_side(data: DataSet) -> None:
    """Here more rows are faster, the contrary of what the other model says."""

    class Backwards(RooflineModel):
        def predict(self, task, configs):  # type: ignore[no-untyped-def]
            prediction = super().predict(task, configs)
            return type(prediction)(prediction.seconds, -prediction.scores)

    figures = compare({"roofline": RooflineModel(), "backwards": Backwards()}, data.held_out()).models
    assert set(figures) == {"roofline", "backwards"}
    one, other = figures["roofline"][ALL], figures["backwards"][ALL]
    assert one.tasks == len(data.held_out().tasks) and one.kernels == len(data.held_out().kernels)
    assert one.pairwise_accuracy + other.pairwise_accuracy == pytest.approx(1)
    assert one.pairwise_accuracy > 0.7 > other.pairwise_accuracy
    assert 0 <= one.regret_1 < other.regret_1 <= 5
    assert one.regret_8 == other.regret_8 == 0  # there are four configs
    assert figures["roofline"]["matmul"].kernels <= one.kernels


def test_noise_shows_in_how_far_measurements_agree(tasks: list[Task]) -> None:
    def timed(rows: int, times: tuple[float, ...]) -> Kernel:
        found = kernel(tasks[0], Config.of("matmul", {"rows": rows}))
        return dataclasses.replace(found, record=dataclasses.replace(found.record, times=times))

    steady = [timed(1, (1.0, 1.0, 1.0, 1.0)), timed(2, (2.0, 2.0, 2.0, 2.0)), timed(3, (4.0, 4.0, 4.0, 4.0))]
    assert agreement(DataSet(tuple(steady))) == 1
    # By every other round the last is the slowest, by the others the fastest.
    assert agreement(DataSet((*steady[:2], timed(3, (4.0, 0.5, 4.0, 0.5))))) == pytest.approx(1 / 3)
    assert agreement(DataSet((timed(1, (1.0,)), timed(2, (2.0,))))) is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("missing", "there is no data set"),
        ("torn", "damaged or no data set"),
        ("other", "no data set of kernels"),
        ("task", "is that of another"),
        ("config", "is not a config"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(data: DataSet, tmp_path: pathlib.Path, damage: str, reason: str) -> None:
    path = tmp_path / "kernels.parquet"
    write_dataset(path, data.kernels[:8])
    table = pyarrow.parquet.read_table(path)
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "other":
        pyarrow.parquet.write_table(table.replace_schema_metadata({}), path)
    else:
        columns = table.to_pydict()
        columns[damage][0] = "f" * 24
        pyarrow.parquet.write_table(pyarrow.table(columns, schema=table.schema), path)
    with pytest.raises(DataSetError, match=reason):
        read_dataset(path)
