"""How good the first pick of the shipped ranking is: kernels of tasks that it never saw, against the best that is known for each.

``python -m mlc.benchmarks.zero_trials [--tasks 60] [--models vit_b16,mamba] [--seconds 900] [--json FILE]`` measures every config of
held-out sampled tasks, or of the tasks of models, which no training data holds. The best known of a task is the quickest of its whole
space and of PyTorch, whose kernels come from vendor libraries. What decides is measured once more side by side: the ranking's first pick,
its first eight, and the quickest of the first measurement, so that no config wins by the luck of one time.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .. import tuning
from ..autotune.database import Database
from ..autotune.measure import LocalMeasurer, Protocol
from ..autotune.tuning import template_space
from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..costmodel import pretrained
from ..costmodel.dataset import HELD_OUT, split_of
from ..costmodel.evaluation import pairwise
from ..costmodel.sampling import sample_tasks
from ..errors import UnsupportedOpError
from ..options import check_options
from .models import ZOO
from .vendor import vendor_seconds

POINTS = 1000
"""Configs of a space that are measured at most."""
_FINALISTS = 3
_SEED = 20
"""Of the tasks: another one than that of training data, so that most tasks are of neither part of it."""


@dataclass(frozen=True)
class Outcome:
    """What was found for a task. Seconds of a call; ``right`` of ``pairs`` that differ by more than a tenth were in order."""

    template: str
    task: str
    configs: int
    first: float
    best_of_8: float
    default: float
    best: float
    vendor: float
    right: float
    pairs: int

    @property
    def best_known(self) -> float:
        return min(self.best, self.vendor)


def outcome(task: Task, measurer: LocalMeasurer, finals: LocalMeasurer, database: Database | None = None) -> Outcome | None:
    """The task measured, into ``database`` as well; None where it has no choice, or none of its configs works."""
    space = template_space(task)
    if space is None or len(space) < 2:
        return None
    model = pretrained(task.target)
    configs = list(space.configs) if len(space) <= POINTS else list(dict.fromkeys([space.default, *space.sample(POINTS, seed=0)]))
    every = measurer.measure(task, configs)
    if database is not None:
        database.add(every, [task])
    records = [record for record in every if record.times]
    if not records:
        return None
    prediction = model.predict(task, space.configs)
    ranked = [space.configs[index] for index in prediction.order()]
    by_time = sorted(records, key=lambda record: record.median)
    finalists = list(dict.fromkeys([*ranked[:8], *(record.config for record in by_time[:_FINALISTS]), space.default]))
    vendor = _vendor(task)
    final = {record.config: record.median for record in finals.measure(task, finalists) if record.times}
    vendor = min(vendor, _vendor(task))
    right, pairs = _order(records, space.configs, prediction.score)
    return Outcome(
        template=space.default.template,
        task=task.key,
        configs=len(configs),
        first=final.get(ranked[0], math.inf),
        best_of_8=min((final[config] for config in ranked[:8] if config in final), default=math.inf),
        default=final.get(space.default, math.inf),
        best=min(final.values()),
        vendor=vendor,
        right=right,
        pairs=pairs,
    )


def _vendor(task: Task) -> float:
    """Seconds in PyTorch; infinity for what has no counterpart there."""
    try:
        return vendor_seconds(task.graph, task.threads)
    except UnsupportedOpError:
        return math.inf


def _order(records: Sequence[Record], configs: Sequence[Config], score: np.ndarray) -> tuple[float, int]:
    places = [configs.index(record.config) for record in records]
    return pairwise(np.asarray([record.median for record in records]), score[places])


def held_out_tasks(count: int, target: Target) -> Iterator[Task]:
    """``count`` sampled tasks that no shipped model was trained on."""
    sampled = sample_tasks(6 * count, _SEED, target, target.threads)
    return iter([task for task in sampled if split_of(task.key) == HELD_OUT][:count])


def model_tasks(names: Sequence[str], target: Target) -> Iterator[Task]:
    """The different tasks of models of the zoo, in the order of their first calls."""
    options = check_options(target=target)
    found: dict[str, Task] = {}
    for name in names:
        model, inputs = ZOO[name].full()
        for kernel in tuning.model_tasks(model, inputs, {}, options):
            found.setdefault(kernel.task.key, kernel.task)
    return iter(found.values())


def slowdown(outcomes: Sequence[Outcome], part: str) -> float:
    """Geometric mean over tasks of the time of ``part`` over the best known."""
    return math.exp(float(np.mean([math.log(getattr(found, part) / found.best_known) for found in outcomes])))


def summary(name: str, outcomes: Sequence[Outcome]) -> str:
    """One line on some outcomes."""
    pairs = sum(found.pairs for found in outcomes)
    accuracy = sum(found.right for found in outcomes) / pairs if pairs else 1.0
    return (
        f"{name:12} {len(outcomes):3} tasks: first pick {slowdown(outcomes, 'first'):.3f}x of the best known, best of 8 "
        f"{slowdown(outcomes, 'best_of_8'):.3f}x, default {slowdown(outcomes, 'default'):.3f}x; pairwise accuracy {accuracy:.3f} "
        f"of {pairs}; PyTorch quickest {sum(found.vendor < found.best for found in outcomes)} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--models", default="", help="take the tasks of these models of the zoo instead, with commas between")
    parser.add_argument("--seconds", type=float, default=900.0, help="after which no further task is begun")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file after each task; tasks in it are kept")
    parser.add_argument("--database", type=pathlib.Path, help="also add all measurements to this tuning database")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    outcomes = [Outcome(**found) for found in json.loads(options.json.read_text())] if options.json and options.json.exists() else []
    known = {found.task for found in outcomes}
    quick, careful = (Protocol(rounds=9, seconds=seconds, far=math.inf) for seconds in (0.006, 0.015))
    with contextlib.ExitStack() as opened:
        measurer, finals = (opened.enter_context(LocalMeasurer(protocol=protocol)) for protocol in (quick, careful))
        database = opened.enter_context(Database(options.database)) if options.database else None
        target = Target.parse(options.target)
        names = [name for name in options.models.split(",") if name]
        for task in model_tasks(names, target) if names else held_out_tasks(options.tasks, target):
            if time.monotonic() > end:
                break
            if task.key not in known and (found := outcome(task, measurer, finals, database)) is not None:
                outcomes.append(found)
                print(summary(found.template, [found]), flush=True)
                if options.json:
                    options.json.write_text(json.dumps([dataclasses.asdict(found) for found in outcomes], indent=1) + "\n")
    for template in sorted({found.template for found in outcomes}):
        print(summary(template, [found for found in outcomes if found.template == template]))
    print(summary("all", outcomes))


if __name__ == "__main__":
    main()
