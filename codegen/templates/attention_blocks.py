"""Attention for many queries: a vector holds one score of each of its lanes' queries.

For a block of queries, q is packed once as [width][queries]. Scores of a block of keys are computed in register tiles of keys x
queries (a key's elements are broadcast), softmax runs down the keys lane by lane, and the result accumulates as [value
width][queries] in tiles of value elements x queries. It is transposed in registers when it is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...ir import Dim
from ..emit import PARALLEL, SERIAL, VECTORIZED, Expr, index, ramp, spread, unflatten
from ..emit.math import exp_nonpositive, f32, select
from .attention_problem import LOWEST, AttentionProblem, safe_inverse, safe_maximum
from .transpose import transpose_registers, transposed_tile


class BlockedAttention:
    """Emits attention over blocks of ``vectors`` x ``lanes`` queries and up to ``block`` keys, in tiles of ``tile`` keys."""

    def __init__(self, problem: AttentionProblem, lanes: int, vectors: int, tile: int, block: int) -> None:
        self.problem = problem
        self.emitter = problem.emitter
        self.lanes = lanes
        self.vectors = vectors
        self.rows = lanes * vectors
        self.tile = tile
        most = min(block, problem.keys) if isinstance(problem.keys, int) else block
        self.block = -(-most // tile) * tile
        self.blocks: Dim = -(-problem.keys // self.block)
        self.whole_tiles = self.emitter.divides(tile, problem.keys)
        self.may_be_short = self.emitter.least(problem.queries) < self.rows
        """Whether there may be less queries than a block has: the last one then stands for those that lack."""

    def emit(self, parallel: bool, threads: int) -> None:
        """Emits all blocks of all heads, in parallel if asked for."""
        problem, emitter = self.problem, self.emitter
        query_blocks = -(-problem.queries // self.rows)
        extents = (problem.batch, problem.heads, query_blocks)
        count = problem.batch * problem.heads * query_blocks
        with emitter.loop(count, PARALLEL if parallel and count != 1 else SERIAL, "task") as task:
            batch, head, block = (emitter.bind(value) for value in unflatten(emitter, extents, task))
            start = block * self.rows
            if not emitter.divides(self.rows, problem.queries):
                # The last block overlaps the one before.
                start = tirx.Min(start, index(problem.queries - self.rows))
                start = emitter.bind(tirx.Max(start, index(0)) if self.may_be_short else start)
            self._block_of_queries(batch, head, start)

    def _query_row(self, row: Expr) -> Expr:
        """The query that stands at ``row`` of all blocks."""
        return tirx.Min(row, index(self.problem.queries - 1)) if self.may_be_short else row

    def _block_of_queries(self, batch: Expr, head: Expr, start: Expr) -> None:
        problem, emitter = self.problem, self.emitter
        key_head = emitter.bind(head // problem.group) if problem.group > 1 else head
        packed = emitter.allocate(problem.width * self.rows, "float32", "query")
        scores = emitter.allocate(self.block * self.rows, "float32", "scores")
        result = emitter.allocate(problem.value_width * self.rows, "float32", "result")
        highest = emitter.allocate(self.rows, "float32", "highest")
        total = emitter.allocate(self.rows, "float32", "total")
        rescale = emitter.allocate(self.rows, "float32", "rescale")
        self._pack_queries(packed, batch, head, start)
        for vector in range(self.vectors):
            with emitter.loop(self.lanes, VECTORIZED) as lane:
                place = lane + vector * self.lanes
                emitter.store(highest, LOWEST, place)
                emitter.store(total, f32(0.0), place)
        # Keys beyond the last query of the block are never needed when causal.
        limit: Expr = index(problem.keys)
        blocks: Expr | Dim = self.blocks
        if problem.causal:
            limit = emitter.bind(tirx.Min(start + self.rows, index(problem.keys)))
            blocks = emitter.bind((limit + (self.block - 1)) // self.block) if self.blocks != 1 else 1
        with emitter.loop(blocks, name="block") as block:
            first = block * self.block
            count: Expr | Dim = problem.keys
            if self.blocks != 1 or problem.causal:
                count = emitter.bind(tirx.Min(index(self.block), limit - first))
            self._scores(packed, scores, batch, head, key_head, start, first, count)
            self._softmax(scores, highest, total, rescale, count)
            self._weighted_values(scores, result, rescale, batch, key_head, first, count, block)
        self._store(result, total, batch, head, start)

    def _pack_queries(self, packed: Any, batch: Expr, head: Expr, start: Expr) -> None:
        """[width][queries], times the scale."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        scale = f32(problem.scale)

        def element(row: Expr, column: Expr) -> Expr:
            return problem.query(batch, head, self._query_row(start + row), column) * scale

        whole = problem.width - problem.width % lanes
        for vector in range(self.vectors):
            first = vector * lanes
            if whole:
                with emitter.loop(whole // lanes) as block:
                    transposed_tile(
                        emitter,
                        lanes,
                        "float32",
                        lambda row, column, first=first, block=block: element(row + first, block * lanes + column),  # type: ignore[misc]
                        lambda column, first=first, block=block: (packed, (block * lanes + column) * self.rows + first),  # type: ignore[misc]
                    )
            if problem.width % lanes:
                with emitter.loop(problem.width % lanes, start=whole) as column, emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(packed, element(lane + first, column), column * self.rows + lane + first)

    def _scores(
        self, packed: Any, scores: Any, batch: Expr, head: Expr, key_head: Expr, start: Expr, first: Expr, count: Expr | int
    ) -> None:
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        if problem.mask_varies_by_query:
            self._pack_mask(scores, batch, head, start, first, count)
        tiles = -(-count // self.tile) if isinstance(count, int) else (count + (self.tile - 1)) // self.tile
        with emitter.loop(tiles, name="keys") as tile:
            keys = [emitter.bind(first + tile * self.tile + row) for row in range(self.tile)]
            safe = [emitter.bind(tirx.Min(key, index(problem.keys - 1))) if not self.whole_tiles else key for key in keys]

            def initial(row: int, vector: int, lane: Expr) -> Expr:
                if problem.mask_varies_by_query:
                    return emitter.load(scores, ((tile * self.tile) + row) * self.rows + vector * lanes + lane)
                return problem.bias(batch, head, index(0), safe[row]) if problem.mask is not None else f32(0.0)

            def broadcast(row: int, column: Expr) -> Expr:
                return problem.key(batch, key_head, safe[row], column)

            def store(row: int, vector: int, lane: Expr, value: Expr) -> None:
                value = emitter.bind(value)
                if problem.causal:
                    value = emitter.bind(select(keys[row] <= self._query_row(start + lane + vector * lanes), value, LOWEST))
                if not self.whole_tiles:
                    value = emitter.bind(select(keys[row] < index(problem.keys), value, LOWEST))
                emitter.store(scores, value, ((tile * self.tile) + row) * self.rows + vector * lanes + lane)

            self._multiply(self.tile, problem.width, packed, index(0), broadcast, initial, store)

    def _pack_mask(self, scores: Any, batch: Expr, head: Expr, start: Expr, first: Expr, count: Expr | int) -> None:
        """The mask of the block as [keys][queries] where the scores will be; they are added to it."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        with emitter.loop((count + (lanes - 1)) // lanes if not isinstance(count, int) else -(-count // lanes)) as block:
            low = emitter.bind(block * lanes)
            whole = self.block % lanes == 0

            def element(row: Expr, column: Expr, vector: int, safe: bool) -> Expr:
                key = first + low + column
                if not safe:
                    key = tirx.Min(key, index(problem.keys - 1))
                return problem.bias(batch, head, self._query_row(start + row + vector * lanes), key)

            def by_squares(vector: int) -> None:
                transposed_tile(
                    emitter,
                    lanes,
                    "float32",
                    lambda row, column: element(row, column, vector, True),
                    lambda column: (scores, (low + column) * self.rows + vector * lanes),
                )

            def by_keys(vector: int) -> None:
                with emitter.loop(lanes) as column, emitter.when(low + column < self.block), emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(scores, element(lane, column, vector, False), (low + column) * self.rows + vector * lanes + lane)

            for vector in range(self.vectors):
                if whole and emitter.divides(lanes, problem.keys):
                    by_squares(vector)
                elif whole and not isinstance(problem.keys, int):
                    inside = first + low + lanes <= index(problem.keys)
                    with emitter.when(inside):
                        by_squares(vector)
                    with emitter.when(tirx.Not(inside)):
                        by_keys(vector)
                else:
                    by_keys(vector)

    def _multiply(
        self,
        height: int,
        depth: int | Expr,
        vectors_from: Any,
        first: Expr,
        broadcast: Callable[[int, Expr], Expr],
        initial: Callable[[int, int, Expr], Expr],
        store: Callable[[int, int, Expr, Expr], None],
    ) -> None:
        """A register tile: ``height`` broadcast scalars times the vectors of each of ``depth`` rows, summed over the rows."""
        emitter, lanes = self.emitter, self.lanes
        tile = [[emitter.allocate(lanes, "float32", "tile") for _ in range(self.vectors)] for _ in range(height)]
        for row in range(height):
            for vector in range(self.vectors):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(tile[row][vector], initial(row, vector, lane), lane)
        with emitter.loop(depth, name="depth") as step:
            loaded = []
            for vector in range(self.vectors):
                place = (first + step) * self.rows + vector * lanes
                loaded.append(emitter.bind(tirx.BufferLoad(vectors_from, [ramp(emitter.place(place), lanes)])))
            for row in range(height):
                scalar = spread(emitter.bind(broadcast(row, step)), lanes)
                for vector in range(self.vectors):
                    whole = [ramp(0, lanes)]
                    product = scalar * loaded[vector] + tirx.BufferLoad(tile[row][vector], whole)
                    emitter.emit(tirx.BufferStore(tile[row][vector], product, whole))
        for row in range(height):
            for vector in range(self.vectors):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    store(row, vector, lane, emitter.load(tile[row][vector], lane))

    def _softmax(self, scores: Any, highest: Any, total: Any, rescale: Any, count: Expr | int) -> None:
        """Exponentials in place of the scores; running maximum and sum of each query; factor for earlier results."""
        emitter, lanes = self.emitter, self.lanes
        for vector in range(self.vectors):
            part = vector * lanes
            best = emitter.allocate(lanes, "float32", "best")
            summed = emitter.allocate(lanes, "float32", "summed")
            with emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(best, emitter.load(highest, part + lane), lane)
            with emitter.loop(count) as key, emitter.loop(lanes, VECTORIZED) as lane:
                score = emitter.bind(emitter.load(scores, key * self.rows + part + lane))
                held = emitter.bind(emitter.load(best, lane))
                emitter.store(best, select(score > held, score, held), lane)
            with emitter.loop(lanes, VECTORIZED) as lane:
                new = emitter.bind(emitter.load(best, lane))
                safe = safe_maximum(emitter, new)
                factor = exp_nonpositive(emitter.bind, emitter.bind(emitter.load(highest, part + lane) - safe))
                emitter.store(rescale, factor, part + lane)
                emitter.store(highest, new, part + lane)
                emitter.store(best, safe, lane)
                emitter.store(summed, emitter.load(total, part + lane) * factor, lane)
            with emitter.loop(count) as key, emitter.loop(lanes, VECTORIZED) as lane:
                place = key * self.rows + part + lane
                weight = exp_nonpositive(emitter.bind, emitter.bind(emitter.load(scores, place) - emitter.load(best, lane)))
                emitter.store(scores, weight, place)
                emitter.store(summed, emitter.load(summed, lane) + weight, lane)
            with emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(total, emitter.load(summed, lane), part + lane)

    def _weighted_values(
        self, scores: Any, result: Any, rescale: Any, batch: Expr, key_head: Expr, first: Expr, count: Expr | int, block: Expr
    ) -> None:
        problem, emitter, lanes = self.problem, self.emitter, self.lanes

        def part(height: int, column: Expr) -> None:
            def initial(row: int, vector: int, lane: Expr) -> Expr:
                if self.blocks == 1:
                    return f32(0.0)
                place = vector * lanes + lane
                earlier = emitter.load(result, (column + row) * self.rows + place) * emitter.load(rescale, place)
                return select(block > 0, earlier, f32(0.0))

            def store(row: int, vector: int, lane: Expr, value: Expr) -> None:
                emitter.store(result, value, (column + row) * self.rows + vector * lanes + lane)

            def broadcast(row: int, key: Expr) -> Expr:
                return problem.value(batch, key_head, first + key, column + row)

            self._multiply(height, count, scores, index(0), broadcast, initial, store)

        whole, rest = divmod(problem.value_width, self.tile)
        if whole:
            with emitter.loop(whole) as tile:
                part(self.tile, tile * self.tile)
        if rest:
            with emitter.scope():
                part(rest, index(whole * self.tile))

    def _store(self, result: Any, total: Any, batch: Expr, head: Expr, start: Expr) -> None:
        """Divides by the sums and stores row by row."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        width = problem.value_width
        for vector in range(self.vectors):
            part = vector * lanes
            inverse = emitter.allocate(lanes, "float32", "inverse")
            with emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(inverse, safe_inverse(emitter, emitter.bind(emitter.load(total, part + lane))), lane)
            if width % lanes == 0:
                with emitter.loop(width // lanes) as block:
                    self._store_square(result, inverse, batch, head, start + part, part, block * lanes)
            else:
                with emitter.loop(lanes) as row, emitter.loop(width) as column:
                    value = emitter.load(result, column * self.rows + part + row) * emitter.load(inverse, row)
                    problem.store(batch, head, self._query_row(start + part + row), column, value)

    def _store_square(self, result: Any, inverse: Any, batch: Expr, head: Expr, first: Expr, part: int, column: Expr) -> None:
        """A square of ``lanes`` queries by as many value elements, transposed in registers."""
        emitter, lanes = self.emitter, self.lanes
        span = [ramp(0, lanes)]
        factor = emitter.bind(tirx.BufferLoad(inverse, span))
        vectors = []
        for row in range(lanes):
            place = ramp(emitter.place((column + row) * self.rows + part), lanes)
            vectors.append(emitter.bind(tirx.BufferLoad(result, [place]) * factor))
        for row, vector in enumerate(transpose_registers(emitter, vectors)):
            line = emitter.allocate(lanes, "float32", "line")
            emitter.emit(tirx.BufferStore(line, vector, span))
            with emitter.loop(lanes, VECTORIZED) as lane:
                self.problem.store(batch, head, self._query_row(first + row), column + lane, emitter.load(line, lane))
