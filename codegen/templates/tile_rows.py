"""What becomes of the sums of a register tile that lie in memory: row by row, and later than they were made.

What is done with sums once they are made is a chain of instructions for each vector, which other units of a processor execute than
multiply-adds; behind a tile they wait for each other, and multipliers for them. :class:`DelayedRows` does it a row at a time between the
multiply-adds of the next tile instead, in the way of software pipelines (Lam, "Software pipelining: an effective scheduling technique for
VLIW machines", 1988): sums wait in the first-level cache, not in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import tirx

from ..emit import INDEX, VECTORIZED, Emitter, Expr, index
from ..target import Kind, Target
from .arithmetic import Arithmetic
from .loops import largest_power_of_two
from .region import AnchoredRegion

_TOGETHER = 4
"""Vectors of a row that are computed together, so that LLVM interleaves their chains of instructions."""


def for_each_of_rows(
    emitter: Emitter, buffer: Any, rows: int, stride: int, columns: int, lanes: int, use: Callable[[Expr, Expr, Expr], None]
) -> None:
    """Calls ``use(row, column, element)`` in a loop over rows of ``buffer`` that lie ``stride`` apart, in vectorised loops over the first
    ``columns`` of each: several registers of ``lanes`` at once."""
    with emitter.loop(rows, name="row") as row:
        for_each_of_row(emitter, buffer, row, stride, columns, lanes, use)


def for_each_of_row(
    emitter: Emitter, buffer: Any, row: Expr, stride: int, columns: int, lanes: int, use: Callable[[Expr, Expr, Expr], None]
) -> None:
    """:func:`for_each_of_rows` of one row."""
    start = 0
    while start < columns:
        count = min(_TOGETHER * lanes, columns - start)
        count = lanes * largest_power_of_two(count // lanes) if count > lanes else count
        with emitter.loop(count, VECTORIZED, "lane") as lane:
            column = lane + start
            use(row, column, tirx.BufferLoad(buffer, [row * stride + column]))
        start += count


def may_delay(arithmetic: Arithmetic, region: AnchoredRegion) -> bool:
    """Whether what is done with a sum is short enough to stand between multiply-adds without taking registers from them."""
    return arithmetic.interleaves and not region.is_long


def delays_rows(target: Target, rows: int, vectors: int, steps: int, tiles: int) -> bool:
    """Whether it pays to delay the rows of ``tiles`` of ``rows`` by ``vectors``, whose innermost loop takes so many ``steps``.

    Where sums leave more than half of the registers to what is done with others, and each row has an iteration of its own.
    """
    return target.kind is Kind.CPU and 2 * rows * vectors < target.vector_registers and rows <= steps and tiles > 1


class DelayedRows:
    """The sums of a tile of ``rows`` by ``width`` columns of TIR ``dtype`` that wait while those of the next are made.

    ``use(place, row, column, element)`` takes the elements of the first ``columns``; ``place`` are the ``coordinates`` numbers, none of
    them negative, that tell where a tile is. Make it before the loop over tiles, and call :meth:`finish` behind it.
    """

    def __init__(
        self,
        emitter: Emitter,
        dtype: str,
        rows: int,
        columns: int,
        lanes: int,
        coordinates: int,
        use: Callable[[Sequence[Expr], Expr, Expr, Expr], None],
    ) -> None:
        self.rows = rows
        self._emitter = emitter
        self._columns = columns
        self._lanes = lanes
        self._width = -(-columns // lanes) * lanes
        self._use = use
        self._sums = emitter.allocate(rows * self._width, dtype, "delayed")
        self._place = [emitter.allocate(1, INDEX, "place") for _ in range(coordinates)]
        for buffer in self._place:
            emitter.store(buffer, index(-1), 0)

    def put(self, place: Sequence[Expr], spill: Callable[[Any, int], None]) -> None:
        """Lets the tile at ``place`` wait, whose sums ``spill(buffer, stride)`` stores."""
        spill(self._sums, self._width)
        for buffer, coordinate in zip(self._place, place, strict=True):
            self._emitter.store(buffer, coordinate, 0)

    def row(self, number: Expr, condition: Expr | None = None) -> None:
        """Uses row ``number`` of the tile that waits, if there is one and ``condition`` holds."""
        with self._waiting(condition) as place:
            for_each_of_row(self._emitter, self._sums, number, self._width, self._columns, self._lanes, self._at(place))

    def finish(self) -> None:
        """Uses the rows of the last tile."""
        with self._waiting(None) as place:
            for_each_of_rows(self._emitter, self._sums, self.rows, self._width, self._columns, self._lanes, self._at(place))

    def _at(self, place: Sequence[Expr]) -> Callable[[Expr, Expr, Expr], None]:
        return lambda row, column, element: self._use(place, row, column, element)

    @contextmanager
    def _waiting(self, condition: Expr | None) -> Iterator[list[Expr]]:
        """Code that runs if a tile waits and ``condition`` holds; yields where the tile is."""
        place = [self._emitter.bind(tirx.BufferLoad(buffer, [index(0)]), "place") for buffer in self._place]
        exists = place[0] >= index(0)
        with self._emitter.when(exists if condition is None else tirx.And(exists, condition)):
            yield place
