"""What a tuning job did, for the command line's ``mlc tune``: as a terminal table and as JSON-like data."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from .ir.types import TensorType

if TYPE_CHECKING:
    from .autotune import TaskResult, TuningResult
    from .codegen.task import Task


def tuning_table(result: TuningResult) -> RenderableType:
    """One line per kernel, those that take most time first."""
    grid = Table(box=None, pad_edge=False)
    for heading in ("kernel", "calls", "default us", "best us", "speed-up", "trials", "config"):
        left = heading in ("kernel", "config")
        grid.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for task in sorted(result.tasks, key=lambda task: -weight(task)):
        grid.add_row(
            label(task.task),
            str(task.occurrences),
            microseconds(task.default_seconds),
            microseconds(task.best_seconds),
            f"{task.speedup:.2f}x",
            str(task.trials),
            str(task.best or "-").replace(",", ", "),
        )
    end = "interrupted after" if result.interrupted else "done in"
    lines = [f"{end} {result.elapsed:.0f} s, {result.trials} measurements, {result.failed} of them failed"]
    if result.seconds_after > 0:
        before, after = result.seconds_before, result.seconds_after
        lines.append(
            f"a call's kernels took {microseconds(before)} us by default, take {microseconds(after)} us now ({before / after:.2f}x)"
        )
    if result.network is not None:
        untuned, tuned = result.network.untuned, result.network.tuned
        lines.append(f"whole calls, by turns: {microseconds(untuned)} us untuned, {microseconds(tuned)} us tuned ({untuned / tuned:.2f}x)")
    if loose := sum(not task.compared for task in result.tasks):
        lines.append(
            f"{loose} kernels were not compared with their defaults side by side before the job ended: other load on this machine may be "
            "part of their speed-up"
        )
    return Group(grid, *lines)


def tuning_dict(result: TuningResult) -> dict[str, Any]:
    """The same as JSON-like data; a time that is not known is null."""
    return {
        "trials": result.trials,
        "failed": result.failed,
        "elapsed": result.elapsed,
        "interrupted": result.interrupted,
        "seconds_before": result.seconds_before,
        "seconds_after": result.seconds_after,
        "network": dataclasses.asdict(result.network) if result.network is not None else None,
        "tasks": [
            {
                "task": task.task.key,
                "label": label(task.task),
                "occurrences": task.occurrences,
                "default": str(task.default),
                "default_seconds": _finite(task.default_seconds),
                "best": str(task.best) if task.best else None,
                "best_seconds": _finite(task.best_seconds),
                "bound_seconds": task.bound_seconds,
                "compared": task.compared,
                "trials": task.trials,
            }
            for task in result.tasks
        ],
    }


def label(task: Task) -> str:
    """The operations of a kernel and the shapes of its first input and its outputs, such as ``linear+relu 8x16 -> 8x32``."""
    graph = task.graph
    names = [node.op for node in graph.nodes if node.op != "constant"]
    shapes = [_shape(value.type) for value in graph.outputs]
    way = f"{_shape(graph.inputs[0].type)} -> " if graph.inputs else ""
    return f"{'+'.join(names[:4])}{'+...' if len(names) > 4 else ''} {way}{', '.join(shapes)}"


def _shape(type: object) -> str:
    return "x".join(map(str, type.shape)) if isinstance(type, TensorType) else "state"


def weight(task: TaskResult) -> float:
    """Seconds of all calls with the best config; none while nothing works."""
    return task.occurrences * (task.best_seconds if math.isfinite(task.best_seconds) else 0.0)


def microseconds(seconds: float) -> str:
    """A time in microseconds; a dash for infinity, which is what failed or was not measured."""
    value = seconds * 1e6
    return f"{value:.{1 if value >= 10 else 2}f}" if math.isfinite(value) else "-"


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
