"""Describes kernels for data sets, the text of their loops and the facts of their code, in worker processes."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from ..codegen.space import Config
from ..codegen.task import Task
from ..costmodel.assembly_facts import KernelFacts, kernel_facts
from ..costmodel.kernel_text import loops_and_assembly
from ..errors import MeasurementError
from .building import candidate_kernel
from .workers import Worker

Description = tuple[str, KernelFacts | None]
"""The loops as text, empty for a config that cannot be compiled, and the facts of its code."""

_PATIENCE = 60.0
"""Seconds that lowering and compiling a candidate may take, the start of its worker included."""


class KernelDescriber:
    """Served by a worker."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def describe(self, task: str, config: str) -> dict[str, Any]:
        """The loops and facts of ``config`` of the task with text ``task``.

        Its object comes from the cache where the config was measured before.
        """
        if task not in self._tasks:
            self._tasks = {task: Task.parse(task)}
        parsed, point = self._tasks[task], Config.parse(config)
        loops, assembly = loops_and_assembly(parsed, point)
        facts = kernel_facts(assembly, candidate_kernel(parsed, point).object)
        return {"loops": loops, "facts": dataclasses.asdict(facts)}


def worker_describer() -> KernelDescriber:
    """The describer of a worker, for which torch is kept out of the process: tvm_ffi would import it, for seconds, in vain."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    return KernelDescriber()


class Describer:
    """Describes configs, several at once. To be used as a context manager."""

    def __init__(self, workers: int | None = None) -> None:
        count = workers or min(4, len(os.sched_getaffinity(0)))
        self._workers = [Worker("mlc.autotune.describing:worker_describer") for _ in range(count)]

    def describe(self, task: Task, configs: Sequence[Config]) -> list[Description]:
        """One description a config, in order."""
        found: dict[Config, Description] = {}

        def serve(number: int) -> None:
            for config in configs[number :: len(self._workers)]:
                try:
                    answer = self._workers[number].request("describe", _PATIENCE, task=task.text, config=str(config))
                    found[config] = answer["loops"], KernelFacts(**answer["facts"])
                except MeasurementError:
                    found[config] = "", None

        with ThreadPoolExecutor(len(self._workers)) as pool:
            try:
                list(pool.map(serve, range(len(self._workers))))
            except BaseException:  # the threads are waiting for their workers
                self.close()
                raise
        return [found[config] for config in configs]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
