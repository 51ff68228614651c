"""Scores of attention for many queries: products of a part of the queries with the keys of a block, masked, in register tiles.

Scores are stored as [keys][queries]: a key's elements are broadcast to vectors of queries. Where not all queries of a part look at a key,
since attention is causal, the tiles get narrower and longer, so that a vector of queries meets few keys beyond its last one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir import Dim
from ..emit import VECTORIZED, Expr, extent_of, index, ramp, spread
from ..emit.math import f32, select
from ..emit.softmax_power import LOG2_E
from .attention_problem import LOWEST, AttentionProblem
from .loops import largest_power_of_two
from .transpose import transposed_tile

_UNROLL = 8
"""Steps of the product of queries and keys in one round of its loop; one where there are no vectors, as code is to be short there."""


@dataclass(frozen=True)
class State:
    """Buffers of a block of queries, each with room for all its parts."""

    packed: Any
    scores: Any
    result: Any
    highest: Any
    best: Any
    total: Any
    rescale: Any


@dataclass(frozen=True)
class Part:
    """A part of a block of queries before a block of keys: its number and first query; the block's first key."""

    batch: Expr
    head: Expr
    key_head: Expr
    number: Expr
    start: Expr
    first: Expr


@dataclass(frozen=True)
class Tiles:
    """How the work is cut: ``parts`` times ``vectors`` of ``lanes`` queries meet up to ``block`` keys at once, in tiles of ``keys``; the
    result is computed in tiles of ``value_rows`` queries."""

    lanes: int
    vectors: int
    parts: int
    keys: int
    value_rows: int
    block: int

    @property
    def rows(self) -> int:
        """Queries in a part."""
        return self.lanes * self.vectors


