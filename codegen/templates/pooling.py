"""Pooling: the maximum or mean of each window, with a fused elementwise prologue and epilogue."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from tvm import tirx

from ...ir import Dim, DType, Graph, Node
from ..emit import SERIAL, VECTORIZED, Evaluator, Expr, Kernel, compute_dtype, index
from ..emit.affine import Box
from ..emit.attributes import attributes_of
from ..emit.conversions import constant
from ..emit.math import select
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .loops import LoopGroup, box_indices, largest_power_of_two, outer_loops, runs_parallel, worth_parallel
from .reduction import extreme, lowest
from .region import AnchoredRegion, only_batch_is_symbolic

_UNROLLED_WINDOW = 16
"""Positions of a window up to which its loops are unrolled."""


class Pooling(Template):
    """One ``window_reduce``. Vectors run along the innermost axis in memory: channels in NHWC, columns in NCHW.

    The result is cut into its interior, where no window meets the border, and the frame around it. Knobs: ``lanes`` of the innermost loop,
    ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "pooling"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("window_reduce",), any_dtype=True, symbolic=True)
        if region is None or not only_batch_is_symbolic(*region.anchor.inputs, region.anchor.output):
            return False
        return all(vectorises(node) for node in graph.nodes if node is not region.anchor)

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (lanes, 2 * lanes, 4 * lanes)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": 4 * lanes, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = AnchoredRegion.find(task.graph, ("window_reduce",), any_dtype=True, symbolic=True)
        assert region is not None
        kernel = Kernel(task.graph)
        pool = Pool(kernel, region, task, config["lanes"])
        for box in pool.boxes():
            with kernel.emitter.scope():
                pool.emit(box, runs_parallel(task, config))
        return LoweredKernel(kernel.finish())


