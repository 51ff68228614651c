"""Features and cost models: finite, learning, saved and loaded, honest about doubt."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlc
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.costmodel import FEATURE_NAMES, CostModel, GradientBoostedModel, RooflineModel, feature_matrix, pretrained
from mlc.costmodel.evaluation import cross_validate, pick_when_sure, summarise
from mlc.costmodel.gradient_boosting import Hyperparameters
from mlc.costmodel.model import Prediction
from mlc.costmodel.pretrained import WEIGHTS, load_or_roofline
from mlc.costmodel.roofline import roofline
from mlc.costmodel.sampling import BENCHMARK_EXTENTS, sample_tasks
from mlc.costmodel.schedule import schedule
from mlc.costmodel.workload import workload
from mlc.errors import CostModelError

TARGET = Target.parse("cpu -mcpu=znver4 -threads=2")
CONFIGS = tuple(
    Config.of("matmul", {"rows": rows, "vectors": vectors, "unroll": unroll, "row_groups": 1})
    for rows in (1, 3, 6, 9, 14)
    for vectors in (1, 2, 4)
    for unroll in (2, 4)
)
KNOBS = ("rows", "pixels", "vectors", "unroll", "row_groups", "lanes", "parallel", "new_knob", "other")
SMALL = Hyperparameters(members=3, rounds=60)


def true_seconds(task: Task, config: Config) -> float:
    """A machine that is nothing like the roofline model: it loves unrolling and square tiles, and hates panels beyond L1."""
    plan = schedule(task, config)
    square = abs(math.log(plan.tile_rows / (3 * plan.tile_vectors)))
    beyond = max(0.0, math.log(plan.panel_bytes / task.target.l1_bytes))
    return roofline(task).seconds * (1.1 + 0.4 * square + 0.3 * beyond + 0.2 * (config["unroll"] == 2))


@pytest.fixture(scope="module")
def data() -> tuple[list[Record], dict[str, Task]]:
    tasks = sample_tasks(40, 11, TARGET, 2)
    records = [
        Record(task.key, str(TARGET), config, (true_seconds(task, config),), "synthetic", 0.0) for task in tasks for config in CONFIGS
    ]
    return records, {task.key: task for task in tasks}


@pytest.fixture(scope="module")
def trained(data: tuple[list[Record], dict[str, Task]]) -> GradientBoostedModel:
    model = GradientBoostedModel(SMALL)
    model.fit(*data)
    return model


@given(
    task=st.sampled_from(sample_tasks(30, 5, TARGET, 2)),
    knobs=st.dictionaries(
        st.sampled_from(["rows", "pixels", "vectors", "unroll", "row_groups", "lanes", "parallel", "new_knob", "other"]),
        st.integers(0, 1 << 20),
    ),
)
@settings(max_examples=60, deadline=None)
def test_features_are_finite_whatever_the_knobs(task: Task, knobs: dict[str, int]) -> None:
    features = feature_matrix(task, [Config.of("anything", knobs)])
    assert features.shape == (1, len(FEATURE_NAMES))
    assert np.isfinite(features).all()
    assert np.isfinite(RooflineModel().predict(task, [Config.of("anything", knobs)]).seconds).all()


def test_features_tell_configs_and_tasks_apart() -> None:
    first, second = sample_tasks(2, 5, TARGET, 2)
    rows = np.concatenate([feature_matrix(first, CONFIGS), feature_matrix(second, CONFIGS)])
    assert len(np.unique(rows, axis=0)) == 2 * len(CONFIGS)
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)


def test_the_ranking_learns_what_the_roofline_does_not_know(trained: GradientBoostedModel) -> None:
    """On tasks it has not seen: its first pick loses less than a random pick, and than the roofline's."""

    unseen = sample_tasks(60, 11, TARGET, 2)[40:]

    def regret(model: CostModel) -> float:
        losses = []
        for task in unseen:
            times = [true_seconds(task, config) for config in CONFIGS]
            losses.append(times[model.predict(task, CONFIGS).order()[0]] / min(times) - 1)
        return float(np.mean(losses))

    def random_regret() -> float:
        times = [[true_seconds(task, config) for config in CONFIGS] for task in unseen]
        return float(np.mean([np.mean(row) / min(row) - 1 for row in times]))

    assert regret(trained) < 0.2 * random_regret()
    assert regret(trained) < regret(RooflineModel())


def test_predicted_seconds_have_the_right_size(trained: GradientBoostedModel) -> None:
    for task in sample_tasks(50, 11, TARGET, 2)[40:]:
        ratio = trained.predict(task, CONFIGS).seconds / [true_seconds(task, config) for config in CONFIGS]
        assert 0.7 < float(np.exp(np.mean(np.log(ratio)))) < 1.4


