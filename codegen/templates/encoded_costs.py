"""What the steps of kernels of encoded weights cost, by the width of the vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..target import Target
from ..weight_format import CodeKind


@dataclass(frozen=True)
class Costs:
    """Cycles for a vector, fitted to measurements of single kernels on one core, whose weights lie in a cache.

    ``decode``: a vector of numbers from codes, ``store_decoded``: what is added where numbers are the reference's, scaled and stored.
    ``multiply_add`` and ``broadcast`` of activations. ``shift`` and ``look_up`` (a permutation and an addition) of sums in tables.
    ``unpack``: a vector's share of taking a vector of bytes apart, ``byte_products``: its share of multiplying by three bytes and adding,
    ``four_bytes``: four activations in every lane, ``latency``: how long a step waits for a single sum of each byte.
    ``reread``: codes of 8 bits, for another tile of rows. For each row and vector at the end of a group, ``join``: the sums of three bytes
    and the scale, ``finish``: the scale. ``stage_digits``, ``stage_bytes`` and ``stage_table``: an activation as a digit, as three bytes,
    its share of the tables. ``spill`` and ``spill_digits``: by how much each register beyond those there are slows a kernel down, the
    latter where codes are read as digits. ``tiles``: of what register tiles over decoded numbers are reckoned to take. ``overlap``: of the
    shorter one of arithmetic and memory, what the longer one does not hide, ``overlap_digits`` of arithmetic where codes of less than a
    byte are read as digits. ``crowding``: by how much memory takes longer each time that the bytes of a chunk, which are asked for
    together, double.
    """

    decode: Mapping[CodeKind, float]
    store_decoded: float
    multiply_add: float
    broadcast: float
    shift: float
    look_up: float
    unpack: float
    byte_products: float
    four_bytes: float
    latency: float
    reread: float
    join: float
    finish: float
    stage_digits: float
    stage_bytes: float
    stage_table: float
    spill: float
    spill_digits: float
    tiles: float
    overlap: float
    overlap_digits: float
    crowding: float


_NARROW = Costs(
    decode={CodeKind.INTEGER: 1.2, CodeKind.FLOAT: 3.0, CodeKind.INDEX: 3.0},
    store_decoded=1.0,
    multiply_add=0.24,
    broadcast=0.64,
    shift=0.43,
    look_up=1.5,
    unpack=0.2,
    byte_products=0.9,
    four_bytes=0.16,
    latency=0.0,
    reread=0.0,
    join=6.4,
    finish=2.4,
    stage_digits=0.5,
    stage_bytes=1.1,
    stage_table=1.1,
    spill=0.05,
    spill_digits=0.15,
    tiles=1.6,
    overlap=0.375,
    overlap_digits=0.375,
    crowding=0.0,
)
"""Of vectors of 32 bytes and less, measured on a Zen 3."""

_WIDE = Costs(
    decode={CodeKind.INTEGER: 0.32, CodeKind.FLOAT: 0.8, CodeKind.INDEX: 0.8},
    store_decoded=1.35,
    multiply_add=0.41,
    broadcast=0.03,
    shift=0.42,
    look_up=0.86,
    unpack=0.0,
    byte_products=0.355,
    four_bytes=0.06,
    latency=0.45,
    reread=0.12,
    join=2.0,
    finish=0.7,
    stage_digits=0.7,
    stage_bytes=1.0,
    stage_table=1.0,
    spill=0.02,
    spill_digits=0.05,
    tiles=1.0,
    overlap=0.3,
    overlap_digits=0.2,
    crowding=0.08,
)
"""Of vectors of 64 bytes, measured on a Zen 5, which has VNNI."""


def costs_of(target: Target) -> Costs:
    """What the steps cost on a target."""
    return _WIDE if target.vector_bytes == 64 else _NARROW