class Pool:
    """The computation of one pooling."""

    def __init__(self, kernel: Kernel, region: AnchoredRegion, task: Task, lanes: int) -> None:
        self.kernel = kernel
        self.emitter = kernel.emitter
        self.region = region
        self.task = task
        self.lanes = lanes
        self.node: Node = region.anchor
        self.operand = self.node.inputs[0]
        self.dtype: DType = self.operand.tensor.dtype
        self.shape = self.node.output.tensor.shape
        self.extents = tuple(int(extent) for extent in self.operand.tensor.shape[2:])
        attributes = attributes_of(self.node)
        self.largest = attributes["kind"] == "max"
        self.window: Sequence[int] = attributes["window"]
        self.stride: Sequence[int] = attributes["stride"]
        self.dilation: Sequence[int] = attributes["dilation"]
        self.padding: Sequence[tuple[int, int]] = attributes["padding"]
        self._element: Expr = None
        self.evaluator = Evaluator(kernel, {self.node.output: lambda indices: self._element})

    def boxes(self) -> Iterator[Box]:
        """The interior and the parts of the frame around it."""
        edges: list[list[Dim]] = [[0, extent] for extent in self.shape]
        for axis in range(len(self.window)):
            stride, low = self.stride[axis], self.padding[axis][0]
            reach = (self.window[axis] - 1) * self.dilation[axis]
            first = -(-low // stride)
            last = (self.extents[axis] + low - reach - 1) // stride + 1
            total = int(self.shape[axis + 2])
            if 0 <= first < last <= total:
                edges[axis + 2] = sorted({0, first, last, total})
        ranges = [list(itertools.pairwise(edge)) for edge in edges]
        for choice in itertools.product(*ranges):
            yield Box(tuple(low for low, _ in choice), tuple(high - low for low, high in choice))

    def emit(self, box: Box, parallel: bool) -> None:
        """The nest over one box."""
        emitter = self.emitter
        axes = [axis for axis in self.node.output.tensor.layout.order if box.extents[axis] != 1]
        groups = [LoopGroup((axis,), (box.extents[axis],)) for axis in axes]
        *outer, inner = groups or [LoopGroup((), ())]
        lanes = min(self.lanes, largest_power_of_two(emitter.least(inner.extent)))
        with outer_loops(emitter, outer, parallel, 4 * self.task.threads) as positions, emitter.loop(-(-inner.extent // lanes)) as block:
            start = block * lanes
            if not emitter.divides(lanes, inner.extent):
                # The last vector overlaps the one before.
                start = emitter.bind(tirx.Min(start, index(inner.extent - lanes)))

            def at(lane: Expr) -> list[Expr]:
                place = inner.indices(emitter, start + lane) if inner.axes else {}
                return box_indices(box, {**positions, **place})

            self.windows(lanes, at)

    def windows(self, lanes: int, at: Callable[[Expr], list[Expr]]) -> None:
        """``lanes`` windows at once."""
        emitter = self.emitter
        kind = "max" if self.largest else "sum"
        held = emitter.allocate(lanes, compute_dtype(self.dtype), "window")
        empty = lowest("max", self.dtype) if self.largest else constant(0, self.dtype)
        combine = extreme("max", self.dtype, self.task.numerics) if kind == "max" else _add
        with emitter.loop(lanes, VECTORIZED) as lane:
            emitter.store(held, empty, lane)
        with self._offsets() as offsets:
            for offset in offsets:
                with emitter.loop(lanes, VECTORIZED) as lane:
                    value = self._sample(at(lane), offset, empty)
                    emitter.store(held, combine(emitter.load(held, lane), emitter.bind(value)), lane)
        with emitter.loop(lanes, VECTORIZED) as lane:
            place = at(lane)
            self._element = emitter.bind(self._finished(emitter.load(held, lane), place))
            for position, output in enumerate(self.region.graph.outputs):
                self.evaluator.store_outputs(position, self.region.place(self.kernel, output, place))

    @contextmanager
    def _offsets(self) -> Iterator[Sequence[Sequence[Expr]]]:
        """The positions of a window: all of them, or the one of loops around what is emitted."""
        if math.prod(self.window) <= _UNROLLED_WINDOW:
            yield [[index(value) for value in offset] for offset in itertools.product(*(range(size) for size in self.window))]
            return
        with ExitStack() as stack:
            yield [[stack.enter_context(self.emitter.loop(size, SERIAL, "window")) for size in self.window]]

    def _sample(self, place: Sequence[Expr], offset: Sequence[Expr], empty: Expr) -> Expr:
        """The operand at one position of the window; ``empty`` in the padding."""
        source = list(place[:2])
        inside: Expr | None = None
        for axis, extent in enumerate(self.extents):
            position = self.emitter.simplify(self._position(axis, place[axis + 2], offset[axis]))
            safe, valid = self.evaluator.clamped(position, extent)
            source.append(safe)
            if valid is not None:
                inside = valid if inside is None else tirx.And(inside, valid)
        value = self.evaluator.value_at(self.operand, source)
        return value if inside is None else select(inside, value, empty)

    def _position(self, axis: int, result: Expr, offset: Expr) -> Expr:
        return result * self.stride[axis] + offset * self.dilation[axis] - self.padding[axis][0]

    def _finished(self, value: Expr, place: Sequence[Expr]) -> Expr:
        if self.largest:
            return value
        divisor = attributes_of(self.node)["divisor"]
        if divisor is not None:
            return value * constant(1 / divisor, self.dtype)
        count: Expr = index(1)
        for axis in range(len(self.window)):
            count = count * self._counted(axis, place[axis + 2])
        count = self.emitter.simplify(count)
        if isinstance(count, tirx.IntImm):
            return value * constant(1 / int(count.value), self.dtype)
        return value / tirx.Cast(compute_dtype(self.dtype), count)

    def _counted(self, axis: int, result: Expr) -> Expr:
        """How many positions of the window count in a mean along ``axis``."""
        low = high = 0
        if self.node.attributes["count_include_pad"]:
            low, high = self.padding[axis]
            uncounted: Sequence[int] = attributes_of(self.node)["uncounted"] or ()
            high -= uncounted[axis] if uncounted else 0
        total: Expr = index(0)
        for offset in range(self.window[axis]):
            position = self.emitter.simplify(self._position(axis, result, index(offset)))
            _, valid = self.evaluator.clamped(self.emitter.simplify(position + low), self.extents[axis] + low + high)
            total = total + (index(1) if valid is None else select(valid, index(1), index(0)))
        return self.emitter.simplify(total)


def _add(a: Expr, b: Expr) -> Expr:
    return a + b
