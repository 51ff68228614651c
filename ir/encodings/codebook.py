"""Codebooks: indices of 3 or 4 bits into a table of the tensor's own, and a scale for each group.

A code q of a group stands for ``scale * table[q]``, a product in float32. The scale is the largest magnitude of the group; the table is
found by k-means (Lloyd, "Least squares quantization in PCM", 1982) on a histogram of the scaled numbers, each of the weight that its error
has in the result: that of the scale squared. It starts from the quantiles of the density's cube root, the best density of many entries
(Panter and Dite, "Quantization distortion in pulse-count modulation", 1951), and is sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ..encoding import Encoding
from .groups import group_shape, in_chunks, joined, per_group, split, spread
from .scheme import CODES, SCALES, TABLE, Parts, PartType, Scheme, scale_dtype, stored_scale

_BINS = 4096
_ROUNDS = 100


@dataclass(frozen=True)
class Codebook(Scheme):
    """``scale`` is the dtype of the scales."""

    name: ClassVar[str] = "codebook"
    bits: int
    group: int
    axis: int
    scale: str = "f32"

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        given = dict(encoding.parameters)
        return cls(int(given["bits"]), int(given["group"]), int(given["axis"]), str(given["scale"]))

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.name, (("bits", self.bits), ("group", self.group), ("axis", self.axis), ("scale", self.scale)))

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def signed(self) -> bool:
        return False

    def part_types(self, shape: Sequence[int]) -> dict[str, PartType]:
        return {
            CODES: PartType(self.code_dtype, tuple(shape)),
            SCALES: PartType(scale_dtype(self.scale), group_shape(shape, self.axis, self.group)),
            TABLE: PartType(np.dtype(np.float32), (1 << self.bits,)),
        }

    def decode(self, parts: Parts) -> np.ndarray:
        codes = parts[CODES]
        scales = spread(parts[SCALES].astype(np.float32), codes.shape[self.axis], self.axis, self.group)
        return np.asarray(parts[TABLE][codes] * scales)

    def _quantise(self, array: np.ndarray) -> dict[str, np.ndarray]:
        groups = split(array, self.axis, self.group)
        scales = stored_scale(np.abs(groups).max(axis=1, keepdims=True, initial=0), scale_dtype(self.scale))
        wide = scales.astype(np.float32)
        table = fitted_table(groups, wide, 1 << self.bits)
        borders = (table[1:] + table[:-1]) / 2
        (codes,) = in_chunks(lambda part, scale: (np.searchsorted(borders, part / scale).astype(np.uint8),), groups, wide)
        return {
            CODES: joined(codes, array.shape, self.axis, self.group),
            SCALES: per_group(scales, array.shape, self.axis, self.group),
            TABLE: table,
        }


def fitted_table(groups: np.ndarray, scales: np.ndarray, entries: int) -> np.ndarray:
    """The sorted table, float32, of least squared error for ``groups`` [count, size] over their ``scales`` [count, 1]."""

    def histogram(part: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scaled = np.clip(part / scale, -1, 1)
        bins = np.clip(((scaled + 1) * (_BINS / 2)).astype(np.int64), 0, _BINS - 1).reshape(-1)
        weight = np.broadcast_to(np.square(scale, dtype=np.float64), scaled.shape).reshape(-1)
        return np.bincount(bins, weight, _BINS)[None], np.bincount(bins, weight * scaled.reshape(-1), _BINS)[None]

    weights, sums = (counted.sum(axis=0) for counted in in_chunks(histogram, groups, scales))
    return _lloyd(weights, sums, entries).astype(np.float32)


def _lloyd(weights: np.ndarray, sums: np.ndarray, entries: int) -> np.ndarray:
    """A table that is moved to the means of the bins nearest to its entries until nothing moves; an entry without any stays."""
    if not weights.any():
        return np.linspace(-1, 1, entries)
    centres = np.where(weights > 0, sums / np.where(weights > 0, weights, 1), (np.arange(_BINS) + 0.5) * (2 / _BINS) - 1)
    density = np.cumsum(np.cbrt(weights))
    table = centres[np.searchsorted(density, (np.arange(entries) + 0.5) / entries * density[-1])]
    below = np.concatenate([[0], np.cumsum(weights)])
    moments = np.concatenate([[0], np.cumsum(sums)])
    for _ in range(_ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(centres, (table[1:] + table[:-1]) / 2), [_BINS]])
        mass, moment = np.diff(below[edges]), np.diff(moments[edges])
        moved = np.sort(np.where(mass > 0, moment / np.where(mass > 0, mass, 1), table))
        if np.array_equal(moved, table):
            break
        table = moved
    return np.asarray(table)
