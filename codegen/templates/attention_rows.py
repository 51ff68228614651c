"""Attention for few queries (decoding): keys and values are streamed once, vectors run along their elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from ...ir import Dim
from ..emit import PARALLEL, SERIAL, VECTORIZED, Expr, extent_of, index, ramp, unflatten
from ..emit.math import exp_nonpositive, f32, select
from .attention_problem import LOWEST, AttentionProblem, safe_inverse, safe_maximum
from .loops import LoopGroup, largest_power_of_two
from .rows import Row, RowLoops, Rows, Step
from .transpose import transpose_registers

_CHUNK = 32
"""Keys whose values are read at once, a few vectors of each after the other."""


class RowAttention:
    """Emits attention for ``rows`` queries at a time, of one key head; ``lanes`` divides the width of a key."""

    def __init__(self, problem: AttentionProblem, lanes: int, rows: int) -> None:
        self.problem = problem
        self.emitter = problem.emitter
        self.lanes = lanes
        self.value_lanes = largest_power_of_two(min(16, problem.value_width & -problem.value_width, max(lanes, 1)))
        self.rows = rows

    @property
    def _room(self) -> int:
        """Elements of a row of scores: of the longest, with a vector's worth of room where the length is symbolic."""
        most = self.problem.most_keys
        assert most is not None
        return most if isinstance(self.problem.keys, int) else most + self.lanes

    def _key(self, position: Expr) -> Expr:
        """The key at ``position``; in tiles that reach beyond a symbolic number of keys the last one stands for those that lack."""
        keys = self.problem.keys
        return position if isinstance(keys, int) else tirx.Min(position, index(keys - 1))

    def emit(self, parallel: bool) -> None:
        """Emits all key heads, in parallel if asked for."""
        problem, emitter = self.problem, self.emitter
        # The queries that share a key head, in bundles.
        bundles = -(-problem.group * problem.queries // self.rows)
        extents = (problem.batch, problem.key_heads, bundles)
        count = problem.batch * problem.key_heads * bundles
        with emitter.loop(count, PARALLEL if parallel and count != 1 else SERIAL, "task") as task:
            batch, key_head, bundle = (emitter.bind(value) for value in unflatten(emitter, extents, task))
            members = []
            for row in range(self.rows):
                number = emitter.bind(tirx.Min(bundle * self.rows + row, index(problem.group * problem.queries - 1)))
                head = emitter.bind(key_head * problem.group + number // problem.queries)
                members.append((head, emitter.bind(number % problem.queries)))
            scores = [emitter.allocate(self._room, "float32", "scores") for _ in members]
            self._scores(scores, members, batch, key_head)
            inverses = [self._softmax(row) for row in scores]
            self._weighted_values(scores, inverses, members, batch, key_head)

    def _scores(self, scores: Sequence[Any], members: Sequence[tuple[Expr, Expr]], batch: Expr, key_head: Expr) -> None:
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        packed = []
        for head, query in members:
            row = emitter.allocate(problem.width, "float32", "query")
            with emitter.loop(problem.width // lanes) as block, emitter.loop(lanes, VECTORIZED) as lane:
                column = block * lanes + lane
                emitter.store(row, problem.query(batch, head, query, column) * f32(problem.scale), column)
            packed.append(row)
        tile = min(lanes, largest_power_of_two(problem.keys)) if isinstance(problem.keys, int) else lanes
        count = -(-problem.keys // tile)
        with emitter.loop(count, name="keys") as block:
            first = block * tile
            if isinstance(problem.keys, int) and problem.keys % tile:
                first = emitter.bind(tirx.Min(first, index(problem.keys - tile)))
            for row, (head, query) in enumerate(members):
                self._score_tile(scores[row], packed[row], tile, first, batch, key_head, head, query)

    def _score_tile(self, scores: Any, packed: Any, tile: int, first: Expr, batch: Expr, key_head: Expr, head: Expr, query: Expr) -> None:
        """The scores of ``tile`` keys: one vector of partial sums a key, then sums across the lanes by transposing."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        sums = [emitter.allocate(lanes, "float32", "sum") for _ in range(tile)]
        for row in range(tile):
            with emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(sums[row], f32(0.0), lane)
        stretches = problem.stretches(problem.k, lanes)
        # A key that is made of parts takes many registers while it is decoded: one such key after the other.
        together = tile if len(stretches) == 1 else 1
        for first_row in range(0, tile, together):
            for start, extent in stretches:
                with emitter.loop(extent // lanes) as block:
                    for row in range(first_row, first_row + together):
                        with emitter.loop(lanes, VECTORIZED) as lane:
                            column = block * lanes + lane + start
                            product = problem.key(batch, key_head, self._key(first + row), column) * emitter.load(packed, column)
                            emitter.store(sums[row], product + emitter.load(sums[row], lane), lane)
        found = emitter.allocate(tile, "float32", "found")
        if tile == lanes and lanes > 1:
            span = [ramp(0, lanes)]
            columns = transpose_registers(emitter, [emitter.bind(tirx.BufferLoad(row, span)) for row in sums])
            while len(columns) > 1:
                half = len(columns) // 2
                columns = [emitter.bind(a + b) for a, b in zip(columns[:half], columns[half:], strict=True)]
            emitter.emit(tirx.BufferStore(found, columns[0], span))
        else:
            for row in range(tile):
                value = emitter.load(sums[row], 0)
                for lane in range(1, lanes):
                    value = emitter.bind(value + emitter.load(sums[row], lane))
                emitter.store(found, value, row)
        with emitter.loop(tile, VECTORIZED) as lane:
            key = first + lane
            value = emitter.load(found, lane)
            if problem.mask is not None:
                value = emitter.bind(value + problem.bias(batch, head, query, self._key(key)))
            if problem.causal:
                value = select(key <= query, value, LOWEST)
            emitter.store(scores, value, key)

    def _softmax(self, scores: Any) -> Expr:
        """Exponentials in place of a row of scores; returns the inverse of their sum."""
        emitter = self.emitter
        loops = RowLoops((), None, (LoopGroup((0,), (self.problem.keys,)),))
        rows = Rows(emitter, loops, max(self.lanes, 8))
        row = Row(rows, {}, None)
        (best,) = row.accumulate(
            Step(lambda a, b: select(a > b, a, b), LOWEST, "float32", lambda element: emitter.load(scores, element.slot))
        )
        safe = safe_maximum(emitter, best(index(0)))
        weights = emitter.allocate(self._room, "float32", "weights")
        bind = emitter.bind

        def weight(element: Any) -> Expr:
            value = exp_nonpositive(bind, bind(emitter.load(scores, element.slot) - safe))
            emitter.store(weights, value, element.slot)
            return value

        (total,) = row.accumulate(Step(lambda a, b: a + b, f32(0.0), "float32", weight))
        row.each(lambda element: emitter.store(scores, emitter.load(weights, element.slot), element.slot))
        return safe_inverse(emitter, total(index(0)))

    def _weighted_values(
        self, scores: Sequence[Any], inverses: Sequence[Expr], members: Sequence[tuple[Expr, Expr]], batch: Expr, key_head: Expr
    ) -> None:
        """Sums of value rows; up to four vectors of each query stay in registers.

        Rows of more vectors are met chunk by chunk of keys, small enough for the nearest cache, so that memory is read in one sweep.
        """
        problem, emitter, lanes = self.problem, self.emitter, self.value_lanes
        vectors = problem.value_width // lanes
        stretches = problem.stretches(problem.v, lanes)
        at_once = max(vector for vector in (4, 3, 2, 1) if all(extent // lanes % vector == 0 for _, extent in stretches))
        results = [emitter.allocate(problem.value_width, "float32", "result") for _ in members]
        for result in results:
            with emitter.loop(vectors) as block, emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(result, f32(0.0), block * lanes + lane)
        chunk: Dim = problem.keys
        chunks: Dim = 1
        if vectors > at_once and not (isinstance(problem.keys, int) and problem.keys <= _CHUNK):
            chunk, chunks = _CHUNK, -(-problem.keys // _CHUNK)
        with emitter.loop(chunks, name="chunk") as number:
            first = emitter.bind(number * extent_of(chunk)) if chunks != 1 else index(0)
            count = emitter.bind(tirx.Min(index(chunk), index(problem.keys) - first)) if chunks != 1 else problem.keys
            for start, extent in stretches:
                with emitter.loop(extent // lanes // at_once) as block:
                    self._sum_values(scores, results, at_once, block * (at_once * lanes) + start, batch, key_head, first, count)
        for result, inverse, (head, query) in zip(results, inverses, members, strict=True):
            with emitter.loop(vectors) as block, emitter.loop(lanes, VECTORIZED) as lane:
                value = emitter.load(result, block * lanes + lane) * inverse
                problem.store(batch, head, query, block * lanes + lane, value)

    def _sum_values(
        self,
        scores: Sequence[Any],
        results: Sequence[Any],
        at_once: int,
        column: Expr,
        batch: Expr,
        key_head: Expr,
        first: Expr,
        count: Expr | Dim,
    ) -> None:
        """Adds ``count`` weighted value rows from ``first`` on to ``at_once`` vectors of each result from ``column`` on."""
        emitter, lanes = self.emitter, self.value_lanes
        sums = [[emitter.allocate(lanes, "float32", "sum") for _ in range(at_once)] for _ in results]

        def each(move: Callable[[Any, Expr, Any, Expr], None]) -> None:
            for result, row in zip(results, sums, strict=True):
                for vector, buffer in enumerate(row):
                    with emitter.loop(lanes, VECTORIZED) as lane:
                        move(result, column + vector * lanes + lane, buffer, lane)

        each(lambda result, place, buffer, lane: emitter.store(buffer, emitter.load(result, place), lane))
        with emitter.loop(count, name="key") as step:
            key = first + step
            weights = [emitter.bind(emitter.load(row, key)) for row in scores]
            for vector in range(at_once):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    value = self.problem.value(batch, key_head, key, column + vector * lanes + lane)
                    for row, weight in zip(sums, weights, strict=True):
                        emitter.store(row[vector], value * weight + emitter.load(row[vector], lane), lane)
        each(lambda result, place, buffer, lane: emitter.store(result, emitter.load(buffer, lane), place))
