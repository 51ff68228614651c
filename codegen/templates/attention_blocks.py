"""Attention for many queries: a block of queries meets the keys block by block, and only a block of scores exists at a time.

A block of queries consists of parts, as wide as a register tile. For each, q is packed once as [width][queries]. Scores of a block of
keys are computed in register tiles of keys x vectors of queries (a key's elements are broadcast) as [keys][queries], and softmax runs
down the keys lane by lane, to base 2. The result accumulates as rows of its elements in tiles of queries x vectors of value elements
(weights are broadcast), so that values are read in whole vectors and the result is stored as it lies. All parts meet a block of keys
while it is in the nearest caches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...ir import Dim
from ..emit import PARALLEL, SERIAL, VECTORIZED, Expr, extent_of, index, ramp, spread, unflatten
from ..emit.math import f32, select
from ..emit.softmax_power import LOG2_E, exp2_nonpositive
from .attention_problem import LOWEST, AttentionProblem, safe_inverse, safe_maximum
from .attention_scores import Part, Scores, State, Tiles
from .loops import largest_power_of_two
from .tiling import EvenSplit
from .transpose import transposed_tile

VALUE_VECTORS = 2
"""Vectors of value elements in a register tile."""


class BlockedAttention:
    """Emits attention over blocks of queries and of keys."""

    def __init__(self, problem: AttentionProblem, tiles: Tiles) -> None:
        self.problem = problem
        self.emitter = problem.emitter
        self.lanes = tiles.lanes
        self.vectors = tiles.vectors
        self.rows = tiles.rows
        self.parts = tiles.parts
        self.value_rows = tiles.value_rows
        most = problem.keys if isinstance(problem.keys, int) else tiles.block
        self.block = -(-min(tiles.block, most) // tiles.keys) * tiles.keys
        self.blocks: Dim = -(-problem.keys // self.block)
        self.scores = Scores(problem, tiles, self.block)
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

    def _part_start(self, start: Expr, part: Expr) -> Expr:
        """The first query of a part; the last part overlaps the one before."""
        first = start + part * self.rows
        if not self.emitter.divides(self.rows, self.problem.queries):
            first = tirx.Min(first, index(self.problem.queries - self.rows))
            first = tirx.Max(first, index(0)) if self.scores.may_be_short else first
        return self.emitter.bind(first)

    def _block_of_queries(self, batch: Expr, head: Expr, start: Expr) -> None:
        problem, emitter, rows = self.problem, self.emitter, self.rows
        key_head = emitter.bind(head // problem.group) if problem.group > 1 else head
        state = State(
            packed=emitter.allocate(self.parts * problem.width * rows, "float32", "query"),
            scores=emitter.allocate((self.parts * self.block + self.scores.beyond) * rows, "float32", "scores"),
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
                    part = Part(batch, head, key_head, number, self._part_start(start, number), first)
                    count = self._needed(part, self.rows)
                    with emitter.when(count > 0) if problem.causal and self.blocks != 1 else emitter.scope():
                        phase(state, part, count)
        with emitter.loop(parts, name="part") as part:
            self._store(state, part, batch, head, self._part_start(start, part))

    def _needed(self, part: Part, rows: int | Expr) -> Expr | Dim:
        """How many keys of the block the first ``rows`` queries of a part look at; 0 or less when none."""
        problem, emitter = self.problem, self.emitter
        if self.blocks == 1 and not problem.causal:
            return problem.keys
        limit = tirx.Min(part.start + rows, index(problem.keys)) if problem.causal else index(problem.keys)
        return emitter.bind(tirx.Min(index(self.block), limit - part.first))

    def _weights(self, state: State, part: Part, count: Expr | Dim) -> None:
        """The weights of the block's keys, for a part of the queries."""
        self._fill(state.best, LOWEST, self.rows, part.number * self.rows)
        self._softmax(state, part, self.scores.emit(state, part, count))

    def _fill(self, buffer: Any, value: Expr, count: int, start: Expr | int = 0) -> None:
        with self.emitter.loop(count // self.lanes) as block, self.emitter.loop(self.lanes, VECTORIZED) as lane:
            self.emitter.store(buffer, value, block * self.lanes + lane + start)

    def _pack_queries(self, packed: Any, base: Expr, batch: Expr, head: Expr, start: Expr) -> None:
        """[width][queries], times the scale and what takes logarithms to base 2."""
        problem, emitter, lanes = self.problem, self.emitter, self.lanes
        scale = f32(problem.scale * LOG2_E)

        def element(row: Expr, column: Expr) -> Expr:
            return problem.query(batch, head, self.scores.query_row(start + row), column) * scale

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

    def _softmax(self, state: State, part: Part, ends: tuple[Expr | Dim, ...]) -> None:
        """Powers in place of the scores; running maximum and sum of each query; factor for earlier results.

        Vectors of queries look at as many keys as ``ends`` says, see :meth:`.attention_scores.Scores.emit`.
        """
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
        for skipped, end in enumerate(ends):
            begin = ends[skipped - 1] if skipped else 0
            extent = emitter.bind(extent_of(end) - begin) if skipped else end
            with emitter.loop(extent, start=begin) as key:
                for vector in range(skipped, self.vectors):
                    with emitter.loop(lanes, VECTORIZED) as lane:
                        place = base + key * self.rows + vector * lanes + lane
                        below = emitter.bind(emitter.load(state.scores, place) - emitter.load(safe[vector], lane))
                        weight = exp2_nonpositive(emitter.bind, below)
                        emitter.store(state.scores, weight, place)
                        emitter.store(summed[vector], emitter.load(summed[vector], lane) + weight, lane)
        for vector in range(self.vectors):
            with emitter.loop(lanes, VECTORIZED) as lane:
                emitter.store(state.total, emitter.load(summed[vector], lane), queries + vector * lanes + lane)

    def _weighted_values(self, state: State, part: Part, count: Expr | Dim) -> None:
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

    def _value_tile(self, state: State, part: Part, row: Expr, height: int, starts: list[Expr], place: Expr, count: Expr | Dim) -> None:
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

    def _store(self, state: State, part: Expr, batch: Expr, head: Expr, start: Expr) -> None:
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
            query = emitter.bind(self.scores.query_row(start + row))

            def store(starts: list[Expr], panel: Expr) -> None:
                place = emitter.bind(part * (self._columns * self.rows) + row * (len(starts) * self.value_lanes) + panel)
                for vector, column in enumerate(starts):
                    with emitter.loop(self.value_lanes, VECTORIZED) as lane:
                        element = emitter.load(state.result, place + vector * self.value_lanes + lane)
                        problem.store(batch, head, query, lane + column, element * factor)

            self._each_panel(store)
