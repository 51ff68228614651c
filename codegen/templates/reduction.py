"""Reductions over any axes, with a fused elementwise prologue and epilogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from tvm import tirx

from ...ir import DType, Graph
from ..emit import Evaluator, Expr, Kernel, compute_dtype, index
from ..emit.attributes import attributes_of
from ..emit.conversions import constant, differs
from ..emit.emitter import truth_as
from ..emit.math import is_nan, select
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Numerics, Task
from ..template import LoweredKernel, Template
from .loops import runs_parallel, worth_parallel
from .region import AnchoredRegion
from .rows import Element, Passes, RowLoops, Rows, Step, plan_rows


class Reduction(Template):
    """One ``reduce``: every result is computed by one thread, in vectors along or across the rows.

    Knobs: ``lanes`` of a vector, ``accumulators`` independent partial results, ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "reduction"

    def takes(self, graph: Graph) -> bool:
        return AnchoredRegion.find(graph, ("reduce",), any_dtype=True, symbolic=True) is not None

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("accumulators", (1, 2, 4, 8)), ("lanes", (lanes,)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "accumulators": 4, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        graph = task.graph
        region = AnchoredRegion.find(graph, ("reduce",), any_dtype=True, symbolic=True)
        assert region is not None
        kernel = Kernel(graph)
        emitter = kernel.emitter
        computation = ReductionComputation(kernel, region, task.numerics)
        vectorised = all(vectorises(node) for node in graph.nodes)
        rows = Rows(emitter, computation.loops, config["lanes"], config["accumulators"], vectorised)
        rows.run(runs_parallel(task, config), 4 * task.threads, computation.row)
        return LoweredKernel(kernel.finish())


class ReductionComputation:
    """The row computation of one reduce."""

    def __init__(self, kernel: Kernel, region: AnchoredRegion, numerics: Numerics) -> None:
        self.kernel = kernel
        self.region = region
        self.numerics = numerics
        node = region.anchor
        self.operand = node.inputs[0]
        self.kind = str(node.attributes["kind"])
        rank = self.operand.tensor.rank
        self.axes = tuple(axis % rank for axis in attributes_of(node)["axes"])
        self.keepdims = bool(node.attributes["keepdims"])
        self.result: Expr = None
        substitutes = {node.output: lambda indices: self.result}
        self.evaluator = Evaluator(kernel, substitutes)
        type = self.operand.tensor
        placeholder = constant(0, node.output.tensor.dtype)
        self.loops: RowLoops = plan_rows(
            region.graph,
            type.shape,
            type.layout.order,
            self.axes,
            {node.output: lambda indices: placeholder},
            lambda evaluator, indices: evaluator.value_at(self.operand, indices),
        )

    def row(self, row: Passes) -> None:
        """Emits one row (or bundle)."""
        dtype = self.operand.tensor.dtype
        if self.kind.startswith("arg"):
            result = self._position_of_extreme(row)
        else:
            step = self._step(self.kind, dtype, lambda element: self._element(element))
            (result,) = row.accumulate(step)
        with row.once() as element:
            self.result = self.kernel.emitter.bind(self._finished(result(element.lane), dtype))
            indices = self._result_indices(element)
            for position, output in enumerate(self.region.graph.outputs):
                self.evaluator.store_outputs(position, self.region.place(self.kernel, output, indices))

    def _element(self, element: Element) -> Expr:
        return self.evaluator.value_at(self.operand, self._operand_indices(element))

    def _operand_indices(self, element: Element) -> list[Expr]:
        return [element.indices.get(axis, index(0)) for axis in range(self.operand.tensor.rank)]

    def _result_indices(self, element: Element) -> list[Expr]:
        indices = []
        for axis in range(self.operand.tensor.rank):
            if axis not in self.axes:
                indices.append(element.indices.get(axis, index(0)))
            elif self.keepdims:
                indices.append(index(0))
        return indices

    def _step(self, kind: str, dtype: DType, element: Callable[[Element], Expr]) -> Step:
        if kind in ("any", "all"):
            identity = tirx.const(0 if kind == "any" else 1, "uint8")
            combine = tirx.bitwise_or if kind == "any" else tirx.bitwise_and

            def truth(place: Element) -> Expr:
                value = element(place)
                return truth_as(value if dtype is DType.BOOL else differs(value, constant(0, dtype)), "uint8")

            return Step(combine, identity, "uint8", truth)
        if kind in ("sum", "mean"):
            return Step(lambda a, b: a + b, constant(0, dtype), compute_dtype(dtype), element)
        if kind == "prod":
            return Step(lambda a, b: a * b, constant(1, dtype), compute_dtype(dtype), element)
        if dtype is DType.BOOL:
            return self._step("any" if kind == "max" else "all", dtype, element)
        return Step(extreme(kind, dtype, self.numerics), lowest(kind, dtype), compute_dtype(dtype), element)

    def _finished(self, value: Expr, dtype: DType) -> Expr:
        if self.kind == "mean":
            length = self.loops.length
            if not isinstance(length, int):
                return value / tirx.Cast(compute_dtype(dtype), index(length))
            return value * constant(1 / length, dtype)
        if self.kind in ("any", "all") or (dtype is DType.BOOL and self.kind in ("max", "min")):
            return tirx.NE(value, tirx.const(0, "uint8"))
        return value

    def _position_of_extreme(self, row: Passes) -> Callable[[Expr], Expr]:
        """The first position of the largest (smallest) element, or of NaN: one pass finds the value, another the position."""
        dtype = self.operand.tensor.dtype
        kind = self.kind.removeprefix("arg")
        number = dtype if dtype is not DType.BOOL else DType.UINT8

        def element(place: Element) -> Expr:
            value = self._element(place)
            return truth_as(value, "uint8") if dtype is DType.BOOL else value

        (best,) = row.accumulate(Step(extreme(kind, number, self.numerics), lowest(kind, number), compute_dtype(number), element))
        (axis,) = self.axes
        none = tirx.const(2**31 - 1, "int32")

        def position(place: Element) -> Expr:
            value = self.kernel.emitter.bind(element(place))
            found = tirx.EQ(value, best(place.lane))
            if number.is_float and self.numerics is Numerics.STRICT:
                found = tirx.Or(found, is_nan(value))
            return select(found, place.indices.get(axis, index(0)), none)

        (first,) = row.accumulate(Step(lambda a, b: select(a < b, a, b), none, "int32", position))
        return lambda lane: tirx.Cast("int64", first(lane))


def extreme(kind: str, dtype: DType, numerics: Numerics) -> Callable[[Expr, Expr], Expr]:
    """max or min of two elements; NaN wins in strict numerics."""

    strict = dtype.is_float and numerics is Numerics.STRICT

    def combine(a: Expr, b: Expr) -> Expr:
        better = a > b if kind == "max" else a < b
        return select(tirx.Or(better, is_nan(a)) if strict else better, a, b)

    return combine


def lowest(kind: str, dtype: DType) -> Expr:
    """The identity of max (or of min) in ``dtype``."""
    if dtype.is_float:
        return constant(float("-inf") if kind == "max" else float("inf"), dtype)
    bits = dtype.bits
    if dtype is DType.UINT8:
        return constant(0 if kind == "max" else 255, dtype)
    return constant(-(2 ** (bits - 1)) if kind == "max" else 2 ** (bits - 1) - 1, dtype)
