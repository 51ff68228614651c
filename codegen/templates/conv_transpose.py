"""Transposed convolution on the CPU, as ``stride`` x ``stride`` ordinary convolutions.

Output pixels whose coordinates leave the same remainder modulo the stride (a *phase*) meet the same elements of the window, each at
one fixed displacement in the operand. So each phase is a dense convolution, which register tiles compute from packed panels of the
weight, over a copy of the operand that is surrounded by zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Dim, Graph, Layout, Node
from ..emit import Emitter, Expr, Kernel, unflatten
from ..emit.attributes import attributes_of
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import Fp32
from .region import AnchoredRegion, Epilogue, only_batch_is_symbolic
from .register_tile import ReductionLoop, RegisterTile, merge_loops
from .staging import clear_row, copy_row, loop_kind
from .tiling import (
    EvenSplit,
    busiest_share,
    by_width,
    distinct_splits,
    fits_registers,
    panel_candidates,
    round_up,
    share,
    threads,
    tile_cycles,
    useful_threads,
)

_FLOAT = 4
_ALIGNMENT = 64
_CHOSEN = 12


@dataclass(frozen=True)
class Phase:
    """Output coordinates ``start + stride * i`` along one axis, i < ``count``; ``taps`` are (element of the window, displacement).

    Output i sums the window's elements times the operand at ``i + displacement``.
    """

    start: int
    count: int
    taps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TransposedConvolution:
    """The geometry of a ``conv_transpose`` over two spatial axes; one over a single axis has a first axis of extent 1."""

    anchor: Node

    @cached_property
    def spatial(self) -> int:
        return self.anchor.output.tensor.rank - 2

    @cached_property
    def batch(self) -> Dim:
        """The only extent that may be symbolic."""
        return self.anchor.output.tensor.shape[0]

    @cached_property
    def groups(self) -> int:
        return int(attributes_of(self.anchor)["groups"])

    @cached_property
    def channels(self) -> int:
        """Input channels of a group."""
        return int(self.anchor.inputs[0].tensor.shape[1]) // self.groups

    @cached_property
    def outputs(self) -> int:
        """Output channels of a group."""
        return self.anchor.inputs[1].tensor.static_shape[1]

    def _extents(self, shape: Sequence[Dim]) -> tuple[int, int]:
        return (1, int(shape[2])) if self.spatial == 1 else (int(shape[2]), int(shape[3]))

    @cached_property
    def extents(self) -> tuple[int, int]:
        return self._extents(self.anchor.inputs[0].tensor.shape)

    @cached_property
    def results(self) -> tuple[int, int]:
        return self._extents(self.anchor.output.tensor.shape)

    @cached_property
    def window(self) -> tuple[int, int]:
        return self._extents(self.anchor.inputs[1].tensor.static_shape)

    @cached_property
    def phases(self) -> tuple[tuple[Phase, ...], tuple[Phase, ...]]:
        """The phases along each axis."""
        attributes: Any = self.anchor.attributes
        found = []
        for axis in range(2):
            own = axis - 2 + self.spatial
            stride, dilation = (attributes[name][own] if own >= 0 else 1 for name in ("stride", "dilation"))
            low = attributes["padding"][own][0] if own >= 0 else 0
            found.append(
                tuple(
                    Phase(
                        start,
                        -(-(self.results[axis] - start) // stride),
                        tuple(
                            (tap, (start + low - tap * dilation) // stride)
                            for tap in range(self.window[axis])
                            if (start + low - tap * dilation) % stride == 0
                        ),
                    )
                    for start in range(min(stride, self.results[axis]))
                )
            )
        return found[0], found[1]

    @cached_property
    def strides(self) -> tuple[int, int]:
        values = attributes_of(self.anchor)["stride"]
        return (1, values[0]) if self.spatial == 1 else (values[0], values[1])

    @cached_property
    def margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros to put before and after the operand along each axis, so that every tap reads something."""
        found = []
        for axis in range(2):
            reached = [(shift, shift + phase.count - 1) for phase in self.phases[axis] for _, shift in phase.taps] or [(0, 0)]
            low = max(0, -min(first for first, _ in reached))
            high = max(0, max(last for _, last in reached) - (self.extents[axis] - 1))
            found.append((low, high))
        return found[0], found[1]

    @property
    def depth(self) -> int:
        """Products of an output element, on average over the phases."""
        taps = math.prod(sum(len(phase.taps) * phase.count for phase in axis) for axis in self.phases)
        return max(1, self.channels * taps // max(1, math.prod(self.results)))

    @property
    def flops(self) -> float:
        return 2.0 * self.anchor.output.tensor.elements * self.depth

    @property
    def bytes_moved(self) -> float:
        return float(sum(value.tensor.nbytes for value in (*self.anchor.inputs, self.anchor.output)))

    def indices(self, batch: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        return [batch, channel, x] if self.spatial == 1 else [batch, channel, y, x]

    def weight_layout(self, panel: int) -> Layout:
        """Panels of output channels, then the window, then input channels."""
        return Layout((1, *range(2, 2 + self.spatial), 0), ((1, panel),))


class ConvTransposeTemplate(Template):
    """Regions around one ``conv_transpose`` over one or two axes, with elementwise operations and views around it.

    Knobs: ``pixels`` and ``vectors`` of the register tile, ``unroll`` of the reduction loop.
    """

    name = "conv_transpose"
    revision = 1

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("conv_transpose",), symbolic=True)
        if region is None or not only_batch_is_symbolic(*region.anchor.inputs[:1], region.anchor.output):
            return False
        return region.anchor.output.tensor.rank in (3, 4)

    def space(self, task: Task) -> Space:
        task = task.representative
        conv = TransposedConvolution(_region(task).anchor)
        target = task.target
        parallel = useful_threads(target, task.threads, conv.flops, conv.bytes_moved)
        longest = conv.phases[1][0].count
        points = [
            {"pixels": pixels, "unroll": 4, "vectors": vectors}
            for pixels in distinct_splits(longest, max(1, target.vector_registers // 2))
            for vectors in panel_candidates(target, conv.outputs, pixels)
            if fits_registers(target, pixels, vectors)
        ]

        def cost(point: dict[str, int]) -> float:
            split, vectors = EvenSplit(longest, point["pixels"]), point["vectors"]
            full, tail = divmod(conv.outputs, vectors * target.vector_lanes)

            def row(width: int) -> float:
                return sum(run.count * tile_cycles(target, run.size, width, conv.depth) for run in split.runs)

            tail_cycles = row(-(-tail // target.vector_lanes)) if tail else None
            return busiest_share(row(vectors), full, tail_cycles, int(conv.batch) * conv.groups * conv.results[0], parallel)

        best = sorted(points, key=cost)[:_CHOSEN]
        allowed = [(point["pixels"], point["vectors"]) for point in best]
        choices = (
            ("pixels", tuple(sorted({point["pixels"] for point in best}))),
            ("unroll", (2, 4, 8)),
            ("vectors", tuple(sorted({point["vectors"] for point in best}))),
        )
        default = Config.of(self.name, best[0])
        return Space(self.name, choices, default, lambda knobs: (knobs["pixels"], knobs["vectors"]) in allowed)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config).lower()


def _region(task: Task) -> AnchoredRegion:
    region = AnchoredRegion.find(task.graph, ("conv_transpose",), symbolic=True)
    if region is None:
        raise LoweringError("the conv_transpose template takes regions with one conv_transpose; ask takes() first")
    return region


class _Lowering:
    """One kernel in the making. The staged operand is [batch, height, width, channels], the weight as its packed layout says."""

    def __init__(self, task: Task, config: Config) -> None:
        self.target: Target = task.target
        self.lanes = task.target.vector_lanes
        self.region = _region(task)
        self.conv = conv = TransposedConvolution(self.region.anchor)
        # Where the batch is symbolic, the entry keeps calls with little to do on one thread.
        self.parallel = task.threads if task.is_symbolic else useful_threads(self.target, task.threads, conv.flops, conv.bytes_moved)
        self.config = config
        self.panel = config["vectors"] * self.lanes
        self.panels = -(-conv.outputs // self.panel)
        self.x, self.weight = self.region.anchor.inputs[:2]
        self.depth = conv.channels * conv.groups
        (top, bottom), (left, right) = conv.margins
        self.height, self.width = conv.extents[0] + top + bottom, conv.extents[1] + left + right
        packed = self._packed_weight(task)
        layouts = {} if packed is None else {packed: conv.weight_layout(self.panel)}
        x_count = round_up(conv.batch * self.height * self.width * self.depth, _ALIGNMENT // _FLOAT)
        weight_count = 0 if packed is not None else self.panels * math.prod(conv.window) * self.depth * self.panel
        self.kernel = Kernel(self.region.graph, workspace_bytes=(x_count + weight_count) * _FLOAT, layouts=layouts)
        self.layouts = layouts
        self.emitter: Emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        self.a: Any = self.kernel.workspace(x_count, "float32", 0, "pixels")
        if packed is None:
            self.b: Any = self.kernel.workspace(weight_count, "float32", x_count * _FLOAT, "panels")
        else:
            self.b = self.kernel.inputs[self.weight]

    def _packed_weight(self, task: Task) -> int | None:
        if self.weight.node is not None or len(self.region.graph.users[self.weight]) > 1:
            return None
        position = self.region.graph.inputs.index(self.weight)
        return position if position in task.constant_inputs else None

    def lower(self) -> LoweredKernel:
        self._stage_pixels()
        if not self.layouts:
            self._stage_weight()
        emitter, conv = self.emitter, self.conv
        shape = (conv.batch, conv.groups, self.panels, max(phase.count for phase in conv.phases[0]))
        with (
            threads(emitter, self.parallel) as thread,
            share(emitter, thread, self.parallel, math.prod(shape)) as (low, high),
            emitter.loop(emitter.simplify(high - low), name="strip", start=low) as item,
        ):
            batch, group, number, row = (emitter.bind(part) for part in unflatten(emitter, shape, item))

            def rows(number: Expr, columns: int) -> None:
                self._rows(batch, group, number, row, columns)

            by_width(emitter, number, conv.outputs, self.panel, rows)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _rows(self, batch: Expr, group: Expr, number: Expr, row: Expr, columns: int) -> None:
        """Output row number ``row`` of every phase."""
        emitter, conv = self.emitter, self.conv
        longest = max(phase.count for phase in conv.phases[0])
        for down in conv.phases[0]:
            with emitter.when(row < down.count) if down.count < longest else emitter.scope():
                for across in conv.phases[1]:
                    split = EvenSplit(across.count, self.config["pixels"])
                    for run in split.runs:
                        with split.loop(emitter, run) as x:
                            self._tile((batch, group, number), (row, x), (down, across), run.size, columns)

    def _tile(
        self, item: tuple[Expr, Expr, Expr], place: tuple[Expr, Expr], phases: tuple[Phase, Phase], pixels: int, columns: int
    ) -> None:
        emitter, conv = self.emitter, self.conv
        (batch, group, number), (row, x), (down, across) = item, place, phases
        vectors = -(-columns // self.lanes)
        tile = RegisterTile(emitter, Fp32(self.target), pixels, vectors)
        nest = merge_loops([ReductionLoop(conv.channels, 1, self.panel)])
        (top, _), (left, _) = conv.margins
        for window_row, shift_down in down.taps:
            for window_column, shift_across in across.taps:
                y_at, x_at = row + (shift_down + top), x + (shift_across + left)
                pixel = (batch * self.height + y_at) * self.width + x_at
                a_offset = emitter.bind(emitter.simplify(pixel * self.depth + group * conv.channels), "a_at")
                tap = number * math.prod(conv.window) + (window_row * conv.window[1] + window_column)
                b_offset = emitter.bind(emitter.simplify((tap * self.depth + group * conv.channels) * self.panel), "b_at")
                offsets = [step * self.depth for step in range(pixels)]
                tile.accumulate(self.a, a_offset, offsets, self.b, b_offset, nest, self.config["unroll"])
        bias = self.region.bias
        y = row * conv.strides[0] + down.start

        def store(step: Expr | int, lane: Expr, element: Expr) -> None:
            channel = group * conv.outputs + number * self.panel + lane
            if bias is not None:
                element = element + self.epilogue.evaluator.value_at(bias, [channel])
            self.epilogue.store(conv.indices(batch, channel, y, (x + step) * conv.strides[1] + across.start), element)

        tile.for_each(columns, self.epilogue.is_long, store)

    def _stage_pixels(self) -> None:
        """Copies the operand into the workspace, surrounded by zeros."""
        emitter, conv = self.emitter, self.conv
        (top, _), (left, right) = conv.margins
        count = conv.batch * self.height
        with emitter.loop(count, loop_kind(self.parallel, count), "strip") as item:
            batch, row = unflatten(emitter, (conv.batch, self.height), item)
            start = emitter.bind(item * (self.width * self.depth))
            inside = tirx.And(row >= top, row < top + conv.extents[0])
            with emitter.when(tirx.Not(inside)):
                clear_row(emitter, self.lanes, self.a, start, self.width * self.depth)
            with emitter.when(inside):
                clear_row(emitter, self.lanes, self.a, start, left * self.depth)
                clear_row(emitter, self.lanes, self.a, start + (left + conv.extents[1]) * self.depth, right * self.depth)
                with emitter.loop(conv.extents[1], name="x") as x:

                    def element(channel: Expr) -> Expr:
                        return self.epilogue.evaluator.value_at(self.x, conv.indices(batch, channel, row - top, x))

                    copy_row(emitter, self.lanes, self.a, start + (x + left) * self.depth, self.depth, element)

    def _stage_weight(self) -> None:
        """Evaluates the weight into panels in the workspace; lanes beyond the last channel stay undefined and are never stored."""
        emitter, conv = self.emitter, self.conv
        height, width = conv.window
        shape = (self.panels, height, width, self.depth)
        with (
            emitter.loop(self.panels * height * width, loop_kind(self.parallel, self.panels * height * width), "tap") as tap,
            emitter.loop(self.depth, name="channel") as channel,
        ):
            number, y, x = unflatten(emitter, shape[:3], tap)
            offset = emitter.bind((tap * self.depth + channel) * self.panel)

            def stage(number: Expr, columns: int) -> None:
                def element(lane: Expr) -> Expr:
                    return self.epilogue.evaluator.value_at(self.weight, conv.indices(channel, number * self.panel + lane, y, x))

                copy_row(emitter, self.lanes, self.b, offset, columns, element)

            by_width(emitter, number, conv.outputs, self.panel, stage)
