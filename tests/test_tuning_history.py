"""From records to curves and calibration, on records whose right answers can be worked out by hand."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from mlc.autotune.database import Database
from mlc.autotune.tuning import template_space
from mlc.codegen.record import Record
from mlc.codegen.space import Config, Space
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.costmodel import Prediction, RooflineModel
from mlc.ir import DType, GraphBuilder, TensorType, canonicalise
from mlc.tuning_history import Step, TaskHistory, calibrate, end_to_end_curve, history, rank_correlation, read_histories, search_curve


def linear_task(columns: int) -> Task:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (64, 64)))
    weight = builder.input(TensorType(DType.FLOAT32, (columns, 64)))
    graph = canonicalise(builder.finish([builder.call("linear", x, weight)]))
    return Task(graph, frozenset({1}), Target.parse("cpu -mcpu=x86-64-v4 -threads=2"), 2)


ONE, OTHER = linear_task(64), linear_task(32)
SPACE = Space("synthetic", (("rows", (0, 1, 2, 3, 4, 5)),), Config.of("synthetic", {"rows": 0}))


def config(rows: int) -> Config:
    return Config.of("synthetic", {"rows": rows})


def records(task: Task, *measured: tuple[int, float], start: float = 0.0, every: float = 1.0) -> list[Record]:
    """Measurements of configs by number, in order; a time of 0 stands for a failure."""
    return [
        Record(
            task.key, str(task.target), config(rows), (seconds,) * 3 if seconds else (), "v", start + every * place, "" if seconds else "no"
        )
        for place, (rows, seconds) in enumerate(measured)
    ]


def made(task: Task, *measured: tuple[int, float], occurrences: int = 1, start: float = 0.0, every: float = 1.0) -> TaskHistory:
    return history(task, occurrences, records(task, *measured, start=start, every=every), SPACE)


def test_failures_are_trials_and_measuring_again_is_none() -> None:
    found = made(ONE, (0, 4.0), (1, 0.0), (2, 3.0), (0, 4.5), (3, 0.0), (4, 2.0), (5, 6.0))
    assert search_curve(found) == (Step(1, 4.0), Step(3, 3.0), Step(5, 2.0), Step(6, 2.0))
    assert (found.trials, found.failed, found.before, found.after) == (6, 2, 4.5, 2.0)
    assert found.best is not None and found.best.config == config(4)


def test_a_best_that_is_slower_when_measured_again_counts_with_what_it_took_then() -> None:
    found = made(ONE, (0, 4.0), (1, 1.0), (2, 3.0), (1, 3.5))
    assert search_curve(found) == (Step(1, 4.0), Step(2, 1.0), Step(3, 3.0))
    assert found.after == 3.0 and found.best is not None and found.best.config == config(2)
    broken = made(ONE, (0, 4.0), (1, 1.0), (1, 0.0))
    assert broken.after == 4.0 == search_curve(broken)[-1].seconds


def test_the_curve_begins_with_the_first_success() -> None:
    assert search_curve(made(ONE, (0, 0.0), (1, 0.0), (2, 3.0))) == (Step(3, 3.0),)
    nothing = made(ONE, (0, 0.0), (1, 0.0))
    assert search_curve(nothing) == ()
    assert math.isinf(nothing.before) and math.isinf(nothing.after) and nothing.best is None and not nothing.is_compared


def test_end_to_end_is_the_sum_over_calls_from_when_every_task_has_a_time() -> None:
    one = made(ONE, (0, 4.0), (1, 2.0), occurrences=3, start=0.0, every=2.0)  # at 0 and 2
    other = made(OTHER, (0, 10.0), (1, 0.0), (2, 7.0), start=1.0, every=2.0)  # at 1, 3 and 5
    assert end_to_end_curve([one, other]) == (Step(2, 22.0), Step(3, 16.0), Step(5, 13.0))
    hopeless = made(linear_task(16), (0, 0.0), start=9.0)
    assert end_to_end_curve([one, other, hopeless])[-1] == Step(6, 13.0)  # a trial, but no part of the sum
    assert end_to_end_curve([hopeless]) == () == end_to_end_curve([])


def test_configs_that_left_the_space_are_counted_aside() -> None:
    found = made(ONE, (0, 4.0), (99, 1.0))
    assert (found.trials, found.foreign, found.after) == (1, 1, 4.0)
    assert history(ONE, 1, records(ONE, (99, 1.0)), None).after == 1.0


class Oracle(RooflineModel):
    """Foretells given seconds by config."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self._seconds = seconds

    def predict(self, task: Task, configs: Sequence[Config]) -> Prediction:
        seconds = np.asarray([self._seconds[config["rows"]] for config in configs])
        return Prediction(seconds, -seconds[None, :])


