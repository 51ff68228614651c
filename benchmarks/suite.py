"""The benchmark harness: several systems on several models, side by side.

Each system runs each model in a process of its own with the same number of threads. Calls are timed in rounds that go around the
systems, so that whatever else the machine does hits all of them; every round is warmed up. The speed-up of a system is the median
over the rounds of (baseline's median / the system's median). Outputs are compared with PyTorch in float64.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import numpy as np
import torch

from ..errors import MeasurementError
from . import accuracy
from .machine import Machine
from .models import spec as spec_of
from .systems import BASELINE, SYSTEMS

PATIENCE = 1800.0
"""Seconds after which a silent worker is given up."""


@dataclass(frozen=True)
class Plan:
    """``seconds`` of calls per system and round."""

    models: tuple[str, ...]
    systems: tuple[str, ...] = ("mlc", BASELINE)
    threads: int = 2
    rounds: int = 5
    seconds: float = 0.5

    def __post_init__(self) -> None:
        unknown = [name for name in self.systems if name not in SYSTEMS]
        if unknown:
            raise MeasurementError(f"no system is called {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
        if BASELINE not in self.systems:
            object.__setattr__(self, "systems", (*self.systems, BASELINE))

    @property
    def steps(self) -> int:
        """How often ``run`` reports progress."""
        return len(self.models) * (len(self.systems) * (1 + self.rounds) + 1)


@dataclass(frozen=True)
class Timing:
    """A system on a model. ``rounds`` are seconds per call; ``prepare_s`` includes the compilation; ``failed`` says why there are none."""

    system: str
    rounds: tuple[tuple[float, ...], ...] = ()
    prepare_s: float = 0.0
    error: float = 0.0
    failed: str = ""

    @property
    def median(self) -> float:
        """Median seconds per call over all rounds."""
        return statistics.median(self.medians) if self.rounds else float("nan")

    @property
    def medians(self) -> tuple[float, ...]:
        """Median seconds per call of each round."""
        return tuple(statistics.median(times) for times in self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """The tenth and the ninetieth percentile of all calls, in seconds."""
        low, high = np.percentile([time for times in self.rounds for time in times], [10, 90])
        return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """All systems on one model. ``flops`` of a call; ``allowed`` is the error against float64 that the rules permit."""

    model: str
    flops: int
    allowed: float
    timings: Mapping[str, Timing] = field(default_factory=dict)

    def speedup(self, system: str) -> float:
        """How many times faster than the baseline; not a number when either failed."""
        ours, base = self.timings[system].medians, self.timings[BASELINE].medians
        ratios = [b / o for b, o in zip(base, ours, strict=False)]
        return statistics.median(ratios) if ratios else float("nan")

    def sound(self, system: str) -> bool:
        """Whether the system ran and its outputs are right."""
        timing = self.timings[system]
        return not timing.failed and timing.error <= self.allowed


@dataclass(frozen=True)
class Report:
    machine: Machine
    plan: Plan
    versions: Mapping[str, str]
    comparisons: tuple[Comparison, ...]

    def geometric_mean(self, system: str) -> float:
        """Of the speed-ups over the baseline on all models that ran."""
        speedups = [ratio for c in self.comparisons if math.isfinite(ratio := c.speedup(system))]
        return statistics.geometric_mean(speedups) if speedups else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain data; what is no finite number is null."""
        plain: dict[str, Any] = _finite(self._plain())
        return plain

    def _plain(self) -> dict[str, Any]:
        return {
            "machine": asdict(self.machine),
            "versions": dict(self.versions),
            "plan": asdict(self.plan),
            "geometric_mean": {name: self.geometric_mean(name) for name in self.plan.systems},
            "models": [
                {
                    "model": c.model,
                    "flops": c.flops,
                    "allowed_error": c.allowed,
                    "systems": {
                        name: {
                            "median_s": timing.median,
                            "spread_s": timing.spread,
                            "round_medians_s": timing.medians,
                            "prepare_s": timing.prepare_s,
                            "error": timing.error,
                            "speedup": c.speedup(name),
                        }
                        if not timing.failed
                        else {"failed": timing.failed}
                        for name, timing in c.timings.items()
                    },
                }
                for c in self.comparisons
            ],
        }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(plan: Plan, machine: Machine, progress: Callable[[str], None] = lambda what: None) -> Report:
    """Carries out ``plan``; ``progress`` is told each step before it is taken. A failing system is reported, not raised."""
    comparisons = tuple(_compare(model, plan, progress) for model in plan.models)
    return Report(machine, plan, _versions(), comparisons)


