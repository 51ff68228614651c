"""Running sums, products and extremes along an axis, with a fused elementwise prologue and epilogue."""

from __future__ import annotations

import math as pymath
from collections.abc import Callable
from typing import ClassVar

from tvm import tirx

from ...ir import DType, Graph
from ..emit import Evaluator, Expr, Kernel, compute_dtype, index, math
from ..emit.attributes import attributes_of
from ..emit.conversions import constant
from ..emit.math import Bind, is_nan, select
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Numerics, Task
from ..template import LoweredKernel, Template
from .loops import runs_parallel, worth_parallel
from .reduction import extreme, lowest
from .region import AnchoredRegion
from .rows import Element, Row, Rows, plan_rows


class Scan(Template):
    """One ``scan``: vectors run across the rows where another axis is innermost in memory; else a row is one serial loop.

    Knobs: ``lanes`` of a vector, ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "scan"

    def takes(self, graph: Graph) -> bool:
        return AnchoredRegion.find(graph, ("scan",), any_dtype=True, symbolic=True) is not None

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (lanes,)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        graph = task.graph
        region = AnchoredRegion.find(graph, ("scan",), any_dtype=True, symbolic=True)
        assert region is not None
        kernel = Kernel(graph)
        emitter = kernel.emitter
        node = region.anchor
        operand = node.inputs[0]
        type = operand.tensor
        running: list[Expr] = [None]
        evaluator = Evaluator(kernel, {node.output: lambda indices: running[0]})
        axis = attributes_of(node)["axis"] % type.rank
        loops = plan_rows(graph, type.shape, type.layout.order, (axis,), {}, lambda probe, indices: probe.value_at(operand, indices))
        kind = str(node.attributes["kind"])
        identity, combine = identity_of(kind, type.dtype), combination(kind, type.dtype)
        called = kind == "logsumexp" and type.dtype is DType.FLOAT64
        vectorised = loops.lane is not None and not called and all(vectorises(other) for other in graph.nodes)
        rows = Rows(emitter, loops, config["lanes"], 1, vectorised)

        def body(row: Row) -> None:
            total = emitter.allocate(rows.lanes, compute_dtype(type.dtype), "running")
            with row.once() as element:
                emitter.store(total, identity, element.lane)

            def step(element: Element) -> None:
                indices = [element.indices.get(number, index(0)) for number in range(type.rank)]
                before, value = emitter.load(total, element.lane), evaluator.value_at(operand, indices)
                running[0] = emitter.bind(combine(emitter.bind, emitter.bind(before), value))
                emitter.store(total, running[0], element.lane)
                for position, output in enumerate(graph.outputs):
                    evaluator.store_outputs(position, region.place(kernel, output, indices))

            row.each(step)

        rows.run(runs_parallel(task, config), 4 * task.threads, body)
        return LoweredKernel(kernel.finish())


def identity_of(kind: str, dtype: DType) -> Expr:
    """What combined with an element gives that element."""
    if kind in ("max", "min"):
        return lowest(kind, dtype)
    return constant({"sum": 0, "prod": 1, "logsumexp": -pymath.inf}[kind], dtype)


def combination(kind: str, dtype: DType) -> Callable[[Bind, Expr, Expr], Expr]:
    """How a scan combines what it has with the next element."""
    if kind == "logsumexp":
        return lambda bind, a, b: _log_add(bind, a, b, dtype)
    if kind in ("max", "min"):
        larger = extreme(kind, dtype, Numerics.STRICT)
        return lambda bind, a, b: larger(a, b)
    return lambda bind, a, b: a + b if kind == "sum" else a * b


def _log_add(bind: Bind, a: Expr, b: Expr, dtype: DType) -> Expr:
    """log(exp(a) + exp(b)) = max + log1p(exp(min - max)); where the larger is infinite, itself."""
    high = bind(select(tirx.Or(a > b, is_nan(a)), a, b))
    low = bind(select(tirx.Or(a > b, is_nan(a)), b, a))
    endless = bind(tirx.EQ(tirx.abs(high), constant(pymath.inf, dtype)))
    gap = bind(select(endless, constant(0, dtype), low - high))
    if dtype is DType.FLOAT32:
        rest = math.log1p(bind, math.exp_nonpositive(bind, gap))
    else:
        rest = bind(tirx.call_pure_extern("float64", "log1p", bind(tirx.exp(gap))))
    return select(endless, high, bind(high + rest))
