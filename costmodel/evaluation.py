"""How good a ranking is on tasks it has not seen, against a template's default and the best that was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from .gradient_boosting import TaskGroup, group_by_task
from .model import CostModel, Floats, Prediction

CLEAR = 1.1
"""Two configs count as a pair when their times differ by this factor at least."""

SURE = 3.0
"""A model overrules a default when its ensemble's mean lead is this many of its standard deviations."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures. A slowdown is time over the best measured time of the task, as a geometric mean over tasks.

    ``chosen`` is that of the rule a compilation follows: the model's first pick when it is sure, else the default.
    ``overruled`` counts the tasks where that differs from the default.
    """

    tasks: int
    pairwise_accuracy: float
    first_pick: float
    best_of_8: float
    chosen: float
    default: float
    overruled: int

    def __str__(self) -> str:
        return (
            f"{self.tasks} held-out tasks: pairwise accuracy {self.pairwise_accuracy:.3f}; slowdown against the best measured: first pick "
            f"{self.first_pick:.3f}, best of 8 {self.best_of_8:.3f}, default {self.default:.3f}, rule {self.chosen:.3f} "
            f"(overrules {self.overruled} defaults)"
        )


def pick_when_sure(prediction: Prediction, default: int) -> int:
    """The index of the config to take: the first of the ranking if the ensemble agrees that it beats ``default``, else that."""
    first = prediction.order()[0]
    margin, deviation = prediction.lead(first, default)
    return first if margin > SURE * deviation else default


def pairwise(seconds: Floats, score: Floats) -> tuple[float, int]:
    """Of a task's pairs of configs whose times differ clearly: how many the scores put in the right order, and how many there are."""
    slower = seconds[:, None] > CLEAR * seconds[None, :]
    lead = score[None, :] - score[:, None]
    # A tie is worth a coin.
    return float((slower * np.where(lead == 0, 0.5, lead > 0)).sum()), int(slower.sum())


Judgement: TypeAlias = tuple[TaskGroup, Prediction]
"""The measured configs of a task, and what a model that has not seen the task says about them."""


def cross_validate(
    make: Callable[[], CostModel],
    records: Sequence[Record],
    tasks: Mapping[str, Task],
    default_of: Callable[[Task], Config],
    folds: int = 5,
    seed: int = 0,
) -> list[Judgement]:
    """Trains on all but one fold of the tasks and judges that one, in turn. Tasks without a measured default are left out."""
    groups = [group for group in group_by_task(records, tasks) if default_of(group.task) in group.configs]
    order = np.random.default_rng(seed).permutation(len(groups))
    judged: list[Judgement] = []
    for fold in range(folds):
        held_out = {groups[index].task.key for index in order[fold::folds]}
        model = make()
        model.fit([record for record in records if record.task not in held_out], tasks)
        judged += [(group, model.predict(group.task, group.configs)) for group in groups if group.task.key in held_out]
    return judged


def summarise(judged: Sequence[Judgement], default_of: Callable[[Task], Config]) -> Evaluation:
    """The figures of predictions for measured groups."""
    logs: dict[str, list[float]] = {"first": [], "eight": [], "chosen": [], "default": []}
    right, pairs, overruled = 0.0, 0, 0
    for group, prediction in judged:
        seconds, order = group.seconds, prediction.order()
        default = group.configs.index(default_of(group.task))
        chosen = pick_when_sure(prediction, default)
        overruled += chosen != default
        for name, time in (
            ("first", seconds[order[0]]),
            ("eight", seconds[order[:8]].min()),
            ("chosen", seconds[chosen]),
            ("default", seconds[default]),
        ):
            logs[name].append(math.log(time / seconds.min()))
        task_right, task_pairs = pairwise(seconds, prediction.score)
        right, pairs = right + task_right, pairs + task_pairs
    mean = {name: math.exp(float(np.mean(values))) if values else 1.0 for name, values in logs.items()}
    return Evaluation(
        len(judged), right / pairs if pairs else 1.0, mean["first"], mean["eight"], mean["chosen"], mean["default"], overruled
    )
