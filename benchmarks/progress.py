"""A progress bar for a known number of named steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def steps(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """Gives a function to call with each step's name before the step is taken."""
    if not console.is_terminal:
        yield lambda name: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=total)
        taken = 0

        def step(name: str) -> None:
            nonlocal taken
            bars.update(task, completed=taken, description=name)
            taken += 1

        yield step
