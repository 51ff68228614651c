"""Assignment in place: the kernel writes the positions it is given and touches nothing else of its output."""

from __future__ import annotations

from typing import ClassVar

from tvm import tirx

from ...ir import Graph, Node, TensorType
from ..emit import Evaluator, Expr, Kernel, computes, pulls
from ..emit.attributes import attributes_of
from ..emit.emitter import INDEX
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .loops import LoopGroup, outer_loops, vector_loop, worth_parallel


class Put(Template):
    """One ``put`` whose values and indices are computed from single elements where they are written.

    The output must hold what is to be updated (:meth:`in_place`). An index out of range ends the kernel with
    ``mlc.ir.program.INDEX_ERROR`` before anything is written. Knobs: ``lanes`` elements of the innermost axis are computed at once;
    ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "put"

    def takes(self, graph: Graph) -> bool:
        node = _anchor(graph)
        if node is None or graph.outputs != node.outputs:
            return False
        x = node.inputs[0]
        values = [*graph.inputs, *(value for inner in graph.nodes for value in inner.outputs)]
        if not all(isinstance(value.type, TensorType) and value.type.is_static for value in values):
            return False
        # What is updated in place must not be read for the update: elements may be gone already.
        alone = x.node is None and graph.users[x] == (node,) and sum(operand is x for operand in node.inputs) == 1
        plain = x.tensor.layout == node.output.tensor.layout and not x.tensor.layout.is_blocked
        return alone and plain and all(computes(value.tensor.dtype) for value in node.inputs)

    def in_place(self, graph: Graph) -> int | None:
        node = _anchor(graph)
        assert node is not None
        return graph.inputs.index(node.inputs[0])

    def space(self, task: Task) -> Space:
        node = _anchor(task.graph)
        assert node is not None
        width = max(task.target.vector_bytes // max(node.output.tensor.dtype.nbytes, 4), 1)
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (width, width * 2)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": width, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        node = _anchor(task.graph)
        assert node is not None
        kernel = Kernel(task.graph)
        emitter, evaluator = kernel.emitter, Evaluator(kernel)
        x, values, *indices = node.inputs
        positions = dict(zip(attributes_of(node)["axes"], indices, strict=True))
        shape = values.tensor.static_shape

        def row(axis: int, place: Expr) -> Expr:
            """The index along ``axis`` of the values at ``place`` along it."""
            index = emitter.bind(evaluator.value_at(positions[axis], [place]))
            extent = tirx.const(x.tensor.static_shape[axis], index.ty.dtype)
            return emitter.bind(tirx.Select(index < tirx.const(0, index.ty.dtype), index + extent, index))

        for axis in positions:
            with emitter.loop(shape[axis]) as place:
                index = row(axis, place)
                extent = tirx.const(x.tensor.static_shape[axis], index.ty.dtype)
                with emitter.when(tirx.Or(index < tirx.const(0, index.ty.dtype), index >= extent)):
                    # TVM's only way to return anything but 0: the function then returns -1.
                    emitter.emit(tirx.Evaluate(tirx.call_intrin("int32", "tirx.tvm_throw_last_error")))

        order = [axis for axis in x.tensor.layout.order if shape[axis] != 1]
        inner = order.pop() if order and order[-1] not in positions else None
        vectorised = all(vectorises(other) for other in task.graph.nodes if other is not node)
        groups = [LoopGroup((axis,), (shape[axis],)) for axis in order]
        with outer_loops(emitter, groups, bool(config["parallel"]), 4 * task.threads) as outer:
            rows = {axis: emitter.bind(tirx.Cast(INDEX, row(axis, outer.get(axis, tirx.IntImm(INDEX, 0))))) for axis in positions}

            def store(places: dict[int, Expr]) -> None:
                source = [places.get(axis, tirx.IntImm(INDEX, 0)) for axis in range(len(shape))]
                target = [rows.get(axis, place) for axis, place in enumerate(source)]
                kernel.store(0, target, evaluator.value_at(values, source))

            if inner is None:
                store(outer)
            else:
                vector_loop(emitter, shape[inner], config["lanes"], vectorised, lambda place: store({**outer, inner: place}))
        return LoweredKernel(kernel.finish())


def _anchor(graph: Graph) -> Node | None:
    anchors = [node for node in graph.nodes if not pulls(node)]
    return anchors[0] if len(anchors) == 1 and anchors[0].op == "put" else None
