"""Loop nests over boxes of an output: merged, vectorised along memory, parallel over the outer part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tvm import tirx

from ...ir import Dim, DType, Graph, Node, TensorType, graph_cost, lookup, product, type_at, typical_values
from ..emit import PARALLEL, SERIAL, VECTORIZED, Emitter, Expr, extent_of, index, is_dim, unflatten
from ..emit.affine import Box
from ..space import Config
from ..target import Kind, Target
from ..task import Task
from .tiling import PARALLEL_SECONDS

_LONG = 8
"""Operations per element from which on an elementwise operation counts as long."""


def estimated_seconds(graph: Graph, target: Target) -> float:
    """A rough time of ``graph`` on one core: arithmetic at a third of the peak, or its bytes at a cache's pace."""
    cost = graph_cost(graph)
    return max(cost.flops / (0.3 * target.peak_flops), (cost.bytes_read + cost.bytes_written) / 30e9)


def is_long(node: Node, graph: Graph) -> bool:
    """Whether elementwise ``node`` of ``graph`` takes many instructions an element, as transcendental functions do; by the cost model."""
    sizes = typical_values(graph.symbols)
    result = type_at(node.output.tensor, sizes)
    flops = lookup(node.op).flops([type_at(value.tensor, sizes) for value in node.inputs], node.attributes, [result])
    return flops // max(result.elements, 1) >= _LONG


def worth_parallel(task: Task) -> bool:
    """Whether a parallel loop pays for ``task`` (at typical sizes)."""
    return task.threads > 1 and estimated_seconds(task.representative.graph, task.target) > PARALLEL_SECONDS


def runs_parallel(task: Task, config: Config) -> bool:
    """Whether to emit parallel loops. Where sizes are symbolic always: the entry keeps calls with little to do on one thread."""
    return task.threads > 1 if task.is_symbolic else bool(config["parallel"])


def streamed_outputs(task: Task) -> frozenset[int]:
    """The outputs of ``task`` that no cache can keep: its users read them from memory whatever way they are stored."""
    target = task.target
    if target.kind is not Kind.CPU or not target.l3_bytes:
        return frozenset()
    outputs = [value.tensor for value in task.graph.outputs]
    large = (type.is_static and type.dtype is DType.FLOAT32 and type.nbytes > target.l3_bytes for type in outputs)
    return frozenset(position for position, is_large in enumerate(large) if is_large)


def physical_axes(type: TensorType, box: Box) -> list[int]:
    """The logical axes of ``box`` that are longer than 1, in the order of memory."""
    return [axis for axis in type.layout.order if box.extents[axis] != 1]


@dataclass(frozen=True)
class LoopGroup:
    """Adjacent axes that one loop runs over, outermost first."""

    axes: tuple[int, ...]
    extents: tuple[Dim, ...]

    @property
    def extent(self) -> Dim:
        return product(self.extents)

    def indices(self, emitter: Emitter, position: Expr) -> dict[int, Expr]:
        """The axis indices of a position of the loop."""
        if len(self.axes) == 1:
            return {self.axes[0]: position}
        return dict(zip(self.axes, unflatten(emitter, self.extents, position), strict=True))


def groups_of(axes: Sequence[int], extents: Sequence[Dim], merged: Sequence[Sequence[int]]) -> list[LoopGroup]:
    """Loop groups from indices into ``axes`` and their ``extents``."""
    return [LoopGroup(tuple(axes[i] for i in group), tuple(extents[i] for i in group)) for group in merged]


def largest_power_of_two(limit: int) -> int:
    """The largest power of two that does not exceed ``limit`` (at least 1)."""
    return 1 << (max(limit, 1).bit_length() - 1)


def vector_loop(emitter: Emitter, extent: Dim, lanes: int, vectorised: bool, body: Callable[[Expr], None]) -> None:
    """Runs ``body(position)`` for each of ``extent`` positions, ``lanes`` at once.

    What is left at the end is done by one more vector that overlaps the last: ``body`` must bear to run twice for a position.
    """
    if not vectorised:
        with emitter.loop(extent) as position:
            body(position)
        return
    chunked_vector_loop(emitter, extent, lanes, 1, body, "i")


@contextlib.contextmanager
def outer_loops(emitter: Emitter, groups: Sequence[LoopGroup], parallel: bool, wanted: int) -> Iterator[dict[int, Expr]]:
    """Loops over ``groups``; yields the axis indices.

    With ``parallel`` the outermost loops are fused into one parallel loop, as many as it takes for ``wanted`` iterations (whatever
    the symbolic sizes are).
    """
    with contextlib.ExitStack() as stack:
        indices: dict[int, Expr] = {}
        taken = 0
        if parallel and groups:
            count: Dim = 1
            while taken < len(groups) and emitter.least(count) < wanted:
                count *= groups[taken].extent
                taken += 1
            position = stack.enter_context(emitter.loop(count, PARALLEL if count != 1 else SERIAL, "task"))
            for group, value in zip(groups[:taken], unflatten(emitter, [group.extent for group in groups[:taken]], position), strict=True):
                indices.update(group.indices(emitter, emitter.bind(value)))
        for group in groups[taken:]:
            position = stack.enter_context(emitter.loop(group.extent))
            indices.update(group.indices(emitter, position))
        yield indices


def chunked_vector_loop(
    emitter: Emitter, extent: Dim, lanes: int, parallel_tasks: int, body: Callable[[Expr], None], name: str = "task"
) -> None:
    """Like :func:`vector_loop` over a long extent, its vectors shared among ``parallel_tasks`` parallel tasks."""
    kind = PARALLEL if parallel_tasks > 1 else SERIAL
    if isinstance(extent, int):
        lanes = min(lanes, largest_power_of_two(extent))
    with emitter.loop(extent // lanes, kind, name) as block, emitter.loop(lanes, VECTORIZED) as lane:
        body(block * lanes + lane)
    if emitter.divides(lanes, extent):
        return
    size = extent_of(extent)
    if not is_dim(extent) or emitter.least(extent) >= lanes:
        with emitter.scope() if not is_dim(extent) else emitter.when(size % lanes > 0), emitter.loop(lanes, VECTORIZED) as lane:
            body(lane + (size - lanes))
        return
    with emitter.when(tirx.And(size % lanes > 0, size >= lanes)), emitter.loop(lanes, VECTORIZED) as lane:
        body(lane + (size - lanes))
    # Too short for a single vector.
    with emitter.when(size < lanes), emitter.loop(extent) as position:
        body(position)


def box_indices(box: Box, positions: dict[int, Expr]) -> list[Expr]:
    """Logical indices from positions within the box (0 where there is none)."""
    return [positions[axis] + extent_of(start) if axis in positions else index(start) for axis, start in enumerate(box.starts)]
