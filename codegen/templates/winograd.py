"""Winograd convolution on the CPU: for each block of tiles data is transformed, multiplied point by point, and transformed back.

A block is small enough for its transformed data, ``[point][tile][channel]``, to stay in the second-level cache. Panel after panel of
the weight, its register tiles give products ``[point][tile][output channel]``, which are transformed back while they are in the
first-level cache, go through what is fused behind the convolution, and are stored. Threads that share blocks take different panels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tvm import tirx

from ..emit import VECTORIZED, Expr, Kernel, index, unflatten
from ..space import Config
from ..task import Task
from ..template import LoweredKernel
from ..winograd import WinogradWeight
from .arithmetic import Fp32
from .conv_geometry import Convolution
from .region import AnchoredRegion, Epilogue
from .register_tile import Ahead, ReductionLoop, RegisterTile
from .tiling import EvenSplit, Run, round_up, share, threads
from .vectors import Vectors
from .winograd_geometry import WinogradTiles
from .winograd_transforms import of_data, of_products

_FLOAT = 4
_ALIGNMENT = 64


class WinogradLowering:
    """One kernel in the making."""

    def __init__(self, task: Task, region: AnchoredRegion, config: Config, parallel: int) -> None:
        self.region = region
        self.conv = conv = Convolution(region.anchor)
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.parallel = parallel
        self.unroll = config["unroll"]
        self.panel = config["vectors"] * self.lanes
        self.tiles = tiles = WinogradTiles(conv, config["winograd"], config["row_groups"], config["pixels"], task.target)
        self.x, self.weight = region.anchor.inputs[:2]
        self.layouts = {region.graph.inputs.index(self.weight): WinogradWeight(tiles.outputs, self.panel)}
        self.whole = tiles.groups < parallel
        """Whether threads share blocks, so that all data must be transformed before any is multiplied."""
        blocks = tiles.blocks.tiles if self.whole else parallel
        self.data_size = round_up(tiles.points * tiles.data_stride, _ALIGNMENT // _FLOAT)
        self.products_size = round_up(tiles.points * tiles.products_stride(self.panel), _ALIGNMENT // _FLOAT)
        data_bytes, products_bytes = blocks * self.data_size * _FLOAT, parallel * self.products_size * _FLOAT
        self.kernel = Kernel(region.graph, workspace_bytes=data_bytes + products_bytes, layouts=self.layouts)
        self.emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, region)
        self.vectors = Vectors(self.emitter, task.target)
        self.data: Any = self.kernel.workspace(data_bytes // _FLOAT, "float32", 0, "data")
        self.products: Any = self.kernel.workspace(products_bytes // _FLOAT, "float32", data_bytes, "products")

    def lower(self) -> LoweredKernel:
        emitter, tiles = self.emitter, self.tiles
        panels = self.conv.outputs // self.panel
        if self.whole:
            with threads(emitter, self.parallel) as thread, share(emitter, thread, self.parallel, tiles.count) as (low, high):
                for run, first, begin, count in self._parts(low, high):
                    with emitter.loop(count, name="tile", start=begin) as tile:
                        block = emitter.bind((tile - run.start) // run.size + first)
                        self._transform(tile, (tile - run.start) % run.size, block * self.data_size)
        with threads(emitter, self.parallel) as thread:
            per_group = self.parallel // tiles.groups
            group = emitter.simplify(thread // per_group)
            part = emitter.simplify(thread % per_group)
            for run, first, block in self._blocks(group):
                data_at = emitter.bind(emitter.simplify((first if self.whole else thread) * self.data_size), "data_at")
                if not self.whole:
                    with emitter.loop(run.size, name="tile") as tile:
                        self._transform(block + tile, tile, data_at)
                with (
                    share(emitter, part, per_group, panels) as (low, high),
                    emitter.loop(emitter.simplify(high - low), name="panel", start=low) as number,
                ):
                    products_at = emitter.bind(emitter.simplify(thread * self.products_size), "products_at")
                    self._multiply(run.size, number, data_at, products_at)
                    with emitter.loop(run.size, name="tile") as tile:
                        self._transform_back(block + tile, tile, number, products_at)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _parts(self, low: Expr, high: Expr) -> Iterator[tuple[Run, int, Expr, Expr]]:
        """For each size of block: its run, the number of its first block, and which of its tiles lie in [low, high): first and count."""
        first = 0
        for run in self.tiles.blocks.runs:
            end = run.start + run.count * run.size
            begin = self.emitter.bind(tirx.Max(low, index(run.start)), "begin")
            count = tirx.Max(tirx.Min(high, index(end)) - begin, index(0))
            yield run, first, begin, self.emitter.bind(count, "count")
            first += run.count

    def _blocks(self, group: Expr) -> Iterator[tuple[Run, Expr, Expr]]:
        """For each size of block a loop over this group's ones, open while the caller uses what is given: run, number, first tile."""
        emitter, split = self.emitter, self.tiles.blocks
        first = 0
        for run in split.runs:
            with contextlib.ExitStack() as stack:
                bounds: tuple[Expr | None, Expr | None] = (None, None)
                if self.tiles.groups > 1:
                    bounds = stack.enter_context(share(emitter, group, self.tiles.groups, split.tiles))
                start = stack.enter_context(split.loop(emitter, run, *bounds))
                yield run, emitter.bind((start - run.start) // run.size + first, "block"), start
            first += run.count

    def _origin(self, tile: Expr) -> tuple[Expr, Expr, Expr]:
        """The image of a tile and its first result pixel."""
        down, across = self.tiles.grid
        batch, y, x = unflatten(self.emitter, (self.conv.batch, down, across), tile)
        outputs = self.tiles.outputs
        return self.emitter.bind(batch), self.emitter.bind(y * outputs), self.emitter.bind(x * outputs)

    def _transform(self, tile: Expr, place: Expr, data_at: Expr) -> None:
        """Transforms the data of ``tile``, number ``place`` of its block, for all channels."""
        emitter, conv, tiles, side = self.emitter, self.conv, self.tiles, self.tiles.side
        batch, y, x = self._origin(tile)
        top, left = conv.padding[0][0], conv.padding[1][0]
        height, width = conv.extents
        row_at = emitter.bind(emitter.simplify(data_at + place * conv.channels), "row_at")
        inside_columns = emitter.bind(tirx.And(x >= left, x - left + side <= width), "inside")
        with emitter.loop(conv.channels // self.lanes, name="vector") as vector:
            taken = emitter.allocate(side * self.lanes, "float32", "taken")
            half = emitter.allocate(side * side * self.lanes, "float32", "half")
            with emitter.loop(side, name="down") as down:
                source_y = emitter.bind(y + down - top, "y")
                inside = tirx.And(source_y >= 0, source_y < height)

                def take(column: int, down: Expr = source_y, vector: Expr = vector) -> None:
                    with emitter.loop(self.lanes, VECTORIZED, "lane") as lane:
                        place = [batch, vector * self.lanes + lane, down, x + (column - left)]
                        emitter.store(taken, self.epilogue.evaluator.value_at(self.x, place), column * self.lanes + lane)

                for column in range(side):
                    self.vectors.store(taken, column * self.lanes, self.vectors.constant(0.0))
                with emitter.when(tirx.And(inside, inside_columns)):
                    for column in range(side):
                        take(column)
                with emitter.when(tirx.And(inside, tirx.Not(inside_columns))):
                    for column in range(side):
                        with emitter.when(tirx.And(x + (column - left) >= 0, x + (column - left) < width)):
                            take(column)
                row = [self.vectors.load(taken, column * self.lanes) for column in range(side)]
                for column, value in enumerate(of_data(self.vectors, tiles.outputs, row)):
                    self.vectors.store(half, (down * side + column) * self.lanes, value)
            with emitter.loop(side, name="across") as across:
                column_values = [self.vectors.load(half, (number * side + across) * self.lanes) for number in range(side)]
                for number, value in enumerate(of_data(self.vectors, tiles.outputs, column_values)):
                    point = number * side + across
                    self.vectors.store(self.data, row_at + point * tiles.data_stride + vector * self.lanes, value)

    def _multiply(self, count: int, number: Expr, data_at: Expr, products_at: Expr) -> None:
        """The products of a block's ``count`` tiles with panel ``number``, for all points."""
        emitter, conv, tiles = self.emitter, self.conv, self.tiles
        weight = self.kernel.inputs[self.weight]
        split = EvenSplit(count, tiles.rows)
        slice_size = conv.channels * self.panel
        ahead_share = -(-slice_size // count)
        with emitter.loop(tiles.points, name="point") as point:
            b_at = emitter.bind((number * tiles.points + point) * slice_size, "b_at")
            for run in split.runs:
                with split.loop(emitter, run) as row:
                    tile = RegisterTile(emitter, Fp32(self.target), run.size, self.panel // self.lanes)
                    a_at = emitter.bind(data_at + point * tiles.data_stride + row * conv.channels, "a_at")
                    ahead = Ahead(weight, emitter.bind(b_at + slice_size + row * ahead_share), run.size * ahead_share)
                    rows = [step * conv.channels for step in range(run.size)]
                    nest = [ReductionLoop(conv.channels, 1, self.panel)]
                    tile.accumulate(self.data, a_at, rows, weight, b_at, nest, self.unroll, ahead)
                    at = emitter.bind(products_at + point * tiles.products_stride(self.panel) + row * self.panel, "at")
                    tile.spill(self.products, at, self.panel)

    def _transform_back(self, tile: Expr, place: Expr, number: Expr, products_at: Expr) -> None:
        """Transforms the products of a tile back, and stores what the epilogue makes of the results that exist."""
        emitter, conv, tiles = self.emitter, self.conv, self.tiles
        side, outputs = tiles.side, tiles.outputs
        stride = tiles.products_stride(self.panel)
        batch, y, x = self._origin(tile)
        at = emitter.bind(emitter.simplify(products_at + place * self.panel), "at")
        with emitter.loop(self.panel // self.lanes, name="vector") as vector:
            half = emitter.allocate(outputs * side * self.lanes, "float32", "half")
            results = emitter.allocate(outputs * outputs * self.lanes, "float32", "results")
            with emitter.loop(side, name="across") as across:
                places = [at + (down * side + across) * stride + vector * self.lanes for down in range(side)]
                column = [self.vectors.load(self.products, place) for place in places]
                for down, value in enumerate(of_products(self.vectors, outputs, column)):
                    self.vectors.store(half, (down * side + across) * self.lanes, value)
            with emitter.loop(outputs, name="down") as down:
                row = [self.vectors.load(half, (down * side + across) * self.lanes) for across in range(side)]
                for across, value in enumerate(of_products(self.vectors, outputs, row)):
                    self.vectors.store(results, (down * outputs + across) * self.lanes, value)
            bias = self.region.bias
            height, width = conv.results
            with emitter.loop(outputs * outputs, name="pixel") as pixel:
                result_y, result_x = emitter.bind(y + pixel // outputs), emitter.bind(x + pixel % outputs)
                exists = tirx.And(result_y < height, result_x < width)
                ragged = height % outputs or width % outputs
                with emitter.when(exists) if ragged else emitter.scope(), emitter.loop(self.lanes, VECTORIZED, "lane") as lane:
                    channel = number * self.panel + vector * self.lanes + lane
                    element = tirx.BufferLoad(results, [pixel * self.lanes + lane])
                    if bias is not None:
                        element = element + self.epilogue.evaluator.value_at(bias, [channel])
                    self.epilogue.store(conv.result_indices(batch, channel, result_y, result_x), element)
