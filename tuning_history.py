"""What the records of a tuning database say about its tasks: how the search went, and how well cost models foretold it.

Everything here is a function of records, the oldest first; nothing is measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from .autotune.record_lines import latest
from .autotune.tuning import template_space
from .codegen.record import Record
from .codegen.space import Config, Space
from .codegen.task import Task
from .costmodel import CostModel, Roofline, Workload, lower_bound, workload
from .costmodel.evaluation import pairwise

if TYPE_CHECKING:
    from .autotune.database import Database

BATCH_SECONDS = 1.0
"""Records of one batch have time stamps nearer to each other than this: they are made when all of it is measured."""

FEW = 3
"""Configs of a task below which its ranking is not judged."""


@dataclass(frozen=True)
class TaskHistory:
    """The measurements of one task, the oldest first, and how often the models at hand call it. Seconds are per call.

    ``default`` is its template's default config. ``foreign`` counts measurements, not among ``records``, of configs that are not in the
    task's space any more.
    """

    task: Task
    occurrences: int
    default: Config | None
    records: tuple[Record, ...]
    foreign: int = 0

    @cached_property
    def standing(self) -> Mapping[Config, Record]:
        """The latest measurement of every config that works."""
        return latest(self.records)

    @property
    def trials(self) -> int:
        """Different configs that were measured, those that failed included."""
        return len({record.config for record in self.records})

    @property
    def failed(self) -> int:
        """Measurements that failed."""
        return sum(not record.times for record in self.records)

    @property
    def before(self) -> float:
        """Seconds of the default config; infinity where it was not measured, or does not work."""
        found = self.standing.get(self.default) if self.default is not None else None
        return found.median if found is not None else math.inf

    @cached_property
    def best(self) -> Record | None:
        return min(self.standing.values(), key=lambda record: record.median, default=None)

    @property
    def after(self) -> float:
        """Seconds of the best config; infinity where none works."""
        return self.best.median if self.best is not None else math.inf

    @property
    def is_compared(self) -> bool:
        """Whether there is a time before and a time after."""
        return math.isfinite(self.before) and math.isfinite(self.after)

    @property
    def is_side_by_side(self) -> bool:
        """Whether default and best were measured in one batch; else other load on the machine may be part of their ratio."""
        default = self.standing.get(self.default) if self.default is not None else None
        return default is not None and self.best is not None and abs(default.timestamp - self.best.timestamp) < BATCH_SECONDS

    @cached_property
    def bound(self) -> Roofline:
        """What no kernel for the task beats."""
        return lower_bound(self.task.representative)

    @cached_property
    def work(self) -> Workload:
        typical = self.task.representative
        return workload(typical.graph, typical.constant_inputs)


def history(task: Task, occurrences: int, records: Iterable[Record], space: Space | None) -> TaskHistory:
    """The history of a task, of those ``records`` whose configs are in its ``space`` (None: no template takes it any more)."""
    known = tuple(records)
    inside = tuple(record for record in known if space is None or record.config in space)
    return TaskHistory(task, occurrences, space.default if space is not None else None, inside, len(known) - len(inside))


def read_histories(database: Database, occurrences: Mapping[str, int] | None = None) -> list[TaskHistory]:
    """The histories of the tasks whose keys ``occurrences`` has, else of every task once, those that take most time first.

    Tasks without records are left out.
    """
    by_task: dict[tuple[str, str], list[Record]] = {}
    for record in database:
        by_task.setdefault((record.task, record.target), []).append(record)
    found = []
    for key, task in database.tasks().items():
        records = by_task.get((key, str(task.target)))
        if records and (occurrences is None or key in occurrences):
            found.append(history(task, occurrences[key] if occurrences is not None else 1, records, template_space(task)))
    return sorted(found, key=lambda each: -each.occurrences * each.after if each.best is not None else 0.0)


@dataclass(frozen=True)
class Totals:
    """Sums over tasks; of their seconds, over all calls of those that have a time before and one after."""

    trials: int
    measurements: int
    failed: int
    before: float
    after: float
    bound: float

    @staticmethod
    def of(histories: Iterable[TaskHistory]) -> Totals:
        every = list(histories)
        compared = [each for each in every if each.is_compared]
        return Totals(
            trials=sum(each.trials for each in every),
            measurements=sum(len(each.records) for each in every),
            failed=sum(each.failed for each in every),
            before=sum(each.occurrences * each.before for each in compared),
            after=sum(each.occurrences * each.after for each in compared),
            bound=sum(each.occurrences * each.bound.seconds for each in compared),
        )

    @property
    def speedup(self) -> float:
        """NaN where nothing is compared."""
        return self.before / self.after if self.after else math.nan


@dataclass(frozen=True)
class Step:
    """After ``trial`` different configs had been measured, the best was known to take ``seconds``."""

    trial: int
    seconds: float


class _Search:
    """One task's search, record by record."""

    def __init__(self) -> None:
        self._seconds: dict[Config, float] = {}
        self.best = math.inf

    @property
    def trials(self) -> int:
        return len(self._seconds)

    def take(self, record: Record) -> bool:
        """Whether the best time is another now."""
        self._seconds[record.config] = record.median
        before, self.best = self.best, min(self._seconds.values())
        return self.best != before


