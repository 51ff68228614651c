"""The task scheduler: gives each batch of measurements to the task where it should save most end-to-end time."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..codegen.task import Task
from ..costmodel import lower_bound
from .search import Searcher


@dataclass(frozen=True)
class WeightedTask:
    """A task and how often it runs in the models that are tuned."""

    task: Task
    occurrences: int = 1


@dataclass
class TaskState:
    """A task in the job: its searcher, and what has been spent on it. ``done`` when it has nothing more to propose, ``compared`` when its
    fastest configs were measured side by side with the default at the end."""

    weighted: WeightedTask
    searcher: Searcher
    trials: int = 0
    done: bool = False
    compared: bool = False
    bound: float = field(init=False)

    def __post_init__(self) -> None:
        self.bound = lower_bound(self.weighted.task).seconds

    @property
    def seconds(self) -> float:
        """Current time of all occurrences; infinity before the first success."""
        return self.weighted.occurrences * self.searcher.best_seconds

    @property
    def headroom(self) -> float:
        """Seconds between the current time of all occurrences and the least they can take."""
        return self.weighted.occurrences * max(0.0, self.searcher.best_seconds - self.bound)

    @property
    def worth(self) -> float:
        """Seconds, over all occurrences, that the next measurement should save; never more than the headroom."""
        return min(self.weighted.occurrences * self.searcher.expected_gain(), self.headroom)


class TaskScheduler:
    """Chooses among the states of a job. Tasks without any measurement come first, the heaviest of them first."""

    def __init__(self, states: Sequence[TaskState]) -> None:
        self.states = list(states)

    def next(self, busy: Collection[TaskState] = ()) -> TaskState | None:
        """The state to spend the next batch on, other than those ``busy`` with one; None when no task is worth one."""
        open_states = [state for state in self.states if not state.done and all(state is not other for other in busy)]
        fresh = [state for state in open_states if not state.searcher.measured]
        if fresh:
            return max(fresh, key=lambda state: state.weighted.occurrences * state.bound)
        # A task whose every config has failed so far has no current time: give it a chance before the rest.
        broken = [state for state in open_states if math.isinf(state.searcher.best_seconds)]
        if broken:
            return min(broken, key=lambda state: len(state.searcher.measured))
        best = max(open_states, key=lambda state: state.worth, default=None)
        return best if best is not None and best.worth > 0 else None

    @property
    def seconds(self) -> float:
        """Estimated time of all tasks with their best configs; infinity while one has none."""
        return sum(state.seconds for state in self.states)
