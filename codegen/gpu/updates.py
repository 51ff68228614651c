"""Writes to computed places on a GPU: scatters, and assignments in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx

from ...ir import Graph, Node, TensorType, Value
from ..emit import INDEX, Evaluator, Expr, compute_dtype, index, pulls, unflatten
from ..emit.attributes import attributes_of
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from ..templates.put import Put
from ..templates.scatter import Scatter, combination
from .elements import blocks_for, each_element, element_space, physical_indices
from .kernel import GpuKernel

_WIDE = "int64"


class GpuScatter(Template):
    """One ``scatter_along`` or ``scatter_nd`` with what its operands are computed from; its result is the only output.

    A thread for each element of the result looks through the updates that may concern it, in order: what several of them make of one
    element is defined, whatever threads do. Knobs: ``threads`` of a block.
    """

    name: ClassVar[str] = "gpu_scatter"

    def takes(self, graph: Graph) -> bool:
        return Scatter().takes(graph)

    def space(self, task: Task) -> Space:
        return element_space(self.name, task, task.graph.outputs[0].tensor.elements, 8)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        (node,) = (node for node in task.graph.nodes if not pulls(node))
        type = node.output.tensor
        kernel = GpuKernel(task.graph, blocks=blocks_for(type.elements, config), threads=config["threads"])
        scatter = _Scatter(kernel, node)

        def result(position: Expr) -> None:
            scatter.element(physical_indices(kernel, type, position))

        each_element(kernel, type.elements, config["per_thread"], result)
        return kernel.lowered()


class _Scatter:
    """The code for one element of a scatter's result."""

    def __init__(self, kernel: GpuKernel, node: Node) -> None:
        self.kernel = kernel
        self.emitter = kernel.emitter
        self.evaluator = Evaluator(kernel)
        self.operand, self.indices, self.updates = node.inputs
        self.type: TensorType = node.output.tensor
        self.along: int | None = attributes_of(node)["axis"] % self.type.rank if node.op == "scatter_along" else None
        self.reduction = str(node.attributes["reduction"])
        self.combine = None if self.reduction == "assign" else combination(self.reduction, self.type.dtype)

    def element(self, place: Sequence[Expr]) -> None:
        emitter = self.emitter
        dtype = self.type.dtype
        held = emitter.allocate(1, compute_dtype(dtype) if compute_dtype(dtype) != "bool" else "uint8", "held")
        self._put(held, self.evaluator.value_at(self.operand, place))
        if self.updates.tensor.elements and self.indices.tensor.elements:
            if self.along is None:
                self._slices(held, place)
            else:
                self._elements(held, place, self.along)
        self.kernel.store(0, place, self._get(held))

    def _put(self, held: object, value: Expr) -> None:
        truth = compute_dtype(self.type.dtype) == "bool"
        self.emitter.store(held, tirx.Select(value, tirx.const(1, "uint8"), tirx.const(0, "uint8")) if truth else value, 0)

    def _get(self, held: object) -> Expr:
        value = self.emitter.bind(self.emitter.load(held, 0))
        return tirx.NE(value, tirx.const(0, "uint8")) if compute_dtype(self.type.dtype) == "bool" else value

    def _elements(self, held: object, place: Sequence[Expr], along: int) -> None:
        """Updates at the element's own position but along one axis."""
        emitter, shape = self.emitter, self.updates.tensor.static_shape
        inside = [place[axis] < extent for axis, extent in enumerate(shape) if axis != along and extent < self.type.static_shape[axis]]
        with emitter.when(_all(inside)) if inside else emitter.scope():
            own = [position if axis == along else self.kernel.bounded(position, shape[axis]) for axis, position in enumerate(place)]
            with emitter.loop(shape[along], name="update") as update:
                source = [update if axis == along else position for axis, position in enumerate(own)]
                row = self._row(self.evaluator.value_at(self.indices, source), self.type.static_shape[along])
                with emitter.when(tirx.EQ(row, tirx.Cast(_WIDE, place[along]))):
                    self._meet(held, source)

    def _slices(self, held: object, place: Sequence[Expr]) -> None:
        """Updates of whole slices, each at the place that an index vector names."""
        emitter = self.emitter
        *outer, count = self.indices.tensor.static_shape
        vectors = 1
        for extent in outer:
            vectors *= extent
        with emitter.loop(vectors, name="update") as update:
            at = [emitter.bind(position) for position in unflatten(emitter, outer, update)]
            hits = []
            for axis in range(count):
                row = self._row(self.evaluator.value_at(self.indices, [*at, index(axis)]), self.type.static_shape[axis])
                hits.append(tirx.EQ(row, tirx.Cast(_WIDE, place[axis])))
            with emitter.when(_all(hits)):
                self._meet(held, [*at, *place[count:]])

    def _row(self, position: Expr, extent: int) -> Expr:
        """An index from data; negative ones count from the end."""
        bind = self.emitter.bind
        row = bind(tirx.Cast(_WIDE, position) if position.ty.dtype != _WIDE else position)
        return bind(tirx.Select(row < tirx.const(0, _WIDE), row + tirx.const(extent, _WIDE), row))

    def _meet(self, held: object, source: Sequence[Expr]) -> None:
        """The update at ``source`` meets the element."""
        value = self.emitter.bind(self.evaluator.value_at(self.updates, source))
        self._put(held, value if self.combine is None else self.emitter.bind(self.combine(self._get(held), value)))


class GpuPut(Template):
    """One ``put``, done in place: a thread for each element that is written.

    An index out of range writes nothing, since a kernel cannot raise an error. Knobs: ``threads`` of a block, elements ``per_thread``.
    """

    name: ClassVar[str] = "gpu_put"

    def takes(self, graph: Graph) -> bool:
        return Put().takes(graph)

    def in_place(self, graph: Graph) -> int | None:
        return Put().in_place(graph)

    def space(self, task: Task) -> Space:
        return element_space(self.name, task, self._values(task.graph).tensor.elements, 2)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        (node,) = (node for node in task.graph.nodes if not pulls(node))
        x, values, *indices = node.inputs
        positions: dict[int, Value] = dict(zip(attributes_of(node)["axes"], indices, strict=True))
        type = values.tensor
        kernel = GpuKernel(task.graph, blocks=blocks_for(type.elements, config), threads=config["threads"])
        emitter, evaluator = kernel.emitter, Evaluator(kernel)

        def write(position: Expr) -> None:
            source = [emitter.bind(place) for place in unflatten(emitter, type.static_shape, position)]
            target = list(source)
            inside = []
            for axis, rows in positions.items():
                row = emitter.bind(tirx.Cast(_WIDE, evaluator.value_at(rows, [source[axis]])))
                extent = tirx.const(x.tensor.static_shape[axis], _WIDE)
                row = emitter.bind(tirx.Select(row < tirx.const(0, _WIDE), row + extent, row))
                inside += [row >= tirx.const(0, _WIDE), row < extent]
                target[axis] = emitter.bind(tirx.Cast(INDEX, row))
            with emitter.when(_all(inside)) if inside else emitter.scope():
                kernel.store(0, target, evaluator.value_at(values, source))

        if type.elements:
            each_element(kernel, type.elements, config["per_thread"], write)
        return kernel.lowered()

    @staticmethod
    def _values(graph: Graph) -> Value:
        (node,) = (node for node in graph.nodes if not pulls(node))
        return node.inputs[1]


def _all(conditions: Sequence[Expr]) -> Expr:
    result = conditions[0]
    for condition in conditions[1:]:
        result = tirx.And(result, condition)
    return result
