"""Measures candidates: builds in worker processes, verifies and times in another, so that a bad one costs only itself."""

from __future__ import annotations

import enum
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..costmodel import lower_bound
from ..errors import BuildError, Error, MeasurementError
from .building import ENTRY, BuiltKernel, timing_library
from .inputs import write_case
from .workers import Worker

KEPT_CASES = 4
"""Tasks whose inputs and references stay on disk."""


class Caches(enum.Enum):
    """What the caches contain when a kernel is timed."""

    WARM = "warm"
    """What the call before left there: a network that fits the caches."""
    COLD_CONSTANTS = "cold constants"
    """No constants: in a large network the other kernels' weights displace them, while activations were just computed."""
    MIXED = "mixed"
    """The mean of both, so that a config is good in either."""


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes that a candidate may take. ``run`` is added to a hundred times what the task takes at best."""

    build: float = 30.0
    run: float = 5.0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Protocol:
    """How candidates are timed: ``rounds`` passes over a batch, ``seconds`` for each candidate in each pass.

    A record has one time per round, the lower quartile of the samples taken in it: what disturbs a sample only ever adds to it.
    """

    rounds: int = 5
    seconds: float = 0.008
    caches: Caches = Caches.MIXED


class Measurer(ABC):
    """Builds, verifies and times configs. To be used as a context manager."""

    @abstractmethod
    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """One record a config, in order; failed configs have no times and say why. They are timed in turns, comparably."""

    @abstractmethod
    def close(self) -> None:
        """Ends workers and removes files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


