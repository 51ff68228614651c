"""Ternary numbers: -1, 0 or 1 times a scale, by the absmean rule (Ma et al., "The Era of 1-bit LLMs: All Large Language Models are in 1.58
Bits", 2024).

The scale is the mean magnitude, of the tensor or of each index of an axis; a code is the nearest integer, from -1 to 1, to a number over
the scale. Codes are packed in 2 bits, two's complement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ..encoding import Encoding, Parameter
from .groups import along, axes_but
from .scheme import CODES, SCALES, Parts, PartType, Scheme, integer_codes, scale_dtype, stored_scale


@dataclass(frozen=True)
class Ternary(Scheme):
    """``scale`` is the dtype of the scales."""

    name: ClassVar[str] = "ternary"
    axis: int | None = None
    scale: str = "f32"

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        given = dict(encoding.parameters)
        axis = given.get("axis")
        assert axis is None or isinstance(axis, int)
        return cls(axis, str(given["scale"]))

    @property
    def encoding(self) -> Encoding:
        parameters: list[tuple[str, Parameter]] = [("scale", self.scale)]
        if self.axis is not None:
            parameters.append(("axis", self.axis))
        return Encoding(self.name, tuple(parameters))

    @property
    def code_bits(self) -> int:
        return 2

    @property
    def signed(self) -> bool:
        return True

    @property
    def code_range(self) -> tuple[int, int]:
        return -1, 1

    def part_types(self, shape: Sequence[int]) -> dict[str, PartType]:
        each = (shape[self.axis],) if self.axis is not None and shape else ()
        return {CODES: PartType(self.code_dtype, tuple(shape)), SCALES: PartType(scale_dtype(self.scale), each)}

    def decode(self, parts: Parts) -> np.ndarray:
        codes = parts[CODES]
        return np.asarray(codes * along(parts[SCALES].astype(np.float32), self.axis, codes.ndim), np.float32)

    def _quantise(self, array: np.ndarray) -> dict[str, np.ndarray]:
        total = np.asarray(np.abs(array).sum(axis=axes_but(self.axis, array.ndim), dtype=np.float64))
        mean = total * (max(total.size, 1) / max(array.size, 1))
        scales = stored_scale(np.asarray(mean, np.float32), scale_dtype(self.scale))
        codes = integer_codes(array, along(scales.astype(np.float32), self.axis, array.ndim), 0, -1, 1)
        return {CODES: codes.astype(self.code_dtype), SCALES: scales}
