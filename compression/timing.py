"""How long a linear layer takes, dense or in factors: what its kernel's template reckons, and the roofs of the memory hierarchy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..codegen.target import Target
from ..codegen.task import Task
from ..codegen.templates import template_for
from ..costmodel import LAUNCH_SECONDS, Rates, roofs, workload
from ..ir import DType, GraphBuilder, TensorType, canonicalise


@dataclass(frozen=True)
class Clock:
    """Predicts seconds of one call. ``cold``: the model's weights do not fit the caches, so that each call reads them from memory."""

    target: Target
    threads: int
    cold: bool

    def dense(self, rows: int, depth: int, columns: int) -> float:
        return self._product(1, rows, depth, columns)

    def low_rank(self, rows: int, depth: int, columns: int, rank: int) -> float:
        return self._product(1, rows, depth, rank) + self._product(1, rows, rank, columns)

    def monarch(self, rows: int, depth: int, columns: int, blocks: int, groups: int, rank: int) -> float:
        first = self._product(blocks, rows, depth // blocks, groups * rank)
        return first + self._product(groups, rows, blocks * rank, columns // groups)

    def _product(self, batch: int, rows: int, depth: int, columns: int) -> float:
        return _product_seconds(self, batch, rows, depth, columns)


@lru_cache(maxsize=4096)
def _product_seconds(clock: Clock, batch: int, rows: int, depth: int, columns: int) -> float:
    """Seconds of ``batch`` products whose second operands are constant, as one kernel."""
    builder = GraphBuilder("product")
    a, b = TensorType(DType.FLOAT32, (batch, rows, depth)), TensorType(DType.FLOAT32, (batch, depth, columns))
    graph = builder.finish([builder.call("matmul", builder.input(a), builder.input(b))])
    task = Task(canonicalise(graph), frozenset({1}), clock.target, clock.threads)
    rates = Rates.sustained(clock.target, clock.threads)
    bound = roofs(workload(task.graph, task.constant_inputs), rates, cold_bytes=b.nbytes if clock.cold else 0).seconds
    template = template_for(task.graph, clock.target.kind)
    cycles = template.estimated_cycles(task, [template.space(task).default]) if template is not None else None
    reckoned = cycles[0] / clock.target.frequency if cycles is not None else 0.0
    return max(bound, reckoned) + LAUNCH_SECONDS
