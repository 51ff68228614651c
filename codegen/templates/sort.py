"""Sorting and top-k along an axis.

A whole row is sorted by counting, for each element, those that come before it (vectors of elements, all pairs: no branches). The first
few of a long row are selected one after the other, each as the best of those that come after the one before.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tvm import tirx

from ...ir import DType, Graph, Node, Value
from ..emit import SERIAL, VECTORIZED, Evaluator, Expr, Kernel, compute_dtype, computes, index, pulls
from ..emit.attributes import attributes_of
from ..emit.math import select
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Numerics, Task
from ..template import LoweredKernel, Template
from .loops import LoopGroup, outer_loops, worth_parallel
from .reduction import extreme, lowest
from .rows import Element, Row, RowLoops, Rows, Step

_LONGEST = 1 << 16
"""Elements of a row, which is staged on the stack."""
_PAIRS_PER_PASS = 8
"""A selected element costs two passes over the row; counting costs as many passes as the row has elements, of cheaper work."""


class Sort(Template):
    """One ``sort`` with an elementwise prologue; the outputs are its values, its indices, or both.

    Knobs: ``lanes`` of a vector, ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "sort"

    def takes(self, graph: Graph) -> bool:
        node = _anchor(graph)
        if node is None or not graph.outputs or not all(value in node.outputs for value in graph.outputs):
            return False
        type = node.inputs[0].tensor
        if not type.is_static or not computes(type.dtype) or type.dtype is DType.BOOL or type.elements == 0:
            return False
        return type.static_shape[_axis(node)] <= _LONGEST and not any(value.tensor.layout.is_blocked for value in graph.outputs)

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (lanes,)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        node = _anchor(task.graph)
        assert node is not None
        kernel = Kernel(task.graph)
        emitter = kernel.emitter
        evaluator = Evaluator(kernel)
        type = node.inputs[0].tensor
        axis = _axis(node)
        length = type.static_shape[axis]
        count = node.outputs[0].tensor.static_shape[axis]
        free = [LoopGroup((other,), (type.static_shape[other],)) for other in type.layout.order if other != axis]
        vectorised = all(vectorises(other) for other in task.graph.nodes if other is not node)
        with outer_loops(emitter, free, bool(config["parallel"]), 4 * task.threads) as indices:

            def at(position: Expr) -> list[Expr]:
                return [position if number == axis else indices.get(number, index(0)) for number in range(type.rank)]

            staged = emitter.allocate(length, compute_dtype(type.dtype), "row")
            with emitter.loop(length, SERIAL if not vectorised or length > 64 else VECTORIZED) as position:
                emitter.store(staged, evaluator.value_at(node.inputs[0], at(position)), position)

            def store(place: Expr, value: Expr, position: Expr) -> None:
                for number, output in enumerate(task.graph.outputs):
                    element = value if output is node.outputs[0] else tirx.Cast("int64", position)
                    kernel.store(number, at(place), element)

            row = _SortedRow(kernel, staged, length, type.dtype, bool(attributes_of(node)["descending"]), config["lanes"])
            if count * _PAIRS_PER_PASS < length:
                row.select(count, store)
            else:
                row.rank(count, store)
        return LoweredKernel(kernel.finish())


class _SortedRow:
    """A staged row, and the two ways of putting it in order. ``store(place, value, position)`` takes the result."""

    def __init__(self, kernel: Kernel, staged: Any, length: int, dtype: DType, descending: bool, lanes: int) -> None:
        self.emitter = kernel.emitter
        self.staged = staged
        self.length = length
        self.dtype = dtype
        self.descending = descending
        self.rows = Rows(self.emitter, RowLoops((), None, (LoopGroup((0,), (length,)),)), lanes)

    def _before(self, a: Expr, b: Expr) -> Expr:
        return a > b if self.descending else a < b

    def rank(self, count: int, store: Any) -> None:
        """Every element goes to the place given by how many come before it; equal ones keep their order."""
        emitter = self.emitter
        ranks = emitter.allocate(self.length, "int32", "rank")
        lanes = self.rows.lanes
        with emitter.loop(-(-self.length // lanes)) as block:
            start = emitter.bind(tirx.Min(block * lanes, index(self.length - lanes)))
            with emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(ranks, index(0), start + lane)
            with emitter.loop(self.length) as other:
                value = emitter.bind(emitter.load(self.staged, other))
                with emitter.loop(lanes, VECTORIZED) as lane:
                    own = emitter.bind(emitter.load(self.staged, start + lane))
                    tie = tirx.And(tirx.EQ(value, own), other < start + lane)
                    earlier = select(tirx.Or(self._before(value, own), tie), index(1), index(0))
                    emitter.store(ranks, emitter.load(ranks, start + lane) + earlier, start + lane)
        with emitter.loop(self.length) as position:
            place = emitter.bind(emitter.load(ranks, position))
            if count < self.length:
                with emitter.when(place < count):
                    store(place, emitter.load(self.staged, position), position)
            else:
                store(place, emitter.load(self.staged, position), position)

    def select(self, count: int, store: Any) -> None:
        """Each next element is the best of those after the last: worse, or equal and further back."""
        emitter = self.emitter
        kind = "max" if self.descending else "min"
        worst = lowest(kind, self.dtype)
        none = tirx.const(2**31 - 1, "int32")
        last_value = emitter.allocate(1, compute_dtype(self.dtype), "value")
        last_place = emitter.allocate(1, "int32", "place")
        emitter.store(last_value, lowest("min" if self.descending else "max", self.dtype), 0)
        emitter.store(last_place, index(-1), 0)
        with emitter.loop(count) as place:
            before = emitter.bind(emitter.load(last_value, 0))
            after = emitter.bind(emitter.load(last_place, 0))
            row = Row(self.rows, {}, None)

            def remaining(element: Element) -> tuple[Expr, Expr]:
                value = emitter.bind(emitter.load(self.staged, element.slot))
                tie = tirx.And(tirx.EQ(value, before), element.slot > after)
                return value, tirx.Or(self._before(before, value), tie)

            def candidate(element: Element) -> Expr:
                value, free = remaining(element)
                return select(free, value, worst)

            (best,) = row.accumulate(Step(extreme(kind, self.dtype, Numerics.FAST), worst, compute_dtype(self.dtype), candidate))
            value = emitter.bind(best(index(0)))

            def position(element: Element) -> Expr:
                own, free = remaining(element)
                return select(tirx.And(free, tirx.EQ(own, value)), element.slot, none)

            (first,) = row.accumulate(Step(lambda a, b: select(a < b, a, b), none, "int32", position))
            chosen = emitter.bind(tirx.Min(first(index(0)), index(self.length - 1)))
            store(place, value, chosen)
            emitter.store(last_value, value, 0)
            emitter.store(last_place, chosen, 0)


def _anchor(graph: Graph) -> Node | None:
    anchors = [node for node in graph.nodes if not pulls(node)]
    return anchors[0] if len(anchors) == 1 and anchors[0].op == "sort" else None


def _axis(node: Node) -> int:
    operand: Value = node.inputs[0]
    return int(attributes_of(node)["axis"]) % operand.tensor.rank
