"""What sparse kernels cost: cycles of their arithmetic, measured with AVX2 on Zen 3 and scaled by the facts of the target.

The figures are rather high: a sparse kernel that is slower than the dense one is worse than one that is not used.
"""

from __future__ import annotations

from ..target import Target
from .tiling import PARALLEL_SECONDS

WORD = 4
_LATENCY = 4.0
"""Of a multiply-add: entries whose products are added to the same sums take at least as long."""
_L1_SHARE = 0.9
"""Of the first-level cache, for a tile of rows."""


def threads_worth(target: Target, available: int, cycles: float, nbytes: float) -> int:
    """``available``, or 1 when a kernel of so many cycles on one thread, which reads so many bytes, is done before others have begun."""
    seconds = max(cycles / target.frequency, nbytes * available / target.memory_bandwidth)
    return available if seconds >= PARALLEL_SECONDS else 1


def panel_cycles(target: Target, rows: int, width: int, entries: int, panels: int) -> float:
    """One register tile of ``rows`` against all ``panels`` of ``width`` outputs."""
    vectors = -(-width // target.vector_lanes)
    step = max(rows * vectors / target.fma_units, (rows + vectors + 1) / 2, _LATENCY)
    return entries * (1.15 * step + 1.2) + panels * (2.0 * rows * vectors + 20.0)


def bitmap_cycles(rows: int, columns: int, steps: int, regular: bool) -> float:
    """A product of ``rows`` with a weight stored as a bitmap, whose vectors are expanded in ``steps`` for each output; with a ``regular``
    number of elements for each vector."""
    return columns * (steps * ((1.0 if regular else 2.0) + 0.95 * rows) + 30.0)


def select_cycles(rows: int, bits: int, kept: float, columns: float) -> float:
    """A product of ``rows`` with ``kept`` vectors of codes of so many bits and of positions, of so many vectors of ``columns``."""
    return kept * ((0.9 if bits <= 4 else 1.5) + 0.75 * rows) + columns * (10.0 + 5.0 * rows)


def gather_cycles(rows: int, columns: int, entries: int) -> float:
    """A product of ``rows`` with a weight whose ``entries`` are listed one by one."""
    # Outputs have their own numbers of entries, which branches do not foresee.
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
    transposing = 0.5 * vectors * target.vector_lanes * (depth + columns)
    # As for gathers, plus what storing the results of an output takes.
    return entries * step + columns / width * 25.0 + transposing