def test_what_is_saved_predicts_the_same(trained: GradientBoostedModel, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.json"
    trained.notes = {"why": "a test"}
    trained.save(path)
    loaded = GradientBoostedModel.load(path)
    (task,) = sample_tasks(1, 99, TARGET, 2)
    np.testing.assert_array_equal(loaded.predict(task, CONFIGS).scores, trained.predict(task, CONFIGS).scores)
    np.testing.assert_array_equal(loaded.predict(task, CONFIGS).seconds, trained.predict(task, CONFIGS).seconds)
    assert loaded.notes == {"why": "a test"}
    assert not loaded.trusts("matmul", 1)  # not before an evaluation says so
    trained.trusted = {"matmul": 1}
    trained.save(path)
    assert GradientBoostedModel.load(path).trusts("matmul", 1)
    assert not GradientBoostedModel.load(path).trusts("matmul", 2)  # its kernels have changed since
    trained.trusted = {}


def test_importances_name_features_and_sum_to_one(trained: GradientBoostedModel) -> None:
    importances = trained.explain()
    assert set(importances) <= set(FEATURE_NAMES)
    assert sum(importances.values()) == pytest.approx(1)
    assert list(importances.values()) == sorted(importances.values(), reverse=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "cannot be read"),
        ("torn", "is damaged"),
        ("other", "is not a cost model"),
        ("version", "version 2"),
        ("features", "hash of its boosters and features"),
        ("booster", "hash of its boosters and features"),
        ("no rankers", "holds no ranking"),
        ("fewer rankers", "2 rankings and 3 regressions"),
    ],
)
def test_damaged_weights_are_refused_and_do_not_stop_a_compilation(
    trained: GradientBoostedModel, tmp_path: pathlib.Path, damage: str, message: str
) -> None:
    path = tmp_path / "model.json"
    trained.save(path)
    document = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_text(path.read_text()[:1000])
    elif damage == "other":
        path.write_text('{"format": "recipe"}')
    else:
        changed = {
            "version": {"version": 2},
            "features": {"features": document["features"][1:]},
            "booster": {"rankers": [document["speeds"][0], *document["rankers"][1:]]},
            "no rankers": {"rankers": []},
            "fewer rankers": {"rankers": document["rankers"][1:]},
        }
        path.write_text(json.dumps({**document, **changed[damage]}))
    with pytest.raises(CostModelError, match=message):
        GradientBoostedModel.load(path)
    with pytest.warns(RuntimeWarning, match="default schedules"):
        model = load_or_roofline(path)
    assert isinstance(model, RooflineModel)
    assert not model.trusts("matmul", 1)


def test_too_little_data_is_an_error() -> None:
    with pytest.raises(CostModelError, match="too few"):
        GradientBoostedModel().fit([], {})
    with pytest.raises(CostModelError, match="fit it or load one"):
        GradientBoostedModel().predict(sample_tasks(1, 0, TARGET, 2)[0], CONFIGS)


def test_a_default_is_overruled_only_when_the_members_agree() -> None:
    def prediction(scores: Sequence[Sequence[float]]) -> Prediction:
        return Prediction(np.ones(2), np.asarray(scores))

    assert pick_when_sure(prediction([[0, 1], [0, 1.1], [0, 0.9]]), 0) == 1
    assert pick_when_sure(prediction([[0, 3], [0, -1], [0, 2]]), 0) == 0
    assert prediction([[0, 1], [5, 6]]).uncertainty == pytest.approx([0, 0])


def test_cross_validation_is_on_unseen_tasks(data: tuple[list[Record], dict[str, Task]]) -> None:
    seen: list[set[str]] = []

    class Spy(RooflineModel):
        def fit(self, records: Sequence[Record], tasks: object) -> None:
            seen.append({record.task for record in records})

    records, tasks = data

    def default_of(task: Task) -> Config:
        return CONFIGS[0]

    result = summarise(cross_validate(Spy, records, tasks, default_of, folds=4), default_of)
    assert result.tasks == len(tasks)
    assert all(len(part) == 30 for part in seen)
    assert set().union(*[set(tasks) - part for part in seen]) == set(tasks)
    assert result.chosen == pytest.approx(result.first_pick)  # a single model is always of one mind
    assert result.best_of_8 <= result.first_pick


def test_sampled_tasks_are_reproducible_and_none_is_a_benchmark_layer() -> None:
    tasks = sample_tasks(150, 0, TARGET, 2)
    assert [task.key for task in sample_tasks(20, 0, TARGET, 2)] == [task.key for task in tasks[:20]]
    assert len({task.key for task in tasks}) == 150
    for task in tasks:
        anchor = workload(task.graph).anchor
        assert anchor.columns not in BENCHMARK_EXTENTS or anchor.depth // anchor.taps not in BENCHMARK_EXTENTS


def test_the_benchmark_models_layers_have_the_extents_that_sampling_avoids(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    from mlc.benchmarks.models import ZOO, convolutional

    # The weights do not matter here.
    monkeypatch.setattr(convolutional, "randomise", lambda model, inputs, seed: model)
    extents = set()
    for name in ("resnet50", "mobilenet_v2", "mlp"):
        model, _ = ZOO[name].small()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                extents |= {layer.in_channels, layer.out_channels}
            elif isinstance(layer, nn.Linear):
                extents |= {layer.in_features, layer.out_features}
    assert extents <= BENCHMARK_EXTENTS


def test_a_compilation_that_asks_no_ranking_reads_no_boosters() -> None:
    check = (
        "import sys; from mlc.costmodel import pretrained; from mlc.codegen.target import Target\n"
        f"model = pretrained(Target.parse('{TARGET}'))\n"
        "print(model.fitted, model.trusts('no such template', 1), 'xgboost' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_the_shipped_weights_load_and_rank() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = pretrained(TARGET)
    (task,) = sample_tasks(1, 0, TARGET, 2)
    prediction = model.predict(task, CONFIGS)
    assert sorted(prediction.order()) == list(range(len(CONFIGS)))
    assert (prediction.seconds > 0).all()
    assert all(path.is_relative_to(pathlib.Path(mlc.__file__).parent) for path in WEIGHTS.values())


def test_weights_are_those_of_the_nearest_processor() -> None:
    by_processor = {
        "x86-64": "avx2",
        "x86-64-v3": "avx2",
        "znver3": "avx2",
        "x86-64-v4": "avx512",
        "sapphirerapids": "avx512",
        "znver4": "avx512 on Zen",
        "znver5": "avx512 on Zen",
    }
    for processor, nearest in by_processor.items():
        assert pretrained(Target.parse(f"cpu -mcpu={processor}")) is load_or_roofline(WEIGHTS[nearest])
    assert isinstance(pretrained(Target.parse("cortex-m4")), RooflineModel)
