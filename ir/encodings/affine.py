"""Integers of 8 bits with a scale for the tensor or for each index of an axis (Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", 2018).

A code q stands for ``scale * (q - zero_point)``, a product in float32 of an exact difference. Without zero points the scale of i8 maps the
largest magnitude to 127 (-128 is not used), that of u8 the largest number to 255 and negative numbers to 0. With zero points the scale maps
the range, zero included, to all codes, so that zero has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ...errors import EncodingError
from ..encoding import STORED, Encoding, Parameter
from .groups import along, axes_but
from .scheme import CODES, SCALES, ZERO_POINTS, Parts, PartType, Scheme, integer_codes, stored_scale


@dataclass(frozen=True)
class Affine(Scheme):
    """``scale`` and ``zero_point`` are numbers, or stored with the codes: of float32, and of int32."""

    name: ClassVar[str] = "affine"
    storage: str = "i8"
    axis: int | None = None
    scale: float | str = STORED
    zero_point: int | str = 0

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        given = dict(encoding.parameters)
        axis, scale, zero_point = given.get("axis"), given["scale"], given.get("zero_point", 0)
        for word in (scale, zero_point):
            if isinstance(word, str) and word != STORED:
                raise EncodingError(f"a constant holds its own scales and zero points: '{STORED}', not {word}, in the encoding {encoding}")
        assert axis is None or isinstance(axis, int)
        assert not isinstance(zero_point, float)
        return cls(str(given["storage"]), axis, scale if isinstance(scale, str) else float(scale), zero_point)

    @property
    def encoding(self) -> Encoding:
        parameters: list[tuple[str, Parameter]] = [("storage", self.storage), ("scale", self.scale)]
        if self.zero_point != 0:
            parameters.append(("zero_point", self.zero_point))
        if self.axis is not None:
            parameters.append(("axis", self.axis))
        return Encoding(self.name, tuple(parameters))

    @property
    def code_bits(self) -> int:
        return 8

    @property
    def signed(self) -> bool:
        return self.storage == "i8"

    def part_types(self, shape: Sequence[int]) -> dict[str, PartType]:
        each = (shape[self.axis],) if self.axis is not None and shape else ()
        types = {CODES: PartType(self.code_dtype, tuple(shape))}
        if self.scale == STORED:
            types[SCALES] = PartType(np.dtype(np.float32), each)
        if self.zero_point == STORED:
            types[ZERO_POINTS] = PartType(np.dtype(np.int32), each)
        return types

    def decode(self, parts: Parts) -> np.ndarray:
        codes = parts[CODES]
        differences = codes.astype(np.int32) - along(self._zero_points(parts), self.axis, codes.ndim)
        return np.asarray(differences.astype(np.float32) * along(self._scales(parts), self.axis, codes.ndim), np.float32)

    def _scales(self, parts: Parts) -> np.ndarray:
        return parts[SCALES] if self.scale == STORED else np.asarray(self.scale, np.float32)

    def _zero_points(self, parts: Parts) -> np.ndarray:
        return parts[ZERO_POINTS] if self.zero_point == STORED else np.asarray(self.zero_point, np.int32)

    def _quantise(self, array: np.ndarray) -> dict[str, np.ndarray]:
        parts = self._found(array) if self.scale == STORED else {}
        scales, zeros = (along(values, self.axis, array.ndim) for values in (self._scales(parts), self._zero_points(parts)))
        return {CODES: integer_codes(array, scales, zeros, *self.code_range).astype(self.code_dtype), **parts}

    def _found(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The scales, and zero points where they are stored, for the range of ``array``."""
        low, high = self.code_range
        over = axes_but(self.axis, array.ndim)
        least, most = np.min(array, axis=over, initial=0), np.max(array, axis=over, initial=0)
        dtype = np.dtype(np.float32)
        if self.zero_point == STORED:
            scales = stored_scale(np.asarray(most / (high - low) - least / (high - low), dtype), dtype)
            return {SCALES: scales, ZERO_POINTS: np.asarray(np.clip(low - np.rint(least / scales), low, high), np.int32)}
        zero = int(self.zero_point)
        above = most / max(high - zero, 1)
        below = least / min(low + self.signed - zero, -1) if self.signed or zero > low else np.zeros_like(least)
        return {SCALES: stored_scale(np.asarray(np.maximum(above, below), dtype), dtype)}
