"""Attention for many queries: a block of queries meets the keys block by block, and only a block of scores exists at a time.

A block of queries consists of parts, as wide as a register tile. For each, q is packed once as [width][queries]. Scores of a block of
keys are computed in register tiles of keys x vectors of queries (a key's elements are broadcast) as [keys][queries], and softmax runs
down the keys lane by lane, to base 2. The result accumulates as rows of its elements in tiles of queries x vectors of value elements
(weights are broadcast), so that values are read in whole vectors and the result is stored as it lies. All parts meet a block of keys
while it is in the nearest caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir import Dim
from ..emit import PARALLEL, SERIAL, VECTORIZED, Expr, extent_of, index, ramp, spread, unflatten
from ..emit.math import f32, select
from ..emit.softmax_power import LOG2_E, exp2_nonpositive
from .attention_problem import LOWEST, AttentionProblem, safe_inverse, safe_maximum
from .loops import largest_power_of_two
from .tiling import EvenSplit
from .transpose import transposed_tile

_UNROLL = 8
"""Steps of the product of queries and keys in one round of its loop; one where there are no vectors, as code is to be short there."""
VALUE_VECTORS = 2
"""Vectors of value elements in a register tile."""


@dataclass(frozen=True)
class _State:
    """Buffers of a block of queries, each with room for all its parts."""

    packed: Any
    scores: Any
    result: Any
    highest: Any
    best: Any
    total: Any
    rescale: Any


@dataclass(frozen=True)
class _Part:
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


class BlockedAttention:
    """Emits attention over blocks of queries and of keys."""

    def __init__(self, problem: AttentionProblem, tiles: Tiles) -> None:
        self.problem = problem
        self.emitter = problem.emitter
        self.lanes = tiles.lanes
        self.vectors = tiles.vectors
        self.rows = tiles.lanes * tiles.vectors
        self.parts = tiles.parts
        self.tile = tile = tiles.keys
        self.value_rows = tiles.value_rows
        block = tiles.block
        most = problem.keys if isinstance(problem.keys, int) else block
        self.block = -(-min(block, most) // tile) * tile
        self.blocks: Dim = -(-problem.keys // self.block)
        self.may_be_short = self.emitter.least(problem.queries) < self.rows
        """Whether there may be less queries than a part has: the last one then stands for those that lack."""
        self.value_lanes = min(self.lanes, largest_power_of_two(problem.value_width))
        self.value_starts = self._value_starts()

    def _value_starts(self) -> list[list[int]]:
        """Where the vectors of value elements begin, in panels of as many as a register tile has; the last vector may overlap."""
        lanes, width = self.value_lanes, self.problem.value_width
        starts = [min(start, width - lanes) for start in range(0, width, lanes)]
        return [starts[first : first + VALUE_VECTORS] for first in range(0, len(starts), VALUE_VECTORS)]

    @property
    def _columns(self) -> int:
        """Elements of a result with those that overlapping vectors compute twice."""
        return sum(map(len, self.value_starts)) * self.value_lanes

    def emit(self, parallel: bool) -> None:
        """Emits all blocks of all heads, in parallel if asked for."""
        problem, emitter = self.problem, self.emitter
        size = self.rows * self.parts
        query_blocks = (problem.queries + (size - 1)) // size
        extents = (problem.batch, problem.heads, query_blocks)
        count = problem.batch * problem.heads * query_blocks
        with emitter.loop(count, PARALLEL if parallel and count != 1 else SERIAL, "task") as task:
            batch, head, block = (emitter.bind(value) for value in unflatten(emitter, extents, task))
            self._block_of_queries(batch, head, emitter.bind(block * size))

    def _query_row(self, row: Expr) -> Expr:
        """The query that stands at ``row`` of all blocks."""
        return tirx.Min(row, index(self.problem.queries - 1)) if self.may_be_short else row

    def _part_start(self, start: Expr, part: Expr) -> Expr:
        """The first query of a part; the last part overlaps the one before."""
        first = start + part * self.rows
        if not self.emitter.divides(self.rows, self.problem.queries):
            first = tirx.Min(first, index(self.problem.queries - self.rows))
            first = tirx.Max(first, index(0)) if self.may_be_short else first
        return self.emitter.bind(first)

    def _block_of_queries(self, batch: Expr, head: Expr, start: Expr) -> None:
        problem, emitter, rows = self.problem, self.emitter, self.rows
        key_head = emitter.bind(head // problem.group) if problem.group > 1 else head
        state = _State(
            packed=emitter.allocate(self.parts * problem.width * rows, "float32", "query"),
            scores=emitter.allocate(self.parts * self.block * rows, "float32", "scores"),
            result=emitter.allocate(self.parts * self._columns * rows, "float32", "result"),
            highest=emitter.allocate(self.parts * rows, "float32", "highest"),
            best=emitter.allocate(self.parts * rows, "float32", "best"),
            total=emitter.allocate(self.parts * rows, "float32", "total"),
            rescale=emitter.allocate(self.parts * rows, "float32", "rescale"),
        )
        parts: Expr | Dim = self.parts
        if not emitter.divides(rows * self.parts, problem.queries):
            parts = emitter.bind(tirx.Min(index(self.parts), tirx.truncdiv(index(problem.queries) - start + (rows - 1), rows)))
        with emitter.loop(parts, name="part") as part:
            self._pack_queries(state.packed, part * (problem.width * rows), batch, head, self._part_start(start, part))
        self._fill(state.highest, LOWEST, self.parts * rows)
        self._fill(state.total, f32(0.0), self.parts * rows)
        if self.blocks != 1:
            self._fill(state.result, f32(0.0), self.parts * self._columns * rows)
        blocks: Expr | Dim = self.blocks
        if problem.causal and self.blocks != 1:
            # Keys beyond the last query of the block are never needed when causal.
            limit = tirx.Min(start + extent_of(parts) * rows, index(problem.keys))
            blocks = emitter.bind(tirx.truncdiv(limit + (self.block - 1), self.block))
        with emitter.loop(blocks, name="block") as block:
            first = emitter.bind(block * self.block)
            for phase in (self._weights, self._weighted_values):
                with emitter.loop(parts, name="part") as number:
                    part = _Part(batch, head, key_head, number, self._part_start(start, number), first)
                    count = self._needed(part, self.rows)
                    with emitter.when(count > 0) if problem.causal and self.blocks != 1 else emitter.scope():
                        phase(state, part, count)
        with emitter.loop(parts, name="part") as part:
            self._store(state, part, batch, head, self._part_start(start, part))

    def _needed(self, part: _Part, rows: int | Expr) -> Expr | Dim:
        """How many keys of the block the first ``rows`` queries of a part look at; 0 or less when none."""
        problem, emitter = self.problem, self.emitter
        if self.blocks == 1 and not problem.causal:
            return problem.keys
        limit = tirx.Min(part.start + rows, index(problem.keys)) if problem.causal else index(problem.keys)
        return emitter.bind(tirx.Min(index(self.block), limit - part.first))

    def _weights(self, state: _State, part: _Part, count: Expr | Dim) -> None:
        """The weights of the block's keys, for a part of the queries."""
        self._fill(state.best, LOWEST, self.rows, part.number * self.rows)
        self._scores(state, part, count)
        self._softmax(state, part, count)

    def _fill(self, buffer: Any, value: Expr, count: int, start: Expr | int = 0) -> None:
        with self.emitter.loop(count // self.lanes) as block, self.emitter.loop(self.lanes, VECTORIZED) as lane:
            self.emitter.store(buffer, value, block * self.lanes + lane + start)

    def _pack_queries(self, packed: Any, base: Expr, batch: Expr, head: Expr, start: Expr) -> None:
        """[width][queries], times the scale and what takes logarithms to base 2."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        scale = f32(problem.scale * LOG2_E)

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
                        lambda column, first=first, block=block: (packed, base + (block * lanes + column) * self.rows + first),  # type: ignore[misc]
                    )
            if problem.width % lanes:
                with emitter.loop(problem.width % lanes, start=whole) as column, emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(packed, element(lane + first, column), base + column * self.rows + lane + first)

    def _scores(self, state: _State, part: _Part, count: Expr | Dim) -> None:
        """The scores of ``count`` keys, and the highest of each query."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        start, first = part.start, part.first
        base = emitter.bind(part.number * (self.block * self.rows))
        if problem.mask_varies_by_query:
            self._pack_mask(state.scores, base, part, count)

        def tile_at(tile: Expr, edge: bool) -> None:
            """A tile of keys; at the ``edge`` some may lie beyond the last key or, when causal, beyond the query."""
            keys = [emitter.bind(first + tile * self.tile + row) for row in range(self.tile)]
            safe = [emitter.bind(tirx.Min(key, index(problem.keys - 1))) for key in keys] if edge else keys

            def initial(row: int, vector: int, lane: Expr) -> Expr:
                if problem.mask_varies_by_query:
                    return emitter.load(state.scores, base + (tile * self.tile + row) * self.rows + vector * lanes + lane)
                return self._bias(part.batch, part.head, index(0), safe[row]) if problem.mask is not None else f32(0.0)

            def masked(row: int, vector: int, lane: Expr, value: Expr) -> Expr:
                if edge and problem.causal:
                    value = emitter.bind(select(keys[row] <= self._query_row(start + lane + vector * lanes), value, LOWEST))
                if edge:
                    value = emitter.bind(select(keys[row] < index(problem.keys), value, LOWEST))
                return value

            def key(row: int, column: Expr) -> Expr:
                return problem.key(part.batch, part.key_head, safe[row], column)

            held = self._key_tile(state.packed, emitter.bind(part.number * (problem.width * self.rows)), key, initial)
            for vector in range(self.vectors):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    values = []
                    for row in range(self.tile):
                        value = emitter.bind(masked(row, vector, lane, emitter.bind(emitter.load(held[row][vector], lane))))
                        emitter.store(state.scores, value, base + (tile * self.tile + row) * self.rows + vector * lanes + lane)
                        values.append(value)
                    values.append(emitter.bind(emitter.load(state.best, part.number * self.rows + lane + vector * lanes)))
                    while len(values) > 1:
                        pairs = zip(values[::2], values[1::2], strict=False)
                        odd = values[-1:] if len(values) % 2 else []
                        values = [*(emitter.bind(select(a > b, a, b)) for a, b in pairs), *odd]
                    emitter.store(state.best, values[0], part.number * self.rows + lane + vector * lanes)

        # No dividend is negative; rounding down would have to test that.
        tiles: Expr | Dim = (
            -(-count // self.tile) if isinstance(count, int) else tirx.truncdiv(extent_of(count) + (self.tile - 1), self.tile)
        )
        plain: Expr | Dim = count // self.tile if isinstance(count, int) else tirx.truncdiv(extent_of(count), self.tile)
        if problem.causal:
            below = tirx.truncdiv(tirx.Max(start - first + 1, index(0)), self.tile)
            plain = emitter.bind(tirx.Min(below, extent_of(plain)))
        if not isinstance(plain, int) or plain:
            with emitter.loop(plain, name="keys") as tile:
                tile_at(tile, False)
        if isinstance(tiles, int) and isinstance(plain, int):
            if tiles > plain:
                with emitter.scope():
                    tile_at(extent_of(plain), True)
            return
        if not problem.causal and emitter.divides(self.tile, problem.keys):
            return
        rest = emitter.bind(extent_of(tiles) - plain)
        with emitter.loop(rest, name="keys", start=plain) as tile:
            tile_at(tile, True)

    def _bias(self, batch: Expr, head: Expr, row: Expr, key: Expr) -> Expr:
        """What the mask adds to a score to base 2."""
        return self.problem.bias(batch, head, row, key) * f32(LOG2_E)

    def _pack_mask(self, scores: Any, base: Expr, part: _Part, count: Expr | Dim) -> None:
        """The mask of the block as [keys][queries] where the scores will be; they are added to it."""
        emitter, lanes = self.emitter, self.lanes

        def element(row: Expr, column: Expr, low: Expr, vector: int) -> Expr:
            row = self._query_row(part.start + row + vector * lanes)
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

    def _key_tile(
        self, packed: Any, base: Expr, broadcast: Callable[[int, Expr], Expr], initial: Callable[[int, int, Expr], Expr]
    ) -> list[list[Any]]:
        """Products of a tile of keys with the packed queries: a vector of queries for each key and vector of the block."""
        emitter, lanes, depth = self.emitter, self.lanes, self.problem.width
        held = [[emitter.allocate(lanes, "float32", "tile") for _ in range(self.vectors)] for _ in range(self.tile)]
        for row, buffers in enumerate(held):
            for vector, buffer in enumerate(buffers):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(buffer, initial(row, vector, lane), lane)
        whole = [ramp(0, lanes)]

        def step(column: Expr) -> None:
            loaded = []
            for vector in range(self.vectors):
                place = base + column * self.rows + vector * lanes
                loaded.append(emitter.bind(tirx.BufferLoad(packed, [ramp(emitter.place(place), lanes)])))
            for row, buffers in enumerate(held):
                scalar = spread(emitter.bind(broadcast(row, column)), lanes)
                for buffer, queries in zip(buffers, loaded, strict=True):
                    emitter.emit(tirx.BufferStore(buffer, scalar * queries + tirx.BufferLoad(buffer, whole), whole))

        unroll = _UNROLL if lanes > 1 else 1
        rounds, rest = divmod(depth, unroll)
        if rounds:
            with emitter.loop(rounds, name="depth") as block:
                for number in range(unroll):
                    step(block * unroll + number)
        for number in range(depth - rest, depth):
            step(index(number))
        return held

    def _softmax(self, state: _State, part: _Part, count: Expr | Dim) -> None:
        """Powers in place of the scores; running maximum and sum of each query; factor for earlier results."""
        emitter, lanes = self.emitter, self.lanes
        queries = emitter.bind(part.number * self.rows)
        base = emitter.bind(part.number * (self.block * self.rows))
        safe = [emitter.allocate(lanes, "float32", "safe") for _ in range(self.vectors)]
        summed = [emitter.allocate(lanes, "float32", "summed") for _ in range(self.vectors)]
        for vector in range(self.vectors):
            with emitter.loop(lanes, VECTORIZED) as lane:
                place = queries + vector * lanes + lane
                held = emitter.bind(emitter.load(state.highest, place))
                new = emitter.bind(emitter.load(state.best, place))
                new = emitter.bind(select(new > held, new, held))
                lowered = safe_maximum(emitter, new)
                factor = exp2_nonpositive(emitter.bind, emitter.bind(held - lowered))
                emitter.store(state.rescale, factor, place)
                emitter.store(state.highest, new, place)
                emitter.store(safe[vector], lowered, lane)
                emitter.store(summed[vector], emitter.load(state.total, place) * factor, lane)
        with emitter.loop(count) as key:
            for vector in range(self.vectors):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    place = base + key * self.rows + vector * lanes + lane
                    below = emitter.bind(emitter.load(state.scores, place) - emitter.load(safe[vector], lane))
                    weight = exp2_nonpositive(emitter.bind, below)
                    emitter.store(state.scores, weight, place)
                    emitter.store(summed[vector], emitter.load(summed[vector], lane) + weight, lane)
        for vector in range(self.vectors):
            with emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(state.total, emitter.load(summed[vector], lane), queries + vector * lanes + lane)

    def _weighted_values(self, state: _State, part: _Part, count: Expr | Dim) -> None:
        """Adds the block's values to the earlier results, in tiles of queries x vectors of value elements."""
        emitter = self.emitter
        split = EvenSplit(self.rows, self.value_rows)
        results = emitter.bind(part.number * (self._columns * self.rows))

        def tiles(starts: list[Expr], panel: Expr) -> None:
            for run in split.runs:
                with emitter.loop(run.count, name="queries") as number:
                    row = emitter.bind(number * run.size + run.start)
                    needed = count
                    if self.problem.causal:
                        needed = emitter.bind(tirx.Max(extent_of(self._needed(part, row + run.size)), index(0)))
                    place = emitter.bind(results + row * (len(starts) * self.value_lanes) + panel)
                    self._value_tile(state, part, row, run.size, starts, place, needed)

        self._each_panel(tiles)

    def _each_panel(self, use: Callable[[list[Expr], Expr], None]) -> None:
        """``use`` with the starts of the vectors of each panel, and where its results begin; the regular panels in a loop."""
        emitter, lanes = self.emitter, self.value_lanes
        size = VALUE_VECTORS * lanes
        regular = self.problem.value_width // size
        if regular:
            with emitter.loop(regular, name="panel") as panel:
                first = panel * size  # not bound: what views make of it depends on its range
                use([first + vector * lanes for vector in range(VALUE_VECTORS)], emitter.bind(panel * (size * self.rows)))
        for number, starts in list(enumerate(self.value_starts))[regular:]:
            with emitter.scope():
                use([index(start) for start in starts], index(number * size * self.rows))

    def _value_tile(self, state: _State, part: _Part, row: Expr, height: int, starts: list[Expr], place: Expr, count: Expr | Dim) -> None:
        """A tile of ``height`` queries from ``row`` of a part on; its results are at ``place``."""
        problem, emitter, lanes = self.problem, self.emitter, self.value_lanes
        width = len(starts) * lanes
        scores = emitter.bind(part.number * (self.block * self.rows) + row)
        held = [[emitter.allocate(lanes, "float32", "tile") for _ in starts] for _ in range(height)]
        for step, buffers in enumerate(held):
            factor = emitter.bind(emitter.load(state.rescale, part.number * self.rows + row + step)) if self.blocks != 1 else None
            for vector, buffer in enumerate(buffers):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    earlier = emitter.load(state.result, place + step * width + vector * lanes + lane)
                    emitter.store(buffer, earlier * factor if factor is not None else f32(0.0), lane)
        whole = [ramp(0, lanes)]
        with emitter.loop(count, name="key") as key:
            loaded = []
            for column in starts:
                values = emitter.allocate(lanes, "float32", "values")
                with emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(values, problem.value(part.batch, part.key_head, part.first + key, lane + column), lane)
                loaded.append(emitter.bind(tirx.BufferLoad(values, whole)))
            for step, buffers in enumerate(held):
                weight = spread(emitter.bind(emitter.load(state.scores, scores + key * self.rows + step)), lanes)
                for buffer, vector in zip(buffers, loaded, strict=True):
                    emitter.emit(tirx.BufferStore(buffer, weight * vector + tirx.BufferLoad(buffer, whole), whole))
        for step, buffers in enumerate(held):
            for vector, buffer in enumerate(buffers):
                with emitter.loop(lanes, VECTORIZED) as lane:
                    emitter.store(state.result, emitter.load(buffer, lane), place + step * width + vector * lanes + lane)

    def _store(self, state: _State, part: Expr, batch: Expr, head: Expr, start: Expr) -> None:
        """Divides by the sums and stores row by row."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        inverse = emitter.allocate(self.rows, "float32", "inverse")
        for vector in range(self.vectors):
            with emitter.loop(lanes, VECTORIZED) as lane:
                place = vector * lanes + lane
                total = emitter.bind(emitter.load(state.total, part * self.rows + place))
                emitter.store(inverse, safe_inverse(emitter, total), place)
        with emitter.loop(self.rows, name="row") as row:
            factor = emitter.bind(emitter.load(inverse, row))
            query = emitter.bind(self._query_row(start + row))

            def store(starts: list[Expr], panel: Expr) -> None:
                place = emitter.bind(part * (self._columns * self.rows) + row * (len(starts) * self.value_lanes) + panel)
                for vector, column in enumerate(starts):
                    with emitter.loop(self.value_lanes, VECTORIZED) as lane:
                        element = emitter.load(state.result, place + vector * self.value_lanes + lane)
                        problem.store(batch, head, query, lane + column, element * factor)

            self._each_panel(store)
