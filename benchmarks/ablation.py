"""Searchers compared at equal numbers of trials, on spaces that were measured whole.

``python -m mlc.benchmarks.ablation DATABASE [--model FILE ...] [--json FILE]`` replays searches over the records of a tuning database (such
as ``python -m mlc.benchmarks.zero_trials --database`` fills): a searcher that asks for a config gets the times that were measured for it,
so that all searchers meet the same machine. What a search found counts by its median time, over that of the best config of the space. The
three seeds are those of the searchers that draw by chance.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..autotune.database import Database
from ..autotune.search import ModelSearcher, RandomSearcher, Searcher
from ..autotune.stochastic_search import AnnealingSearcher, EvolutionarySearcher
from ..autotune.tuning import BATCH, template_space
from ..codegen.record import Record
from ..codegen.space import Config, Space
from ..codegen.task import Task
from ..costmodel import CostModel, RooflineModel, load_cost_model, pretrained

TRIALS = (8, 16, 32, 64)
SEEDS = (0, 1, 2)
_COMPLETE = 0.9
"""Share of a space that must have been measured."""


@dataclass(frozen=True)
class Maker:
    """Makes a searcher for a task, its space and a seed. ``drawn``: it draws by chance, so that seeds matter."""

    make: Callable[[Task, Space, int], Searcher]
    drawn: bool = False


@dataclass(frozen=True)
class Measured:
    """A task whose space was measured."""

    task: Task
    space: Space
    records: Mapping[Config, Record]

    @property
    def best(self) -> float:
        return min(record.median for record in self.records.values())


@dataclass(frozen=True)
class Row:
    """A searcher: by number of trials, the geometric mean over tasks and seeds of the time of what it found over the best time."""

    searcher: str
    slowdown: Mapping[int, float]


def measured_tasks(database: Database) -> Iterator[Measured]:
    """The tasks of ``database`` whose spaces were measured nearly whole, and are larger than the fewest trials."""
    tasks = database.tasks()
    for key, task in tasks.items():
        space = template_space(task)
        if space is None or len(space) <= TRIALS[0]:
            continue
        records = {record.config: record for record in database.records(key, str(task.target)) if record.times and record.config in space}
        if len(records) >= _COMPLETE * len(space):
            yield Measured(task, space, records)


def replay(searcher: Searcher, measured: Measured) -> list[float]:
    """After each of the numbers of trials, the median time of the config that looks best."""
    found: list[float] = []
    asked = 0
    for most in TRIALS:
        while asked < most:
            configs = searcher.propose(min(BATCH if asked else 2, most - asked))
            if not configs:
                break
            asked += len(configs)
            searcher.update([_observed(measured, config) for config in configs])
        assert searcher.best is not None
        found.append(measured.records[searcher.best].median)
    return found


def _observed(measured: Measured, config: Config) -> Record:
    """The record of a config; one without fails."""
    failed = Record(measured.task.key, str(measured.task.target), config, (), "", 0.0, "not measured")
    return measured.records.get(config, failed)


def compare(tasks: Sequence[Measured], makers: Mapping[str, Maker]) -> list[Row]:
    """Every searcher on every task, with every seed where that matters."""
    rows = []
    for name, maker in makers.items():
        logs: dict[int, list[float]] = {trials: [] for trials in TRIALS}
        for measured in tasks:
            for seed in SEEDS if maker.drawn else SEEDS[:1]:
                for trials, seconds in zip(TRIALS, replay(maker.make(measured.task, measured.space, seed), measured), strict=True):
                    logs[trials].append(math.log(seconds / measured.best))
        rows.append(Row(name, {trials: math.exp(statistics.fmean(values)) for trials, values in logs.items()}))
    return rows


def searchers(models: Mapping[str, CostModel]) -> Mapping[str, Maker]:
    """Those without a model, and the model-guided ones with each of ``models`` (None of them: the roofline and the shipped ranking)."""
    return {
        "random": Maker(RandomSearcher, drawn=True),
        "simulated annealing": Maker(AnnealingSearcher, drawn=True),
        "evolution, shipped ranking": Maker(
            lambda task, space, seed: EvolutionarySearcher(task, space, pretrained(task.target), seed), drawn=True
        ),
        "roofline": _guided(lambda task: RooflineModel()),
        "shipped ranking": _guided(lambda task: pretrained(task.target)),
        **{name: _guided(lambda task, model=model: model) for name, model in models.items()},  # type: ignore[misc]
    }


def _guided(model: Callable[[Task], CostModel]) -> Maker:
    return Maker(lambda task, space, seed: ModelSearcher(task, space, model(task), patience=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, action="append", default=[], help="a further cost model, such as a text model")
    parser.add_argument("--tasks", type=int, help="at most so many")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    options = parser.parse_args()
    with Database(options.database, create=False) as database:
        tasks = list(measured_tasks(database))[: options.tasks]
    rows = compare(tasks, searchers({path.stem: load_cost_model(path) for path in options.model}))
    print(f"{len(tasks)} tasks, {len(SEEDS)} seeds; time of the best found over that of the best of the space")
    print(f"{'':28}" + "".join(f"{trials:>8}" for trials in TRIALS))
    for row in rows:
        print(f"{row.searcher:28}" + "".join(f"{row.slowdown[trials]:8.3f}" for trials in TRIALS))
    if options.json:
        options.json.write_text(json.dumps({"tasks": len(tasks), "rows": [dataclasses.asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
