"""The job behind the shipped cost model: ``python -m mlc.autotune.pretrain collect DATABASE``, then ``... train DATABASE WEIGHTS``.

``collect`` measures configs of sampled tasks (about five minutes on two cores; run it again to continue), ``train`` prints how
the ranking does on tasks it has not seen and writes it as JSON. It may overrule the defaults of those templates only where that
beats the defaults on held-out tasks.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..costmodel import CostModel, GradientBoostedModel, RooflineModel
from ..costmodel.evaluation import Evaluation, cross_validate, summarise
from ..costmodel.sampling import sample_tasks
from .database import Database
from .measure import LocalMeasurer, Measurer
from .tuning import template_space

TASKS = 120
CONFIGS = 16
"""Configs measured of each task: the default and a sample."""

ENOUGH = 10
"""Held-out tasks of a template without which nothing is known about it."""


def collect(database: Database, measurer: Measurer, tasks: Sequence[Task], configs: int, seconds: float) -> int:
    """Measures up to ``configs`` configs of each task until ``seconds`` have passed, skipping what is there; the number measured."""
    end = time.monotonic() + seconds
    count = 0
    for number, task in enumerate(tasks, 1):
        space = template_space(task)
        if space is None:
            continue
        known = {record.config for record in database.records(task.key, str(task.target))}
        wanted = list(dict.fromkeys([space.default, *space.sample(configs - 1, seed=number)]))
        if all(config in known for config in wanted):
            continue
        if time.monotonic() > end:
            break
        # All in one batch, so that their times compare.
        records = measurer.measure(task, wanted)
        database.add(records, [task])
        count += len(records)
        failed = [record for record in records if not record.times]
        print(
            f"task {number}/{len(tasks)}: {len(records)} configs, {len(failed)} failed",
            *(f"  {r.config}: {r.error}" for r in failed),
            sep="\n",
        )
    return count


def train(database: Database) -> tuple[GradientBoostedModel, Mapping[str, Evaluation]]:
    """The ranking learned from all records, and how rankings do on held-out tasks (five folds), over all and by template."""
    from ..codegen.templates import template_named

    records, tasks = database.records(), database.tasks()
    default_of = _Defaults()
    makers: Mapping[str, type[CostModel]] = {"roofline": RooflineModel, "gradient boosting": GradientBoostedModel}
    results: dict[str, Evaluation] = {}
    model = GradientBoostedModel()
    for name, make in makers.items():
        judged = cross_validate(make, records, tasks, default_of)
        results[name] = summarise(judged, default_of)
        for template in sorted({group.configs[0].template for group, _ in judged}):
            part = summarise([(group, seen) for group, seen in judged if group.configs[0].template == template], default_of)
            results[f"{name}, {template}"] = part
            if make is GradientBoostedModel and part.chosen < part.default and part.tasks >= ENOUGH:
                model.trusted[template] = template_named(template).revision
    model.fit(records, tasks)
    model.notes = {
        "records": len(records),
        "tasks": len(tasks),
        "targets": sorted({record.target for record in records}),
        "versions": sorted({record.versions for record in records if record.versions}),
        "evaluation": {name: str(result) for name, result in results.items()},
    }
    return model, results


class _Defaults:
    """The templates' default config of each task, remembered."""

    def __init__(self) -> None:
        self._known: dict[str, Config] = {}

    def __call__(self, task: Task) -> Config:
        if task.key not in self._known:
            space = template_space(task)
            self._known[task.key] = space.default if space is not None else Config("none")
        return self._known[task.key]


def successful(records: Sequence[Record]) -> int:
    return sum(bool(record.times) for record in records)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlc.autotune.pretrain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="measure configs of sampled tasks")
    collecting.add_argument("database", type=pathlib.Path)
    collecting.add_argument("--tasks", type=int, default=TASKS)
    collecting.add_argument("--configs", type=int, default=CONFIGS, help="of each task")
    collecting.add_argument("--seconds", type=float, default=300.0, help="time limit; run again to continue")
    collecting.add_argument("--seed", type=int, default=0)
    collecting.add_argument("--target", default="cpu")
    training = commands.add_parser("train", help="evaluate and write the ranking")
    training.add_argument("database", type=pathlib.Path)
    training.add_argument("weights", type=pathlib.Path)
    options = parser.parse_args(arguments)
    with Database(options.database, create=options.command == "collect") as database:
        if options.command == "collect":
            target = Target.parse(options.target)
            tasks = sample_tasks(options.tasks, options.seed, target, target.threads)
            with LocalMeasurer() as measurer:
                count = collect(database, measurer, tasks, options.configs, options.seconds)
            print(f"{count} configs measured; the database holds {successful(database.records())} times")
            return 0
        model, results = train(database)
        for name, result in results.items():
            print(f"{name}: {result}")
        print("most important features: " + ", ".join(f"{name} {share:.2f}" for name, share in list(model.explain().items())[:12]))
        print("may overrule the defaults of: " + (", ".join(sorted(model.trusted)) or "none, it is no better"))
        model.save(options.weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
