"""The tuning job: schedule, search, measure, record, until the budget is spent or nothing is to be gained."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from ..codegen.record import Record
from ..codegen.space import Config, Space
from ..codegen.task import Task
from ..costmodel import CostModel, pretrained
from ..errors import LoweringError
from .database import Database
from .drift import as_before
from .measure import LocalMeasurer, Measurer
from .scheduler import TaskScheduler, TaskState, WeightedTask
from .search import ModelSearcher, Searcher, SearcherFactory
from .similar import SimilarTasks

BATCH = 8
FINALISTS = 3
"""Configs that are measured once more against the default and each other before the job ends."""
COMPARISONS = 3
"""How often that is done at most: where the fastest loses its lead when it is measured again, another one has the best time."""
MOST_TO_COMPARE = 0.2
"""Of the time of a job that is kept for comparisons."""


@dataclass(frozen=True)
class TaskResult:
    """What tuning did for a task. Seconds are per call; ``default_seconds`` is infinity when the default does not work."""

    task: Task
    occurrences: int
    default: Config
    default_seconds: float
    best: Config | None
    best_seconds: float
    trials: int
    bound_seconds: float
    """What no kernel for the task beats (see :func:`~mlc.costmodel.lower_bound`)."""
    compared: bool = True
    """Whether best and default were last measured side by side. Else other load on the machine may be part of the speed-up."""

    @property
    def share_of_bound(self) -> float:
        """How near the best config is to the bound: 1 would be there, 0 nothing works yet."""
        return self.bound_seconds / self.best_seconds

    @property
    def speedup(self) -> float:
        return self.default_seconds / self.best_seconds if math.isfinite(self.best_seconds) else 1.0


@dataclass(frozen=True)
class NetworkTimes:
    """Seconds of a call of whole models, without tuning and with what it found, which ran by turns."""

    untuned: float
    tuned: float


@dataclass(frozen=True)
class TuningResult:
    """What a job did. ``interrupted``: by Ctrl-C; all that was measured is in the database nevertheless. ``network``: where the best
    configs were compared in the models themselves."""

    tasks: tuple[TaskResult, ...]
    trials: int
    failed: int
    elapsed: float
    interrupted: bool
    network: NetworkTimes | None = None

    @property
    def seconds_before(self) -> float:
        """Time of all occurrences with default configs, of the tasks that were measured."""
        return sum(result.occurrences * result.default_seconds for result in self._measured)

    @property
    def seconds_after(self) -> float:
        return sum(result.occurrences * result.best_seconds for result in self._measured)

    @property
    def _measured(self) -> list[TaskResult]:
        return [result for result in self.tasks if math.isfinite(result.default_seconds) and math.isfinite(result.best_seconds)]


@dataclass(frozen=True)
class Progress:
    """The job as it stands after a batch. ``task`` is the one measured, ``records`` what came of it."""

    task: Task
    records: tuple[Record, ...]
    best_seconds: float
    trials: int
    trials_budget: int
    elapsed: float
    seconds_budget: float | None
    end_to_end: float
    """Estimated seconds of all tasks' occurrences; infinity until each has a measurement."""
    failed: int
    tasks: tuple[TaskResult, ...]
    """Every task of the job as it stands."""
    in_finals: bool = False
    """Whether the search is over, and what is left is to compare what it found in the models themselves."""


@dataclass(frozen=True)
class Job:
    """What a tuning job needs besides its tasks. Every part can be replaced, by other back ends or in tests."""

    measurer: Measurer
    space_of: Callable[[Task], Space | None]
    searcher: SearcherFactory
    on_progress: Callable[[Progress], None] = lambda progress: None
    batch: int = BATCH
    clock: Callable[[], float] = field(default=time.monotonic)


def template_space(task: Task) -> Space | None:
    """The space of the first template that takes the task; None when none does."""
    from ..codegen.templates import template_for

    template = template_for(task.graph, task.target.kind)
    return template.space(task) if template is not None else None


