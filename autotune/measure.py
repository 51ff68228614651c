"""Measures candidates: builds in worker processes, verifies and times in another, so that a bad one costs only itself."""

from __future__ import annotations

import enum
import pathlib
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..costmodel import lower_bound
from ..errors import MeasurementError
from .build_pool import BUILDER, BuildPool, Built
from .building import ENTRY, BuiltKernel, timing_library
from .cases import Cases
from .workers import Worker


class Caches(enum.Enum):
    """What the caches contain when a kernel is timed."""

    WARM = "warm"
    """What the call before left there: a network that fits the caches."""
    COLD_CONSTANTS = "cold constants"
    """No constants: in a large network the other kernels' weights displace them, while activations were just computed, equal shares of them
    by each thread."""
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

    A record has one time per round, the lower quartile of the samples taken in it: what disturbs a sample only ever adds to it. A candidate
    that after two rounds is ``far`` times as slow as the best of its batch, by their least times, is not timed further. A batch of
    candidates that were all timed before, which is a comparison of the best, is timed ``thorough`` times, each time with arrays that lie
    elsewhere in memory: that makes a difference of up to 3%, and not the same one for each candidate.
    """

    rounds: int = 5
    seconds: float = 0.008
    caches: Caches = Caches.MIXED
    far: float = 1.3
    thorough: int = 4

    @property
    def most_seconds(self) -> float:
        """Seconds for which a candidate is timed at most."""
        return self.rounds * self.thorough * self.seconds


_ROUNDS_THAT_TELL = 2
"""After these a candidate may be given up as too slow."""


class Measurer(ABC):
    """Builds, verifies and times configs. To be used as a context manager."""

    @property
    def capacity(self) -> int:
        """How many batches can be measured at once, each of another task."""
        return 1

    @abstractmethod
    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """One record a config, in order; failed configs have no times and say why. They are timed in turns, comparably."""

    def submit(self, task: Task, configs: Sequence[Config]) -> Future[list[Record]]:
        """What :meth:`measure` gives, once it is there. Where one batch is measured at a time, it is measured now, by this thread."""
        future: Future[list[Record]] = Future()
        future.set_result(self.measure(task, configs))
        return future

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
        builder: str = BUILDER,
        protocol: Protocol | None = None,
        limits: Limits | None = None,
        build_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        self.protocol = protocol or Protocol()
        self.limits = limits or Limits()
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-tune-")
        folder = pathlib.Path(self._folder.name)
        self._cases = Cases(folder / "cases", seed)
        self._builds = BuildPool(
            folder, factory=builder, workers=build_workers, seconds=self.limits.build, memory_bytes=self.limits.memory_bytes
        )
        self._runner = Worker("mlc.autotune.running:KernelRunner", folder=folder, memory_bytes=self.limits.memory_bytes)
        self._names: dict[tuple[str, Config], str] = {}
        self._verified: set[str] = set()
        self._opened: tuple[int, str, int] | None = None
        self._arrangement = self._arranged = 0
        """How arrays shall lie in the run worker, and how they do."""
        self._loaded: set[str] = set()

    def start(self) -> None:
        """Starts the workers, so that they import what they need while the caller does something else."""
        self._builds.start()
        self._runner.start()

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """See :meth:`Measurer.measure`."""
        self.start()
        try:
            case = self._cases.manifest(task)
        except MeasurementError as error:
            return [failed_record(task, config, str(error)) for config in configs]
        return self.measure_built(task, configs, self._builds.build(task, configs), case)

    def measure_built(self, task: Task, configs: Sequence[Config], built: Built, case: pathlib.Path | None = None) -> list[Record]:
        """Verifies and times ``configs`` that were built elsewhere, on inputs of the manifest ``case`` (None: written here)."""
        try:
            manifest = case or self._cases.manifest(task)
        except MeasurementError as error:
            return [failed_record(task, config, str(error)) for config in configs]
        kernels: dict[Config, BuiltKernel] = {}
        failures: dict[Config, str] = {}
        compared = len(built) > 1 and all(self._name(task, config) in self._verified for config in built)
        for config, kernel in built.items():
            if isinstance(kernel, str):
                failures[config] = kernel
            elif reason := self._verify(task, manifest, config, kernel):
                failures[config] = reason
            else:
                kernels[config] = kernel
        times: dict[Config, list[float]] = {config: [] for config in kernels}
        for arrangement in range(self.protocol.thorough if compared else 1):
            self._arrangement = arrangement
            for config, taken in self._times(task, manifest, kernels, failures).items():
                times[config] += taken
        versions = {config: kernel.versions for config, kernel in built.items() if isinstance(kernel, BuiltKernel)}
        return [
            _record(task, config, times.get(config, ()), versions=versions.get(config, ""), error=failures.get(config, ""))
            for config in configs
        ]

    def close(self) -> None:
        self._builds.close()
        self._runner.close()
        self._folder.cleanup()

    def _times(
        self, task: Task, case: pathlib.Path, kernels: dict[Config, BuiltKernel], failures: dict[Config, str]
    ) -> dict[Config, list[float]]:
        """Seconds of each kernel in each round; adds to ``failures`` those that fail on the way."""
        times: dict[Config, list[float]] = {config: [] for config in kernels}
        for number in range(self.protocol.rounds):
            least = {config: min(taken) for config, taken in times.items() if taken and config not in failures}
            limit = self.protocol.far * min(least.values()) if least and number >= _ROUNDS_THAT_TELL else float("inf")
            for config, taken in times.items():
                if config not in failures and least.get(config, 0.0) <= limit:
                    try:
                        taken.append(self._time(task, case, config, kernels[config]))
                    except MeasurementError as error:
                        failures[config] = str(error)
        floor = lower_bound(task).seconds
        for config, taken in times.items():
            if config not in failures and statistics.median(taken) < floor:
                failures[config] = f"took {statistics.median(taken):.3g} s, less than the {floor:.3g} s that the work needs: it skips some"
        return times

    def _name(self, task: Task, config: Config) -> str:
        return self._names.setdefault((task.key, config), f"k{len(self._names)}")

    def _verify(self, task: Task, case: pathlib.Path, config: Config, kernel: BuiltKernel) -> str:
        name = self._name(task, config)
        if name in self._verified:
            return ""
        try:
            reason: str = self._ask(task, case, config, kernel, "verify")
        except MeasurementError as error:
            return str(error)
        if reason:
            return f"wrong result: {reason}"
        self._verified.add(name)
        return ""

    def _time(self, task: Task, case: pathlib.Path, config: Config, kernel: BuiltKernel) -> float:
        kinds = {Caches.WARM: (False,), Caches.COLD_CONSTANTS: (True,), Caches.MIXED: (False, True)}[self.protocol.caches]
        if not task.constant_inputs:
            kinds = (False,)
        times = []
        for cold in kinds:
            samples: list[float] = self._ask(task, case, config, kernel, "time", seconds=self.protocol.seconds / len(kinds), cold=cold)
            times.append(sorted(samples)[len(samples) // 4])
        return statistics.fmean(times)

    def _ask(self, task: Task, case: pathlib.Path, config: Config, kernel: BuiltKernel, method: str, **arguments: Any) -> Any:
        """A method of the run worker on a candidate, which is loaded first where the worker does not have it."""
        name = self._name(task, config)
        limit = run_seconds(task, self.limits) + arguments.get("seconds", 0.0)
        self._runner.start()
        wanted = (self._runner.generation, task.key, case.stat().st_mtime_ns)
        if self._opened != wanted:
            self._runner.request("open", 60.0, timing=str(timing_library()), case=str(case))
            self._opened, self._arranged, self._loaded = wanted, 0, set()
        if self._arranged != self._arrangement:
            self._runner.request("arrange", 60.0, arrangement=self._arrangement)
            self._arranged, self._loaded = self._arrangement, set()
        if name not in self._loaded:
            layouts: list[list[Any]] = kernel.document()["constant_layouts"]
            self._runner.request(
                "load",
                60.0,
                name=name,
                library=str(kernel.library),
                entry=ENTRY,
                workspace_bytes=kernel.workspace_bytes,
                constant_layouts=layouts,
            )
            self._loaded.add(name)
        return self._runner.request(method, limit, name=name, **arguments)


def run_seconds(task: Task, limits: Limits) -> float:
    """Seconds after which a call of the run worker is given up."""
    return limits.run + 100 * lower_bound(task).seconds


def failed_record(task: Task, config: Config, error: str) -> Record:
    """The record of a config that could not be measured."""
    return _record(task, config, error=error)


def _record(task: Task, config: Config, times: Sequence[float] = (), *, versions: str = "", error: str = "") -> Record:
    return Record(
        task=task.key,
        target=str(task.target),
        config=config,
        times=() if error else tuple(times),
        versions=versions,
        timestamp=time.time(),
        error=error,
    )
