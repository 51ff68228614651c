"""What ``mlc tune`` shows while it works: on a terminal a table that is kept up to date, elsewhere a line for every batch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .tuning_report import label, microseconds, weight

if TYPE_CHECKING:
    from .autotune import Progress

_LINES_AROUND = 6
"""Lines of the terminal that are not for tasks."""


@contextlib.contextmanager
def watching(console: Console, names: str) -> Iterator[Callable[[Progress], None]]:
    """Shows a tuning job of the models called ``names``; the function it gives is to be told after every batch."""
    if not console.is_terminal:
        yield lambda progress: console.print(batch_line(progress), highlight=False, markup=False, soft_wrap=True)
        return
    display = Display(console, names)
    with Live(display, console=console, transient=True, refresh_per_second=4):
        yield display.tell


class Display:
    """The latest progress of a job as something that rich renders; the clock goes on between batches."""

    def __init__(self, console: Console, names: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._spinner = Spinner("dots", text=Text(f"tuning {names}"))
        self._state: tuple[Progress, float] | None = None

    def tell(self, progress: Progress) -> None:
        self._state = (progress, self._clock())

    def __rich__(self) -> RenderableType:
        if self._state is None:
            return self._spinner
        progress, heard = self._state
        rows = max(1, self._console.height - _LINES_AROUND)
        return Group(self._spinner, task_table(progress, rows), Text(summary(progress, self._clock() - heard)))


def task_table(progress: Progress, rows: int) -> RenderableType:
    """The ``rows`` tasks that take most time, each with its time before and now and its share of the bound."""
    grid = Table(box=None, pad_edge=False)
    for heading in ("kernel", "calls", "before us", "best us", "of bound", "trials"):
        grid.add_column(heading, justify="left" if heading == "kernel" else "right", no_wrap=True, overflow="ellipsis")
    ordered = sorted(progress.tasks, key=weight, reverse=True)
    for task in ordered[:rows]:
        cells = (
            label(task.task),
            str(task.occurrences),
            microseconds(task.default_seconds),
            microseconds(task.best_seconds),
            f"{task.share_of_bound:.0%}",
            str(task.trials),
        )
        grid.add_row(*map(Text, cells), style="bold" if task.task == progress.task else "")
    if len(ordered) > rows:
        grid.add_row(Text(f"and {len(ordered) - rows} that take less"))
    return grid


def summary(progress: Progress, since: float = 0.0) -> str:
    """The whole job in a line, ``since`` seconds after ``progress`` was told."""
    parts = []
    if math.isfinite(progress.end_to_end):
        before = sum(task.occurrences * task.default_seconds for task in progress.tasks)
        parts.append(f"end to end {microseconds(before)} -> {microseconds(progress.end_to_end)} us")
    parts.append(f"{progress.trials} of {progress.trials_budget} trials, {progress.failed} failed")
    elapsed = progress.elapsed + since
    if progress.in_finals:
        parts.append("comparing the best configs in the models")
    left = f", {max(0.0, progress.seconds_budget - elapsed):.0f} s left" if progress.seconds_budget is not None else ""
    parts.append(f"{elapsed:.0f} s{left}")
    return "; ".join(parts)


def batch_line(progress: Progress) -> str:
    """What came of a batch, and the whole job, in one plain line."""
    if progress.in_finals:
        return summary(progress)
    task = next(result for result in progress.tasks if result.task == progress.task)
    times = f"{microseconds(task.default_seconds)} -> {microseconds(task.best_seconds)} us"
    return f"{label(task.task)}: {times}, {task.share_of_bound:.0%} of the bound; {summary(progress)}"