def tune_tasks(
    tasks: Sequence[Task | WeightedTask] | Mapping[Task, int],
    *,
    trials: int = 64,
    seconds: float | None = None,
    database: Database | str | os.PathLike[str],
    model: CostModel | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    measurer: Measurer | None = None,
) -> TuningResult:
    """Tunes ``tasks`` (with how often each occurs) and records every measurement in ``database``.

    ``trials`` is how many configs are measured per task on average, those found in the database included, so that repeating an
    interrupted job continues it; tasks that matter more get more of them. ``seconds`` limits the whole job. ``model`` guides the
    search (None: the one that ships); ``seed`` fixes the inputs that kernels are run on. ``measurer`` measures, and is closed by the
    caller (None: this machine does). Ctrl-C ends the job cleanly.
    LoweringError when no template takes a task, DatabaseError when the database cannot be used.
    """
    with contextlib.ExitStack() as opened:
        if not isinstance(database, Database):
            database = opened.enter_context(Database(database))
        if measurer is None:
            measurer = here = opened.enter_context(LocalMeasurer(seed=seed))
            here.start()

        similar = SimilarTasks(database)

        def searcher(task: Task, space: Space) -> Searcher:
            return ModelSearcher(task, space, model or pretrained(task.target), seeds=similar.configs(task, space))

        job = Job(measurer, template_space, searcher, progress or (lambda progress: None))
        return run(job, weigh(tasks), trials=trials, seconds=seconds, database=database)


def weigh(tasks: Sequence[Task | WeightedTask] | Mapping[Task, int]) -> list[WeightedTask]:
    """Each task once, with its number of occurrences."""
    counts: dict[Task, int] = {}
    items = tasks.items() if isinstance(tasks, Mapping) else ((_task_of(item), _count_of(item)) for item in tasks)
    for task, count in items:
        counts[task] = counts.get(task, 0) + count
    return [WeightedTask(task, count) for task, count in counts.items()]


def _task_of(item: Task | WeightedTask) -> Task:
    return item.task if isinstance(item, WeightedTask) else item


def _count_of(item: Task | WeightedTask) -> int:
    return item.occurrences if isinstance(item, WeightedTask) else 1


def run(job: Job, tasks: Sequence[WeightedTask], *, trials: int, seconds: float | None, database: Database) -> TuningResult:
    """The loop of :func:`tune_tasks` over the parts of ``job``: search, then compare what was found.

    Where the measurer takes several batches at once, each is of another task: times are compared within a task, and a batch, with
    the task's incumbent in it, is never divided among devices. How many tasks there are thus bounds how many devices are busy.
    """
    loop = _Loop(job, [_state(job, weighted, database) for weighted in tasks], trials * len(tasks), seconds, database)
    interrupted = False
    try:
        loop.search()
        loop.compare()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        loop.keep_measured()
    return loop.result(interrupted)


