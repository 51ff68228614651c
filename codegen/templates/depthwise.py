"""Depthwise convolution on the CPU: every channel has its own filter, so channels are the lanes of vectors.

A tile is some neighbouring pixels of one output row; its accumulators stay in registers while the window passes. Nothing is copied:
rows outside the operand are skipped, and tiles at the left and right edge leave out the products with padding at compile time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph, Layout
from ..emit import VECTORIZED, Emitter, Expr, Kernel, unflatten
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import Fp32
from .conv_geometry import Convolution
from .region import AnchoredRegion, Epilogue, only_batch_is_symbolic
from .register_tile import RegisterTile
from .tile_rows import for_each_of_rows
from .tiling import EvenSplit, distinct_splits, share, threads, useful_threads

_TOGETHER = 8
"""Blocks of channels whose sums are collected before a long epilogue, which is then one loop over many vectors."""
_LARGE_WINDOW = 16
"""Places of a window from which on a processor does not look ahead to the next tile, so that the sums of one, each of which waits for its
last product, have to keep the multipliers busy: the more pixels the better (measured: a tenth to a quarter for 5x5, nothing for 3x3)."""
_UNBALANCED = 1.05
"""The busiest thread may have this much more than its share before rows are divided further."""


@dataclass(frozen=True)
class ColumnTiles:
    """``count`` tiles of ``size`` output pixels, the first one at ``start``, that may all use the same code.

    ``products`` says which pixels each column of the window meets inside the operand.
    """

    start: int
    count: int
    size: int
    products: tuple[tuple[int, ...], ...]


def column_tiles(conv: Convolution, most: int) -> list[ColumnTiles]:
    """The tiles of an output row, in order."""
    found: list[ColumnTiles] = []
    for run in EvenSplit(conv.results[1], most).runs:
        for number in range(run.count):
            start = run.start + number * run.size
            products = tuple(
                tuple(
                    pixel
                    for pixel in range(run.size)
                    if 0 <= (start + pixel) * conv.stride[1] - conv.padding[1][0] + column * conv.dilation[1] < conv.extents[1]
                )
                for column in range(conv.window[1])
            )
            last = found[-1] if found else None
            if last is not None and last.size == run.size and last.products == products:
                found[-1] = ColumnTiles(last.start, last.count + 1, last.size, products)
            else:
                found.append(ColumnTiles(start, 1, run.size, products))
    return found


class DepthwiseTemplate(Template):
    """Regions around one depthwise ``conv`` over one or two axes, with elementwise operations and views before and after it.

    Knob: ``pixels`` of a tile.
    """

    name = "depthwise"
    revision = 2

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("conv",), symbolic=True)
        if region is None or not only_batch_is_symbolic(*region.anchor.inputs[:1], region.anchor.output):
            return False
        return region.anchor.output.tensor.rank in (3, 4) and Convolution(region.anchor).is_depthwise

    def space(self, task: Task) -> Space:
        conv = Convolution(_region(task.representative).anchor)
        target = task.target
        sizes = distinct_splits(conv.results[1], max(1, target.vector_registers // 2))

        is_large = conv.window[0] * conv.window[1] >= _LARGE_WINDOW

        def live(pixels: int) -> int:
            """Vector registers of a tile: accumulators, weights of a row of the window or pixels of the operand, whatever waits, and a
            temporary."""
            span = (pixels - 1) * conv.stride[1] + (conv.window[1] - 1) * conv.dilation[1] + 1
            waiting = conv.window[1] if is_large else min(span, pixels * conv.window[1])
            return pixels + waiting + 2

        fitting = [size for size in sizes if live(size) <= target.vector_registers] or [sizes[-1]]
        return Space(self.name, (("pixels", tuple(sorted(sizes))),), Config.of(self.name, {"pixels": fitting[0]}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config).lower()


def _region(task: Task) -> AnchoredRegion:
    region = AnchoredRegion.find(task.graph, ("conv",), symbolic=True)
    if region is None:
        raise LoweringError("the depthwise template takes regions with one conv; ask takes() first")
    return region


def _channel_chunks(rows: int, blocks: int, parallel: int) -> int:
    """Into how many parts the channels are divided so that all threads have nearly the same work."""
    for chunks in range(1, min(blocks, parallel) + 1):
        items = rows * chunks
        if -(-items // parallel) * parallel <= _UNBALANCED * items:
            return chunks
    return min(blocks, parallel)


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.target: Target = task.target
        self.lanes = task.target.vector_lanes
        self.region = _region(task)
        self.conv = conv = Convolution(self.region.anchor)
        # Where the batch is symbolic, the entry keeps calls with little to do on one thread.
        self.parallel = task.threads if task.is_symbolic else useful_threads(self.target, task.threads, conv.flops, conv.bytes_moved)
        self.tiles = column_tiles(conv, config["pixels"])
        self.x, self.weight = self.region.anchor.inputs[:2]
        self.layouts = self._weight_layout(task)
        self.kernel = Kernel(self.region.graph, layouts=self.layouts)
        self.emitter: Emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        self.together = _TOGETHER if self.epilogue.is_long and self.lanes > 1 else 1
        """Blocks of channels in a group."""

    def _weight_layout(self, task: Task) -> dict[int, Layout]:
        """A constant weight lies with its channels innermost."""
        if self.weight.node is not None or len(self.region.graph.users[self.weight]) > 1:
            return {}
        position = self.region.graph.inputs.index(self.weight)
        if position not in task.constant_inputs:
            return {}
        return {position: Layout((*range(2, 2 + self.conv.spatial), 0, 1))}

    def lower(self) -> LoweredKernel:
        emitter, conv = self.emitter, self.conv
        height, blocks = conv.results[0], conv.groups // self.lanes
        rest = conv.groups % self.lanes
        # A symbolic batch may be 1.
        chunks = _channel_chunks(emitter.least(conv.batch) * height, max(blocks, 1), self.parallel)
        shape = (conv.batch, height, chunks)
        with (
            threads(emitter, self.parallel) as thread,
            share(emitter, thread, self.parallel, conv.batch * height * chunks) as (low, high),
            emitter.loop(emitter.simplify(high - low), name="strip", start=low) as strip,
        ):
            batch, y, chunk = (emitter.bind(part) for part in unflatten(emitter, shape, strip))
            first = emitter.bind(emitter.simplify(chunk * blocks // chunks))
            end = emitter.bind(emitter.simplify((chunk + 1) * blocks // chunks))
            for tiles in self.tiles:
                with emitter.loop(tiles.count, name="tile") as number:
                    start = emitter.bind(number * tiles.size + tiles.start)
                    if blocks:
                        self._blocks(batch, y, start, tiles, first, emitter.simplify(end - first) if chunks > 1 else blocks)
                    if rest:
                        with emitter.when(tirx.EQ(chunk, chunks - 1)) if chunks > 1 else emitter.scope():
                            self._group(batch, y, start, tiles, emitter.simplify(blocks * self.lanes), rest)
        return LoweredKernel(self.kernel.finish(), self.layouts)

    def _blocks(self, batch: Expr, y: Expr, start: Expr, tiles: ColumnTiles, first: Expr, count: Expr | int) -> None:
        """The results of a tile for ``count`` blocks of channels from block ``first`` on."""
        emitter, together = self.emitter, self.together
        groups = count // together if isinstance(count, int) else emitter.bind(count // together, "groups")
        with emitter.loop(groups, name="group") as group:
            self._group(batch, y, start, tiles, (first + group * together) * self.lanes, together * self.lanes)
        begin, rest = first + groups * together, count - groups * together
        if isinstance(rest, int):
            if rest:
                self._group(batch, y, start, tiles, emitter.simplify(begin * self.lanes), rest * self.lanes)
        elif together > 1:
            with emitter.loop(rest, name="block", start=begin) as block:
                self._group(batch, y, start, tiles, block * self.lanes, self.lanes)

    def _group(self, batch: Expr, y: Expr, start: Expr, tiles: ColumnTiles, channel: Expr, width: int) -> None:
        """The results of a tile for ``width`` channels from ``channel`` on: whole blocks, or a part of one."""
        emitter, conv, lanes = self.emitter, self.conv, self.lanes
        bias = self.region.bias

        def store(pixel: Expr | int, lane: Expr, element: Expr) -> None:
            if bias is not None:
                element = element + self.epilogue.evaluator.value_at(bias, [channel + lane])
            self.epilogue.store(conv.result_indices(batch, channel + lane, y, start + pixel), element)

        if width <= lanes:
            self._tile(batch, y, start, tiles, channel, width).for_each(width, self.epilogue.is_long, store)
            return
        sums = emitter.allocate(tiles.size * width, "float32", "sums")
        with emitter.loop(width // lanes, name="block") as block:
            offset = emitter.bind(block * lanes)
            self._tile(batch, y, start, tiles, channel + offset, lanes).spill(sums, offset, width)
        for_each_of_rows(emitter, sums, tiles.size, width, width, lanes, store)

    def _tile(self, batch: Expr, y: Expr, start: Expr, tiles: ColumnTiles, channel: Expr, width: int) -> RegisterTile:
        """The sums of a tile for at most a vector of channels."""
        emitter, conv = self.emitter, self.conv
        tile = RegisterTile(emitter, Fp32(self.target), tiles.size, 1)
        for row in range(conv.window[0]):
            source_y = emitter.simplify(y * conv.stride[0] + (row * conv.dilation[0] - conv.padding[0][0]))
            inside = tirx.And(source_y >= 0, source_y < conv.extents[0])
            with emitter.scope() if emitter.proves(inside) else emitter.when(inside):
                self._window_row(batch, row, source_y, start, tiles, channel, width, tile.accumulators)
        return tile

    def _window_row(
        self,
        batch: Expr,
        row: int,
        source_y: Expr,
        start: Expr,
        tiles: ColumnTiles,
        channel: Expr,
        width: int,
        accumulators: Any,
    ) -> None:
        """Adds the products of one row of the window."""
        emitter, conv = self.emitter, self.conv
        with emitter.loop(width, VECTORIZED, "lane") as lane:
            for column, pixel in self._products(tiles):
                x = start * conv.stride[1] + (pixel * conv.stride[1] + column * conv.dilation[1] - conv.padding[1][0])
                operand = self.epilogue.evaluator.value_at(self.x, conv.operand_indices(batch, channel + lane, source_y, x))
                place = [emitter.simplify(row)] if conv.spatial == 2 else []
                indices = [channel + lane, emitter.simplify(0), *place, emitter.simplify(column)]
                weight = self.epilogue.evaluator.value_at(self.weight, indices)
                offset = pixel * self.lanes + lane
                total = tirx.BufferLoad(accumulators, [offset]) + operand * weight
                emitter.emit(tirx.BufferStore(accumulators, total, [offset]))

    def _products(self, tiles: ColumnTiles) -> Iterator[tuple[int, int]]:
        """Pairs of a column of the window and a pixel of the tile."""
        for column, pixels in enumerate(tiles.products):
            for pixel in pixels:
                yield column, pixel