def _compare(model: str, plan: Plan, progress: Callable[[str], None]) -> Comparison:
    with tempfile.TemporaryDirectory() as folder:
        workers: dict[str, _Worker] = {}
        failures: dict[str, str] = {}
        try:
            for system in plan.systems:
                progress(f"{model}: {system} prepares")
                try:
                    workers[system] = _Worker(spec_of(model), system, plan.threads, pathlib.Path(folder))
                except MeasurementError as error:
                    failures[system] = str(error)
            progress(f"{model}: outputs")
            errors = _errors(workers, failures, pathlib.Path(folder))
            rounds: dict[str, list[tuple[float, ...]]] = {system: [] for system in workers}
            for number in range(plan.rounds):
                turn = number % len(plan.systems)
                for system in (*plan.systems[turn:], *plan.systems[:turn]):
                    progress(f"{model}: {system}, round {number + 1}")
                    if system in workers and system not in failures:
                        try:
                            rounds[system].append(tuple(workers[system].ask(do="round", seconds=plan.seconds)["times"]))
                        except MeasurementError as error:
                            failures[system] = str(error)
            flops = workers[BASELINE].flops if BASELINE in workers else 0
            prepared = {system: worker.prepare_s for system, worker in workers.items()}
        finally:
            for worker in workers.values():
                worker.close()
    timings = {
        system: Timing(system, failed=failures[system])
        if system in failures
        else Timing(system, tuple(rounds[system]), prepared[system], errors[system])
        for system in plan.systems
    }
    return Comparison(model, flops, accuracy.allowed(errors.get(BASELINE, 0.0)), timings)


def _errors(workers: Mapping[str, _Worker], failures: dict[str, str], folder: pathlib.Path) -> dict[str, float]:
    """Each system's error against float64."""
    truth: list[torch.Tensor] = []
    errors = {}
    for system in sorted(workers, key=lambda name: name != BASELINE):  # the baseline computes the truth
        reference = str(folder / "reference.npz") if system == BASELINE else None
        outputs = folder / f"{system}.npz"
        try:
            workers[system].ask(do="outputs", path=str(outputs), reference=reference)
        except MeasurementError as error:
            failures[system] = str(error)
            continue
        if reference:
            truth = _load(pathlib.Path(reference))
        errors[system] = accuracy.error(_load(outputs), truth)
    return errors


def _load(path: pathlib.Path) -> list[torch.Tensor]:
    with np.load(path) as arrays:
        return [torch.from_numpy(arrays[name]) for name in arrays.files]


class _Worker:
    """A process that runs one system on one model; ready once constructed. Raises MeasurementError when it fails or goes silent."""

    def __init__(self, spec: str, system: str, threads: int, folder: pathlib.Path) -> None:
        request = json.dumps({"model": spec, "system": system, "threads": threads})
        self._log: IO[str] = open(folder / f"{system}.log", "w+")  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlc.benchmarks.worker", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
        try:
            ready = self._answer()
        except BaseException:
            self.close()
            raise
        self.prepare_s: float = ready["prepare_s"]
        self.flops: int = ready["flops"] or 0

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None, "opened as a pipe"
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer below says why
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "opened as a pipe"
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        if not ready:
            raise MeasurementError(f"no answer within {PATIENCE:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = [text for text in self._log.read().splitlines() if text.strip()][-3:]
            raise MeasurementError(f"the process ended with code {code}: " + " | ".join(last))
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise MeasurementError(answer["failed"])
        return answer


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("mlc", "torch", "apache-tvm", "transformers")
    return {**{name: version(name) for name in names}, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
