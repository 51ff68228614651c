"""Convolution on the CPU: directly, as a matrix product whose rows are output pixels, or by Winograd's algorithm (:mod:`.winograd`).

The weight is packed in panels of ``nr`` output channels; a register tile takes some pixels of one or more output rows and runs
through the window and all input channels. Pixels of the operand are addressed where they lie if the convolution has no padding;
otherwise the kernel first copies the operand, surrounded by zeros, into its workspace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Dim, Graph
from ..emit import Emitter, Expr, Kernel, index, unflatten
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .conv_geometry import Convolution, Pixels, PixelTiles
from .region import AnchoredRegion, Epilogue, only_batch_is_symbolic
from .register_tile import Ahead, RegisterTile
from .staging import clear_row, copy_row, loop_kind
from .tiling import (
    EvenSplit,
    alias_penalty,
    busiest_share,
    divisors,
    fits_registers,
    group_penalty,
    panel_candidates,
    round_up,
    share,
    streams,
    threads,
    useful_threads,
)
from .winograd import WinogradLowering
from .winograd_geometry import WinogradTiles
from .winograd_geometry import applies as winograd_applies
from .winograd_geometry import candidates as winograd_candidates

_FLOAT = 4
_ALIGNMENT = 64
_KNOBS = ("pixels", "row_groups", "vectors")
"""Those that a direct schedule is reckoned by."""
_CHOSEN = 8
"""Register tiles kept for each way of sharing the rows, so that spaces have a few dozen points."""


class ConvTemplate(Template):
    """Regions around one ``conv`` over one or two axes, except depthwise ones, with elementwise operations and views around it.

    Knobs: ``winograd``, 0 for a direct convolution, else m of F(m, 3); ``pixels`` (with Winograd: tiles) and ``vectors`` of the register
    tile, ``unroll`` of the innermost reduction loop, ``row_groups``: into how many groups the threads are split along the rows of the
    result (the others split its channels).
    """

    name = "conv"
    revision = 3

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("conv",), symbolic=True)
        if region is None or region.anchor.output.tensor.rank not in (3, 4):
            return False
        if not only_batch_is_symbolic(*region.anchor.inputs[:1], region.anchor.output):
            return False
        return not Convolution(region.anchor).is_depthwise

    def space(self, task: Task) -> Space:
        task = task.representative
        region = _region(task)
        conv = Convolution(region.anchor)
        target = task.target
        pixels = Pixels.of(region, conv, target)
        parallel = useful_threads(target, task.threads, conv.flops, conv.bytes_moved)
        tilings: dict[PixelTiles, int] = {}
        for most in range(1, max(1, target.vector_registers // 2) + 1):
            tiles = PixelTiles.of(conv, pixels, most)
            tilings.setdefault(PixelTiles(_canonical(tiles.rows), _canonical(tiles.columns), tiles.flat), most)
        points = [
            {"pixels": most, "row_groups": group, "unroll": 4, "vectors": vectors, "winograd": 0}
            for tiles, most in tilings.items()
            for group in divisors(parallel)
            for vectors in panel_candidates(target, conv.outputs, tiles.largest)
            if fits_registers(target, tiles.largest, vectors) and group <= tiles.shared.tiles
        ]
        costs = [(predicted_cycles(conv, pixels, target, parallel, point), point) for point in points]
        if winograd_applies(task, conv, packed_weight(task, region) is not None):
            costs += winograd_candidates(conv, target, parallel, {"unroll": 4})
        ranked = [point for _, point in sorted(costs, key=lambda pair: pair[0])]
        best = [ranked[0]]
        for kind in sorted({(point["winograd"], point["row_groups"]) for point in ranked}):
            best += [point for point in ranked if (point["winograd"], point["row_groups"]) == kind][:_CHOSEN]
        chosen = {tuple(sorted(point.items())) for point in best}

        def allows(knobs: Mapping[str, int]) -> bool:
            return tuple(sorted({**knobs, "unroll": 4}.items())) in chosen

        choices = {name: tuple(sorted({point[name] for point in best})) for name in ("pixels", "row_groups", "vectors", "winograd")}
        choices["unroll"] = (2, 4, 8)
        return Space(self.name, tuple(sorted(choices.items())), Config.of(self.name, best[0]), allows)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        task = task.representative
        region = _region(task)
        conv, target = Convolution(region.anchor), task.target
        pixels = Pixels.of(region, conv, target)
        parallel = useful_threads(target, task.threads, conv.flops, conv.bytes_moved)

        def cycles(config: Config) -> float:
            if outputs := config["winograd"]:
                tiles = WinogradTiles(conv, outputs, config["row_groups"], config["pixels"], target)
                return tiles.cycles(config["vectors"], parallel)
            return predicted_cycles(conv, pixels, target, parallel, {name: config[name] for name in _KNOBS})

        return [cycles(config) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        if config["winograd"]:
            region = _region(task)
            conv = Convolution(region.anchor)
            parallel = useful_threads(task.target, task.threads, conv.flops, conv.bytes_moved)
            return WinogradLowering(task, region, config, parallel).lower()
        return _Lowering(task, config).lower()


def _canonical(split: EvenSplit) -> EvenSplit:
    return EvenSplit(split.extent, split.largest)


def _region(task: Task) -> AnchoredRegion:
    region = AnchoredRegion.find(task.graph, ("conv",), symbolic=True)
    if region is None:
        raise LoweringError("the convolution templates take regions with one conv; ask takes() first")
    return region


def packed_weight(task: Task, region: AnchoredRegion) -> int | None:
    """The position of the constant input that is the weight and nothing else, so that it can be stored as the kernel wants it."""
    weight = region.anchor.inputs[1]
    if weight.node is not None:
        return None
    position = region.graph.inputs.index(weight)
    return position if position in task.constant_inputs and len(region.graph.users[weight]) == 1 else None


def predicted_cycles(conv: Convolution, pixels: Pixels, target: Target, parallel: int, knobs: Mapping[str, int]) -> float:
    """Estimated cycles of the slowest thread, staging left out."""
    vectors, groups = knobs["vectors"], knobs["row_groups"]
    tiles = PixelTiles.of(conv, pixels, knobs["pixels"])
    full, tail = divmod(conv.outputs, vectors * target.vector_lanes)
    row_share = -(-tiles.shared.tiles // groups) / tiles.shared.tiles

    def panel_cycles(width: int) -> float:
        return tiles.cycles(target, width, conv.depth) * row_share

    tail_cycles = panel_cycles(-(-tail // target.vector_lanes)) if tail else None
    slowest = busiest_share(panel_cycles(vectors), full, tail_cycles, int(conv.batch) * conv.groups, parallel // groups)
    return slowest * group_penalty(groups) * alias_penalty(conv.stride[1] * pixels.column * _FLOAT, tiles.largest)


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.task = task
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.region = _region(task)
        self.conv = conv = Convolution(self.region.anchor)
        # Where the batch is symbolic, the entry keeps calls with little to do on one thread.
        self.parallel = task.threads if task.is_symbolic else useful_threads(self.target, task.threads, conv.flops, conv.bytes_moved)
        self.panel = config["vectors"] * self.lanes
        self.unroll = config["unroll"]
        self.groups = config["row_groups"]
        self.pixels = Pixels.of(self.region, conv, self.target)
        self.tiles = PixelTiles.of(conv, self.pixels, config["pixels"])
        self.panels = -(-conv.outputs // self.panel)
        self.x, self.weight = self.region.anchor.inputs[:2]
        packed = packed_weight(task, self.region)
        if conv.groups > 1 and conv.outputs % self.panel:
            packed = None  # panels would span groups
        self.layouts = {} if packed is None else {packed: self.pixels.weight_layout(conv, self.panel)}
        x_bytes: Dim = round_up(conv.batch * self.pixels.batch * _FLOAT, _ALIGNMENT) if self.pixels.staged else 0
        weight_bytes = 0 if packed is not None else conv.groups * self.panels * conv.depth * self.panel * _FLOAT
        self.kernel = Kernel(self.region.graph, workspace_bytes=x_bytes + weight_bytes, layouts=self.layouts)
        self.emitter: Emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        self.stages_weight = packed is None
        if self.pixels.staged:
            self.a: Any = self.kernel.workspace(x_bytes // _FLOAT, "float32", 0, "pixels")
        else:
            self.a = self.kernel.inputs[self.x]
        if self.stages_weight:
            self.b: Any = self.kernel.workspace(weight_bytes // _FLOAT, "float32", x_bytes, "panels")
        else:
            self.b = self.kernel.inputs[self.weight]

    def lower(self) -> LoweredKernel:
        if self.pixels.staged:
            self._stage_pixels()
        if self.stages_weight:
            self._stage_weight()
        emitter, conv = self.emitter, self.conv
        channel_groups = self.parallel // self.groups
        tail = conv.outputs % self.panel
        shape = (conv.batch, conv.groups, self.panels)
        with threads(emitter, self.parallel) as thread:
            row_part = emitter.simplify(thread // channel_groups)
            channel_part = emitter.simplify(thread % channel_groups)
            with (
                share(emitter, channel_part, channel_groups, math.prod(shape)) as (low, high),
                emitter.loop(emitter.simplify(high - low), name="panel", start=low) as item,
            ):
                batch, group, number = (emitter.bind(part) for part in unflatten(emitter, shape, item))
                full = self.panels - 1 if tail else self.panels
                if full:
                    with emitter.when(number < full) if tail else emitter.scope():
                        self._panel(row_part, batch, group, number, self.panel)
                if tail:
                    with emitter.when(tirx.EQ(number, index(full))) if full else emitter.scope():
                        self._panel(row_part, batch, group, index(full), tail)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _panel(self, row_part: Expr, batch: Expr, group: Expr, number: Expr, columns: int) -> None:
        """All register tiles of this thread's pixels against one panel, of which ``columns`` output channels exist."""
        emitter, tiles = self.emitter, self.tiles
        for down in tiles.rows.runs:
            for across in tiles.columns.runs:
                low: dict[EvenSplit, tuple[Expr, Expr] | tuple[None, None]] = {}
                if self.groups > 1:
                    with share(emitter, row_part, self.groups, tiles.shared.tiles) as bounds:
                        low[tiles.shared] = bounds
                rows_bounds = low.get(tiles.rows, (None, None)) if tiles.shared is tiles.rows else (None, None)
                columns_bounds = low.get(tiles.columns, (None, None)) if tiles.shared is tiles.columns else (None, None)
                with (
                    tiles.rows.loop(emitter, down, *rows_bounds) as y,
                    tiles.columns.loop(emitter, across, *columns_bounds) as x,
                ):
                    self._tile(batch, group, number, (y, x), (down.size, across.size), columns)

    def _tile(self, batch: Expr, group: Expr, number: Expr, start: tuple[Expr, Expr], size: tuple[int, int], columns: int) -> None:
        emitter, conv, pixels = self.emitter, self.conv, self.pixels
        vectors = -(-columns // self.lanes)
        tile = RegisterTile(emitter, self.target, size[0] * size[1], vectors)
        down, across = conv.stride[0] * pixels.row, conv.stride[1] * pixels.column
        origin = batch * pixels.batch + group * (conv.channels * pixels.channel) + start[0] * down + start[1] * across
        a_offset = emitter.bind(emitter.simplify(origin), "a_at")
        b_offset = emitter.bind(emitter.simplify((group * self.panels + number) * (conv.depth * self.panel)), "b_at")
        row_offsets = [y * down + x * across for y in range(size[0]) for x in range(size[1])]
        ahead = self._ahead(b_offset, start[0] * self.tiles.columns.extent + start[1], size[0] * size[1])
        tile.accumulate(self.a, a_offset, row_offsets, self.b, b_offset, pixels.nest(conv, self.panel), self.unroll, ahead)
        bias = self.region.anchor.inputs[2] if len(self.region.anchor.inputs) > 2 else None

        def store(step: Expr | int, lane: Expr, element: Expr) -> None:
            y, x = start[0] + step // size[1], start[1] + step % size[1]
            if self.tiles.flat:
                y, x = unflatten(emitter, conv.results, start[1] + step)
            channel = group * conv.outputs + number * self.panel + lane
            if bias is not None:
                element = element + self.epilogue.evaluator.value_at(bias, [channel])
            self.epilogue.store(conv.result_indices(batch, channel, y, x), element)

        tile.for_each(columns, self.epilogue.is_long, store)

    def _ahead(self, b_offset: Expr, pixel: Expr, size: int) -> Ahead | None:
        """The share that ``size`` pixels from ``pixel`` on have of the next panel, which its first tile would otherwise wait for."""
        conv, tiles = self.conv, self.tiles
        if self.stages_weight or not streams(self.target, conv.outputs * conv.depth * _FLOAT, tiles.rows.tiles * tiles.columns.tiles):
            return None
        share = -(-conv.depth * self.panel // (tiles.rows.extent * tiles.columns.extent))
        place = b_offset + conv.depth * self.panel + pixel * share
        return Ahead(self.b, self.emitter.bind(self.emitter.simplify(place), "ahead"), size * share)

    def _stage_pixels(self) -> None:
        """Copies the operand into the workspace, surrounded by the padding's zeros."""
        emitter, conv, pixels = self.emitter, self.conv, self.pixels
        channels, (height, width) = conv.channels * conv.groups, conv.padded
        top, left = conv.padding[0][0], conv.padding[1][0]
        rows_inside = min(conv.extents[0], height - top)
        inside = min(conv.extents[1], width - left)
        after = width - left - inside
        planes = channels if pixels.planar else 1
        row_length = width * pixels.column
        count = conv.batch * planes * height
        with emitter.loop(count, loop_kind(self.parallel, count), "strip") as item:
            batch, plane, y = unflatten(emitter, (conv.batch, planes, height), item)
            start = emitter.bind(item * row_length)
            outside = None
            if top or height - top - rows_inside:
                outside = tirx.Or(y < top, y >= top + rows_inside)
                with emitter.when(outside):
                    clear_row(emitter, self.lanes, self.a, start, row_length)
            with emitter.when(tirx.And(y >= top, y < top + rows_inside)) if outside is not None else emitter.scope():
                source_y = y - top
                if left:
                    clear_row(emitter, self.lanes, self.a, start, left * pixels.column)
                if after > 0:
                    clear_row(emitter, self.lanes, self.a, start + (left + inside) * pixels.column, after * pixels.column)
                if inside > 0:
                    self._stage_row(batch, plane, source_y, start + left * pixels.column, inside, channels)

    def _stage_row(self, batch: Expr, plane: Expr, y: Expr, start: Expr, inside: int, channels: int) -> None:
        emitter, conv, pixels = self.emitter, self.conv, self.pixels

        def value(channel: Expr, x: Expr) -> Expr:
            return self.epilogue.evaluator.value_at(self.x, conv.operand_indices(batch, channel, y, x))

        if pixels.planar:
            copy_row(emitter, self.lanes, self.a, start, inside, lambda x: value(plane, x))
            return
        with emitter.loop(inside, name="x") as x:
            copy_row(emitter, self.lanes, self.a, start + x * pixels.column, channels, lambda channel: value(channel, x))

    def _stage_weight(self) -> None:
        """Evaluates the weight into panels in the workspace, group by group; lanes beyond the last channel stay undefined."""
        emitter, conv = self.emitter, self.conv
        tail = conv.outputs % self.panel
        (height, width), count = conv.window, conv.groups * self.panels
        shape = (width, conv.channels, height) if self.pixels.planar else (height, width, conv.channels)
        with emitter.loop(count, loop_kind(self.parallel, count), "panel") as item, emitter.loop(conv.depth, name="r") as r:
            group, number = unflatten(emitter, (conv.groups, self.panels), item)
            place = unflatten(emitter, shape, r)
            y, x, channel = (place[2], place[0], place[1]) if self.pixels.planar else place
            offset = emitter.bind((item * conv.depth + r) * self.panel)

            def element(lane: Expr) -> Expr:
                output = group * conv.outputs + number * self.panel + lane
                indices = [output, channel, x] if conv.spatial == 1 else [output, channel, y, x]
                return self.epilogue.evaluator.value_at(self.weight, indices)

            full = self.panels - 1 if tail else self.panels
            if full:
                with emitter.when(number < full) if tail else emitter.scope():
                    copy_row(emitter, self.lanes, self.b, offset, self.panel, element)
            if tail:
                with emitter.when(tirx.EQ(number, index(full))) if full else emitter.scope():
                    number = index(full)
                    copy_row(emitter, self.lanes, self.b, offset, tail, element)
