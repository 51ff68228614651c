"""The innermost computation of contractions: a tile of accumulators that stays in vector registers.

``rows`` output rows (matrix rows, pixels) by ``vectors`` vectors of output columns (channels) accumulate
``a[row, r] * b[r, column]`` over a nest of reduction loops, in the words of an
:class:`Arithmetic`. Words of ``a`` are broadcast, ``b`` is read in whole vectors from
packed panels (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..emit import CACHE_LINE, VECTORIZED, Emitter, Expr, bytes_of, index, ramp, spread
from .arithmetic import Arithmetic
from .tile_rows import DelayedRows, for_each_of_rows

_MOST_PREFETCHES = 4
"""In an iteration: where rows are so few that more would be needed, memory is the limit anyway."""


@dataclass(frozen=True)
class ReductionLoop:
    """One loop of a reduction nest: its extent, and what a step adds to the offsets into ``a`` and ``b`` (words)."""

    extent: int
    a_stride: int
    b_stride: int


@dataclass(frozen=True)
class Ahead:
    """What a later tile will read: ``count`` words of ``buffer`` from ``start`` on, to be brought into the second-level cache.

    The last range may reach beyond the buffer: a prefetch of an address that does not exist does nothing.
    """

    buffer: Any
    start: Expr
    count: int


def merge_loops(nest: Sequence[ReductionLoop]) -> tuple[ReductionLoop, ...]:
    """The same nest (outermost first) without loops of one iteration, and with loops joined that walk contiguously."""
    merged: list[ReductionLoop] = []
    for loop in nest:
        if loop.extent == 1:
            continue
        if merged:
            outer = merged[-1]
            if outer.a_stride == loop.extent * loop.a_stride and outer.b_stride == loop.extent * loop.b_stride:
                merged[-1] = ReductionLoop(outer.extent * loop.extent, loop.a_stride, loop.b_stride)
                continue
        merged.append(loop)
    return tuple(merged)


@dataclass(frozen=True)
class Initial:
    """What sums start with: ``element(column)`` in the first ``columns`` columns of a tile, the same in all rows."""

    columns: int
    element: Callable[[Expr], Expr]


class RegisterTile:
    """Accumulators of ``rows`` x ``vectors`` vectors, at first zero or what is ``initial``."""

    def __init__(self, emitter: Emitter, arithmetic: Arithmetic, rows: int, vectors: int, initial: Initial | None = None) -> None:
        self.rows = rows
        self.vectors = vectors
        self.lanes = arithmetic.lanes
        self._arithmetic = arithmetic
        self._emitter = emitter
        self._dtype = arithmetic.sums_dtype
        self.accumulators = emitter.allocate(rows * vectors * self.lanes, self._dtype, "acc")
        first = [self._zero] * vectors if initial is None else [self._started(vector, initial) for vector in range(vectors)]
        for number in range(rows * vectors):
            emitter.emit(tirx.BufferStore(self.accumulators, first[number % vectors], [self._ramp(number * self.lanes)]))

    def accumulate(
        self,
        a: Any,
        a_offset: Expr,
        row_offsets: Sequence[int],
        b: Any,
        b_offset: Expr,
        nest: Sequence[ReductionLoop],
        unroll: int,
        ahead: Ahead | None = None,
        delayed: DelayedRows | None = None,
        first: Expr | None = None,
    ) -> None:
        """Adds the products of the whole reduction ``nest`` (outermost loop first).

        ``a`` and ``b`` are flat buffers; row ``i`` of ``a`` starts at ``a_offset + row_offsets[i]``; vectors of ``b`` follow each
        other. The innermost loop is unrolled ``unroll`` times; prefetches of what is ``ahead`` are spread over its iterations. Rows that
        are ``delayed``, no more than it has iterations, are used in those of the ``first`` time that it is run.
        """
        if not nest:
            self.step(a, a_offset, row_offsets, b, b_offset)
            return
        loop, inner = nest[0], nest[1:]
        if inner:
            with self._emitter.loop(loop.extent, name="r") as r:
                a_next = self._emitter.bind(a_offset + r * loop.a_stride, "a_at")
                b_next = self._emitter.bind(b_offset + r * loop.b_stride, "b_at")
                part = None
                if ahead is not None:
                    count = -(-ahead.count // loop.extent)
                    part = Ahead(ahead.buffer, self._emitter.bind(ahead.start + r * count, "ahead"), count)
                now = tirx.EQ(r, index(0)) if first is None else tirx.And(first, tirx.EQ(r, index(0)))
                self.accumulate(a, a_next, row_offsets, b, b_next, inner, unroll, part, delayed, now)
            return
        # A short loop is unrolled whole, so that it has no remainder.
        times = loop.extent if loop.extent <= 2 * unroll else unroll
        if delayed is not None:
            times = min(times, loop.extent // delayed.rows)
        trips = loop.extent // times

        def iteration(k: Expr) -> None:
            a_next = self._emitter.bind(a_offset + k * (loop.a_stride * times), "a_at")
            b_next = self._emitter.bind(b_offset + k * (loop.b_stride * times), "b_at")
            self._steps(range(times), loop, a, a_next, row_offsets, b, b_next)
            if ahead is not None:
                self._prefetch(ahead, k, trips)

        start = 0 if delayed is None else delayed.rows
        if delayed is not None:
            with self._emitter.loop(start, name="k") as k:
                # Before arithmetic, which LLVM would otherwise move behind the branch, but not what it loads.
                delayed.row(k, first)
                iteration(k)
        if start < trips:
            with self._emitter.loop(trips - start, name="k", start=start) as k:
                iteration(k)
        self._steps(range(trips * times, loop.extent), loop, a, a_offset, row_offsets, b, b_offset)

    def step(self, a: Any, a_offset: Expr, row_offsets: Sequence[int], b: Any, b_offset: Expr, factor: Expr | None = None) -> None:
        """Adds the products of one step of the reduction, times a ``factor``; operands as for :meth:`accumulate`."""
        self._together(a, [a_offset], row_offsets, b, [b_offset], factor)

    def _steps(self, steps: range, loop: ReductionLoop, a: Any, a_offset: Expr, row_offsets: Sequence[int], b: Any, b_offset: Expr) -> None:
        """Adds the products of some ``steps`` of ``loop``, as many at once as the arithmetic takes."""
        for first in range(steps.start, steps.stop, self._arithmetic.steps):
            taken = range(first, min(first + self._arithmetic.steps, steps.stop))
            a_places = [a_offset + step * loop.a_stride for step in taken]
            self._together(a, a_places, row_offsets, b, [b_offset + step * loop.b_stride for step in taken])

    def _together(
        self,
        a: Any,
        a_offsets: Sequence[Expr],
        row_offsets: Sequence[int],
        b: Any,
        b_offsets: Sequence[Expr],
        factor: Expr | None = None,
    ) -> None:
        """Adds the products of a step of the reduction, or of several that follow each other."""
        arithmetic = self._arithmetic
        columns = []
        for vector in range(self.vectors):
            read = [arithmetic.column(b, offset + vector * self.lanes) for offset in b_offsets]
            scaled = read if factor is None else [column * spread(factor, self.lanes) for column in read]
            columns.append([self._bound(column, "b") for column in scaled])
        for row, row_offset in enumerate(row_offsets):
            words = [self._bound(arithmetic.word(a, offset + row_offset), "a") for offset in a_offsets]
            for vector, column in enumerate(columns):
                place = self._ramp((row * self.vectors + vector) * self.lanes)
                total: Expr = tirx.BufferLoad(self.accumulators, [place])
                total = (
                    arithmetic.multiply_add(words[0], column[0], total) if len(words) == 1 else arithmetic.add_steps(words, column, total)
                )
                self._emitter.emit(tirx.BufferStore(self.accumulators, total, [place]))

    def load(self, buffer: Any, offset: Expr, row_stride: int) -> None:
        """Takes the accumulators from where :meth:`spill` put them."""
        for row in range(self.rows):
            for vector in range(self.vectors):
                value = tirx.BufferLoad(buffer, [self._ramp(offset + (row * row_stride + vector * self.lanes))])
                self._emitter.emit(tirx.BufferStore(self.accumulators, value, [self._ramp((row * self.vectors + vector) * self.lanes)]))

    def spill(self, buffer: Any, offset: Expr, row_stride: int, vector_stride: int | None = None) -> None:
        """Stores the accumulators: row ``i`` at ``offset + i * row_stride`` of the flat ``buffer``, its vectors after each other or
        ``vector_stride`` elements apart."""
        apart = self.lanes if vector_stride is None else vector_stride
        for row in range(self.rows):
            for vector in range(self.vectors):
                value = tirx.BufferLoad(self.accumulators, [self._ramp((row * self.vectors + vector) * self.lanes)])
                self._emitter.emit(tirx.BufferStore(buffer, value, [self._ramp(offset + (row * row_stride + vector * apart))]))

    def for_each(self, columns: int, looped: bool, use: Callable[[Expr | int, Expr, Expr], None]) -> None:
        """Calls ``use(row, column, element)`` in vectorised loops over the first ``columns`` columns of every row.

        With ``looped`` the code of ``use`` is emitted once in a loop over the rows, not once for each vector of the tile: what
        takes many instructions would otherwise dominate the time that LLVM needs.
        """
        emitter = self._emitter
        if not looped or self.rows == 1:
            for row in range(self.rows):
                for start in range(0, columns, self.lanes):
                    with self._lanes(row, start, min(self.lanes, columns - start)) as (lane, element):
                        use(row, lane + start, element)
            return
        # A copy: accumulators that are read at an index unknown to LLVM would not stay in registers.
        width = self.vectors * self.lanes
        copy = emitter.allocate(self.rows * width, self._dtype, "tile")
        for start in range(0, self.rows * width, self.lanes):
            emitter.emit(tirx.BufferStore(copy, tirx.BufferLoad(self.accumulators, [self._ramp(start)]), [self._ramp(start)]))
        for_each_of_rows(emitter, copy, self.rows, width, columns, self.lanes, use)

    @contextmanager
    def _lanes(self, row: int, column: int, width: int) -> Iterator[tuple[Expr, Expr]]:
        """A vectorised loop over ``width`` lanes of a row from ``column`` on; yields the lane and the accumulated element."""
        start = row * self.vectors * self.lanes + column
        buffer = self.accumulators
        if width < self.lanes:
            # Through a buffer of its own: LLVM would split the accumulator itself into the vectors that are read of it.
            buffer = self._emitter.allocate(self.lanes, self._dtype, "edge")
            whole = tirx.BufferLoad(self.accumulators, [self._ramp(start)])
            self._emitter.emit(tirx.BufferStore(buffer, whole, [self._ramp(0)]))
            start = 0
        with self._emitter.loop(width, VECTORIZED, "lane") as lane:
            yield lane, tirx.BufferLoad(buffer, [lane + start])

    @property
    def _zero(self) -> Expr:
        return spread(tirx.const(0, self._dtype), self.lanes)

    def _started(self, vector: int, initial: Initial) -> Expr:
        """What a vector of a row starts with."""
        first = vector * self.lanes
        buffer = self._emitter.allocate(self.lanes, self._dtype, "start")
        width = min(self.lanes, initial.columns - first)
        if width < self.lanes:
            self._emitter.emit(tirx.BufferStore(buffer, self._zero, [self._ramp(0)]))
        with self._emitter.loop(width, VECTORIZED, "lane") as lane:
            self._emitter.store(buffer, initial.element(lane + first), lane)
        return self._bound(tirx.BufferLoad(buffer, [self._ramp(0)]), "start")

    def _prefetch(self, ahead: Ahead, k: Expr, trips: int) -> None:
        """The prefetches of iteration ``k`` of ``trips``: of every cache line of its share."""
        share = -(-ahead.count // trips)
        width = self._arithmetic.b_bytes
        elements = width // bytes_of(str(ahead.buffer.dtype))
        for line in range(min(-(-share * width // CACHE_LINE), _MOST_PREFETCHES)):
            self._emitter.prefetch(ahead.buffer, (ahead.start + k * share + line * (CACHE_LINE // width)) * elements)

    def _bound(self, value: Expr, name: str) -> Expr:
        variable = tirx.Var(self._emitter.fresh(name), value.ty)
        self._emitter.emit(tirx.Bind(variable, value))
        return variable

    def _ramp(self, offset: Expr | int) -> Expr:
        return ramp(offset, self.lanes)
