"""What passes ask when a transformation pays only sometimes: how long would this take?"""

from __future__ import annotations

from collections.abc import Callable

from ..codegen.space import Space
from ..codegen.target import Target
from ..codegen.task import Numerics, Task
from ..errors import Error
from ..ir import Graph, canonicalise
from .model import CostModel, RooflineModel
from .roofline import lower_bound, roofline

SpaceOf = Callable[[Task], Space | None]
"""The space that a task's template offers; None when no template takes it."""


class CostOracle:
    """Predicted seconds of tasks and of regions, for one target. Answers are remembered.

    With ``space_of`` the answer is the model's time of its best config, otherwise the roofline's.
    """

    def __init__(
        self,
        target: Target,
        threads: int,
        model: CostModel | None = None,
        space_of: SpaceOf | None = None,
        numerics: Numerics = Numerics.FAST,
    ) -> None:
        self.target = target
        self.threads = threads
        self.numerics = numerics
        self._model = model or RooflineModel()
        self._space_of = space_of
        self._known: dict[str, float] = {}

    def region(self, graph: Graph, constant_inputs: frozenset[int] = frozenset()) -> float:
        """Seconds of a region compiled as one kernel."""
        return self.predict(Task(canonicalise(graph), constant_inputs, self.target, self.threads, self.numerics))

    def predict(self, task: Task) -> float:
        """Seconds of a task, never below its lower bound."""
        if task.key not in self._known:
            self._known[task.key] = max(self._of_best_config(task), lower_bound(task).seconds)
        return self._known[task.key]

    def _of_best_config(self, task: Task) -> float:
        space = self._space_of(task) if self._space_of is not None else None
        if space is None or not len(space):
            return roofline(task).seconds
        try:
            prediction = self._model.predict(task, space.configs)
        except Error:
            return roofline(task).seconds
        return float(prediction.seconds[prediction.order()[0]])
