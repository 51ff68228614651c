"""Contractions that no faster template takes, in plain loops: fp64, wide or grouped integers, convolutions over three or more axes.

Some neighbouring results along the innermost axis in memory are vectors of accumulators; the reduction is a nest of serial loops
around one multiply-add of each. Nothing is blocked for caches: this is for rare operations, which must be right above all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx

from ...ir import Dim, DType, Graph, Layout, Node, Value
from ..emit import SERIAL, VECTORIZED, Emitter, Expr, Kernel, compute_dtype, index
from ..emit.attributes import attributes_of
from ..emit.conversions import cast, constant
from ..emit.math import select
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .loops import LoopGroup, largest_power_of_two, outer_loops, runs_parallel, worth_parallel
from .region import AnchoredRegion, Epilogue

_OPS = ("matmul", "linear", "conv", "conv_transpose")
_PLANAR_AXES = 2
"""Convolutions in fp32 over so many axes have templates of their own."""

_GROUP = -1
_BLOCK = -2
"""Loops that are no axis of the result: over the groups of a convolution, and over vectors along the innermost axis."""


class Contraction(Template):
    """Any ``matmul``, ``linear``, ``conv`` or ``conv_transpose`` that the faster templates leave, with a fused prologue and epilogue.

    Knobs: ``lanes`` results are computed at once; ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "contraction"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, _OPS, any_dtype=True, symbolic=True)
        if region is None or region.anchor.output.tensor.layout.is_blocked:
            return False
        # Where a faster template takes the anchor but not what is around it, fusion has to leave that out.
        anchor = region.anchor
        images = anchor.op in ("conv", "conv_transpose")
        if images and not all(isinstance(dim, int) for dim in (*anchor.inputs[0].tensor.shape[1:2], *anchor.inputs[1].tensor.shape)):
            return False
        volumes = images and anchor.output.tensor.rank - 2 > _PLANAR_AXES
        return (
            volumes
            or anchor.attributes.get("dtype") is not None
            or anchor.output.tensor.dtype is not DType.FLOAT32
            or _has_symbolic_kernel(anchor)
        )

    def space(self, task: Task) -> Space:
        width = max(task.target.vector_bytes // max(_region(task).anchor.output.tensor.dtype.nbytes, 4), 1)
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (width, 2 * width, 4 * width)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": 4 * width, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        return _Lowering(task, config["lanes"]).lower(runs_parallel(task, config), 4 * task.threads)


def _has_symbolic_kernel(anchor: Node) -> bool:
    """Whether the columns or the depth of a product, or the pixels of an image, are symbolic, which the faster templates do not take."""
    if anchor.op in ("conv", "conv_transpose"):
        return not all(isinstance(dim, int) for value in (anchor.inputs[0], anchor.output) for dim in value.tensor.shape[1:])
    return not all(isinstance(dim, int) for dim in anchor.inputs[1].tensor.shape[-2:])


def _region(task: Task) -> AnchoredRegion:
    region = AnchoredRegion.find(task.graph, _OPS, any_dtype=True, symbolic=True)
    assert region is not None
    return region


@dataclass(frozen=True)
class _Term:
    """One product of the sum: where the operands are, and when it counts (``inside`` holds no lane, ``masked`` may)."""

    x: Sequence[Expr]
    weight: Sequence[Expr]
    inside: Expr | None = None
    masked: Expr | None = None


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, lanes: int) -> None:
        self.region = _region(task)
        self.node: Node = self.region.anchor
        self.x, self.weight = self.node.inputs[:2]
        self.dtype: DType = self.node.output.tensor.dtype
        self.shape = self.node.output.tensor.shape
        self.groups = int(attributes_of(self.node)["groups"]) if self.is_conv else 1
        self.filling = int(attributes_of(self.node).get("filling", 0))
        self.layouts = self._weight_layout(task)
        self.kernel = Kernel(self.region.graph, layouts=self.layouts)
        self.emitter: Emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        others = [node for node in self.region.graph.nodes if node is not self.node]
        self.kind = VECTORIZED if all(vectorises(node) for node in others) else SERIAL
        loops = [group for group in self._axes() if group.extent != 1]
        self.outer, self.inner = loops[:-1], loops[-1] if loops else LoopGroup((), ())
        extent = self.inner.extent
        self.lanes = min(lanes, largest_power_of_two(extent)) if isinstance(extent, int) else lanes

    @property
    def is_conv(self) -> bool:
        return self.node.op in ("conv", "conv_transpose")

    @property
    def outputs(self) -> int:
        """Output channels of a group of a convolution."""
        return int(self.shape[1]) // self.groups

    def _axes(self) -> list[LoopGroup]:
        """The loops over the result in the order of its memory; the channels of a convolution in groups."""
        order: list[LoopGroup] = []
        for axis in self.node.output.tensor.layout.order:
            if self.is_conv and axis == 1:
                order += [LoopGroup((_GROUP,), (self.groups,)), LoopGroup((1,), (self.outputs,))]
            else:
                order.append(LoopGroup((axis,), (self.shape[axis],)))
        return order

    def _weight_layout(self, task: Task) -> dict[int, Layout]:
        """A constant weight lies with what the output channels come from innermost."""
        if self.node.op == "matmul" or self.weight.node is not None or len(self.region.graph.users[self.weight]) > 1:
            return {}
        position = self.region.graph.inputs.index(self.weight)
        if position not in task.constant_inputs:
            return {}
        last = 1 if self.node.op == "conv_transpose" else 0
        return {position: Layout((*range(2, self.weight.tensor.rank), 1 - last, last))}

    def lower(self, parallel: bool, wanted: int) -> LoweredKernel:
        emitter = self.emitter
        if emitter.least(self.inner.extent) >= self.lanes:
            self._emit(parallel, wanted)
        else:
            size = index(self.inner.extent)
            with emitter.when(size >= self.lanes):
                self._emit(parallel, wanted)
            with emitter.when(size < self.lanes):
                self.lanes = 1
                self._emit(parallel, wanted)
        return LoweredKernel(self.kernel.finish(), self.layouts)

    def _emit(self, parallel: bool, wanted: int) -> None:
        """All results; there are at least as many along the innermost axis as lanes."""
        emitter = self.emitter
        blocks = LoopGroup((_BLOCK,), (-(-self.inner.extent // self.lanes),))
        with outer_loops(emitter, [*self.outer, blocks], parallel, wanted) as positions:
            start = positions.pop(_BLOCK) * self.lanes
            if not emitter.divides(self.lanes, self.inner.extent):
                # The last vector overlaps the one before.
                start = tirx.Min(start, index(self.inner.extent - self.lanes))
            self._block(positions, emitter.bind(emitter.simplify(start)))

    def _place(self, positions: Mapping[int, Expr], start: Expr, lane: Expr) -> dict[int, Expr]:
        inner = self.inner.indices(self.emitter, start + lane) if self.inner.axes else {}
        return {**positions, **inner}

    def _block(self, positions: Mapping[int, Expr], start: Expr) -> None:
        """Computes and stores ``lanes`` results."""
        emitter, evaluator = self.emitter, self.epilogue.evaluator
        sums = emitter.allocate(self.lanes, compute_dtype(self.dtype), "sum")
        with emitter.loop(self.lanes, self.kind, "lane") as lane:
            emitter.store(sums, constant(0, self.dtype), lane)
        with contextlib.ExitStack() as stack:
            steps = [stack.enter_context(emitter.loop(extent, SERIAL, "k")) for extent in self._reduced()]
            inside = self._term(self._place(positions, start, index(0)), steps).inside
            if inside is not None:
                stack.enter_context(emitter.when(inside))
            lane = stack.enter_context(emitter.loop(self.lanes, self.kind, "lane"))
            term = self._term(self._place(positions, start, lane), steps)
            x, weight = (self._element(*operand) for operand in ((self.x, term.x), (self.weight, term.weight)))
            if term.masked is not None and self.filling:
                x = select(term.masked, x, constant(self.filling, self.dtype))
            product = tirx.Mul(x, weight)
            if term.masked is not None and not self.filling:
                product = select(term.masked, emitter.bind(product), constant(0, self.dtype))
            emitter.store(sums, tirx.Add(emitter.load(sums, lane), product), lane)
        with emitter.loop(self.lanes, self.kind, "lane") as lane:
            place = self._place(positions, start, lane)
            element = emitter.load(sums, lane)
            if len(self.node.inputs) > 2:
                channel = self._channel(place) if self.is_conv else self._at(place, len(self.shape) - 1)
                element = tirx.Add(element, evaluator.value_at(self.node.inputs[2], [channel]))
            indices = [self._channel(place) if self.is_conv and axis == 1 else self._at(place, axis) for axis in range(len(self.shape))]
            self.epilogue.store(indices, emitter.bind(element))

    def _element(self, operand: Value, indices: Sequence[Expr]) -> Expr:
        """An element of an operand, in the dtype of the sums."""
        value = self.epilogue.evaluator.value_at(operand, indices)
        return self.emitter.bind(cast(self.emitter, value, operand.tensor.dtype, self.dtype))

    def _at(self, place: Mapping[int, Expr], axis: int) -> Expr:
        return place.get(axis, index(0))

    def _channel(self, place: Mapping[int, Expr]) -> Expr:
        """The output channel of a convolution."""
        return self.emitter.simplify(self._at(place, _GROUP) * self.outputs + self._at(place, 1))

    def _reduced(self) -> tuple[Dim, ...]:
        """The extents of the sum: positions of the window, then input channels of a group; or the one inner axis."""
        if not self.is_conv:
            return (self.x.tensor.shape[-1],)
        return (*self.weight.tensor.shape[2:], int(self.x.tensor.shape[1]) // self.groups)

    def _term(self, place: Mapping[int, Expr], steps: Sequence[Expr]) -> _Term:
        if self.is_conv:
            return self._tap(place, steps[:-1], steps[-1])
        rank = len(self.shape)
        column = self._at(place, rank - 1)
        if self.node.op == "linear":
            return _Term([*(self._at(place, axis) for axis in range(rank - 1)), steps[0]], [column, steps[0]])
        batch = [self._at(place, axis) for axis in range(rank - 2)]
        row = self._at(place, rank - 2)
        return _Term([*_broadcast(self.x, batch), row, steps[0]], [*_broadcast(self.weight, batch), steps[0], column])

    def _tap(self, place: Mapping[int, Expr], window: Sequence[Expr], step: Expr) -> _Term:
        """The product of one input channel at one position of the window."""
        attributes = attributes_of(self.node)
        group, within = self._at(place, _GROUP), self._at(place, 1)
        channels = int(self.x.tensor.shape[1]) // self.groups
        source = [self._at(place, 0), self.emitter.simplify(group * channels + step)]
        inside: list[Expr] = []
        masked: list[Expr] = []
        for axis, (offset, stride, dilation, (low, _)) in enumerate(
            zip(window, attributes["stride"], attributes["dilation"], attributes["padding"], strict=True), 2
        ):
            result = self._at(place, axis)
            extent = self.x.tensor.shape[axis]
            conditions = masked if axis in self.inner.axes or self.filling else inside
            if self.node.op == "conv":
                position = self.emitter.simplify(result * stride + offset * dilation - low)
            else:
                numerator = self.emitter.simplify(result + low - offset * dilation)
                position = self.emitter.simplify(tirx.floordiv(numerator, stride))
                if stride > 1:
                    conditions.append(tirx.EQ(tirx.floormod(numerator, index(stride)), index(0)))
            safe, valid = self.epilogue.evaluator.clamped(position, extent)
            source.append(safe)
            if valid is not None:
                conditions.append(valid)
        if self.node.op == "conv":
            weight = [self.emitter.simplify(group * self.outputs + within), step, *window]
        else:
            weight = [self.emitter.simplify(group * channels + step), within, *window]
        return _Term(source, weight, _all(inside), _all(masked))


def _all(conditions: Sequence[Expr]) -> Expr | None:
    result: Expr | None = None
    for condition in conditions:
        result = condition if result is None else tirx.And(result, condition)
    return result


def _broadcast(operand: Value, batch: Sequence[Expr]) -> list[Expr]:
    """Indices into the leading axes of an operand of a matrix product."""
    leading = operand.tensor.shape[:-2]
    own = batch[len(batch) - len(leading) :]
    return [index(0) if extent == 1 else position for extent, position in zip(leading, own, strict=True)]
