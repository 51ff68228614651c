"""Direct convolution: what a task is made of, what a schedule costs, and the loops over pixels and panels of output channels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir import Dim, Value
from ..constant_layout import ConstantLayout
from ..emit import VECTORIZED, Emitter, Expr, Kernel, bytes_of, index, ramp, unflatten
from ..emit.access import physical_offset
from ..emit.math import select
from ..space import Config
from ..target import Kind, Target
from ..task import Task
from ..template import LoweredKernel
from .arithmetic import Arithmetic
from .conv_geometry import Convolution, Pixels, PixelTiles
from .narrow import as_stored, packed_input, stored_weight, weight_layout
from .region import AnchoredRegion, Epilogue
from .register_tile import Ahead, Initial, RegisterTile
from .staging import clear_row, copy_row, loop_kind
from .tile_rows import DelayedRows, delays_rows, may_delay
from .tiling import EvenSplit, alias_penalty, busiest_share, by_width, round_up, share, sharing_cycles, streams, threads, useful_threads

_WORD = 4
_ALIGNMENT = 64
_WORDS_HELD = 6
"""Pixels at most: with more sums beside them, these went to memory and back (190 or 350 us for the first layer of ResNet-50)."""


@dataclass(frozen=True)
class Problem:
    """What a task is made of: its region, how operands are multiplied, and the geometry."""

    region: AnchoredRegion
    arithmetic: Arithmetic
    conv: Convolution
    pixels: Pixels

    def temporaries(self, vectors: int) -> int:
        """Registers between those of a register tile's sums and operands. Of pixels that are words LLVM holds those of some steps."""
        held = _WORDS_HELD if self.conv.per_word > 1 and self.conv.words == 1 else 0
        return self.arithmetic.temporaries(vectors) + held

    def delays(self, target: Target, pixels: int, vectors: int, tiles: int) -> bool:
        """Whether the sums of ``tiles`` tiles are stored while those of the next are made."""
        return self.may_delay and delays_rows(target, pixels, vectors, self.steps, tiles)

    @functools.cached_property
    def may_delay(self) -> bool:
        return may_delay(self.arithmetic, self.region)

    @functools.cached_property
    def steps(self) -> int:
        """Of the innermost loop of a tile."""
        nest = self.pixels.nest(self.conv, 1)
        return nest[-1].extent if nest else 1


