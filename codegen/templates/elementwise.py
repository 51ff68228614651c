"""Elementwise operations, views and data movement, pulled to the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx

from ...ir import Dim, Graph, dimension_at, product, typical_values
from ..emit import PARALLEL, SERIAL, Emitter, Evaluator, Expr, Kernel, index, physical_offset, pulls, storage_dtype, to_storage
from ..emit.affine import Box, Walk, merged_loops, walks
from ..emit.boxes import boxes
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .loops import (
    LoopGroup,
    box_indices,
    chunked_vector_loop,
    estimated_seconds,
    groups_of,
    is_long,
    outer_loops,
    physical_axes,
    runs_parallel,
    streamed_outputs,
    vector_loop,
    worth_parallel,
)
from .transpose import transposed_tile

_SMALLEST_SHARE = 5e-6
"""Seconds of work below which one nest of a kernel stays on one thread."""


@dataclass(frozen=True)
class _Nest:
    """One loop nest: the outputs (of one shape and layout) that it computes over ``box``, and how memory is walked."""

    outputs: tuple[int, ...]
    box: Box
    groups: tuple[LoopGroup, ...]
    reads: tuple[tuple[Dim, ...] | None, ...]
    """Strides along ``groups`` of each load."""

    def share(self, graph: Graph) -> float:
        """The part of the kernel's results that this nest computes (at typical sizes)."""
        sizes = typical_values(graph.symbols)
        elements = sum(int(dimension_at(value.tensor.size, sizes)) for value in graph.outputs)
        return len(self.outputs) * int(dimension_at(product(self.box.extents), sizes)) / elements

    @property
    def transposed(self) -> int | None:
        """The loop along which the loads are contiguous, when that is not the innermost and no load is along it."""
        if len(self.groups) < 2 or any(strides is None for strides in self.reads):
            return None
        wide = [strides for strides in self.reads if strides is not None and any(strides)]
        if not wide or any(strides[-1] in (0, 1) and sum(stride != 0 for stride in strides) > 1 for strides in wide):
            return None
        contiguous = {position for strides in wide for position, stride in enumerate(strides[:-1]) if stride == 1}
        return contiguous.pop() if len(contiguous) == 1 else None


