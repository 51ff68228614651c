"""Builds the configs of a batch in worker processes of this machine, several at once."""

from __future__ import annotations

import itertools
import os
import pathlib
import queue
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import BuildError, MeasurementError
from .building import BuiltKernel
from .workers import Worker

BUILDER = "mlc.autotune.build_worker:builder"
"""What workers serve unless told otherwise."""

Built: TypeAlias = "Mapping[Config, BuiltKernel | str]"
"""What building gave for each config: a library on this machine, or why there is none."""


class Builds(ABC):
    """Turns configs into libraries; keeps what it built. Several threads may build at once, each another task."""

    @abstractmethod
    def build(self, task: Task, configs: Sequence[Config]) -> Built:
        """A library, or the reason of failure, for each of ``configs``. BuildError when it is no config's fault."""

    @abstractmethod
    def close(self) -> None:
        """Ends workers. Libraries lie in the folder that the builds were given."""


class BuildPool(Builds):
    """``workers`` processes that serve what ``factory`` makes, an object like :class:`~.building.TemplateBuilder`.

    Libraries are written to ``folder``. A config may take ``seconds``, and each process ``memory_bytes`` of data.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        factory: str = BUILDER,
        workers: int | None = None,
        seconds: float = 30.0,
        memory_bytes: int | None = None,
    ) -> None:
        count = workers or min(4, len(os.sched_getaffinity(0)))
        self._folder = folder
        self._seconds = seconds
        self._workers = [Worker(factory, folder=folder, memory_bytes=memory_bytes) for _ in range(count)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        # Its threads live as long as the pool: a worker ends with the thread that started it.
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="mlc-build")
        self._warm: set[tuple[int, int]] = set()
        self._built: dict[tuple[str, Config], BuiltKernel] = {}
        self._numbers = itertools.count()

    def start(self) -> None:
        """Starts the workers, without waiting for them."""
        for worker in self._workers:
            worker.start()

    def build(self, task: Task, configs: Sequence[Config]) -> Built:
        known = {config: self._built.get((task.key, config)) for config in configs}
        made = {config: self._threads.submit(self._build_with_idle, task, config) for config, built in known.items() if built is None}
        try:
            return {config: built or self._result(task, config, made[config]) for config, built in known.items()}
        except BaseException:  # Ctrl-C included: the threads are waiting for their workers
            for future in made.values():
                future.cancel()
            for worker in self._workers:
                worker.close()
            raise

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _result(self, task: Task, config: Config, future: Future[BuiltKernel]) -> BuiltKernel | str:
        try:
            built = future.result()
        except MeasurementError as error:
            return f"build: {error}"
        self._built[task.key, config] = built
        return built

    def _build_with_idle(self, task: Task, config: Config) -> BuiltKernel:
        worker = self._idle.get()
        try:
            return self._build(worker, task, config)
        finally:
            self._idle.put(worker)

    def _build(self, worker: Worker, task: Task, config: Config) -> BuiltKernel:
        worker.start()
        if (id(worker), worker.generation) not in self._warm:
            try:
                worker.request("warm_up", 120.0)
            except MeasurementError as error:  # no candidate's fault
                raise BuildError(f"the build worker does not start: {error}; check that mlc is installed for {sys.executable}") from error
            self._warm.add((id(worker), worker.generation))
        library = self._folder / f"k{next(self._numbers)}.so"
        return BuiltKernel.of(worker.request("build", self._seconds, task=task.text, config=str(config), library=str(library)))