def search_curve(of: TaskHistory) -> tuple[Step, ...]:
    """The best time so far, from the first success on: a step wherever it changes, and one at the end.

    It may rise: a config that is measured again counts with what it took then. The last step is the task's ``after``.
    """
    return end_to_end_curve([TaskHistory(of.task, 1, of.default, of.records)])


def end_to_end_curve(histories: Sequence[TaskHistory]) -> tuple[Step, ...]:
    """The sum of all calls' best times so far over the trials of all tasks, from when each has a success; see :func:`search_curve`.

    Tasks of which nothing ever worked are left out of the sum, not of the trials.
    """
    searches = [(each, _Search()) for each in histories]
    working = [(each, search) for each, search in searches if any(record.times for record in each.records)]
    by_key = {each.task.key: search for each, search in searches}
    steps: list[Step] = []
    trial = 0
    for record in sorted((record for each in histories for record in each.records), key=lambda record: record.timestamp):
        search = by_key[record.task]
        trial -= search.trials
        changed = search.take(record)
        trial += search.trials
        if changed and math.isfinite(seconds := sum(each.occurrences * search.best for each, search in working)):
            steps.append(Step(trial, seconds))
    if steps and steps[-1].trial != trial:
        steps.append(Step(trial, steps[-1].seconds))
    return tuple(steps)


@dataclass(frozen=True)
class Judgement:
    """What a model foretold of the measured configs of one task, in seconds [configs], beside what was measured.

    ``rank_correlation`` is Spearman's between its ranking and the measured order, NaN where there is none; ``right`` of ``pairs`` of
    configs whose times differ clearly are in the right order (a tie counts half).
    """

    task: Task
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    rank_correlation: float
    right: float
    pairs: int


@dataclass(frozen=True)
class Calibration:
    """A model's predictions for the tasks of a database. Ranks are compared within each task only."""

    model: str
    judgements: tuple[Judgement, ...]

    @property
    def rank_correlation(self) -> float:
        """The mean over tasks, each weighted with its configs; NaN without any."""
        judged = [each for each in self.judgements if math.isfinite(each.rank_correlation)]
        weights = sum(len(each.measured) for each in judged)
        return sum(each.rank_correlation * len(each.measured) for each in judged) / weights if weights else math.nan

    @property
    def pairwise_accuracy(self) -> float:
        """The share of pairs in the right order; NaN without any."""
        pairs = sum(each.pairs for each in self.judgements)
        return sum(each.right for each in self.judgements) / pairs if pairs else math.nan

    @property
    def typical_factor(self) -> float:
        """The median factor, at least one, between predicted and measured seconds; NaN without any."""
        factors = [
            math.exp(abs(math.log(predicted / measured)))
            for each in self.judgements
            for predicted, measured in zip(each.predicted, each.measured, strict=True)
        ]
        return statistics.median(factors) if factors else math.nan


def calibrate(name: str, model_of: Callable[[Task], CostModel], histories: Iterable[TaskHistory]) -> Calibration:
    """Compares the model of each task, called ``name``, with the latest measurement of each config that works."""
    judgements = []
    for each in histories:
        if each.standing:
            task = each.task.representative
            prediction = model_of(task).predict(task, list(each.standing))
            measured = np.asarray([record.median for record in each.standing.values()])
            right, pairs = pairwise(measured, prediction.score)
            correlation = rank_correlation(measured, -prediction.score)
            judgements.append(Judgement(each.task, tuple(prediction.seconds.tolist()), tuple(measured.tolist()), correlation, right, pairs))
    return Calibration(name, tuple(judgements))


def rank_correlation(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rank correlation; NaN for fewer than :data:`FEW` values, or where one side is constant."""
    if len(measured) < FEW or np.ptp(measured) == 0 or np.ptp(predicted) == 0:
        return math.nan
    return float(spearmanr(measured, predicted).statistic)