def test_calibration_of_a_ranking_with_one_pair_swapped() -> None:
    found = made(ONE, (0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 0.0))
    calibration = calibrate("oracle", lambda task: Oracle({0: 2.0, 1: 4.0, 2: 8.0, 3: 6.0}), [found])
    (judged,) = calibration.judgements
    assert judged.measured == (1.0, 2.0, 3.0, 4.0) and judged.predicted == (2.0, 4.0, 8.0, 6.0)  # the failed config has no part in it
    assert calibration.rank_correlation == pytest.approx(1 - 6 * 2 / (4 * 15))  # Spearman: squared differences of ranks sum to 2
    assert calibration.pairwise_accuracy == pytest.approx(5 / 6)
    assert calibration.typical_factor == pytest.approx(2.0)


def test_calibration_weighs_tasks_by_their_configs() -> None:
    right = made(ONE, (0, 1.0), (1, 2.0), (2, 3.0))
    wrong = made(OTHER, (5, 1.0), (4, 2.0), (3, 3.0), (2, 4.0), (1, 5.0), (0, 5.1))  # the last two are no clear pair
    calibration = calibrate("oracle", lambda task: Oracle({rows: rows + 1.0 for rows in range(6)}), [right, wrong])
    assert calibration.rank_correlation == pytest.approx((3 * 1 + 6 * -1) / 9)
    assert calibration.pairwise_accuracy == pytest.approx(3 / (3 + 14))


def test_too_few_configs_have_no_rank_correlation() -> None:
    calibration = calibrate("oracle", lambda task: Oracle({0: 1.0, 1: 1.0}), [made(ONE, (0, 1.0), (1, 2.0))])
    assert math.isnan(calibration.rank_correlation)
    assert calibration.pairwise_accuracy == 0.5  # a tie
    assert math.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    empty = calibrate("oracle", lambda task: RooflineModel(), [])
    assert math.isnan(empty.pairwise_accuracy) and math.isnan(empty.typical_factor)


def test_histories_of_a_database(tmp_path: pathlib.Path) -> None:
    def measured(task: Task, *seconds: float) -> list[Record]:
        space = template_space(task)
        assert space is not None
        return [
            Record(task.key, str(task.target), each, (time,), "v", place)
            for place, (each, time) in enumerate(zip(space.configs, seconds, strict=False))
        ]

    with Database(tmp_path / "tuning.db") as database:
        database.add(measured(ONE, 4.0, 2.0), [ONE])
        database.add(measured(OTHER, 5.0, 3.0, 6.0), [OTHER, linear_task(16)])
        database.add(records(OTHER, (0, 1e-9)))  # of another template's config
        found = read_histories(database)
        assert [(each.task, each.before, each.after, each.trials, each.foreign) for each in found] == [
            (OTHER, 5.0, 3.0, 3, 1),
            (ONE, 4.0, 2.0, 2, 0),
        ]
        often = read_histories(database, {ONE.key: 7, "a task that was never measured": 1})
        assert [(each.task, each.occurrences) for each in often] == [(ONE, 7)]
        assert end_to_end_curve(often)[-1].seconds == 14.0