class Scores:
    """Emits the scores of a part of the queries for a block of ``block`` keys."""

    def __init__(self, problem: AttentionProblem, tiles: Tiles, block: int) -> None:
        self.problem = problem
        self.emitter = problem.emitter
        self.lanes = tiles.lanes
        self.vectors = tiles.vectors
        self.rows = tiles.rows
        self.tile = tiles.keys
        self.block = block
        self.may_be_short = self.emitter.least(problem.queries) < self.rows
        """Whether there may be less queries than a part has: the last one then stands for those that lack."""

    @property
    def beyond(self) -> int:
        """Keys behind a block, whose scores tiles at the diagonal may write."""
        return self.lanes if self.problem.causal else 0

    def query_row(self, row: Expr) -> Expr:
        """The query that stands at ``row`` of all blocks."""
        return tirx.Min(row, index(self.problem.queries - 1)) if self.may_be_short else row

    def emit(self, state: State, part: Part, count: Expr | Dim) -> tuple[Expr | Dim, ...]:
        """The scores of ``count`` keys, and the highest of each query.

        Returns how many keys each vector of queries looks at, or how many all of them do; scores that a vector has beyond are zero.
        """
        problem, emitter = self.problem, self.emitter
        base = emitter.bind(part.number * (self.block * self.rows))
        if problem.mask_varies_by_query:
            self._pack_mask(state.scores, base, part, count)
        tile_at = functools.partial(self._tile, state, part, count, base)
        # No dividend is negative; rounding down would have to test that.
        plain: Expr | Dim = count // self.tile if isinstance(count, int) else tirx.truncdiv(extent_of(count), self.tile)
        if problem.causal:
            below = tirx.truncdiv(tirx.Max(part.start - part.first + 1, index(0)), self.tile)
            plain = emitter.bind(tirx.Min(below, extent_of(plain)))
        if not isinstance(plain, int) or plain:
            with emitter.loop(plain, name="keys") as tile:
                tile_at(emitter.bind(tile * self.tile), self.tile, False)
        if problem.causal:
            return self._at_the_diagonal(part, emitter.bind(plain * self.tile), count, tile_at)
        if isinstance(count, int) and isinstance(plain, int):
            if count > plain * self.tile:
                with emitter.scope():
                    tile_at(index(plain * self.tile), self.tile, True)
        elif not emitter.divides(self.tile, problem.keys):
            with emitter.when(extent_of(count) > plain * self.tile):
                tile_at(emitter.bind(plain * self.tile), self.tile, True)
        return (count,)

    def _tile(self, state: State, part: Part, count: Expr | Dim, base: Expr, low: Expr, size: int, edge: bool, skipped: int = 0) -> None:
        """A tile of ``size`` keys from ``low`` of the block on, at which none of the first ``skipped`` vectors of queries looks.

        At the ``edge`` some may lie beyond the ``count`` keys or, when causal, beyond the query. Scores begin at ``base``.
        """
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        keys = [emitter.bind(part.first + low + row) for row in range(size)]
        safe = [emitter.bind(tirx.Min(key, index(problem.keys - 1))) for key in keys] if edge else keys
        vectors = range(skipped, self.vectors)

        def place(row: int, vector: int, lane: Expr) -> Expr:
            return base + (low + row) * self.rows + vector * lanes + lane

        def initial(row: int, vector: int, lane: Expr) -> Expr:
            if problem.mask_varies_by_query:
                return emitter.load(state.scores, place(row, vector, lane))
            return self._bias(part.batch, part.head, index(0), safe[row]) if problem.mask is not None else f32(0.0)

        def masked(row: int, vector: int, lane: Expr, value: Expr) -> Expr:
            if edge and problem.causal:
                value = emitter.bind(select(keys[row] <= self.query_row(part.start + lane + vector * lanes), value, LOWEST))
            if edge:
                value = emitter.bind(select(low + row < extent_of(count), value, LOWEST))
            return value

        def key(row: int, column: Expr) -> Expr:
            return problem.key(part.batch, part.key_head, safe[row], column)

        held = self._products(state.packed, emitter.bind(part.number * (problem.width * self.rows)), size, vectors, key, initial)
        for vector in range(skipped):
            for row in range(size):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(state.scores, f32(0.0), place(row, vector, lane))
        for vector, rows in zip(vectors, held, strict=True):
            with emitter.loop(lanes, VECTORIZED) as lane:
                values = []
                for row, buffer in enumerate(rows):
                    value = emitter.bind(masked(row, vector, lane, emitter.bind(emitter.load(buffer, lane))))
                    emitter.store(state.scores, value, place(row, vector, lane))
                    values.append(value)
                best = part.number * self.rows + lane + vector * lanes
                values.append(emitter.bind(emitter.load(state.best, best)))
                emitter.store(state.best, self._highest(values), best)

    def _highest(self, values: Sequence[Expr]) -> Expr:
        """The largest of bound values, found pair by pair."""
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=False)
            odd = values[-1:] if len(values) % 2 else []
            values = [*(self.emitter.bind(select(a > b, a, b)) for a, b in pairs), *odd]
        return values[0]

    def _at_the_diagonal(
        self, part: Part, low: Expr, count: Expr | Dim, tile_at: Callable[[Expr, int, bool, int], None]
    ) -> tuple[Expr | Dim, ...]:
        """Scores of the keys from ``low`` on, which not all queries of a part look at: the first vector of queries needs the fewest."""
        emitter, ends = self.emitter, []
        for vector in range(self.vectors):
            size = largest_power_of_two(min(self.tile * self.vectors // (self.vectors - vector), self.lanes))
            needed = emitter.bind(tirx.Min(part.start + ((vector + 1) * self.lanes) - part.first, extent_of(count)) - low)
            tiles = emitter.bind(tirx.truncdiv(tirx.Max(needed, index(0)) + (size - 1), size))
            with emitter.loop(tiles, name="keys") as tile:
                tile_at(emitter.bind(low + tile * size), size, True, vector)
            low = emitter.bind(low + tiles * size)
            ends.append(emitter.bind(tirx.Min(low, extent_of(count))))
        return tuple(ends)

    def _bias(self, batch: Expr, head: Expr, row: Expr, key: Expr) -> Expr:
        """What the mask adds to a score to base 2."""
        return self.problem.bias(batch, head, row, key) * f32(LOG2_E)

    def _pack_mask(self, scores: Any, base: Expr, part: Part, count: Expr | Dim) -> None:
        """The mask of the block as [keys][queries] where the scores will be; they are added to it."""
        emitter, lanes = self.emitter, self.lanes

        def element(row: Expr, column: Expr, low: Expr, vector: int) -> Expr:
            row = self.query_row(part.start + row + vector * lanes)
            return self._bias(part.batch, part.head, row, part.first + low + column)

        squares = emitter.bind(tirx.truncdiv(index(count) if isinstance(count, int) else extent_of(count), lanes))
        with emitter.loop(squares) as square:
            low = emitter.bind(square * lanes)
            for vector in range(self.vectors):
                transposed_tile(
                    emitter,
                    lanes,
                    "float32",
                    lambda row, column, vector=vector: element(row, column, low, vector),  # type: ignore[misc]
                    lambda column, vector=vector: (scores, base + (low + column) * self.rows + vector * lanes),  # type: ignore[misc]
                )
        if isinstance(count, int) and count % lanes == 0:
            return
        rest = emitter.bind(extent_of(count) - squares * lanes)
        with emitter.loop(rest, start=emitter.bind(squares * lanes)) as key:
            for vector in range(self.vectors):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(scores, element(lane, key, index(0), vector), base + key * self.rows + vector * lanes + lane)

    def _products(
        self,
        packed: Any,
        base: Expr,
        size: int,
        vectors: range,
        broadcast: Callable[[int, Expr], Expr],
        initial: Callable[[int, int, Expr], Expr],
    ) -> list[list[Any]]:
        """Products of ``size`` keys with the packed queries of ``vectors``: a vector of queries for each vector and key."""
        emitter, lanes, depth = self.emitter, self.lanes, self.problem.width
        held = [[emitter.allocate(lanes, "float32", "tile") for _ in range(size)] for _ in vectors]
        for row in range(size):
            for vector, buffers in zip(vectors, held, strict=True):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(buffers[row], initial(row, vector, lane), lane)
        whole = [ramp(0, lanes)]

        def step(column: Expr) -> None:
            loaded = []
            for vector in vectors:
                place = base + column * self.rows + vector * lanes
                loaded.append(emitter.bind(tirx.BufferLoad(packed, [ramp(emitter.place(place), lanes)])))
            for row in range(size):
                scalar = spread(emitter.bind(broadcast(row, column)), lanes)
                for buffers, queries in zip(held, loaded, strict=True):
                    emitter.emit(tirx.BufferStore(buffers[row], scalar * queries + tirx.BufferLoad(buffers[row], whole), whole))

        unroll = _UNROLL if lanes > 1 else 1
        rounds, rest = divmod(depth, unroll)
        if rounds:
            with emitter.loop(rounds, name="depth") as block:
                for number in range(unroll):
                    step(block * unroll + number)
        for number in range(depth - rest, depth):
            step(index(number))
        return held
