"""Microscaling formats: blocks of narrow elements with a power of two as scale (OCP Microscaling Formats (MX) Specification 1.0, 2023).

The scale of a block is an e8m0 number: 2**(code - 127), code 255 is NaN. It is the largest power of two not above the largest magnitude of
the block, over the largest power of two of the element format (section 6.3); of a block of zeros it is 2**-127. Elements are rounded to
nearest, ties to even, and saturate; a subnormal result is one. An element's code is its bits, for i8 (MXINT8) an integer of 64ths.
Decoding is exact unless the result is below float32's normal numbers; NaN codes of e4m3 and e5m2, and infinities of e5m2, which quantising
never yields, are decoded to what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ..encoding import Encoding
from .groups import group_shape, in_chunks, joined, per_group, split, spread
from .scheme import CODES, SCALES, Parts, PartType, Scheme

MX_BLOCK = 32
"""Elements of a block in the specification's formats."""

_BIAS, _NAN = 127, 255
_INTEGER_STEPS = 64


@dataclass(frozen=True)
class ElementFormat:
    """Bits of a code, the exponent of the largest power of two, and the largest number."""

    bits: int
    exponent: int
    largest: float
    numpy_name: str


FORMATS: Mapping[str, ElementFormat] = {
    "e4m3": ElementFormat(8, 8, 448.0, "float8_e4m3fn"),
    "e5m2": ElementFormat(8, 15, 57344.0, "float8_e5m2"),
    "e2m3": ElementFormat(6, 2, 7.5, "float6_e2m3fn"),
    "e3m2": ElementFormat(6, 4, 28.0, "float6_e3m2fn"),
    "e2m1": ElementFormat(4, 2, 6.0, "float4_e2m1fn"),
    "i8": ElementFormat(8, 0, 127 / _INTEGER_STEPS, "int8"),
}
"""The formats of elements by the word of the text form (tables 3 to 6 of the specification)."""


@dataclass(frozen=True)
class BlockScaled(Scheme):
    """``storage`` names the element format."""

    name: ClassVar[str] = "block_scaled"
    storage: str
    axis: int
    block: int = MX_BLOCK

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        given = dict(encoding.parameters)
        return cls(str(given["storage"]), int(given["axis"]), int(given["block"]))

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.name, (("storage", self.storage), ("block", self.block), ("axis", self.axis)))

    @property
    def code_bits(self) -> int:
        return FORMATS[self.storage].bits

    @property
    def signed(self) -> bool:
        return self.storage == "i8"

    def part_types(self, shape: Sequence[int]) -> dict[str, PartType]:
        return {
            CODES: PartType(self.code_dtype, tuple(shape)),
            SCALES: PartType(np.dtype(np.uint8), group_shape(shape, self.axis, self.block)),
        }

    def decode(self, parts: Parts) -> np.ndarray:
        codes = parts[CODES]
        scales = spread(parts[SCALES], codes.shape[self.axis], self.axis, self.block)
        elements = _elements_of(codes, self.storage)
        with np.errstate(over="ignore", under="ignore"):
            scaled = np.ldexp(elements, scales.astype(np.int32) - _BIAS)
        return np.where(scales == _NAN, np.float32(np.nan), scaled)

    def _quantise(self, array: np.ndarray) -> dict[str, np.ndarray]:
        codes, scales = in_chunks(self._blocks, split(array, self.axis, self.block))
        return {
            CODES: joined(codes, array.shape, self.axis, self.block),
            SCALES: per_group(scales, array.shape, self.axis, self.block),
        }

    def _blocks(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scales of ``blocks`` [count, block]."""
        element = FORMATS[self.storage]
        largest = np.abs(blocks).max(axis=1, keepdims=True)
        _, above = np.frexp(largest)  # largest is in [0.5, 1) * 2**above
        exponent = np.where(largest == 0, -_BIAS, np.clip(above - 1 - element.exponent, -_BIAS, _BIAS)).astype(np.int32)
        scaled = np.clip(np.ldexp(blocks, -exponent), np.float32(-element.largest), np.float32(element.largest))
        return _codes_of(scaled, self.storage), (exponent + _BIAS).astype(np.uint8)


def _codes_of(elements: np.ndarray, storage: str) -> np.ndarray:
    if storage == "i8":
        return np.rint(elements * np.float32(_INTEGER_STEPS)).astype(np.int8)
    return elements.astype(_numpy_dtype(storage)).view(np.uint8)


def _elements_of(codes: np.ndarray, storage: str) -> np.ndarray:
    if storage == "i8":
        return codes.astype(np.float32) / np.float32(_INTEGER_STEPS)
    table = np.arange(1 << FORMATS[storage].bits, dtype=np.uint8).view(_numpy_dtype(storage)).astype(np.float32)
    return np.asarray(table[codes])


def _numpy_dtype(storage: str) -> np.dtype[Any]:
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, FORMATS[storage].numpy_name))
    return dtype
