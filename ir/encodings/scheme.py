"""What every encoding of constants has: parts, and the way from numbers to them and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from ...errors import EncodingError
from ..encoding import Encoding
from ..types import DType
from .bits import packed_bytes

Parts: TypeAlias = "Mapping[str, np.ndarray]"
"""What a constant consists of: ``codes``, an integer for each element in logical order, and by the family ``scales``, ``zero_points`` and
``table``."""

CODES, SCALES, ZERO_POINTS, TABLE = "codes", "scales", "zero_points", "table"


@dataclass(frozen=True)
class PartType:
    """NumPy dtype and shape of one part."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Scheme(ABC):
    """The semantics of one encoding: a frozen dataclass of its parameters.

    Numbers are finite: :meth:`quantise` raises EncodingError for NaN and infinity, which stay dense. What is beyond the range of the codes
    saturates. Codes are rounded to nearest, ties to even, from the quotient in float32 of a number and the scale as it is stored.
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def of(cls, encoding: Encoding) -> Self:
        """The scheme of an encoding of this name, whose parameters were checked."""

    @property
    @abstractmethod
    def encoding(self) -> Encoding:
        """The encoding that this is the meaning of."""

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits that one code needs."""

    @property
    @abstractmethod
    def signed(self) -> bool:
        """Whether codes are signed integers: int8, else uint8."""

    @property
    def code_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8 if self.signed else np.uint8)

    @abstractmethod
    def part_types(self, shape: Sequence[int]) -> dict[str, PartType]:
        """The parts of a constant of ``shape``."""

    @abstractmethod
    def decode(self, parts: Parts) -> np.ndarray:
        """The numbers that ``parts`` stand for: float32, computed as the family's module says."""

    @abstractmethod
    def _quantise(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of a finite float32 array."""

    def quantise(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The parts that stand for ``array``; EncodingError when it holds NaN or infinity."""
        with np.errstate(over="ignore"):
            narrow = np.asarray(array, dtype=np.float32)
        if not np.isfinite(narrow).all():
            raise EncodingError(f"NaN, infinity and numbers beyond float32 have no code in {self.encoding}; leave this tensor dense")
        return self._quantise(narrow)

    def check(self, parts: Parts, shape: Sequence[int]) -> None:
        """EncodingError unless ``parts`` are those of a constant of ``shape``."""
        wanted = self.part_types(shape)
        if parts.keys() != wanted.keys():
            raise EncodingError(f"encoding {self.encoding} has the parts {', '.join(wanted)}, given are {', '.join(parts) or 'none'}")
        for name, type in wanted.items():
            part = parts[name]
            if part.dtype != type.dtype or part.shape != type.shape:
                raise EncodingError(
                    f"part '{name}' of encoding {self.encoding} is {type.dtype}{list(type.shape)}, given is {part.dtype}{list(part.shape)}"
                )
        low, high = self.code_range
        codes = parts[CODES]
        if codes.size and not low <= int(codes.min()) <= int(codes.max()) <= high:
            raise EncodingError(f"a code of encoding {self.encoding} is outside of {low}..{high}")

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""
        if self.signed:
            return -(1 << (self.code_bits - 1)), (1 << (self.code_bits - 1)) - 1
        return 0, (1 << self.code_bits) - 1

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a constant of ``shape`` with its codes packed (:func:`~mlc.ir.encodings.bits.pack_codes`)."""
        types = self.part_types(shape)
        codes = packed_bytes(types.pop(CODES).shape, self.code_bits)
        return codes + sum(int(np.prod(type.shape)) * type.dtype.itemsize for type in types.values())


def scale_dtype(word: object) -> np.dtype[Any]:
    """The NumPy dtype of scales by the word of the text form."""
    return DType.parse(str(word)).numpy


def stored_scale(scale: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """``scale`` (float32) in ``dtype``, neither zero nor infinite: 1 where it is zero, the nearest number where it is out of range."""
    limits = _limits(dtype)
    magnitude = np.clip(np.abs(scale), float(limits.smallest_subnormal), float(limits.max))
    return np.where(scale == 0, np.float32(1), np.copysign(magnitude, scale)).astype(dtype)


def _limits(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


def integer_codes(array: np.ndarray, scale: np.ndarray, zero: np.ndarray | int, low: int, high: int) -> np.ndarray:
    """Codes, as float32, of ``array`` for the integers from ``low`` to ``high``: nearest, ties to even, saturating."""
    with np.errstate(over="ignore"):
        codes: np.ndarray = np.clip(np.rint(array / scale) + zero, low, high)
    return codes
