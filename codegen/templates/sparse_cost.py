"""What sparse kernels cost, in cycles measured on Zen 3 (AVX2) and scaled by the facts of the target."""

from __future__ import annotations

from ..target import Target

WORD = 4


def panel_cycles(target: Target, rows: int, width: int, entries: int, panels: int, depth: int) -> float:
    """Cycles of one register tile of ``rows`` against all ``panels`` of ``width`` outputs."""
    vectors = -(-width // target.vector_lanes)
    step = max(rows * vectors / target.fma_units, (rows + vectors) / 2, 4.0)
    return entries * (step + 0.5) + panels * (2.0 * rows * vectors + 20.0)
