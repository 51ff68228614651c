"""The kernel of a matrix product in the making: loops over panels and register tiles, and what is staged before them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir import Dim, Value, same_dim
from ..emit import Expr, Kernel, bytes_of, extent_of, index, storage_dtype, unflatten
from ..emit.math import select
from ..space import Config
from ..task import Task
from ..template import LoweredKernel
from .arithmetic import Arithmetic
from .matmul_geometry import Product, row_blocks
from .narrow import as_stored, packed_input, stored_weight, weight_layout
from .region import AnchoredRegion, Epilogue, broadcast_row
from .register_tile import Ahead, Initial, ReductionLoop, RegisterTile, merge_loops
from .staging import clear_row, copy_row, loop_kind
from .tile_rows import DelayedRows, delays_rows, may_delay
from .tiling import EvenSplit, Run, StepSplit, aliases, by_width, round_up, share, streams, threads, tile_count, useful_threads

_WORD = 4
_ALIGNMENT = 64


@dataclass(frozen=True)
class _Block:
    """``depth`` words of the reduction from ``start`` on, against a panel of which ``columns`` exist. The last one completes the sums."""

    start: Expr
    depth: int
    columns: int
    is_last: bool


class MatmulLowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config, region: AnchoredRegion, arithmetic: Arithmetic, product: Product) -> None:
        self.task = task
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.region = region
        self.arithmetic = arithmetic
        self.product = product
        # Where sizes are symbolic, the entry keeps calls with little to do on one thread.
        self.parallel = task.threads if task.is_symbolic else useful_threads(self.target, task.threads, product.flops, product.bytes_moved)
        self.vectors = config["vectors"]
        self.panel = self.vectors * self.lanes
        self.unroll = config["unroll"]
        self.groups = config["row_groups"]
        self.split = EvenSplit(int(product.rows), config["rows"]) if isinstance(product.rows, int) else None
        self.tile_rows = config["rows"] if self.split is None else self.split.largest
        self.panels = -(-product.columns // self.panel)
        self.a_value, self.b_value = self.region.anchor.inputs[:2]
        self.b_source = stored_weight(self.region.anchor)
        self.a_source = self._plain_a()
        self.b_packed = self._packed_b()
        self.block = min(config["block_depth"], product.depth)
        self.b_plain = None if self.b_packed is not None else self._plain_b()
        self.a_stride = product.depth
        a_bytes: Dim = 0
        if self.a_source is None:
            if aliases(self.target, product.depth * _WORD, self.tile_rows):
                self.a_stride = product.depth + self.lanes
            a_bytes = round_up(product.batch * product.rows * self.a_stride * _WORD, _ALIGNMENT)
        b_bytes: Dim = 0
        if self.b_packed is None and self.b_plain is None:
            b_bytes = round_up(product.batch * self.panels * product.depth * self.panel * arithmetic.b_bytes, _ALIGNMENT)
        layouts = {} if self.b_packed is None else {self.b_packed: weight_layout(product.b_layout(self.panel), arithmetic)}
        self.row_blocks = 1 if self.split is None else row_blocks(product, self.target, self.groups, self.split, self.block)
        sums: Dim = 0 if self.block == product.depth else product.rows * self.panels * self.panel
        self.kernel = Kernel(self.region.graph, workspace_bytes=a_bytes + b_bytes + sums * _WORD, layouts=layouts)
        self.kernel.declare_functions(arithmetic.functions)
        self.emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        self.layouts = layouts
        if self.a_source is not None:
            self.a: Any = self.kernel.inputs[self.a_source]
        else:
            self.a = self.kernel.workspace(a_bytes // bytes_of(arithmetic.a_dtype), arithmetic.a_dtype, 0, "rows")
        if self.b_packed is not None:
            self.b: Any = self.kernel.inputs[self.b_source]
        elif self.b_plain is not None:
            self.b = self.kernel.inputs[self.b_plain]
        else:
            self.b = self.kernel.workspace(b_bytes // bytes_of(arithmetic.b_dtype), arithmetic.b_dtype, a_bytes, "panels")
        if self.block < product.depth:
            self.sums: Any = self.kernel.workspace(sums, arithmetic.sums_dtype, a_bytes + b_bytes, "sums")

    def _plain_a(self) -> Value | None:
        """The graph input that already is ``[batch, rows, depth]`` words in memory."""
        product = self.product
        if not same_dim(self.a_value.tensor.size, product.batch * product.rows * product.depth * product.per_word):
            return None
        source = self.region.source(self.a_value)
        return source if source is not None and storage_dtype(source.tensor.dtype) == self.arithmetic.a_dtype else None

    def _plain_b(self) -> Value | None:
        """The graph input that already is ``[batch, depth, columns]`` words in memory, if one tile only reads each, in whole vectors."""
        product = self.product
        once = self.split is not None and self.split.tiles == 1 and self.block == product.depth
        if self.region.anchor.op != "matmul" or not once or product.per_word != 1 or product.columns % self.lanes:
            return None
        if not same_dim(self.b_value.tensor.size, product.batch * product.depth * product.columns):
            return None
        source = self.region.source(self.b_value)
        return source if source is not None and storage_dtype(source.tensor.dtype) == self.arithmetic.b_dtype else None

    def _packed_b(self) -> int | None:
        """The position of the constant input that is ``b``, if it can be stored in panels."""
        batched = math.prod(self.b_value.tensor.shape[:-2]) if self.region.anchor.op == "matmul" else 1
        return packed_input(self.task, self.region, self.b_source) if same_dim(batched, self.product.batch) else None

    def lower(self) -> LoweredKernel:
        if self.a_source is None:
            self._stage_a()
        if self.b_packed is None and self.b_plain is None:
            self._stage_b()
        emitter, product = self.emitter, self.product
        column_groups = self.parallel // self.groups
        self.row_runs = StepSplit.of(emitter, product.rows, self.tile_rows).runs(emitter) if self.split is None else []
        with threads(emitter, self.parallel) as thread, contextlib.ExitStack() as stack:
            column_part = emitter.simplify(thread % column_groups)
            low, high = stack.enter_context(share(emitter, column_part, column_groups, product.batch * self.panels))
            tiles = self._tiles_of(emitter.simplify(thread // column_groups), stack)
            count = emitter.simplify(high - low)
            blocks = -(-product.depth // self.block)
            if blocks > 1:
                with emitter.loop(blocks - 1, name="block") as block, emitter.loop(count, name="panel", start=low) as number:
                    self._panel(tiles, index(0), number, _Block(block * self.block, self.block, self.panel, is_last=False))
            last = (blocks - 1) * self.block
            with emitter.loop(count, name="panel", start=low) as item:
                batch = emitter.bind(emitter.simplify(item // self.panels)) if product.batch != 1 else index(0)
                number = emitter.bind(emitter.simplify(item % self.panels)) if product.batch != 1 else item

                def panel(number: Expr, columns: int) -> None:
                    self._panel(tiles, batch, number, _Block(index(last), product.depth - last, columns, is_last=True))

                by_width(emitter, number, product.columns, self.panel, panel)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _tiles_of(self, row_part: Expr, stack: contextlib.ExitStack) -> tuple[Expr, Expr] | None:
        """The range of row tiles that are this thread's and, within a loop that ``stack`` then holds open, of one block; None for all."""
        emitter = self.emitter
        tiles = tile_count(self.row_runs) if self.split is None else self.split.tiles
        if self.groups == 1 and self.row_blocks == 1:
            return None
        low, high = stack.enter_context(share(emitter, row_part, self.groups, tiles))
        if self.row_blocks == 1:
            return low, high
        block = stack.enter_context(emitter.loop(self.row_blocks, name="rows"))
        first, last = stack.enter_context(share(emitter, block, self.row_blocks, emitter.simplify(high - low)))
        return emitter.bind(low + first), emitter.bind(low + last)

    def _panel(self, tiles: tuple[Expr, Expr] | None, batch: Expr, number: Expr, block: _Block) -> None:
        """The register tiles numbered in ``tiles`` against one ``block`` of a panel."""
        bounds = tiles or (None, None)
        for step in self.row_runs:
            with step.loop(self.emitter, *bounds) as row:
                self._tile(batch, number, row, step.size, block, None)
        if self.split is None:
            return
        for run in self.split.runs:
            delayed = self._delayed(batch, number, run, block)
            with self.split.loop(self.emitter, run, *bounds) as row:
                self._tile(batch, number, row, run.size, block, delayed)
            if delayed is not None:
                delayed.finish()

    def _delayed(self, batch: Expr, number: Expr, run: Run, block: _Block) -> DelayedRows | None:
        """What delays the rows of the tiles of a ``run``, where that pays."""
        short = block.is_last and may_delay(self.arithmetic, self.region)
        if not short or not delays_rows(self.target, run.size, -(-block.columns // self.lanes), block.depth, run.count):
            return None

        def use(place: Sequence[Expr], step: Expr, lane: Expr, element: Expr) -> None:
            self._store(batch, number, place[0] + step, lane, element)

        return DelayedRows(self.emitter, self.arithmetic.sums_dtype, run.size, block.columns, self.lanes, 1, use)

    def _tile(self, batch: Expr, number: Expr, row: Expr, rows: int, block: _Block, delayed: DelayedRows | None) -> None:
        emitter, product = self.emitter, self.product
        vectors = -(-block.columns // self.lanes)
        initial = Initial(block.columns, lambda lane: self._bias(number, lane)) if self._starts_with_bias else None
        tile = RegisterTile(emitter, self.arithmetic, rows, vectors, initial)
        a_at = emitter.simplify((batch * extent_of(product.rows) + row) * self.a_stride + block.start)
        if self.b_plain is None:
            b_at, b_stride = (batch * self.panels + number) * (product.depth * self.panel) + block.start * self.panel, self.panel
        else:
            b_at, b_stride = batch * (product.depth * product.columns) + number * self.panel, product.columns
        a_offset, b_offset = emitter.bind(a_at, "a_at"), emitter.bind(emitter.simplify(b_at), "b_at")
        nest = merge_loops([ReductionLoop(block.depth, 1, b_stride)])
        row_offsets = [number * self.a_stride for number in range(rows)]
        if self.block < product.depth:
            sums_at = emitter.bind(emitter.simplify((number * product.rows + row) * self.panel), "sums_at")
            with emitter.scope() if block.is_last else emitter.when(block.start > 0):
                tile.load(self.sums, sums_at, self.panel)
        ahead = self._ahead(b_offset, row, rows, block.depth)
        tile.accumulate(self.a, a_offset, row_offsets, self.b, b_offset, nest, self.unroll, ahead, delayed)
        if not block.is_last:
            tile.spill(self.sums, sums_at, self.panel)
            return
        if delayed is not None:
            delayed.put([row], lambda buffer, stride: tile.spill(buffer, index(0), stride))
            return
        tile.for_each(
            block.columns, self.epilogue.is_long, lambda step, lane, element: self._store(batch, number, row + step, lane, element)
        )

    @property
    def _starts_with_bias(self) -> bool:
        return self.region.bias is not None and self.arithmetic.biased

    def _bias(self, number: Expr, lane: Expr) -> Expr:
        bias = self.region.bias
        assert bias is not None
        return self.epilogue.evaluator.value_at(bias, [number * self.panel + lane])

    def _store(self, batch: Expr, number: Expr, row: Expr, lane: Expr, element: Expr) -> None:
        """Stores what outputs make of the sum of a row in a ``lane`` of panel ``number``."""
        if self.region.bias is not None and not self._starts_with_bias:
            element = element + self._bias(number, lane)
        indices = self.product.result_indices(self.emitter, batch, row, number * self.panel + lane)
        self.epilogue.store(indices, element)

    def _ahead(self, b_offset: Expr, row: Expr, rows: int, depth: int) -> Ahead | None:
        """This tile's share of the same block of the next panel, which the first tile of that panel would otherwise wait for."""
        product = self.product
        if self.b_packed is None or self.split is None:
            return None
        if not streams(self.target, product.columns * product.depth * self.arithmetic.b_bytes, self.split.tiles):
            return None
        share = -(-depth * self.panel // self.split.extent)
        place = b_offset + product.depth * self.panel + row * share
        return Ahead(self.b, self.emitter.bind(self.emitter.simplify(place), "ahead"), rows * share)

    def _stage_a(self) -> None:
        """Evaluates ``a`` into rows of ``a_stride`` words in the workspace."""
        product, emitter = self.product, self.emitter
        count = product.batch * product.rows
        with emitter.loop(count, loop_kind(self.parallel, count), "row") as row:
            leading = self._a_indices(row)

            def element(k: Expr) -> Expr:
                value = self.epilogue.evaluator.value_at(self.a_value, [*leading, k])
                return as_stored(emitter.bind, value, self.arithmetic.a_dtype)

            lanes, start, count = self.lanes * product.per_word, row * (self.a_stride * product.per_word), product.elements
            copy_row(emitter, lanes, self.a, start, count, element)
            if rest := product.depth * product.per_word - count:
                clear_row(emitter, lanes, self.a, start + count, rest)

    def _a_indices(self, row: Expr) -> list[Expr]:
        """Leading indices into ``a`` of a row of ``[batch, rows]``."""
        shape = self.a_value.tensor.shape
        if self.product.batch == 1 and not self.product.batch_shape:
            return broadcast_row(self.kernel, shape[:-1], self.product.row_shape, row)
        result = (*self.product.batch_shape, *self.product.row_shape)
        return broadcast_row(self.kernel, shape[:-1], result, row)

    def _stage_b(self) -> None:
        """Evaluates ``b`` into panels in the workspace; lanes beyond the last column stay undefined and are never stored.

        Steps that fill up the last word are zero.
        """
        product, emitter = self.product, self.emitter
        count = product.batch * self.panels
        with emitter.loop(count, loop_kind(self.parallel, count), "panel") as item:
            batch, number = unflatten(emitter, (product.batch, self.panels), item)

            def panel(number: Expr, columns: int) -> None:
                self._stage_panel(batch, number, item, columns)

            by_width(emitter, number, product.columns, self.panel, panel)

    def _stage_panel(self, batch: Expr, number: Expr, item: Expr, columns: int) -> None:
        product, emitter, per_word = self.product, self.emitter, self.product.per_word
        with emitter.loop(product.depth, name="k") as word, emitter.loop(per_word, name="part") as part:
            k = emitter.simplify(word * per_word + part)
            safe, exists = self.epilogue.evaluator.clamped(k, product.elements)

            def element(column: Expr) -> Expr:
                value = self.epilogue.evaluator.value_at(self.b_value, self._b_indices(batch, safe, number * self.panel + column))
                value = as_stored(emitter.bind, value, self.arithmetic.b_dtype)
                return value if exists is None else select(exists, value, tirx.const(0, self.arithmetic.b_dtype))

            place = (item * product.depth + word) * (self.panel * per_word) + part
            copy_row(emitter, self.lanes, self.b, place, columns, element, per_word)

    def _b_indices(self, batch: Expr, k: Expr, column: Expr) -> list[Expr]:
        if self.region.anchor.op == "linear":
            return [column, k]
        shape = self.b_value.tensor.shape
        leading: Sequence[Expr] = [index(0)] * (len(shape) - 2)
        if self.product.batch_shape:
            leading = broadcast_row(self.kernel, shape[:-2], self.product.batch_shape, batch)
        return [*leading, k, column]
