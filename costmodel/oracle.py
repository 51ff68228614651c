"""What passes ask when a transformation pays only sometimes: how long would this take?"""

from __future__ import annotations

from ..codegen.target import Target
from ..codegen.task import Numerics, Task
from ..ir import Graph, canonicalise
from .roofline import lower_bound, roofline


class CostOracle:
    """Predicted seconds of tasks and of regions, for one target: those of the roofline. Answers are remembered."""

    def __init__(self, target: Target, threads: int, numerics: Numerics = Numerics.FAST) -> None:
        self.target = target
        self.threads = threads
        self.numerics = numerics
        self._known: dict[str, float] = {}

    def region(self, graph: Graph, constant_inputs: frozenset[int] = frozenset()) -> float:
        """Seconds of a region compiled as one kernel."""
        return self.predict(Task(canonicalise(graph), constant_inputs, self.target, self.threads, self.numerics))

    def predict(self, task: Task) -> float:
        """Seconds of a task, never below its lower bound."""
        if task.key not in self._known:
            self._known[task.key] = max(roofline(task).seconds, lower_bound(task).seconds)
        return self._known[task.key]
