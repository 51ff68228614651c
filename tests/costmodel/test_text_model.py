"""The text model: learning from text what the roofline cannot know, saved and loaded, honest about damaged files."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.costmodel import CostModel, RooflineModel, load_cost_model
from mlc.costmodel.assembly_facts import KernelFacts
from mlc.costmodel.evaluation import Judgement, pairwise
from mlc.costmodel.gradient_boosting import group_by_task
from mlc.costmodel.roofline import roofline
from mlc.costmodel.sampling import sample_tasks
from mlc.costmodel.text_model import Hyperparameters, Sample, TextModel
from mlc.costmodel.text_training import PARTS
from mlc.errors import CostModelError

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")
CONFIGS = tuple(Config.of("new", {"rows": rows, "vectors": vectors}) for rows in (1, 2, 4, 6, 12) for vectors in (1, 2, 4))
SMALL = Hyperparameters(members=2, steps=70, embedding=16, width=32)


def loops_of(task: Task, config: Config) -> str:
    """A register tile over a loop, in words that no template uses."""
    fetches = [f"    panel{lane}: T.let[T.float32x8] = in1[T.Ramp(at + {8 * lane}, 1, 8)]" for lane in range(config["vectors"])]
    multiplies = [
        f"    sum[{8 * lane}:{8 * lane + 8}] = multiply_add(row{row}, panel{lane})"
        for row in range(config["rows"])
        for lane in range(config["vectors"])
    ]
    return "\n".join(["for step in range(100):", *fetches, *multiplies])


def spills_of(config: Config) -> int:
    return max(0, config["rows"] * config["vectors"] - 12)


def seconds_of(task: Task, config: Config) -> float:
    """Few multiplications for each load are slow, and so are more of them than there are registers."""
    rows, vectors = config["rows"], config["vectors"]
    return roofline(task).seconds * (1 + (rows + vectors) / (rows * vectors) + 0.15 * spills_of(config))


def sample(task: Task, config: Config) -> Sample:
    products = config["rows"] * config["vectors"]
    facts = KernelFacts(50, 10 + products, spills_of(config), spills_of(config), 200 + 8 * products)
    return Sample(task, loops_of(task, config), seconds_of(task, config), facts)


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return sample_tasks(24, 3, TARGET, 2)


@pytest.fixture(scope="module")
def trained(tasks: list[Task]) -> TextModel:
    model = TextModel(SMALL, loops_of)
    model.learn([sample(task, config) for task in tasks[:16] for config in CONFIGS])
    return model


def accuracy(model: CostModel, tasks: Sequence[Task]) -> float:
    records = [Record(task.key, str(TARGET), config, (seconds_of(task, config),), "v", 0.0) for task in tasks for config in CONFIGS]
    judged: list[Judgement] = [
        (group, model.predict(group.task, group.configs)) for group in group_by_task(records, {task.key: task for task in tasks})
    ]
    right, pairs = np.sum([pairwise(group.seconds, prediction.score) for group, prediction in judged], axis=0)
    return float(right / pairs)


def test_the_loss_falls_for_every_member(trained: TextModel) -> None:
    assert len(trained.losses) == SMALL.members
    for curve in trained.losses:
        assert len(curve) == PARTS
        assert curve[-1] < 0.7 * curve[0]


def test_unseen_tasks_are_ranked_better_than_by_chance_and_by_the_roofline(trained: TextModel, tasks: list[Task]) -> None:
    assert accuracy(trained, tasks[16:]) > 0.85
    assert accuracy(trained, tasks[16:]) > accuracy(RooflineModel(), tasks[16:])


def test_all_characteristics_are_predicted_at_once(trained: TextModel, tasks: list[Task]) -> None:
    for task in tasks[16:]:
        found = trained.characteristics(task, CONFIGS)
        wanted = [sample(task, config) for config in CONFIGS]
        facts = [one.facts for one in wanted if one.facts is not None]
        for name, values in (
            ("seconds", [one.seconds for one in wanted]),
            ("vector_instructions", [one.vector_instructions for one in facts]),
            ("code_bytes", [one.code_bytes for one in facts]),
        ):
            assert np.median(np.abs(np.log(found.values[name] / values))) < 0.35, name
        heavy = np.asarray([one.spills > 10 for one in facts])
        assert found.values["spills"][heavy].min() > found.values["spills"][~heavy].mean()
        np.testing.assert_array_equal(found.values["seconds"], trained.predict(task, CONFIGS).seconds)


def test_members_differ_which_is_the_uncertainty(trained: TextModel, tasks: list[Task]) -> None:
    prediction = trained.predict(tasks[-1], CONFIGS)
    assert prediction.scores.shape == (SMALL.members, len(CONFIGS))
    assert prediction.uncertainty.max() > 0
    assert all((deviation >= 0).all() for deviation in trained.characteristics(tasks[-1], CONFIGS).deviations.values())


def test_the_same_seed_gives_the_same_model(tasks: list[Task]) -> None:
    few = [sample(task, config) for task in tasks[:6] for config in CONFIGS[::3]]
    scores = []
    for seed in (5, 5, 6):
        model = TextModel(Hyperparameters(members=2, steps=6, embedding=16, width=32, seed=seed), loops_of)
        model.learn(few)
        scores.append(model.predict(tasks[-1], CONFIGS).scores)
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_records_alone_are_enough_and_templates_give_the_text() -> None:
    tasks = [task for task in sample_tasks(20, 0, TARGET, 2) if task.graph.nodes[0].op == "linear"][:2]
    records, spaces = [], {}
    for task in tasks:
        template = template_for(task.graph, TARGET.kind)
        assert template is not None
        spaces[task.key] = template.space(task).configs[:3]
        records += [Record(task.key, str(TARGET), config, (1e-3 * n,), "v", 0.0) for n, config in enumerate(spaces[task.key], 1)]
    model = TextModel(Hyperparameters(members=1, steps=30, embedding=16, width=32))
    model.fit(records, {task.key: task for task in tasks})
    assert model.predict(tasks[0], spaces[tasks[0].key]).order() == [0, 1, 2]
    assert {"llvm.fma", "for"} <= set(model.explain())
    assert set(model.characteristics(tasks[0], spaces[tasks[0].key]).values) == {"seconds"}  # nobody told it of the others


def test_what_is_saved_predicts_the_same(trained: TextModel, tasks: list[Task], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "text.json"
    trained.notes = {"why": "a test"}
    trained.save(path)
    loaded = load_cost_model(path)
    assert isinstance(loaded, TextModel)
    reading = loaded.reading(loops_of)
    np.testing.assert_array_equal(reading.predict(tasks[-1], CONFIGS).scores, trained.predict(tasks[-1], CONFIGS).scores)
    np.testing.assert_array_equal(reading.predict(tasks[-1], CONFIGS).seconds, trained.predict(tasks[-1], CONFIGS).seconds)
    assert reading.notes == {"why": "a test"} and reading.explain() == trained.explain()
    assert sum(trained.explain().values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("missing", "cannot be read"),
        ("torn", "is damaged"),
        ("other", "is not a cost model"),
        ("unknown", "unknown kind 'oracle'"),
        ("tokens", "other features"),
        ("weights", "is damaged: the hash"),
        ("words", "is damaged"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(trained: TextModel, tmp_path: pathlib.Path, damage: str, reason: str) -> None:
    path = tmp_path / "model.json"
    trained.save(path)
    document = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_text(path.read_text()[:1000])
    elif damage == "other":
        path.write_text('{"format": "recipe"}')
    elif damage == "unknown":
        path.write_text(json.dumps({**document, "kind": "oracle"}))
    elif damage == "tokens":
        path.write_text(json.dumps({**document, "tokens": 17}))
    elif damage == "weights":
        networks = [[text.replace("A", "B", 5) for text in network] for network in document["networks"]]
        path.write_text(json.dumps({**document, "networks": networks}))
    else:
        path.write_text(json.dumps({**document, "words": document["words"][1:]}))
    with pytest.raises(CostModelError, match=reason):
        load_cost_model(path)


def test_too_little_data_is_an_error(tasks: list[Task], tmp_path: pathlib.Path) -> None:
    with pytest.raises(CostModelError, match="too few"):
        TextModel(SMALL).learn([sample(tasks[0], config) for config in CONFIGS])
    with pytest.raises(CostModelError, match="fit it or load one"):
        TextModel(SMALL).predict(tasks[0], CONFIGS)
    with pytest.raises(CostModelError, match="fit it or load one"):
        TextModel(SMALL).save(tmp_path / "none.json")


def test_torch_waits_until_a_model_is_used() -> None:
    heavy = "{'torch', 'tvm', 'xgboost', 'pyarrow'}"
    check = f"import sys, mlc.costmodel.text_model, mlc.costmodel.dataset\nprint(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.returncode) == ([], 0), done.stderr
