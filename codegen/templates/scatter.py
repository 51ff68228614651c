"""Scatters: the operand is copied, then the updates are written one after the other, so that the order decides, as it is defined to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx

from ...ir import DType, Graph, Node, TensorType
from ..emit import INDEX, PARALLEL, SERIAL, VECTORIZED, Evaluator, Expr, Kernel, from_storage, index, physical_offset, pulls
from ..emit.affine import Box, Walk, merged_loops, walks
from ..emit.attributes import attributes_of
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Numerics, Task
from ..template import LoweredKernel, Template
from .loops import chunked_vector_loop, groups_of, outer_loops, physical_axes, vector_loop, worth_parallel
from .reduction import extreme

_OPS = ("scatter_along", "scatter_nd")


class Scatter(Template):
    """One ``scatter_along`` or ``scatter_nd`` with what its operands are computed from; its result is the only output.

    Updates that can meet are written by one thread, in order: threads share the axes along which they cannot. Knobs: ``lanes`` of a vector,
    ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "scatter"

    def takes(self, graph: Graph) -> bool:
        anchors = [node for node in graph.nodes if not pulls(node)]
        if len(anchors) != 1 or anchors[0].op not in _OPS or graph.outputs != anchors[0].outputs:
            return False
        values = [*graph.inputs, *(value for node in graph.nodes for value in node.outputs)]
        if not all(isinstance(value.type, TensorType) and value.type.is_static for value in values):
            return False
        return graph.outputs[0].tensor.elements > 0 and not any(value.tensor.layout.is_blocked for value in (*graph.inputs, *graph.outputs))

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (lanes, 2 * lanes)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        (node,) = (node for node in task.graph.nodes if not pulls(node))
        scatter = _Scatter(Kernel(task.graph), node, config["lanes"], task.threads if config["parallel"] else 1)
        scatter.copy()
        if node.inputs[1].tensor.elements and node.inputs[2].tensor.elements:
            scatter.write()
        return LoweredKernel(scatter.kernel.finish())


@dataclass(frozen=True)
class _Share:
    """The axis of the updates that threads share, and in how many parts of what size."""

    axis: int
    parts: int
    size: int


