"""The job that makes a data set of kernels: configs of sampled tasks are measured, described and written, task by task."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..costmodel.dataset import Kernel, read_dataset, write_dataset
from ..costmodel.model import latest_by_task
from .database import Database
from .describing import Description
from .measure import Measurer
from .tuning import template_space

TASKS = 120
CONFIGS = 16
"""Configs measured of each task: the default and a sample."""
_SAVED_EVERY = 8
"""Tasks after which the file is written, so that an interruption costs no more."""


class Describes(Protocol):
    """What :class:`~.describing.Describer` does."""

    def describe(self, task: Task, configs: Sequence[Config]) -> list[Description]: ...


@dataclass(frozen=True)
class Collected:
    """What a job did: kernels measured or taken over, those of them that failed, and the kernels in the file by now."""

    added: int
    failed: int
    total: int


Tell = Callable[[int, int, str], None]
"""Told of tasks done, of how many, and what was done last."""


def collect(
    path: pathlib.Path,
    tasks: Sequence[Task],
    measurer: Measurer,
    describer: Describes,
    *,
    configs: int = CONFIGS,
    seconds: float = 300.0,
    tell: Tell = lambda done, total, label: None,
) -> Collected:
    """Measures up to ``configs`` configs of each task until ``seconds`` have passed, and adds them to the data set at ``path``.

    Tasks that are complete there are skipped, so that an interrupted job goes on when it is repeated. Which configs are measured follows
    from the task.
    """
    end = time.monotonic() + seconds
    with _Growing(path) as growing:
        for number, task in enumerate(tasks, 1):
            wanted = wanted_configs(task, configs)
            if not wanted or growing.has(task, wanted):
                continue
            if time.monotonic() > end:
                break
            # All in one batch, so that their times compare.
            growing.add(task, measurer.measure(task, wanted), describer)
            tell(number, len(tasks), wanted[0].template)
        return growing.result()


def adopt(path: pathlib.Path, database: Database, describer: Describes, tell: Tell = lambda done, total, label: None) -> Collected:
    """Adds the working records of a tuning database to the data set at ``path``."""
    tasks = database.tasks()
    known: Mapping[str, Mapping[Config, Record]] = latest_by_task(database.records(), tasks)
    with _Growing(path) as growing:
        for number, (key, records) in enumerate(known.items(), 1):
            if not growing.has(tasks[key], tuple(records)):
                growing.add(tasks[key], list(records.values()), describer)
                tell(number, len(known), next(iter(records)).template)
        return growing.result()


def wanted_configs(task: Task, count: int) -> list[Config]:
    """The default config of the task's template and a sample of the others, the same ones for the same task."""
    space = template_space(task)
    return list(dict.fromkeys([space.default, *space.sample(count - 1, seed=int(task.key[:8], 16))])) if space is not None else []


class _Growing:
    """A data set that grows task by task, written every few tasks and at the end, whatever ends it."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        kernels = read_dataset(path).kernels if path.exists() else ()
        self._kernels = {(kernel.task.key, kernel.record.config): kernel for kernel in kernels}
        self._added = self._failed = self._unwritten = 0

    def has(self, task: Task, configs: Sequence[Config]) -> bool:
        return all((task.key, config) in self._kernels for config in configs)

    def add(self, task: Task, records: Sequence[Record], describer: Describes) -> None:
        descriptions = describer.describe(task, [record.config for record in records])
        for record, (loops, facts) in zip(records, descriptions, strict=True):
            self._kernels[task.key, record.config] = Kernel(task, record, loops, facts)
        self._added += len(records)
        self._failed += sum(not record.times for record in records)
        self._unwritten += 1
        if self._unwritten >= _SAVED_EVERY:
            self._write()

    def result(self) -> Collected:
        return Collected(self._added, self._failed, len(self._kernels))

    def _write(self) -> None:
        write_dataset(self._path, list(self._kernels.values()))
        self._unwritten = 0

    def __enter__(self) -> _Growing:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._unwritten:
            self._write()
