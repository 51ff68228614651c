"""What sparse kernels cost: cycles of their arithmetic, measured with AVX2 on Zen 3 and scaled by the facts of the target.
What transposes and expands was measured with AVX-512 on Zen 5 too.

The figures are rather high: a sparse kernel that is slower than the dense one is worse than one that is not used.
"""

from __future__ import annotations

from ..target import Target
from .tiling import PARALLEL_SECONDS, crowding, stream_cycles

WORD = 4
_LATENCY = 4.0
"""Of a multiply-add: entries whose products are added to the same sums take at least as long."""
_WIDE = 64
"""Bytes of the vectors of AVX-512."""
_CROWDED = 0.05
"""By how much each row without a place in the first-level cache slows a tile down (1.2 times with 16 rows and 12 ways)."""
_L1_SHARE = 0.9
"""Of the first-level cache, for a tile of rows."""


def threads_worth(target: Target, available: int, cycles: float, nbytes: float) -> int:
    """``available``, or 1 when a kernel of so many cycles on one thread, which reads so many bytes, is done before others have begun."""
    seconds = max(cycles / target.frequency, nbytes * available / target.memory_bandwidth)
    return available if seconds >= PARALLEL_SECONDS else 1


def panel_cycles(
    target: Target, rows: int, width: int, entries: int, panels: int, passes: int, value_bytes: int = WORD, row_bytes: int = 0
) -> float:
    """One register tile of ``rows``, which lie ``row_bytes`` apart, against all ``panels`` of ``width`` outputs, read by so many tiles."""
    vectors = -(-width // target.vector_lanes)
    stream = stream_cycles(vectors * target.vector_lanes * value_bytes, cached=passes > 1)
    step = max(rows * vectors / target.fma_units, (rows + vectors + 1) / 2, _LATENCY, stream)
    step *= 1 + _CROWDED * crowding(target, row_bytes, rows)
    return entries * (1.15 * step + 1.2) + panels * (2.0 * rows * vectors + 20.0)


def bitmap_cycles(target: Target, rows: int, columns: int, steps: int, regular: bool) -> float:
    """A product of ``rows`` with a weight stored as a bitmap, whose vectors are expanded in ``steps`` for each output; with a ``regular``
    number of elements for each vector."""
    if target.vector_bytes == _WIDE:
        return columns * (steps * ((1.1 if regular else 1.9) + 0.45 * rows) + 30.0)
    return columns * (steps * ((1.0 if regular else 2.0) + 0.95 * rows) + 30.0)


def select_cycles(rows: int, bits: int, kept: float, columns: float) -> float:
    """A product of ``rows`` with ``kept`` vectors of codes of so many bits and of positions, of so many vectors of ``columns``."""
    return kept * ((0.9 if bits <= 4 else 1.5) + 0.75 * rows) + columns * (10.0 + 5.0 * rows)


def gather_cycles(target: Target, rows: int, columns: int, entries: int) -> float:
    """A product of ``rows`` with a weight whose ``entries`` are listed one by one."""
    # Outputs have their own numbers of entries, which branches do not foresee.
    if target.vector_bytes == _WIDE:
        return entries * (0.15 + 0.65 * rows) + columns * (45.0 + 5.0 * rows)
    return entries * (0.35 + 0.65 * rows) + columns * (55.0 + 10.0 * rows)


def has_two_sets(target: Target, width: int, vectors: int) -> bool:
    """Whether there are registers for two sets of sums of ``vectors`` vectors of rows by ``width`` outputs."""
    return 2 * width * vectors + width + 1 <= target.vector_registers


def row_vector_cycles(target: Target, vectors: int, width: int, entries: float, columns: float, depth: int) -> float:
    """One tile of ``vectors`` vectors of rows: transposing it, ``entries`` of panels of ``width``, and storing the results."""
    latency = _LATENCY / 2 if has_two_sets(target, width, vectors) else _LATENCY
    step = max(vectors * width / target.fma_units, (vectors + width + 1) / 2, latency)
    step += 0.8 if width == 1 else 1.5
    if depth * vectors * target.vector_bytes > _L1_SHARE * target.l1_bytes:
        step += 0.8 * vectors
    transposing = (0.22 if target.vector_bytes == _WIDE else 0.5) * vectors * target.vector_lanes * (depth + columns)
    # As for gathers, plus what storing the results of an output takes.
    return entries * step + columns / width * 25.0 + transposing
