"""What sparse kernels cost, in cycles measured on Zen 3 (AVX2) and scaled by the facts of the target."""

from __future__ import annotations

from ..target import Target

WORD = 4


def panel_cycles(target: Target, rows: int, width: int, entries: int, panels: int, depth: int) -> float:
    """Cycles of one register tile of ``rows`` against all ``panels`` of ``width`` outputs."""
    vectors = -(-width // target.vector_lanes)
    step = max(rows * vectors / target.fma_units, (rows + vectors) / 2, 4.0)
    return entries * (step + 0.5) + panels * (2.0 * rows * vectors + 20.0)


def bitmap_cycles(target: Target, rows: int, columns: int, depth: int) -> float:
    """Cycles of a product of ``rows`` with a weight stored as a bitmap, arithmetic alone."""
    lanes = target.vector_lanes
    return columns * (-(-depth // lanes)) * max(2.0, rows / target.fma_units) + 20.0 * columns


def gather_cycles(target: Target, rows: int, columns: int, entries: int) -> float:
    """Cycles of a product of ``rows`` with a weight whose ``entries`` are listed one by one, arithmetic alone."""
    return entries * (0.3 + 0.6 * rows) + columns * (15.0 + 10.0 * rows)


def row_vector_cycles(target: Target, vectors: int, width: int, entries: float, columns: float, depth: int) -> float:
    """Cycles of one tile of ``vectors`` vectors of rows: transposing it, ``entries`` of panels of ``width``, and storing the results."""
    lanes = target.vector_lanes
    step = max(vectors * width / target.fma_units, (vectors + width) / 2, 4.0)
    if depth * vectors * target.vector_bytes > _L1_SHARE * target.l1_bytes:
        step = max(step, 1.2 * vectors)
    transposing = vectors * lanes * (depth + columns) * 0.5
    return entries * (step + 0.5) + columns / width * 12.0 + transposing


_L1_SHARE = 0.9
"""Of the first-level cache, for a tile of rows."""