class _Scatter:
    """The code of one scatter."""

    def __init__(self, kernel: Kernel, node: Node, lanes: int, threads: int) -> None:
        self.kernel = kernel
        self.emitter = kernel.emitter
        self.evaluator = Evaluator(kernel)
        self.operand, self.indices, self.updates = node.inputs
        self.type = node.output.tensor
        self.along: int | None = attributes_of(node)["axis"] % self.type.rank if node.op == "scatter_along" else None
        self.reduction = str(node.attributes["reduction"])
        self.lanes = lanes
        self.threads = threads
        self.vectorised = all(vectorises(other) for other in kernel.graph.nodes if other is not node)

    def copy(self) -> None:
        """The result as it is before the updates."""
        shape = self.type.static_shape
        box = Box((0,) * self.type.rank, shape)
        axes = physical_axes(self.type, box)
        extents = [shape[axis] for axis in axes]
        strides = self.type.layout.strides(shape)
        places = [
            *walks(self.kernel.graph, self.operand, box, axes),
            Walk(None, tuple(strides[axis] for axis in axes), (True,) * len(axes)),
        ]
        groups = groups_of(axes, extents, merged_loops(places, extents))

        def store(positions: dict[int, Expr]) -> None:
            place = [positions.get(axis, index(0)) for axis in range(self.type.rank)]
            self.kernel.store(0, place, self.evaluator.value_at(self.operand, place))

        if not groups:
            with self.emitter.scope():
                store({})
            return
        *outer, inner = groups
        if not outer and self.vectorised:
            chunked_vector_loop(self.emitter, inner.extent, self.lanes, self.threads, lambda i: store(inner.indices(self.emitter, i)))
            return
        with outer_loops(self.emitter, outer, self.threads > 1, 4 * self.threads) as positions:
            vector_loop(
                self.emitter, inner.extent, self.lanes, self.vectorised, lambda i: store({**positions, **inner.indices(self.emitter, i)})
            )

    def write(self) -> None:
        """The updates, in row-major order for each place."""
        if self.along is None:
            self._write_slices()
        else:
            self._write_elements(self.along)

    def _write_elements(self, along: int) -> None:
        shape = self.updates.tensor.static_shape
        with self._loops(shape, [axis for axis in range(len(shape)) if axis != along]) as indices:
            row, inside = self._place(self.evaluator.value_at(self.indices, indices), self.type.static_shape[along])
            with self.emitter.when(inside):
                self._combine([row if axis == along else position for axis, position in enumerate(indices)], indices)

    def _write_slices(self) -> None:
        outer = self.indices.tensor.static_shape[:-1]
        count = self.indices.tensor.static_shape[-1]
        inner = self.type.static_shape[count:]
        vector = len(inner) > 0 and self.vectorised and inner[-1] > 1
        looped = (*outer, *inner[:-1]) if vector else (*outer, *inner)
        split = [len(outer) + axis for axis in range(len(inner))]
        with self._loops(looped, [axis for axis in split if axis < len(looped)]) as indices:
            rows, inside = self._vector(indices[: len(outer)], count)
            with self.emitter.when(inside):
                if not vector:
                    self._combine([*rows, *indices[len(outer) :]], indices)
                    return
                for start, lanes in self._vectors(inner[-1]):
                    with self.emitter.loop(lanes, VECTORIZED, "lane") as lane:
                        last = start + lane
                        self._combine([*rows, *indices[len(outer) :], last], [*indices, last])

    def _vectors(self, extent: int) -> Iterator[tuple[Expr, int]]:
        """(start, lanes) of vectors that cover each position once."""
        whole, rest = divmod(extent, self.lanes)
        if whole:
            with self.emitter.loop(whole, name="vector") as vector:
                yield vector * self.lanes, self.lanes
        if rest:
            with self.emitter.scope():
                yield index(whole * self.lanes), rest

    def _vector(self, indices: Sequence[Expr], count: int) -> tuple[list[Expr], Expr]:
        """The place that an index vector names, and whether it lies inside."""
        rows: list[Expr] = []
        inside: Expr = None
        for axis in range(count):
            row, within = self._place(self.evaluator.value_at(self.indices, [*indices, index(axis)]), self.type.static_shape[axis])
            rows.append(row)
            inside = within if inside is None else tirx.And(inside, within)
        return rows, inside

    def _place(self, position: Expr, extent: int) -> tuple[Expr, Expr]:
        """An index from data as an offset (negative ones count from the end), and whether it lies in [0, extent)."""
        bind = self.emitter.bind
        dtype = "int64"
        row = bind(tirx.Cast(dtype, position) if position.ty.dtype != dtype else position)
        row = bind(tirx.Select(row < tirx.const(0, dtype), row + tirx.const(extent, dtype), row))
        inside = tirx.And(row >= tirx.const(0, dtype), row < tirx.const(extent, dtype))
        return bind(tirx.Cast(INDEX, row)), inside

    def _combine(self, place: Sequence[Expr], source: Sequence[Expr]) -> None:
        """The update at ``source`` meets the element at ``place``."""
        value = self.evaluator.value_at(self.updates, source)
        if self.reduction != "assign":
            buffer = self.kernel.outputs[0]
            before = from_storage(self.emitter.load(buffer, physical_offset(self.type, place)), self.type.dtype)
            value = combination(self.reduction, self.type.dtype)(self.emitter.bind(before), value)
        self.kernel.store(0, place, self.emitter.bind(value))

    @contextmanager
    def _loops(self, shape: Sequence[int], independent: Sequence[int]) -> Iterator[list[Expr]]:
        """Loops over ``shape`` in row-major order; one of the ``independent`` axes is shared among threads."""
        share = self._share(shape, independent)
        with ExitStack() as stack:
            part: Expr = index(0)
            if share is not None:
                part = stack.enter_context(self.emitter.loop(share.parts, PARALLEL, "part"))
            indices: list[Expr] = []
            for axis, extent in enumerate(shape):
                if share is not None and share.axis == axis:
                    indices.append(stack.enter_context(self.emitter.loop(share.size, SERIAL)) + part * share.size)
                else:
                    indices.append(stack.enter_context(self.emitter.loop(extent, SERIAL)))
            yield indices

    def _share(self, shape: Sequence[int], independent: Sequence[int]) -> _Share | None:
        best: _Share | None = None
        for axis in independent if self.threads > 1 else ():
            parts = max(count for count in range(1, self.threads + 1) if shape[axis] % count == 0)
            if parts > (best.parts if best is not None else 1):
                best = _Share(axis, parts, shape[axis] // parts)
        return best


def combination(reduction: str, dtype: DType) -> Callable[[Expr, Expr], Expr]:
    if reduction in ("max", "min") and dtype is not DType.BOOL:
        return extreme(reduction, dtype, Numerics.STRICT)
    of_truth: dict[str, Callable[[Expr, Expr], Expr]] = {"add": tirx.Or, "max": tirx.Or, "mul": tirx.And, "min": tirx.And}
    of_numbers: dict[str, Callable[[Expr, Expr], Expr]] = {"add": tirx.Add, "mul": tirx.Mul}
    return (of_truth if dtype is DType.BOOL else of_numbers)[reduction]
