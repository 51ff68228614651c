"""Matrix products and convolutions on a GPU: tiles in shared memory, a register tile for each thread.

A block computes a tile of the result. For each step along the depth its threads bring a slice of both operands into shared memory, the
next slice already on its way into registers, and each multiplies its part of them. What is fused before an operand is computed as it
is brought in; what is fused after is applied to the register tile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from ...ir import Graph
from ..emit import UNROLLED, Expr, compute_dtype, index
from ..emit.conversions import constant
from ..emit.math import select
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from ..templates.region import AnchoredRegion, Epilogue
from .kernel import SHARED_BYTES, GpuKernel
from .product import OPS, Contraction, constant_weight

_WIDTH = 4
"""Neighbouring rows or columns of a thread: what one wide read of shared memory brings."""


@dataclass(frozen=True)
class Tiles:
    """``rows`` x ``columns`` of a block, ``depth`` of a step, ``own`` x ``own`` of a thread."""

    rows: int
    columns: int
    depth: int
    own: int

    @staticmethod
    def of(config: Config | Mapping[str, int]) -> Tiles:
        return Tiles(config["rows"], config["columns"], config["depth"], config["own"])

    @property
    def threads(self) -> int:
        return self.rows * self.columns // self.own**2

    @property
    def padded_rows(self) -> int:
        """Rows of the shared slice: some more, so that threads which store along the depth meet fewer banks at once."""
        return self.rows + _WIDTH

    def shared_bytes(self, nbytes: int) -> int:
        return self.depth * (self.padded_rows + self.columns) * nbytes

    def fits(self, target: Target, nbytes: int) -> bool:
        """Whether blocks like this run well: whole warps, shared memory, and each thread brings as much as the next."""
        return (
            32 <= self.threads <= 512
            and self.shared_bytes(nbytes) <= min(target.l1_bytes // 4, SHARED_BYTES)
            and self.rows * self.depth % self.threads == 0
            and self.columns * self.depth % self.threads == 0
            and self.own**2 * nbytes <= 64 * 4
        )

    def cycles(self, target: Target, product: Contraction) -> float:
        """Estimated cycles of the product: full waves of blocks, limited by arithmetic or by what a step moves."""
        blocks = product.batch * -(-product.rows // self.rows) * -(-product.columns // self.columns)
        # Blocks share a multiprocessor as far as its registers go: a thread needs some for its own tile twice over.
        registers = 128 if self.own > _WIDTH else 64
        resident = max(1, min(65536 // registers // self.threads, -(-blocks // target.threads), 8))
        waves = -(-blocks // (target.threads * resident))
        work = self.rows * self.columns * self.depth
        arithmetic = work / (_WARP * target.fma_units)
        shared_reads = 0.75 * work * 2 / self.own / _WARP
        brought = (self.rows + self.columns) * self.depth / 16
        # A multiprocessor has four schedulers, and a warp keeps one of them busy.
        busy = min(1.0, resident * self.threads / (4 * _WARP))
        step = max(arithmetic / busy, shared_reads / busy, brought) + 0.5 * (shared_reads + brought)
        # A step cannot be shorter than the way from memory, which the blocks of a multiprocessor go at the same time.
        return waves * -(-product.depth // self.depth) * max(resident * step, _LATENCY)


_WARP = 32
_LATENCY = 600.0
"""Cycles from asking memory for a slice to having it behind a barrier."""


class GpuGemm(Template):
    """Regions around one matmul, linear layer or convolution with elementwise operations and views before and after it.

    Knobs: ``rows`` and ``columns`` of a block's tile, ``depth`` of a step, ``own`` rows and columns of a thread.
    """

    name: ClassVar[str] = "gpu_gemm"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, OPS, any_dtype=True)
        return region is not None and region.anchor.inputs[0].tensor.rank >= 1

    def space(self, task: Task) -> Space:
        product = Contraction(_region(task).anchor)
        # Halves are multiplied in fp32.
        nbytes = max(product.dtype.nbytes, 4)
        candidates = [
            Tiles(rows, columns, depth, own)
            for rows in (16, 32, 64, 128)
            for columns in (16, 32, 64, 128)
            for depth in (8, 16, 32)
            for own in (4, 8)
            if rows >= own and columns >= own
        ]
        fitting = [tiles for tiles in candidates if tiles.fits(task.target, nbytes)]
        ranked = sorted(fitting, key=lambda tiles: (tiles.cycles(task.target, product), tiles.threads))
        chosen = {_knobs(tiles) for tiles in ranked[:_CHOSEN]}
        choices = {name: tuple(sorted({dict(knobs)[name] for knobs in chosen})) for name in ("columns", "depth", "own", "rows")}
        default = Config(self.name, _knobs(ranked[0]))
        return Space(self.name, tuple(choices.items()), default, lambda knobs: tuple(sorted(knobs.items())) in chosen)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        return _Lowering(task, Tiles.of(config)).lower()


_CHOSEN = 32


def _knobs(tiles: Tiles) -> tuple[tuple[str, int], ...]:
    return (("columns", tiles.columns), ("depth", tiles.depth), ("own", tiles.own), ("rows", tiles.rows))


def _region(task: Task) -> AnchoredRegion:
    region = AnchoredRegion.find(task.graph, OPS, any_dtype=True)
    assert region is not None
    return region


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, tiles: Tiles) -> None:
        region = _region(task)
        self.tiles = tiles
        self.product = product = Contraction(region.anchor)
        self.dtype = compute_dtype(product.dtype)
        self.zero = constant(0, product.dtype)
        self.row_blocks, self.column_blocks = -(-product.rows // tiles.rows), -(-product.columns // tiles.columns)
        position = constant_weight(task, region)
        layouts = {} if position is None else {position: product.second_layout}
        self.packed = position is not None
        blocks = product.batch * self.row_blocks * self.column_blocks
        self.kernel = GpuKernel(region.graph, blocks=blocks, threads=tiles.threads, layouts=layouts)
        self.emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, region)
        self.evaluator = self.epilogue.evaluator

    def lower(self) -> LoweredKernel:
        emitter, tiles, product, kernel = self.emitter, self.tiles, self.product, self.kernel
        # Neighbouring blocks share rows, which then come from the cache.
        column_block = kernel.bounded(kernel.block % self.column_blocks, self.column_blocks, "column_block")
        rest = kernel.block // self.column_blocks
        row_block = kernel.bounded(rest % self.row_blocks, self.row_blocks, "row_block")
        self.batch = kernel.bounded(rest // self.row_blocks, product.batch, "batch")
        self.row_start, self.column_start = row_block * tiles.rows, column_block * tiles.columns
        across = tiles.columns // tiles.own
        self.thread_row = emitter.bind(emitter.simplify(kernel.thread // across), "thread_row")
        self.thread_column = emitter.bind(emitter.simplify(kernel.thread % across), "thread_column")

        first = kernel.shared(tiles.depth * tiles.padded_rows, self.dtype, "first")
        second = kernel.shared(tiles.depth * tiles.columns, self.dtype, "second")
        sums = emitter.allocate(tiles.own**2, self.dtype, "sums")
        next_first = emitter.allocate(tiles.rows * tiles.depth // tiles.threads, self.dtype, "next_first")
        next_second = emitter.allocate(tiles.columns * tiles.depth // tiles.threads, self.dtype, "next_second")
        with emitter.loop(tiles.own**2, UNROLLED) as place:
            emitter.store(sums, self.zero, place)
        steps = -(-product.depth // tiles.depth)
        self._bring(next_first, next_second, index(0))
        with emitter.loop(steps, name="step") as step:
            self._keep(next_first, next_second, first, second)
            kernel.barrier()
            if steps > 1:
                with emitter.when(step < steps - 1):
                    self._bring(next_first, next_second, emitter.bind((step + 1) * tiles.depth, "start"))
            self._multiply(first, second, sums)
            kernel.barrier()
        self._store(sums)
        return kernel.lowered()

    def _slots(self, extent: int, along_depth: bool, body: Callable[[Expr, Expr, Expr], None]) -> None:
        """``body(slot, k, place)`` for what this thread brings of a slice ``[depth, extent]``; neighbours lie along the depth or across."""
        emitter, tiles = self.emitter, self.tiles
        with emitter.loop(extent * tiles.depth // tiles.threads, UNROLLED, "slot") as slot:
            item = self.kernel.bounded(slot * tiles.threads + self.kernel.thread, extent * tiles.depth, "item")
            if along_depth:
                k, place = item % tiles.depth, item // tiles.depth
            else:
                k, place = item // extent, item % extent
            body(slot, emitter.bind(emitter.simplify(k), "k"), emitter.bind(emitter.simplify(place), "place"))

    def _bring(self, next_first: Any, next_second: Any, start: Expr) -> None:
        """Loads the slice from ``start`` on into registers; zeros beyond the depth."""
        emitter, tiles, product = self.emitter, self.tiles, self.product

        def bring_first(slot: Expr, k: Expr, place: Expr) -> None:
            row = self._limited(self.row_start + place, product.rows, tiles.rows)
            depth, inside = self._depth(start, k)
            element = product.first(self.evaluator, self.batch, row, depth)
            emitter.store(next_first, element if inside is None else select(inside, emitter.bind(element), self.zero), slot)

        def bring_second(slot: Expr, k: Expr, place: Expr) -> None:
            column = self._limited(self.column_start + place, product.columns, tiles.columns)
            depth, inside = self._depth(start, k)
            element = product.second(self.evaluator, self.batch, depth, column)
            emitter.store(next_second, element if inside is None else select(inside, emitter.bind(element), self.zero), slot)

        self._slots(tiles.rows, product.first_along_depth, bring_first)
        self._slots(tiles.columns, not product.second_along_columns(self.packed), bring_second)

    def _limited(self, position: Expr, extent: int, tile: int) -> Expr:
        """A row or column of the tile; the last one of the operand in place of those beyond, whose results are not stored."""
        return self.kernel.bounded(tirx.Min(position, index(extent - 1)) if extent % tile else position, extent)

    def _depth(self, start: Expr, k: Expr) -> tuple[Expr, Expr | None]:
        """A place of the sum that exists, and whether it is the wanted one (None: always)."""
        emitter, depth = self.emitter, self.product.depth
        if depth % self.tiles.depth == 0:
            return self.kernel.bounded(start + k, depth, "depth"), None
        wanted = emitter.bind(start + k, "wanted")
        return self.kernel.bounded(tirx.Min(wanted, index(depth - 1)), depth, "depth"), emitter.bind(wanted < depth)

    def _keep(self, next_first: Any, next_second: Any, first: Any, second: Any) -> None:
        """Moves what was brought to shared memory."""
        emitter, tiles = self.emitter, self.tiles

        def keep_first(slot: Expr, k: Expr, place: Expr) -> None:
            emitter.store(first, emitter.load(next_first, slot), k * tiles.padded_rows + place)

        def keep_second(slot: Expr, k: Expr, place: Expr) -> None:
            emitter.store(second, emitter.load(next_second, slot), k * tiles.columns + place)

        self._slots(tiles.rows, self.product.first_along_depth, keep_first)
        self._slots(tiles.columns, not self.product.second_along_columns(self.packed), keep_second)

    def _own(self, thread: Expr, place: Expr, tile: int) -> Expr:
        """Where row or column ``place`` of a thread lies in the block's tile: groups of neighbours, spread over the tile."""
        groups = self.tiles.own // _WIDTH
        return (place // _WIDTH) * (tile // groups) + thread * _WIDTH + place % _WIDTH

    def _multiply(self, first: Any, second: Any, sums: Any) -> None:
        emitter, tiles = self.emitter, self.tiles
        with emitter.loop(tiles.depth, UNROLLED, "k") as k:
            rows = emitter.allocate(tiles.own, self.dtype, "rows")
            columns = emitter.allocate(tiles.own, self.dtype, "columns")
            with emitter.loop(tiles.own, UNROLLED) as place:
                emitter.store(rows, emitter.load(first, k * tiles.padded_rows + self._own(self.thread_row, place, tiles.rows)), place)
            with emitter.loop(tiles.own, UNROLLED) as place:
                emitter.store(columns, emitter.load(second, k * tiles.columns + self._own(self.thread_column, place, tiles.columns)), place)
            with emitter.loop(tiles.own, UNROLLED) as row, emitter.loop(tiles.own, UNROLLED) as column:
                product = emitter.load(rows, row) * emitter.load(columns, column)
                place = row * tiles.own + column
                emitter.store(sums, emitter.load(sums, place) + product, place)

    def _store(self, sums: Any) -> None:
        """Applies what is fused after to the register tile, and stores it."""
        emitter, tiles, product = self.emitter, self.tiles, self.product
        with emitter.loop(tiles.own, UNROLLED) as row, emitter.loop(tiles.own, UNROLLED) as column:
            row_place = emitter.bind(self.row_start + self._own(self.thread_row, row, tiles.rows), "row")
            column_place = emitter.bind(self.column_start + self._own(self.thread_column, column, tiles.columns), "column")
            conditions = []
            if product.rows % tiles.rows:
                conditions.append(row_place < product.rows)
            if product.columns % tiles.columns:
                conditions.append(column_place < product.columns)
            with emitter.when(tirx.And(*conditions) if len(conditions) == 2 else conditions[0]) if conditions else emitter.scope():
                row_at = self.kernel.bounded(row_place, product.rows, "row")
                column_at = self.kernel.bounded(column_place, product.columns, "column")
                element = emitter.bind(emitter.load(sums, row * tiles.own + column))
                element = product.with_bias(self.evaluator, element, self.batch, column_at)
                self.epilogue.store(product.result(self.evaluator, self.batch, row_at, column_at), emitter.bind(element))
