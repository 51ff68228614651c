"""Integers of 2, 3, 4 or 8 bits with a scale, and optionally a zero point, for each group of 32 to 128 elements along an axis.

A code q of a group stands for ``scale * (q - zero_point)``: a product in float32 of an exact difference and the scale as it is stored.
The scale of codes of 8 bits maps the largest magnitude of the group to 127, or with zero points the range, zero included, to all codes. Of
fewer bits it is the one of least squared error among a few: those that map the largest magnitude to the last code of either sign, so that
scales may be negative, or the range to all codes, and shrunk ones, by which outliers saturate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ..encoding import STORED, Encoding, Parameter
from .groups import group_shape, in_chunks, joined, per_group, split, spread
from .scheme import CODES, SCALES, ZERO_POINTS, Parts, PartType, Scheme, integer_codes, scale_dtype, stored_scale

_SHRUNK = {2: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5), 3: (1.0, 0.9, 0.8, 0.7), 4: (1.0, 0.92, 0.85), 8: (1.0,)}
"""By the bits of a code: what scales are tried, relative to the one by which nothing saturates."""


@dataclass(frozen=True)
class Grouped(Scheme):
    """``storage`` is i or u and the bits of a code; ``scale`` the dtype of the scales; ``zero_point`` whether each group stores one."""

    name: ClassVar[str] = "grouped"
    storage: str
    group: int
    axis: int
    scale: str = "f32"
    zero_point: bool = False

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        given = dict(encoding.parameters)
        return cls(str(given["storage"]), int(given["group"]), int(given["axis"]), str(given["scale"]), "zero_point" in given)

    @property
    def encoding(self) -> Encoding:
        parameters: list[tuple[str, Parameter]] = [
            ("storage", self.storage),
            ("group", self.group),
            ("axis", self.axis),
            ("scale", self.scale),
        ]
        if self.zero_point:
            parameters.append(("zero_point", STORED))
        return Encoding(self.name, tuple(parameters))

    @property
    def code_bits(self) -> int:
        return int(self.storage[1:])

    @property
    def signed(self) -> bool:
        return self.storage.startswith("i")

    def part_types(self, shape: Sequence[int]) -> dict[str, PartType]:
        each = group_shape(shape, self.axis, self.group)
        types = {CODES: PartType(self.code_dtype, tuple(shape)), SCALES: PartType(scale_dtype(self.scale), each)}
        if self.zero_point:
            types[ZERO_POINTS] = PartType(self.code_dtype, each)
        return types

    def decode(self, parts: Parts) -> np.ndarray:
        codes = parts[CODES].astype(np.float32)
        extent = codes.shape[self.axis]
        if self.zero_point:
            codes -= spread(parts[ZERO_POINTS], extent, self.axis, self.group)
        return np.asarray(codes * spread(parts[SCALES].astype(np.float32), extent, self.axis, self.group))

    def _quantise(self, array: np.ndarray) -> dict[str, np.ndarray]:
        codes, scales, zeros = in_chunks(self._best, split(array, self.axis, self.group))
        parts = {
            CODES: joined(codes, array.shape, self.axis, self.group).astype(self.code_dtype),
            SCALES: per_group(scales, array.shape, self.axis, self.group),
        }
        if self.zero_point:
            parts[ZERO_POINTS] = per_group(zeros, array.shape, self.axis, self.group).astype(self.code_dtype)
        return parts

    def _best(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes, scales and zero points of ``groups`` [count, group], of the scales tried those of least squared error."""
        low, high = self.code_range
        best: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        least = np.zeros(0)
        for scales, zeros in self._tried(groups):
            wide = scales.astype(np.float32)
            codes = integer_codes(groups, wide, zeros, low, high)
            if self.code_bits == 8:
                return codes, scales, zeros
            with np.errstate(over="ignore"):
                error = np.square((codes - zeros) * wide - groups).sum(axis=1, keepdims=True, dtype=np.float64)
            if best is None:
                best, least = (codes, scales, zeros), error
                continue
            better = error < least
            best = tuple(np.where(better, new, old) for new, old in zip((codes, scales, zeros), best, strict=True))  # type: ignore[assignment]
            least = np.minimum(error, least)
        assert best is not None
        return best

    def _tried(self, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scales, as they are stored, and zero points as float32, both [count, 1]."""
        low, high = self.code_range
        dtype = scale_dtype(self.scale)
        least = np.minimum(groups.min(axis=1, keepdims=True), np.float32(0))
        most = np.maximum(groups.max(axis=1, keepdims=True), np.float32(0))
        none = np.zeros_like(most)
        for shrink in _SHRUNK[self.code_bits]:
            factor = np.float32(shrink)
            if self.zero_point:
                scales = stored_scale((most / (high - low) - least / (high - low)) * factor, dtype)
                yield scales, np.clip(low - np.rint(least * factor / scales.astype(np.float32)), low, high)
            elif not self.signed:
                yield stored_scale(most / high * factor, dtype), none
            else:
                largest = np.where(most > -least, most, least)
                yield stored_scale(np.abs(largest) / high * factor, dtype), none
                if self.code_bits < 8:
                    yield stored_scale(largest / low * factor, dtype), none