class Elementwise(Template):
    """Any region of elementwise, view and data-movement operations; every output is computed from the inputs where it is stored.

    Knobs: ``lanes`` elements of the innermost loop are computed at once; ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "elementwise"
    revision: ClassVar[int] = 3

    def takes(self, graph: Graph) -> bool:
        return all(pulls(node) for node in graph.nodes) and not any(value.tensor.layout.is_blocked for value in graph.outputs)

    def space(self, task: Task) -> Space:
        width = self._natural_lanes(task)
        lanes = tuple(sorted({max(width // 2, 1), width, width * 2, width * 4}))
        # Several registers at once where there is much to compute: LLVM interleaves their chains of instructions.
        chosen = width * 4 if width > 1 and any(is_long(node, task.graph) for node in task.graph.nodes) else width
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", lanes), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": chosen, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        graph = task.graph
        kernel = Kernel(graph, streamed=streamed_outputs(task))
        evaluator = Evaluator(kernel)
        vectorised = all(vectorises(node) for node in graph.nodes)
        for nest in self._nests(graph):
            with kernel.emitter.scope():
                self._emit(evaluator, nest, task, config, vectorised)
        return LoweredKernel(kernel.finish())

    @staticmethod
    def _natural_lanes(task: Task) -> int:
        widest = max((value.tensor.dtype.nbytes for value in (*task.graph.inputs, *task.graph.outputs)), default=4)
        return max(task.target.vector_bytes // max(widest, 4), 1)

    @staticmethod
    def _nests(graph: Graph) -> list[_Nest]:
        alike: dict[object, list[int]] = {}
        for position, value in enumerate(graph.outputs):
            type = value.tensor
            alike.setdefault((type.shape, type.layout), []).append(position)
        nests: list[_Nest] = []
        for outputs in alike.values():
            first = graph.outputs[outputs[0]]
            if first.tensor.is_empty:
                continue
            cuts = boxes(graph, first)
            for other in outputs[1:]:
                if boxes(graph, graph.outputs[other]) != cuts:
                    cuts = [Box((0,) * first.tensor.rank, first.tensor.shape)]
                    break
            nests.extend(_nest(graph, outputs, box) for box in cuts)
        return nests

    def _emit(self, evaluator: Evaluator, nest: _Nest, task: Task, config: Config, vectorised: bool) -> None:
        emitter = evaluator.emitter
        seconds = nest.share(evaluator.graph) * estimated_seconds(task.representative.graph, task.target)
        parallel = runs_parallel(task, config) and (task.is_symbolic or seconds > _SMALLEST_SHARE)
        lanes = config["lanes"]

        def store(positions: dict[int, Expr]) -> None:
            indices = box_indices(nest.box, positions)
            for output in nest.outputs:
                evaluator.store_outputs(output, indices)

        if not nest.groups:
            store({})
            return
        *outer, inner = nest.groups
        if _tiles(evaluator, nest, vectorised, task):
            self._emit_transposed(evaluator, nest, task, parallel)
        elif not outer:
            if vectorised:
                chunked_vector_loop(emitter, inner.extent, lanes, 2 if parallel else 1, lambda i: store(inner.indices(emitter, i)))
            else:
                with emitter.loop(inner.extent, PARALLEL if parallel else SERIAL) as position:
                    store(inner.indices(emitter, position))
        else:
            with outer_loops(emitter, outer, parallel, 4 * task.threads) as positions:
                vector_loop(emitter, inner.extent, lanes, vectorised, lambda i: store({**positions, **inner.indices(emitter, i)}))

    def _emit_transposed(self, evaluator: Evaluator, nest: _Nest, task: Task, parallel: bool) -> None:
        """The inner loop and the one contiguous in the source in square tiles; the last tile of each overlaps the one before."""
        graph, kernel, emitter = evaluator.graph, evaluator.kernel, evaluator.emitter
        across = nest.transposed
        assert across is not None
        (output,) = nest.outputs
        value = graph.outputs[output]
        lanes = _tile_lanes(task, value.tensor.dtype.nbytes)
        inner, source = nest.groups[-1], nest.groups[across]
        tiles = LoopGroup((-1,), (-(-source.extent // lanes),))
        others = [group for position, group in enumerate(nest.groups[:-1]) if position != across]
        inner_tiles = -(-inner.extent // lanes)
        with outer_loops(emitter, [*others, tiles], parallel, 4 * task.threads) as positions, emitter.loop(inner_tiles) as inner_tile:
            column_start = emitter.bind(_tile_start(emitter, positions.pop(-1), lanes, source.extent))
            row_start = emitter.bind(_tile_start(emitter, inner_tile, lanes, inner.extent))

            def at(row: Expr, column: Expr) -> list[Expr]:
                found = {**positions, **inner.indices(emitter, row + row_start), **source.indices(emitter, column + column_start)}
                return box_indices(nest.box, found)

            def place(column: Expr) -> tuple[object, Expr]:
                return kernel.outputs[output], physical_offset(value.tensor, at(index(0), column))

            transposed_tile(
                emitter,
                lanes,
                storage_dtype(value.tensor.dtype),
                lambda row, column: to_storage(emitter, evaluator.value_at(value, at(row, column)), value.tensor.dtype),
                place,
            )


def _nest(graph: Graph, outputs: Sequence[int], box: Box) -> _Nest:
    type = graph.outputs[outputs[0]].tensor
    axes = physical_axes(type, box)
    extents = [box.extents[axis] for axis in axes]
    places: list[Walk] = []
    for output in outputs:
        places.extend(walks(graph, graph.outputs[output], box, axes))
        # The place stored to counts as well: a box that cuts an axis keeps the loops around it apart.
        strides = type.layout.strides(type.shape)
        places.append(Walk(None, tuple(strides[axis] for axis in axes), (True,) * len(axes)))
    merged = merged_loops(places, extents)
    reads = []
    for place in places:
        if place.value is not None:
            reads.append(None if place.strides is None else tuple(place.strides[group[-1]] for group in merged))
    return _Nest(tuple(outputs), box, tuple(groups_of(axes, extents, merged)), tuple(reads))


def _tile_lanes(task: Task, nbytes: int) -> int:
    return min(task.target.vector_bytes // nbytes, 16)


def _tiles(evaluator: Evaluator, nest: _Nest, vectorised: bool, task: Task) -> bool:
    """Whether ``nest`` is worth transposing in registers, whatever the sizes."""
    graph, least = evaluator.graph, evaluator.emitter.least
    if nest.transposed is None or len(nest.outputs) != 1 or not vectorised:
        return False
    nbytes = graph.outputs[nest.outputs[0]].tensor.dtype.nbytes
    lanes = _tile_lanes(task, nbytes)
    return nbytes == 4 and least(nest.groups[-1].extent) >= lanes and least(nest.groups[nest.transposed].extent) >= lanes


def _tile_start(emitter: Emitter, tile: Expr, lanes: int, extent: Dim) -> Expr:
    if emitter.divides(lanes, extent):
        return tile * lanes
    return tirx.Min(tile * lanes, index(extent - lanes))