def predicted_cycles(problem: Problem, target: Target, parallel: int, knobs: Mapping[str, int]) -> float:
    """Estimated cycles of the slowest thread, staging left out."""
    conv, pixels, pace = problem.conv, problem.pixels, problem.arithmetic.pace
    vectors, groups = knobs["vectors"], knobs["row_groups"]
    tiles = PixelTiles.of(conv, pixels, knobs["pixels"])
    full, tail = divmod(conv.outputs, vectors * target.vector_lanes)
    row_share = -(-tiles.shared.tiles // groups) / tiles.shared.tiles

    def panel_cycles(width: int) -> float:
        return tiles.cycles(target, width, conv.depth, pace, functools.partial(problem.delays, target)) * row_share

    tail_cycles = panel_cycles(-(-tail // target.vector_lanes)) if tail else None
    slowest = busiest_share(panel_cycles(vectors), full, tail_cycles, int(conv.batch) * conv.groups, parallel // groups)
    a_bytes = _WORD * int(conv.batch) * conv.channels * conv.groups * math.prod(conv.extents)
    sharing = sharing_cycles(parallel, groups, a_bytes, problem.arithmetic.b_bytes * conv.groups * conv.outputs * conv.depth)
    return slowest * alias_penalty(conv.stride[1] * pixels.column * _WORD, tiles.largest) + sharing


@dataclass(frozen=True)
class _Strip:
    """Register tiles of ``size`` pixels, down and across, against one panel of which ``columns`` output channels exist."""

    batch: Expr
    group: Expr
    number: Expr
    size: tuple[int, int]
    columns: int

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


class DirectLowering:
    """The kernel of a direct convolution in the making."""

    def __init__(self, task: Task, config: Config, problem: Problem) -> None:
        self.task = task
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.problem = problem
        self.region, self.arithmetic, self.pixels = problem.region, problem.arithmetic, problem.pixels
        self.conv = conv = problem.conv
        # Where the batch is symbolic, the entry keeps calls with little to do on one thread.
        self.parallel = task.threads if task.is_symbolic else useful_threads(self.target, task.threads, conv.flops, conv.bytes_moved)
        self.panel = config["vectors"] * self.lanes
        self.unroll = config["unroll"]
        self.groups = config["row_groups"]
        self.tiles = PixelTiles.of(conv, self.pixels, config["pixels"])
        self.panels = -(-conv.outputs // self.panel)
        self.x, self.weight = self.region.anchor.inputs[:2]
        source = stored_weight(self.region.anchor)
        form = self.arithmetic
        self.layouts = self.packed(source)
        x_bytes: Dim = round_up(conv.batch * self.pixels.batch * _WORD, _ALIGNMENT) if self.pixels.staged else 0
        weight_bytes: Dim = 0
        if not self.layouts:
            weight_bytes = round_up(conv.groups * self.panels * conv.depth * self.panel * form.b_bytes, _ALIGNMENT)
        self.kernel = Kernel(self.region.graph, workspace_bytes=x_bytes + weight_bytes, layouts=self.layouts)
        self.kernel.declare_functions(form.functions)
        self.emitter: Emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        self.stages_weight = not self.layouts
        result = self.region.anchor.output.tensor
        others = [value for value in self.region.graph.inputs if value not in self.region.anchor.inputs]
        lie_alike = [value for value in others if (value.tensor.shape, value.tensor.layout) == (result.shape, result.layout)]
        self.beside = lie_alike if self.target.kind is Kind.CPU else []
        """What the epilogue reads beside the sums, element by element: residual branches. Each tile prefetches its part."""
        if self.pixels.staged:
            self.a: Any = self.kernel.workspace(x_bytes // bytes_of(form.a_dtype), form.a_dtype, 0, "pixels")
        else:
            self.a = self.kernel.inputs[self.x]
        if self.stages_weight:
            self.b: Any = self.kernel.workspace(weight_bytes // bytes_of(form.b_dtype), form.b_dtype, x_bytes, "panels")
        else:
            self.b = self.kernel.inputs[source]

    def packed(self, source: Value) -> dict[int, ConstantLayout]:
        """How the weight is packed, by the number of its input; empty where the kernel packs it itself."""
        position = packed_input(self.task, self.region, source)
        if position is None or (self.conv.groups > 1 and self.conv.outputs % self.panel):  # panels would span groups
            return {}
        return {position: weight_layout(self.pixels.weight_layout(self.conv, self.panel), self.arithmetic)}

    def lower(self) -> LoweredKernel:
        if self.pixels.staged:
            self._stage_pixels()
        if self.stages_weight:
            self._stage_weight()
        emitter, conv = self.emitter, self.conv
        channel_groups = self.parallel // self.groups
        shape = (conv.batch, conv.groups, self.panels)
        with threads(emitter, self.parallel) as thread:
            row_part = emitter.simplify(thread // channel_groups)
            channel_part = emitter.simplify(thread % channel_groups)
            with (
                share(emitter, channel_part, channel_groups, math.prod(shape)) as (low, high),
                emitter.loop(emitter.simplify(high - low), name="panel", start=low) as item,
            ):
                batch, group, number = (emitter.bind(part) for part in unflatten(emitter, shape, item))

                def panel(number: Expr, columns: int) -> None:
                    self._panel(row_part, batch, group, number, columns)

                by_width(emitter, number, conv.outputs, self.panel, panel)
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
                strip = _Strip(batch, group, number, (down.size, across.size), columns)
                delayed = self._delayed(strip, down.count * across.count)
                with (
                    tiles.rows.loop(emitter, down, *rows_bounds) as y,
                    tiles.columns.loop(emitter, across, *columns_bounds) as x,
                ):
                    self._tile(strip, (y, x), delayed)
                if delayed is not None:
                    delayed.finish()

    def _delayed(self, strip: _Strip, tiles: int) -> DelayedRows | None:
        """What delays the rows of ``tiles`` tiles, where that pays."""
        if not self.problem.delays(self.target, strip.pixels, -(-strip.columns // self.lanes), tiles):
            return None
        use = functools.partial(self._store, strip)
        return DelayedRows(self.emitter, self.arithmetic.sums_dtype, strip.pixels, strip.columns, self.lanes, 2, use)

    def _tile(self, strip: _Strip, start: Sequence[Expr], delayed: DelayedRows | None) -> None:
        emitter, conv, pixels = self.emitter, self.conv, self.pixels
        batch, group, number, size, columns = strip.batch, strip.group, strip.number, strip.size, strip.columns
        vectors = -(-columns // self.lanes)
        initial = Initial(columns, lambda lane: self._bias(strip, lane)) if self._starts_with_bias else None
        tile = RegisterTile(emitter, self.arithmetic, strip.pixels, vectors, initial)
        down, across = conv.stride[0] * pixels.row, conv.stride[1] * pixels.column
        origin = batch * pixels.batch + group * (conv.words * pixels.channel) + start[0] * down + start[1] * across
        a_offset = emitter.bind(emitter.simplify(origin), "a_at")
        row_offsets = [y * down + x * across for y in range(size[0]) for x in range(size[1])]
        for value in self.beside:
            for step in range(strip.pixels):
                offset = physical_offset(value.tensor, conv.result_indices(batch, self._first(strip), *self._pixel(strip, start, step)))
                emitter.prefetch(self.kernel.inputs[value], offset, columns, level=1)
        self.accumulate(tile, a_offset, row_offsets, group, number, start[0] * self.tiles.columns.extent + start[1], delayed)
        if delayed is not None:
            delayed.put(start, lambda buffer, stride: tile.spill(buffer, index(0), stride))
        else:
            tile.for_each(columns, self.epilogue.is_long, functools.partial(self._store, strip, start))

    def _first(self, strip: _Strip) -> Expr:
        """The first output channel of a panel."""
        return strip.group * self.conv.outputs + strip.number * self.panel

    def _pixel(self, strip: _Strip, start: Sequence[Expr], step: Expr | int) -> tuple[Expr, Expr]:
        """The pixel that is number ``step`` of a tile."""
        if self.tiles.flat:
            y, x = unflatten(self.emitter, self.conv.results, start[1] + step)
            return y, x
        return start[0] + step // strip.size[1], start[1] + step % strip.size[1]

    def _bias(self, strip: _Strip, lane: Expr) -> Expr:
        bias = self.region.bias
        assert bias is not None
        return self.epilogue.evaluator.value_at(bias, [self._first(strip) + lane])

    @property
    def _starts_with_bias(self) -> bool:
        return self.region.bias is not None and self.arithmetic.biased

    def _store(self, strip: _Strip, start: Sequence[Expr], step: Expr | int, lane: Expr, element: Expr) -> None:
        """Stores what outputs make of the sum of a tile's pixel ``step`` in a ``lane`` of its panel."""
        channel = self._first(strip) + lane
        element = self.finished(element, channel)
        if self.region.bias is not None and not self._starts_with_bias:
            element = element + self._bias(strip, lane)
        self.epilogue.store(self.conv.result_indices(strip.batch, channel, *self._pixel(strip, start, step)), element)

    def accumulate(
        self,
        tile: RegisterTile,
        a_offset: Expr,
        row_offsets: Sequence[int],
        group: Expr,
        number: Expr,
        pixel: Expr,
        delayed: DelayedRows | None,
    ) -> None:
        """Adds the products of a tile's pixels, of which the first one is ``pixel``, with panel ``number`` of a group, and meanwhile uses
        rows that are ``delayed``."""
        emitter, depth = self.emitter, self.conv.depth
        b_offset = emitter.bind(emitter.simplify((group * self.panels + number) * (depth * self.panel)), "b_at")
        ahead = self._ahead(b_offset, pixel, len(row_offsets))
        nest = self.pixels.nest(self.conv, self.panel)
        tile.accumulate(self.a, a_offset, row_offsets, self.b, b_offset, nest, self.unroll, ahead, delayed)

    def finished(self, total: Expr, channel: Expr) -> Expr:
        """What the sum of a channel's products stands for."""
        return total

    def _ahead(self, b_offset: Expr, pixel: Expr, size: int) -> Ahead | None:
        """The share that ``size`` pixels from ``pixel`` on have of the next panel, which its first tile would otherwise wait for."""
        conv, tiles = self.conv, self.tiles
        if self.stages_weight or not streams(
            self.target, conv.outputs * conv.depth * self.arithmetic.b_bytes, tiles.rows.tiles * tiles.columns.tiles
        ):
            return None
        share = -(-conv.depth * self.panel // (tiles.rows.extent * tiles.columns.extent))
        place = b_offset + conv.depth * self.panel + pixel * share
        return Ahead(self.b, self.emitter.bind(self.emitter.simplify(place), "ahead"), size * share)

    def _stage_pixels(self) -> None:
        """Copies the operand into the workspace, surrounded by the padding."""
        emitter, conv, pixels, per_word = self.emitter, self.conv, self.pixels, self.conv.per_word
        channels, (height, width) = conv.channels * conv.groups, conv.padded
        top, left = conv.padding[0][0], conv.padding[1][0]
        rows_inside = min(conv.extents[0], height - top)
        inside = min(conv.extents[1], width - left)
        after = width - left - inside
        planes = channels if pixels.planar else 1
        pixel = pixels.column * per_word
        row_length = width * pixel

        def pad(offset: Expr, count: int) -> None:
            clear_row(emitter, self.lanes * per_word, self.a, offset, count, conv.filling)

        count = conv.batch * planes * height
        with emitter.loop(count, loop_kind(self.parallel, count), "strip") as item:
            batch, plane, y = unflatten(emitter, (conv.batch, planes, height), item)
            start = emitter.bind(item * row_length)
            outside = None
            if top or height - top - rows_inside:
                outside = tirx.Or(y < top, y >= top + rows_inside)
                with emitter.when(outside):
                    pad(start, row_length)
            with emitter.when(tirx.And(y >= top, y < top + rows_inside)) if outside is not None else emitter.scope():
                source_y = y - top
                if left:
                    pad(start, left * pixel)
                if after > 0:
                    pad(start + (left + inside) * pixel, after * pixel)
                if inside > 0:
                    self._stage_row(batch, plane, source_y, start + left * pixel, inside, channels)

    def _stage_row(self, batch: Expr, plane: Expr, y: Expr, start: Expr, inside: int, channels: int) -> None:
        emitter, conv, pixels, per_word = self.emitter, self.conv, self.pixels, self.conv.per_word

        def value(channel: Expr, x: Expr) -> Expr:
            element = self.epilogue.evaluator.value_at(self.x, conv.operand_indices(batch, channel, y, x))
            return as_stored(emitter.bind, element, self.arithmetic.a_dtype)

        if pixels.planar:
            copy_row(emitter, self.lanes, self.a, start, inside, lambda x: value(plane, x))
            return
        if channels <= per_word == _WORD and pixels.column == 1 and self.arithmetic.a_dtype == "uint8":
            self._stage_words(start, inside, channels, value)
            return
        with emitter.loop(inside, name="x") as x:
            place = start + x * (pixels.column * per_word)
            copy_row(emitter, self.lanes * per_word, self.a, place, channels, lambda channel: value(channel, x))
            if rest := conv.groups * conv.words * per_word - channels:
                clear_row(emitter, self.lanes, self.a, place + channels, rest)

    def _stage_words(self, start: Expr, inside: int, channels: int, value: Callable[[Expr, Expr], Expr]) -> None:
        """Pixels of a few bytes, each of which is a word: vectors of pixels are put together from those of each channel."""
        emitter = self.emitter
        done = 0
        while done < inside:
            count = min(self.lanes, inside - done)
            trips = (inside - done) // count
            with emitter.loop(trips, name="words") as trip:
                first = emitter.bind(emitter.simplify(trip * count + done), "x")
                words = emitter.allocate(count, "int32", "words")
                with emitter.loop(count, VECTORIZED, "lane") as lane:
                    parts = [tirx.Cast("int32", value(index(channel), first + lane)) for channel in range(channels)]
                    word = parts[0]
                    for channel, part in enumerate(parts[1:], 1):
                        word = tirx.bitwise_or(word, tirx.shift_left(part, tirx.const(8 * channel, "int32")))
                    emitter.store(words, word, lane)
                bytes_ = tirx.reinterpret(f"uint8x{count * _WORD}", tirx.BufferLoad(words, [ramp(0, count)]))
                place = emitter.simplify(start + first * _WORD)
                emitter.emit(tirx.BufferStore(self.a, bytes_, [ramp(place, count * _WORD)]))
            done += trips * count

    def _stage_weight(self) -> None:
        """Evaluates the weight into panels in the workspace, group by group; lanes beyond the last output channel stay undefined.

        Input channels that fill up the last word are zero.
        """
        emitter, conv, per_word = self.emitter, self.conv, self.conv.per_word
        (height, width), count = conv.window, conv.groups * self.panels
        down_first = self.pixels.is_down_first(conv)
        shape = (width, conv.words, height) if down_first else (height, width, conv.words)
        with (
            emitter.loop(count, loop_kind(self.parallel, count), "panel") as item,
            emitter.loop(conv.depth, name="r") as r,
            emitter.loop(per_word, name="part") as part,
        ):
            group, number = unflatten(emitter, (conv.groups, self.panels), item)
            place = unflatten(emitter, shape, r)
            y, x, word = (place[2], place[0], place[1]) if down_first else place
            channel, exists = self.epilogue.evaluator.clamped(emitter.simplify(word * per_word + part), conv.channels)
            offset = emitter.bind((item * conv.depth + r) * (self.panel * per_word) + part)

            def stage(number: Expr, columns: int) -> None:
                def element(lane: Expr) -> Expr:
                    output = group * conv.outputs + number * self.panel + lane
                    indices = [output, channel, x] if conv.spatial == 1 else [output, channel, y, x]
                    value = as_stored(emitter.bind, self.epilogue.evaluator.value_at(self.weight, indices), self.arithmetic.b_dtype)
                    return value if exists is None else select(exists, value, tirx.const(0, self.arithmetic.b_dtype))

                copy_row(emitter, self.lanes, self.b, offset, columns, element, per_word)

            by_width(emitter, number, conv.outputs, self.panel, stage)
