"""The tuning job: where the budget goes, resuming, Ctrl-C; and what a compilation then takes."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mlc
from mlc.autotune.choose import Source, choice_for, chooser, open_database
from mlc.autotune.database import Database
from mlc.autotune.scheduler import WeightedTask
from mlc.autotune.search import GridSearcher, ModelSearcher
from mlc.autotune.tuning import Job, Progress, run, tune_tasks, weigh
from mlc.codegen.record import Record
from mlc.codegen.space import Config, Space
from mlc.codegen.task import Task
from mlc.codegen.template import LoweredKernel, Template
from mlc.costmodel import Prediction, RooflineModel
from mlc.ir import Graph
from mlc.options import check_options
from mlc.tuning import model_tasks

Make = Callable[..., Any]


@pytest.fixture
def database(tmp_path: pathlib.Path) -> Database:
    return Database(tmp_path / "tuning.db")


def job(measurer: Any, space: Space, **options: Any) -> Job:
    return Job(measurer, lambda task: space, lambda task, space: ModelSearcher(task, space), **options)


def test_it_finds_the_best_and_keeps_every_measurement(database: Database, task: Task, space: Space, make_measurer: Make) -> None:
    measurer = make_measurer()
    result = run(job(measurer, space), [WeightedTask(task)], trials=40, seconds=None, database=database)
    (tuned,) = result.tasks
    assert tuned.best_seconds <= 1.05e-5
    assert tuned.speedup > 2
    assert result.seconds_after < result.seconds_before
    assert len(database) == len(measurer.measured)
    best = database.best(task.key, str(task.target))
    assert best is not None
    assert best.config == tuned.best


def test_the_budget_goes_where_the_time_is(database: Database, space: Space, make_task: Make, make_measurer: Make) -> None:
    heavy, light = make_task(64), make_task(32)
    measurer = make_measurer(lambda task: 100.0 if task == heavy else 1.0)
    exhaustive = Job(measurer, lambda task: space, GridSearcher)
    run(exhaustive, [WeightedTask(heavy, 10), WeightedTask(light)], trials=30, seconds=None, database=database)
    spent = [key for key, _ in measurer.measured]
    assert spent.count(light.key) >= 2
    assert spent.count(heavy.key) > 4 * spent.count(light.key)


def test_an_interrupted_job_keeps_its_records_and_goes_on(database: Database, task: Task, space: Space, make_measurer: Make) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.trials >= 10:
            raise KeyboardInterrupt

    first = make_measurer()
    stopped = run(job(first, space, on_progress=interrupt), [WeightedTask(task)], trials=30, seconds=None, database=database)
    assert stopped.interrupted
    assert len(database) == len(first.measured) >= 10

    second = make_measurer()
    resumed = run(job(second, space), [WeightedTask(task)], trials=30, seconds=None, database=database)
    undisturbed = run(
        job(make_measurer(), space), [WeightedTask(task)], trials=30, seconds=None, database=Database(database.path.with_name("b.db"))
    )
    known = {config for _, config in first.measured}
    fresh = {config for _, config in second.measured} - known
    assert len(known | fresh) <= 30
    assert resumed.tasks[0].best == undisturbed.tasks[0].best
    # Once the budget is spent there is nothing more to do.
    third = make_measurer()
    again = run(job(third, space), [WeightedTask(task)], trials=len(known | fresh), seconds=None, database=database)
    assert again.trials == 0
    assert third.measured == []


def test_time_limits_the_job(database: Database, task: Task, space: Space, make_measurer: Make) -> None:
    ticks = iter(range(1000))
    measurer = make_measurer()
    run(job(measurer, space, clock=lambda: float(next(ticks))), [WeightedTask(task)], trials=1000, seconds=6.0, database=database)
    assert 0 < len(measurer.measured) < 40


def test_what_was_not_compared_side_by_side_is_said(database: Database, task: Task, space: Space, make_measurer: Make) -> None:
    ticks = iter(range(1000))
    stopped = run(
        job(make_measurer(), space, clock=lambda: float(next(ticks))), [WeightedTask(task)], trials=1000, seconds=6.0, database=database
    )
    assert stopped.tasks[0].best != space.default and not stopped.tasks[0].compared
    assert run(job(make_measurer(), space), [WeightedTask(task)], trials=1000, seconds=None, database=database).tasks[0].compared


def test_a_lucky_time_does_not_win(database: Database, task: Task, space: Space, make_measurer: Make) -> None:
    """The first time of a bad config is ten times too short; measured beside the others, it loses, and a good one wins after all."""
    lucky = Config.of("synthetic", {"rows": 4, "unroll": 1, "vectors": 1})
    seen: set[Config] = set()

    class Lucky(type(make_measurer())):  # type: ignore[misc]
        def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
            records = super().measure(task, configs)
            for place, record in enumerate(records):
                if record.config == lucky and lucky not in seen:
                    records[place] = dataclasses.replace(record, times=tuple(time / 10 for time in record.times))
            seen.update(configs)
            return records

    exhaustive = Job(Lucky(), lambda task: space, GridSearcher)
    (result,) = run(exhaustive, [WeightedTask(task)], trials=1000, seconds=None, database=database).tasks
    assert lucky in seen and result.compared
    assert result.best != lucky
    assert result.best_seconds == min(record.median for record in database.records() if record.config != lucky)


def test_a_machine_that_changes_between_batches_does_not_decide(database: Database, task: Task, space: Space, make_measurer: Make) -> None:
    """Every time that is kept is as if the machine had been all the time what it was in the first batch."""
    speeds = itertools.cycle((1.0, 1.5, 0.7, 1.3))
    true = make_measurer()

    class Changing(type(true)):  # type: ignore[misc]
        def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
            speed = next(speeds)
            records = super().measure(task, configs)
            return [dataclasses.replace(record, times=tuple(time * speed for time in record.times)) for record in records]

    exhaustive = Job(Changing(), lambda task: space, GridSearcher)
    (result,) = run(exhaustive, [WeightedTask(task)], trials=1000, seconds=None, database=database).tasks
    expected = {record.config: record.median for record in true.measure(task, space.configs)}
    assert result.best == min(expected, key=lambda config: expected[config])
    assert {record.config: record.median for record in database.records()} == pytest.approx(expected)


def test_time_is_kept_for_the_comparison(database: Database, task: Task, space: Space, make_measurer: Make) -> None:
    """Of a budget of 100 s, at one second for each look at the clock."""
    ticks = iter(range(10_000))
    measurer = make_measurer()
    limited = job(measurer, space, clock=lambda: float(next(ticks)), batch=1)
    (result,) = run(limited, [WeightedTask(task)], trials=1000, seconds=100.0, database=database).tasks
    assert result.compared and result.best != space.default


def test_tasks_are_counted_once_with_their_occurrences(make_task: Make) -> None:
    weighted = weigh([make_task(8), WeightedTask(make_task(16), 3), make_task(8)])
    assert [item.occurrences for item in weighted] == [2, 3]


def test_real_kernels_are_tuned_and_a_compilation_takes_the_winner_as_it_was_built(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model, x = nn.Linear(40, 56).eval(), torch.randn(24, 40)
    (kernel,) = model_tasks(model, (x,), {}, check_options(threads=1))
    task, template = kernel.task, kernel.template
    path = tmp_path / "tuning.db"
    heard: list[Progress] = []
    result = tune_tasks([task], trials=4, database=path, model=RooflineModel(), progress=heard.append)
    assert result.failed == 0
    assert heard[-1].best_seconds == result.tasks[0].best_seconds
    assert chooser(path)(task, template, template.space(task)) == result.tasks[0].best

    def built() -> set[str]:
        return {file.name for file in (tmp_path / "cache" / "kernels").rglob("*") if file.is_file()}

    while_tuning = built()
    compiled = mlc.compile(model, example_inputs=(x,), threads=1, database=path)
    assert built() == while_tuning != set()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


def test_a_winner_that_the_space_has_no_more_gives_way_to_the_next(database: Database, task: Task, space: Space) -> None:
    gone, kept = (
        Config.of("synthetic", {"rows": 5, "unroll": 1, "vectors": 1}),
        Config.of("synthetic", {"rows": 6, "unroll": 1, "vectors": 1}),
    )
    database.add([Record(task.key, str(task.target), config, (seconds,), "v", 0.0) for config, seconds in ((gone, 1.0), (kept, 2.0))])
    choice = choice_for(task, SYNTHETIC, space, database)
    assert (choice.config, choice.source, choice.seconds) == (kept, Source.MEASURED, 2.0)


class Synthetic(Template):
    name = "synthetic"
    revision = 3

    def takes(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        raise NotImplementedError

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        raise NotImplementedError


SYNTHETIC = Synthetic()


class Opinion(RooflineModel):
    """Prefers the last config; its members agree, or not at all."""

    def __init__(self, agree: bool) -> None:
        self.agree = agree

    def trusts(self, template: str, revision: int) -> bool:
        return (template, revision) == ("synthetic", 3)

    def predict(self, task: Task, configs: Any) -> Prediction:
        scores = np.zeros((4, len(configs)))
        scores[:, -1] = [1, 1, 1, 1.1] if self.agree else [5, -2, 3, -4]
        return Prediction(np.full(len(configs), 1e-5), scores)


def test_a_choice_is_measured_else_ranked_else_default(database: Database, task: Task, space: Space) -> None:
    assert choice_for(task, SYNTHETIC, space, database).source is Source.DEFAULT
    assert choice_for(task, SYNTHETIC, space, database, RooflineModel()).config == space.default
    assert choice_for(task, SYNTHETIC, space, database, Opinion(agree=False)).source is Source.DEFAULT
    ranked = choice_for(task, SYNTHETIC, space, database, Opinion(agree=True))
    assert (ranked.source, ranked.config) == (Source.RANKED, space.configs[-1])

    elsewhere = Config.of("synthetic", {"rows": 99, "unroll": 1, "vectors": 1})
    database.add([Record(task.key, str(task.target), elsewhere, (1e-9,), "v", 0.0)])
    assert choice_for(task, SYNTHETIC, space, database, Opinion(agree=True)).source is Source.RANKED

    other = Database(database.path.with_name("other.db"))
    other.add([Record(task.key, str(task.target), space.configs[5], (2e-5,), "v", 0.0)])
    measured = choice_for(task, SYNTHETIC, space, other, Opinion(agree=True))
    assert (measured.source, measured.config, measured.seconds) == (Source.MEASURED, space.configs[5], 2e-5)


def test_a_damaged_database_never_stops_a_compilation(tmp_path: pathlib.Path, task: Task, space: Space) -> None:
    path = tmp_path / "tuning.db"
    path.write_text("nothing of use")
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert open_database(path) is None
    database = Database(tmp_path / "closes.db")
    database.close()
    with pytest.warns(RuntimeWarning, match="Compiling without"):
        assert choice_for(task, SYNTHETIC, space, database).source is Source.DEFAULT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_database(None) is None
