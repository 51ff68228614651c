"""mlc costmodel: data sets are collected, models trained on them and judged side by side."""

from __future__ import annotations

import functools
import pathlib

import pytest
from command_line import CommandLine

from mlc.autotune.collecting import wanted_configs
from mlc.autotune.database import Database
from mlc.codegen.record import Record
from mlc.codegen.target import Target
from mlc.costmodel import GradientBoostedModel, gradient_boosting, load_cost_model, text_model
from mlc.costmodel.assembly_facts import KernelFacts
from mlc.costmodel.dataset import HELD_OUT, Kernel, read_dataset, split_of, write_dataset
from mlc.costmodel.sampling import Family, sample_tasks
from mlc.costmodel.text_model import TextModel

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Kernels of 20 tasks, slower with every config in the order of its list."""
    path = tmp_path_factory.mktemp("data") / "kernels.parquet"
    kernels = []
    for task in sample_tasks(20, 1, TARGET, 2, (Family.LINEAR, Family.CONVOLUTION)):
        for number, config in enumerate(wanted_configs(task, 4), 1):
            record = Record(task.key, str(TARGET), config, (1e-3 * number,), "v", 0.0)
            loops = f"for i in range({2**number}):\n    x[i] = y + {number}"
            kernels.append(Kernel(task, record, loops, KernelFacts(10 * number, number, number, number, 50 * number)))
    write_dataset(path, kernels)
    return path


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are trained in a second."""
    forest, networks = gradient_boosting.Hyperparameters(2, 20), text_model.Hyperparameters(2, 100, embedding=16, width=32)
    monkeypatch.setattr("mlc.autotune.training.GradientBoostedModel", functools.partial(GradientBoostedModel, forest))
    monkeypatch.setattr("mlc.autotune.training.TextModel", functools.partial(TextModel, networks))


def test_both_kinds_are_trained_and_judged_side_by_side(mlc: CommandLine, dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    held_out = {key for key in read_dataset(dataset).tasks if split_of(key) == HELD_OUT}
    ranker, text = tmp_path / "ranker.json", tmp_path / "text.json"
    trained = mlc("costmodel", "train", str(dataset), "--model", "gbdt", "--output", str(ranker), "--json").json
    assert trained["tasks"] == 20 - len(held_out) and trained["importance"]
    assert "trained on" in mlc("costmodel", "train", str(dataset), "-m", "text", "-o", str(text)).out
    assert isinstance(load_cost_model(ranker), GradientBoostedModel) and isinstance(load_cost_model(text), TextModel)
    figures = mlc("costmodel", "eval", str(dataset), "-m", str(ranker), "-m", str(text), "--json").json["models"]
    assert list(figures) == ["roofline", str(ranker), str(text)]
    assert all(of["all"]["tasks"] == len(held_out) for of in figures.values())
    assert figures[str(text)]["all"]["pairwise_accuracy"] > 0.95  # the text says it all
    assert set(figures[str(text)]["all"]["errors"]) == {"seconds", "vector_instructions", "spills", "code_bytes"}
    table = mlc("costmodel", "eval", str(dataset), "-m", str(ranker), "-m", str(text)).out
    assert not [name for name in ("roofline", "ranker", "text", "all", "pairs") if name not in table]


def test_a_model_of_everything_leaves_nothing_to_judge_by(mlc: CommandLine, dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ranker = tmp_path / "ranker.json"
    assert mlc("costmodel", "train", str(dataset), "-o", str(ranker), "--all", "--json").json["tasks"] == 20
    assert "learned from every held-out task" in mlc("costmodel", "eval", str(dataset), "-m", str(ranker)).err


def test_a_model_that_hides_what_it_has_seen_is_told_of(mlc: CommandLine, dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data, path = read_dataset(dataset), tmp_path / "secretive.json"
    ranker = GradientBoostedModel(gradient_boosting.Hyperparameters(1, 2))
    ranker.fit(data.records, data.tasks)
    ranker.save(path)
    assert "secretive.json does not say which tasks" in mlc("costmodel", "eval", str(dataset), "-m", str(path)).err


def test_a_family_is_held_out(mlc: CommandLine, dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ranker = tmp_path / "ranker.json"
    mlc("costmodel", "train", str(dataset), "-o", str(ranker), "--hold-out", "matmul")
    figures = mlc("costmodel", "eval", str(dataset), "-m", str(ranker), "--hold-out", "matmul", "--json").json["models"]
    assert set(figures[str(ranker)]) == {"all", "matmul"}


def test_a_tuning_database_is_collected_from(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    (task,) = sample_tasks(1, 0, TARGET, 2)
    records = [Record(task.key, str(TARGET), config, (1e-3,), "v", 0.0) for config in wanted_configs(task, 2)]
    with Database(tmp_path / "tuning.db") as database:
        database.add(records, [task])
    path = tmp_path / "kernels.parquet"
    done = mlc("costmodel", "collect", str(path), "--database", str(tmp_path / "tuning.db"), "--json")
    assert done.json == {"added": 2, "failed": 0, "total": 2}
    assert all(kernel.facts is not None for kernel in read_dataset(path).kernels)


def test_one_family_is_collected(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kernels.parquet"
    done = mlc("costmodel", "collect", str(path), "--family", "elementwise", "--tasks", "2", "--configs", "2", "--json")
    assert done.json["added"] == 4
    assert {node.op for task in read_dataset(path).tasks.values() for node in task.graph.nodes} <= {
        "gelu",
        "silu",
        "tanh",
        "exp",
        "add",
        "mul",
    }
    unknown = mlc("costmodel", "collect", str(path), "--family", "pooling")
    assert unknown.code == 2 and "batched matmul" in unknown.err


def test_files_that_cannot_be_read_are_named(mlc: CommandLine, dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert "there is no data set" in mlc("costmodel", "train", str(tmp_path / "none.parquet"), "-o", str(tmp_path / "x.json")).err
    assert "cannot be read" in mlc("costmodel", "eval", str(dataset), "-m", str(tmp_path / "none.json")).err
