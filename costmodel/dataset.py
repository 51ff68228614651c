"""A data set of measured kernels in a Parquet file: what the learned cost models are trained on and judged by.

A row is one config of one task: the task's text, the config, its times, the text of its loops, the facts of its code, and whether
the task is for training or held out. Tasks are divided, not rows, by the hash of their key, so that no model is judged on a
task of which it saw another config, and a data set that grows keeps its division.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import DataSetError, Error
from .assembly_facts import KernelFacts
from .text_model import Sample
from .workload import AnchorKind, workload

FORMAT = b"mlc-kernels-1"
_FORMAT_KEY = b"mlc.format"
HELD_OUT_SHARE = 0.25
"""Of the tasks."""
TRAIN, HELD_OUT = "train", "held-out"
_FACTS = tuple(field.name for field in dataclasses.fields(KernelFacts))


@dataclass(frozen=True)
class Kernel:
    """A measured config. ``loops`` is empty and ``facts`` None where it could not be lowered or compiled."""

    task: Task
    record: Record
    loops: str = ""
    facts: KernelFacts | None = None

    @property
    def split(self) -> str:
        return split_of(self.task.key)


def split_of(task: str) -> str:
    """Whether the task with this key is for training or held out."""
    return HELD_OUT if int(task[:8], 16) < HELD_OUT_SHARE * 2**32 else TRAIN


def family_of(task: Task) -> str:
    """The kind of the heaviest operation (see :class:`AnchorKind`): what may be held out as a whole."""
    return workload(task.representative.graph).anchor.kind.value


@dataclass(frozen=True)
class DataSet:
    """Kernels, the latest measurement of each config."""

    kernels: tuple[Kernel, ...]

    @property
    def tasks(self) -> dict[str, Task]:
        return {kernel.task.key: kernel.task for kernel in self.kernels}

    @property
    def records(self) -> list[Record]:
        return [kernel.record for kernel in self.kernels]

    def samples(self) -> list[Sample]:
        """What the text model learns from: the kernels that ran."""
        return [
            Sample(kernel.task, kernel.loops, kernel.record.median, kernel.facts)
            for kernel in self.kernels
            if kernel.record.times and kernel.loops
        ]

    def for_training(self, hold_out: Iterable[str] = ()) -> DataSet:
        """The training part, without the families in ``hold_out``."""
        families = _families(hold_out)
        return DataSet(tuple(k for k in self.kernels if k.split == TRAIN and (not families or family_of(k.task) not in families)))

    def held_out(self, hold_out: Iterable[str] = ()) -> DataSet:
        """The part that is held out; where families are given, all kernels of these instead."""
        families = _families(hold_out)
        return DataSet(tuple(k for k in self.kernels if (family_of(k.task) in families if families else k.split == HELD_OUT)))

    def without(self, tasks: Iterable[str]) -> DataSet:
        """The kernels of all but these tasks."""
        gone = set(tasks)
        return DataSet(tuple(kernel for kernel in self.kernels if kernel.task.key not in gone))


def _families(names: Iterable[str]) -> set[str]:
    """The names, once they are known to be names of families."""
    families, known = set(names), {kind.value for kind in AnchorKind}
    if unknown := families - known:
        raise DataSetError(f"there is no family {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return families


def write_dataset(path: pathlib.Path, kernels: Sequence[Kernel]) -> None:
    """Replaces the file at ``path`` in one step."""
    arrow, parquet = _pyarrow()
    table = arrow.Table.from_pylist([_row(kernel) for kernel in kernels], schema=_schema(arrow))
    partial = path.with_name(f"{path.name}.partial")
    try:
        parquet.write_table(table, partial, compression="zstd")
        os.replace(partial, path)
    except OSError as error:
        raise DataSetError(f"the data set {path} cannot be written: {error}; check the path, permissions and disk") from error


def read_dataset(path: pathlib.Path) -> DataSet:
    """The data set at ``path``; DataSetError when it is missing, damaged or something else."""
    arrow, parquet = _pyarrow()
    if not path.is_file():
        raise DataSetError(f"there is no data set {path}; 'mlc costmodel collect {path}' makes one")
    try:
        table = parquet.read_table(path)
    except (OSError, arrow.ArrowException) as error:
        raise DataSetError(f"{path} is damaged or no data set ({error}); collect it anew") from error
    if (table.schema.metadata or {}).get(_FORMAT_KEY) != FORMAT:
        raise DataSetError(f"{path} is a Parquet file, but no data set of kernels that this version reads; collect it anew")
    tasks: dict[str, Task] = {}
    latest: dict[tuple[str, Config], Kernel] = {}
    try:
        for row in table.to_pylist():
            kernel = _kernel(row, tasks)
            latest[kernel.task.key, kernel.record.config] = kernel
    except (KeyError, TypeError, ValueError, Error) as error:
        raise DataSetError(f"the data set {path} holds a row that makes no sense ({error}); collect it anew") from error
    return DataSet(tuple(latest.values()))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataSetError("data sets need pyarrow; install it with: pip install 'mlc[train]'") from error
    return pyarrow, pyarrow.parquet


def _schema(arrow: Any) -> Any:
    text = ("task", "task_text", "target", "config", "versions", "error", "loops", "split")
    columns = [
        *(arrow.field(name, arrow.string(), nullable=False) for name in text),
        arrow.field("times", arrow.list_(arrow.float64()), nullable=False),
        arrow.field("timestamp", arrow.float64(), nullable=False),
        *(arrow.field(name, arrow.int64()) for name in _FACTS),
    ]
    return arrow.schema(columns, metadata={_FORMAT_KEY: FORMAT})


def _row(kernel: Kernel) -> dict[str, Any]:
    record = kernel.record
    return {
        "task": kernel.task.key,
        "task_text": kernel.task.text,
        "target": record.target,
        "config": str(record.config),
        "versions": record.versions,
        "error": record.error,
        "loops": kernel.loops,
        "split": kernel.split,
        "times": list(record.times),
        "timestamp": record.timestamp,
        **(dataclasses.asdict(kernel.facts) if kernel.facts is not None else dict.fromkeys(_FACTS)),
    }


def _kernel(row: Mapping[str, Any], tasks: dict[str, Task]) -> Kernel:
    """A row as a kernel; ``tasks`` remembers those that were read before."""
    key = row["task"]
    if key not in tasks:
        tasks[key] = Task.parse(row["task_text"])
    if tasks[key].key != key:
        raise ValueError(f"the text of task {key} is that of another")
    record = Record(
        key, row["target"], Config.parse(row["config"]), tuple(row["times"]), row["versions"], row["timestamp"], error=row["error"]
    )
    facts = None if row[_FACTS[0]] is None else KernelFacts(*(row[name] for name in _FACTS))
    return Kernel(tasks[key], record, row["loops"], facts)