class _Loop:
    """A job while it goes on. ``budget`` is in trials, ``seconds`` of wall time or None."""

    def __init__(self, job: Job, states: Sequence[TaskState], budget: int, seconds: float | None, database: Database) -> None:
        self._job = job
        self._states = states
        self._scheduler = TaskScheduler(states)
        self._budget = budget
        self._seconds = seconds
        self._database = database
        self._start = job.clock()
        self._spent = sum(len(state.searcher.measured) for state in states)
        self._measured = 0
        self._failed = 0
        self._touched: list[TaskState] = []
        self._in_flight: dict[Future[list[Record]], TaskState] = {}

    def search(self) -> None:
        """Measures what the scheduler and the searchers ask for, until the budget is spent or nothing is to be gained."""
        while self._spent < self._budget and self._time_left(self._time_to_compare()):
            state = self._scheduler.next(self._in_flight.values())
            if state is None:
                if not self._in_flight:
                    break
                self._take_finished()
                continue
            # A task's first batch is small, so that every task has a time soon.
            configs = state.searcher.propose(min(self._job.batch if state.searcher.measured else 2, self._budget - self._spent))
            if not configs:
                state.done = True
                continue
            self._spent += len(configs)
            state.trials += len(configs)
            if state not in self._touched:
                self._touched.append(state)
            self._submit(state, [*_references(state), *configs])
        self._drain()

    def compare(self) -> None:
        """Measures the fastest configs of each task and its default side by side, until the fastest is one of those that were."""
        together: dict[str, frozenset[Config]] = {}
        for _ in range(COMPARISONS):
            for state in sorted(self._touched, key=lambda state: -state.seconds):
                key = state.weighted.task.key
                if state.searcher.best in together.get(key, ()) or not self._time_left():
                    continue
                if finalists := _finalists(state):
                    together[key] = frozenset(finalists)
                    self._submit(state, finalists)
            self._drain()
        for state in self._touched:
            state.compared = state.searcher.best in together.get(state.weighted.task.key, ())

    def keep_measured(self) -> None:
        """Records what was measured though the job ends."""
        for future, state in self._in_flight.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._database.add(as_before(future.result(), state.searcher.measured), [state.weighted.task])

    def result(self, interrupted: bool) -> TuningResult:
        trials = sum(state.trials for state in self._states)
        return TuningResult(tuple(_result(state) for state in self._states), trials, self._failed, self._elapsed(), interrupted)

    def _submit(self, state: TaskState, configs: Sequence[Config]) -> None:
        self._in_flight[self._job.measurer.submit(state.weighted.task, configs)] = state
        while len(self._in_flight) >= self._job.measurer.capacity:
            self._take_finished()

    def _drain(self) -> None:
        while self._in_flight:
            self._take_finished()

    def _take_finished(self) -> None:
        """Waits for a batch in flight, and takes in those that are measured."""
        wait(self._in_flight, return_when=FIRST_COMPLETED)
        for future in [future for future in self._in_flight if future.done()]:
            state = self._in_flight.pop(future)
            records = as_before(future.result(), state.searcher.measured)
            self._database.add(records, [state.weighted.task])
            state.searcher.update(records)
            self._measured += len(records)
            self._failed += sum(not record.times for record in records)
            self._job.on_progress(self._progress(state, records))

    def _progress(self, state: TaskState, records: Sequence[Record]) -> Progress:
        return Progress(
            task=state.weighted.task,
            records=tuple(records),
            best_seconds=state.searcher.best_seconds,
            trials=self._spent,
            trials_budget=self._budget,
            elapsed=self._elapsed(),
            seconds_budget=self._seconds,
            end_to_end=self._scheduler.seconds,
            failed=self._failed,
            tasks=tuple(_result(state) for state in self._states),
        )

    def _elapsed(self) -> float:
        return self._job.clock() - self._start

    def _time_left(self, reserve: float = 0.0) -> bool:
        return self._seconds is None or self._elapsed() + reserve < self._seconds

    def _time_to_compare(self) -> float:
        """Seconds of the budget to keep for comparing all tasks, at the rate so far; that includes building, so that it is plenty."""
        if self._seconds is None or not self._measured:
            return 0.0
        return min(len(self._touched) * (FINALISTS + 1) * self._elapsed() / self._measured, MOST_TO_COMPARE * self._seconds)


def _state(job: Job, weighted: WeightedTask, database: Database) -> TaskState:
    space = job.space_of(weighted.task)
    if space is None:
        raise LoweringError(f"no template takes the task {weighted.task.key}, so it cannot be tuned:\n{weighted.task.graph}")
    searcher = job.searcher(weighted.task, space)
    # Failures are tried again: they may have been the machine's.
    searcher.update([record for record in database.records(weighted.task.key, str(weighted.task.target)) if record.times])
    return TaskState(weighted, searcher)


def _working(state: TaskState) -> list[Config]:
    """The configs that work, the fastest first."""
    measured = state.searcher.measured
    return sorted((config for config, seconds in measured.items() if math.isfinite(seconds)), key=lambda config: measured[config])


def _references(state: TaskState) -> list[Config]:
    """What runs along with a batch, to tell how the machine has changed: the incumbent, and the default or else the second best."""
    working, default = _working(state), state.searcher.space.default
    incumbent = working[:1]
    return [*incumbent, *([default] if default in working and default not in incumbent else working[1:2])]


def _finalists(state: TaskState) -> list[Config]:
    """The fastest configs and the default, to be compared side by side; none when the default is the only one."""
    working, default = _working(state), state.searcher.space.default
    chosen = list(dict.fromkeys([*working[:FINALISTS], *([default] if default in working else [])]))
    return chosen if len(chosen) > 1 else []


def _result(state: TaskState) -> TaskResult:
    searcher = state.searcher
    default = searcher.space.default
    return TaskResult(
        task=state.weighted.task,
        occurrences=state.weighted.occurrences,
        default=default,
        default_seconds=searcher.measured.get(default, math.inf),
        best=searcher.best,
        best_seconds=searcher.best_seconds,
        trials=state.trials,
        bound_seconds=state.bound,
        compared=state.compared or not state.trials or searcher.best in (None, default),
    )
