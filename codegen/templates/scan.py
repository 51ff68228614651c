"""Running sums and products along an axis, with a fused elementwise prologue and epilogue."""

from __future__ import annotations

from typing import ClassVar

from ...ir import Graph
from ..emit import Evaluator, Expr, Kernel, compute_dtype, index
from ..emit.attributes import attributes_of
from ..emit.scalar import constant, vectorises
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .loops import worth_parallel
from .region import AnchoredRegion
from .rows import Element, Row, Rows, plan_rows


class Scan(Template):
    """One ``scan``: vectors run across the rows where another axis is innermost in memory; else a row is one serial loop.

    Knobs: ``lanes`` of a vector, ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "scan"

    def takes(self, graph: Graph) -> bool:
        return AnchoredRegion.find(graph, ("scan",), any_dtype=True) is not None

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (lanes,)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        graph = task.graph
        region = AnchoredRegion.find(graph, ("scan",), any_dtype=True)
        assert region is not None
        kernel = Kernel(graph)
        emitter = kernel.emitter
        node = region.anchor
        operand = node.inputs[0]
        type = operand.tensor
        running: list[Expr] = [None]
        evaluator = Evaluator(kernel, {node.output: lambda indices: running[0]})
        axis = attributes_of(node)["axis"] % type.rank
        loops = plan_rows(graph, type.static_shape, type.layout.order, (axis,), {}, lambda probe, indices: probe.value_at(operand, indices))
        adds = node.attributes["kind"] == "sum"
        vectorised = loops.lane is not None and all(vectorises(other) for other in graph.nodes)
        rows = Rows(emitter, loops, config["lanes"], 1, vectorised)

        def body(row: Row) -> None:
            total = emitter.allocate(rows.lanes, compute_dtype(type.dtype), "running")
            with row.once() as element:
                emitter.store(total, constant(0 if adds else 1, type.dtype), element.lane)

            def step(element: Element) -> None:
                indices = [element.indices.get(number, index(0)) for number in range(type.rank)]
                before, value = emitter.load(total, element.lane), evaluator.value_at(operand, indices)
                running[0] = emitter.bind(before + value if adds else before * value)
                emitter.store(total, running[0], element.lane)
                for position, output in enumerate(graph.outputs):
                    evaluator.store_outputs(position, region.place(kernel, output, indices))

            row.each(step)

        rows.run(bool(config["parallel"]), 4 * task.threads, body)
        return LoweredKernel(kernel.finish())