class LocalMeasurer(Measurer):
    """Measures on this machine. ``builder`` names a factory of objects like :class:`~.building.TemplateBuilder`,
    ``seed`` fixes the inputs."""

    def __init__(
        self,
        *,
        builder: str = "mlc.autotune.building:worker_builder",
        protocol: Protocol | None = None,
        limits: Limits | None = None,
        build_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self.protocol = protocol or Protocol()
        self.limits = limits or Limits()
        count = build_workers or min(4, len(os.sched_getaffinity(0)))
        self._builders = [Worker(builder, memory_bytes=self.limits.memory_bytes) for _ in range(count)]
        self._runner = Worker("mlc.autotune.running:KernelRunner", memory_bytes=self.limits.memory_bytes)
        self._warm: set[tuple[int, int]] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-tune-")
        (pathlib.Path(self._folder.name) / "cases").mkdir()
        self._built: dict[tuple[str, Config], BuiltKernel] = {}
        self._names: dict[tuple[str, Config], str] = {}
        self._verified: set[str] = set()
        self._opened: tuple[int, str] = (0, "")
        self._opened_case = 0
        self._loaded: set[str] = set()

    def start(self) -> None:
        """Starts the workers, so that they import what they need while the caller does something else."""
        for worker in (*self._builders, self._runner):
            worker.start()

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """See :meth:`Measurer.measure`."""
        self.start()
        failures: dict[Config, str] = {}
        case = self._case(task, failures, configs)
        self._build(task, [config for config in dict.fromkeys(configs) if config not in failures], failures)
        times: dict[Config, list[float]] = {config: [] for config in dict.fromkeys(configs)}
        for config in times:
            if config not in failures and (reason := self._verify(task, case, config)):
                failures[config] = reason
        for _ in range(self.protocol.rounds):
            for config, taken in times.items():
                if config not in failures:
                    try:
                        taken.append(self._time(task, case, config))
                    except MeasurementError as error:
                        failures[config] = str(error)
        floor = lower_bound(task).seconds
        for config, taken in times.items():
            if config not in failures and statistics.median(taken) < floor:
                failures[config] = f"took {statistics.median(taken):.3g} s, less than the {floor:.3g} s that the work needs: it skips some"
        return [self._record(task, config, times[config], failures.get(config, "")) for config in configs]

    def close(self) -> None:
        for worker in (*self._builders, self._runner):
            worker.close()
        self._folder.cleanup()

    def _record(self, task: Task, config: Config, times: Sequence[float], error: str) -> Record:
        built = self._built.get((task.key, config))
        return Record(
            task=task.key,
            target=str(task.target),
            config=config,
            times=() if error else tuple(times),
            versions=built.versions if built else "",
            timestamp=time.time(),
            error=error,
        )

    def _case(self, task: Task, failures: dict[Config, str], configs: Sequence[Config]) -> pathlib.Path:
        """The manifest of the task's inputs and references; a task that cannot be interpreted fails all its configs."""
        folder = pathlib.Path(self._folder.name) / "cases" / task.key
        path = folder / "case.json"
        if not path.exists():
            # Weights take space: only the latest cases are kept.
            for old in sorted(folder.parent.iterdir(), key=lambda kept: kept.stat().st_mtime)[: -KEPT_CASES + 1]:
                shutil.rmtree(old, ignore_errors=True)
            try:
                write_case(task, folder, self.seed)
            except (Error, ValueError, MemoryError, OSError, NotImplementedError) as error:
                failures.update(dict.fromkeys(configs, f"no reference: {type(error).__name__}: {error}"))
        return path

    def _build(self, task: Task, configs: Sequence[Config], failures: dict[Config, str]) -> None:
        missing = [config for config in configs if (task.key, config) not in self._built]
        if not missing:
            return

        def build(assigned: tuple[Worker, Sequence[Config]]) -> None:
            worker, share = assigned
            for config in share:
                try:
                    self._built[task.key, config] = self._build_one(worker, task, config)
                except MeasurementError as error:
                    failures[config] = f"build: {error}"

        count = min(len(self._builders), len(missing))
        shares = [(worker, missing[number::count]) for number, worker in enumerate(self._builders[:count])]
        with ThreadPoolExecutor(count) as pool:
            try:
                list(pool.map(build, shares))
            except BaseException:
                for worker in self._builders:  # the threads are waiting for their workers
                    worker.close()
                raise

    def _build_one(self, worker: Worker, task: Task, config: Config) -> BuiltKernel:
        worker.start()
        if (id(worker), worker.generation) not in self._warm:
            try:
                worker.request("warm_up", 120.0)
            except MeasurementError as error:  # no candidate's fault
                raise BuildError(f"the build worker does not start: {error}; check that mlc is installed for {sys.executable}") from error
            self._warm.add((id(worker), worker.generation))
        library = pathlib.Path(self._folder.name) / f"{self._name(task, config)}.so"
        return BuiltKernel.of(worker.request("build", self.limits.build, task=task.text, config=str(config), library=str(library)))

    def _name(self, task: Task, config: Config) -> str:
        return self._names.setdefault((task.key, config), f"k{len(self._names)}")

    def _verify(self, task: Task, case: pathlib.Path, config: Config) -> str:
        name = self._name(task, config)
        if name in self._verified:
            return ""
        try:
            reason: str = self._ask(task, case, config, "verify")
        except MeasurementError as error:
            return str(error)
        if reason:
            return f"wrong result: {reason}"
        self._verified.add(name)
        return ""

    def _time(self, task: Task, case: pathlib.Path, config: Config) -> float:
        kinds = {Caches.WARM: (False,), Caches.COLD_CONSTANTS: (True,), Caches.MIXED: (False, True)}[self.protocol.caches]
        if not task.constant_inputs:
            kinds = (False,)
        times = []
        for cold in kinds:
            samples: list[float] = self._ask(task, case, config, "time", seconds=self.protocol.seconds / len(kinds), cold=cold)
            times.append(sorted(samples)[len(samples) // 4])
        return statistics.fmean(times)

    def _ask(self, task: Task, case: pathlib.Path, config: Config, method: str, **arguments: Any) -> Any:
        """A method of the run worker on a candidate, which is loaded first where the worker does not have it."""
        name, built = self._name(task, config), self._built[task.key, config]
        limit = self.limits.run + 100 * lower_bound(task).seconds + arguments.get("seconds", 0.0)
        self._runner.start()
        if self._opened != (self._runner.generation, task.key) or self._opened_case != case.stat().st_mtime_ns:
            self._runner.request("open", 60.0, timing=str(timing_library()), case=str(case))
            self._opened, self._loaded = (self._runner.generation, task.key), set()
            self._opened_case = case.stat().st_mtime_ns
        if name not in self._loaded:
            layouts: list[list[Any]] = built.document()["constant_layouts"]
            self._runner.request(
                "load",
                60.0,
                name=name,
                library=str(built.library),
                entry=ENTRY,
                workspace_bytes=built.workspace_bytes,
                constant_layouts=layouts,
            )
            self._loaded.add(name)
        return self._runner.request(method, limit, name=name, **arguments)
