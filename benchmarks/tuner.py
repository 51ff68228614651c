"""The tuner beside TVM's MetaSchedule, PyTorch's vendor libraries and the best of the whole space.

``python -m mlc.benchmarks.tuner [--metaschedule 64,256] [--trials 32] [--json FILE]`` tunes six workloads with each, and then times what
they found in turns, so that what else the machine does hits all. The times of searches are wall time from an idle start: imports and
workers included in ours, in MetaSchedule's without the import of TVM. The best known is the quickest of everything, the whole space
included. Operands of a single kernel stay in the caches throughout, as they do in MetaSchedule's own measurement.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..autotune.measure import Caches, LocalMeasurer, Protocol
from ..autotune.tuning import template_space, tune_tasks
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..ir import canonicalise
from .metaschedule import Found, Workload, search, workloads
from .vendor import vendor_seconds

_ROUNDS = 7
_FINALISTS = 3


@dataclass(frozen=True)
class Searched:
    """A search of so many trials: its wall time and the seconds of a call of what it found."""

    trials: int
    elapsed: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """A workload: our search, the pick without one, MetaSchedule's searches, PyTorch, and the best of the whole space."""

    name: str
    ours: Searched
    untuned: float
    metaschedule: tuple[Searched, ...]
    vendor: float
    space: float

    @property
    def best_known(self) -> float:
        return min(self.space, self.vendor, self.ours.seconds, self.untuned, *(other.seconds for other in self.metaschedule))

    def __str__(self) -> str:
        others = ", ".join(
            f"MetaSchedule {other.trials} trials {other.seconds * 1e6:.1f} us in {other.elapsed:.0f} s "
            f"({other.seconds / self.ours.seconds:.2f}x ours, {other.elapsed / self.ours.elapsed:.0f}x the wall time)"
            for other in self.metaschedule
        )
        return (
            f"{self.name}: {self.ours.trials} trials {self.ours.seconds * 1e6:.1f} us in {self.ours.elapsed:.1f} s "
            f"({self.best_known / self.ours.seconds:.1%} of the best known); untuned {self.untuned * 1e6:.1f} us, best of the space "
            f"{self.space * 1e6:.1f} us, PyTorch {self.vendor * 1e6:.1f} us{'; ' if others else ''}{others}"
        )


def compare(workload: Workload, target: Target, trials: int, metaschedule: Sequence[int], limit: float) -> Row:
    """All systems on one workload; MetaSchedule's search ends after ``limit`` seconds."""
    case = workload.case
    task = Task(canonicalise(case.graph), case.constants, target, target.threads)
    found = search(workload, target, metaschedule, limit) if metaschedule else []
    tuned, elapsed = _tuned(task, trials)
    space = template_space(task)
    assert space is not None
    with LocalMeasurer(protocol=Protocol(rounds=3, seconds=0.006, caches=Caches.WARM)) as measurer:
        every = sorted((record for record in measurer.measure(task, space.configs) if record.times), key=lambda record: record.median)
    configs = list(dict.fromkeys([tuned, space.default, *(record.config for record in every[:_FINALISTS])]))
    times, theirs, vendor = _side_by_side(task, configs, found)
    return Row(
        name=case.name,
        ours=Searched(trials, elapsed, times[tuned]),
        untuned=times[space.default],
        metaschedule=tuple(Searched(one.trials, one.elapsed, seconds) for one, seconds in zip(found, theirs, strict=True)),
        vendor=vendor,
        space=min(times.values()),
    )


def _tuned(task: Task, trials: int) -> tuple[Config, float]:
    """What a job of its own chooses, and how long it takes."""
    with tempfile.TemporaryDirectory(prefix="mlc-tuner-") as folder:
        begin = time.perf_counter()
        with LocalMeasurer(protocol=Protocol(caches=Caches.WARM)) as measurer:
            measurer.start()
            (result,) = tune_tasks([task], trials=trials, database=pathlib.Path(folder) / "tuning.db", measurer=measurer).tasks
        elapsed = time.perf_counter() - begin
    assert result.best is not None
    return result.best, elapsed


def _side_by_side(task: Task, configs: Sequence[Config], found: Sequence[Found]) -> tuple[dict[Config, float], list[float], float]:
    """Median seconds over rounds in which everything is timed in turn: of our configs, of MetaSchedule's kernels, of PyTorch."""
    ours: dict[Config, list[float]] = {config: [] for config in configs}
    theirs: list[list[float]] = [[] for _ in found]
    vendor = []
    with LocalMeasurer(protocol=Protocol(rounds=1, seconds=0.05, caches=Caches.WARM)) as measurer:
        for _ in range(_ROUNDS):
            for record in measurer.measure(task, configs):
                ours[record.config].append(record.median if record.times else math.inf)
            for one, times in zip(found, theirs, strict=True):
                times.append(one.seconds())
            vendor.append(vendor_seconds(task.graph, task.threads))
    medians = {config: statistics.median(times) for config, times in ours.items()}
    return medians, [statistics.median(times) for times in theirs], statistics.median(vendor)


def _mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=32, help="of our search")
    parser.add_argument("--metaschedule", default="64,256", help="trials of MetaSchedule's, with commas between; empty: none")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which a search of MetaSchedule's ends")
    parser.add_argument("--only", default="", help="the workloads with this in their names")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    options = parser.parse_args()
    counts = [int(count) for count in options.metaschedule.split(",") if count]
    rows = []
    for workload in [workload for workload in workloads() if options.only in workload.case.name]:
        rows.append(compare(workload, Target.parse(options.target), options.trials, counts, options.limit))
        print(rows[-1], flush=True)
        if options.json:
            options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    print(f"geometric mean: {_mean([row.best_known / row.ours.seconds for row in rows]):.1%} of the best known")
    for count in counts:
        pairs = [(row.ours, other) for row in rows for other in row.metaschedule if other.trials == count]
        if pairs:
            faster = _mean([theirs.seconds / ours.seconds for ours, theirs in pairs])
            quicker = _mean([theirs.elapsed / ours.elapsed for ours, theirs in pairs])
            print(f"MetaSchedule, {count} trials, {len(pairs)} workloads: kernels {faster:.2f}x slower, in {quicker:.1f}x the wall time")


if __name__ == "__main__":
    main()
