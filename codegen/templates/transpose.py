"""Transposing copies: tiles are read along the source's memory, transposed in vector registers and written along the result's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from ..emit import VECTORIZED, Emitter, Expr, index, ramp


def transpose_registers(emitter: Emitter, rows: Sequence[Expr]) -> list[Expr]:
    """The transpose of a square of vectors, by log2(n) stages of two-operand shuffles.

    Stage k exchanges the off-diagonal blocks of size 2^k within blocks of size 2^(k+1) (Eklundh 1972).
    """
    count = len(rows)
    current = list(rows)
    block = 1
    while block < count:
        result = list(current)
        for low in range(count):
            if low & block:
                continue
            high = low | block
            first = [lane if not lane & block else (lane & ~block) + count for lane in range(count)]
            second = [lane | block if not lane & block else lane + count for lane in range(count)]
            result[low] = emitter.bind(_shuffle(current[low], current[high], first))
            result[high] = emitter.bind(_shuffle(current[low], current[high], second))
        current = result
        block *= 2
    return current


def _shuffle(a: Expr, b: Expr, lanes: Sequence[int]) -> Expr:
    return tirx.Shuffle([a, b], [index(lane) for lane in lanes])


def transposed_tile(
    emitter: Emitter,
    lanes: int,
    dtype: str,
    element: Callable[[Expr, Expr], Expr],
    place: Callable[[Expr], tuple[object, Expr]],
) -> None:
    """Computes a tile of ``lanes`` x ``lanes`` and stores it transposed.

    ``element(row, column)`` is contiguous along ``column``; ``place(column)`` gives the buffer and offset where the ``lanes`` rows
    of that column are stored contiguously.
    """
    tile = emitter.allocate(lanes * lanes, dtype, "tile")
    for row in range(lanes):
        with emitter.loop(lanes, VECTORIZED) as column:
            emitter.store(tile, element(index(row), column), column + row * lanes)
    rows = [emitter.bind(tirx.BufferLoad(tile, [ramp(row * lanes, lanes)])) for row in range(lanes)]
    for column, vector in enumerate(transpose_registers(emitter, rows)):
        buffer, offset = place(index(column))
        emitter.emit(tirx.BufferStore(buffer, vector, [ramp(emitter.place(offset), lanes)]))
