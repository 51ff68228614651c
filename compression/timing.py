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
        return _seconds(self, "linear", ((rows, depth), (columns, depth)))

    def low_rank(self, rows: int, depth: int, columns: int, rank: int) -> float:
        return self.dense(rows, depth, rank) + self.dense(rows, rank, columns)

    def monarch(self, rows: int, depth: int, columns: int, blocks: int, groups: int, rank: int) -> float:
        shapes = ((rows, depth), (blocks, depth // blocks, rank, groups), (blocks, rank, columns // groups, groups))
        return _seconds(self, "monarch", shapes)


@lru_cache(maxsize=4096)
def _seconds(clock: Clock, op: str, shapes: tuple[tuple[int, ...], ...]) -> float:
    """Seconds of one operation whose operands but the first are constant, or of those that it decomposes to if no template takes it."""
    builder = GraphBuilder(op)
    types = [TensorType(DType.FLOAT32, shape) for shape in shapes]
    graph = builder.finish([builder.call(op, *map(builder.input, types))])
    task = Task(canonicalise(graph), frozenset(range(1, len(types))), clock.target, clock.threads)
    template = template_for(task.graph, clock.target.kind)
    if template is None and op == "monarch":
        return _of_two_products(clock, *shapes)
    rates = Rates.sustained(clock.target, clock.threads)
    cold = sum(type.nbytes for type in types[1:]) if clock.cold else 0
    bound = roofs(workload(task.graph, task.constant_inputs), rates, cold_bytes=cold).seconds
    cycles = template.estimated_cycles(task, [template.space(task).default]) if template is not None else None
    reckoned = cycles[0] / clock.target.frequency if cycles is not None else 0.0
    return max(bound, reckoned) + LAUNCH_SECONDS


def _of_two_products(clock: Clock, x: tuple[int, ...], first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """Of a Monarch product as two batched ones. Each of them also copies what it reads, whose order it does not like."""
    rows, (blocks, depth, rank, groups), width = x[0], first, second[2]
    pieces = blocks * rank * groups
    copied = 2 * DType.FLOAT32.nbytes * rows * (blocks * depth + pieces) / Rates.sustained(clock.target, 1).l2
    right = _seconds(clock, "matmul", ((blocks, rows, depth), (blocks, depth, rank * groups)))
    left = _seconds(clock, "matmul", ((groups, rows, blocks * rank), (groups, blocks * rank, width)))
    return right + left + copied
