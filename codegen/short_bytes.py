"""Bytes whose products are summed in 16 bits, checked before a kernel relies on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LoweringError
from ..ir import Layout
from ..ir.short_sums import has_short_sums, short_sums


@dataclass(frozen=True)
class ShortBytes:
    """A constant of bytes in ``layout``, which must be what the encoding ``short_sums`` over ``words`` says along axis 1: a weight."""

    layout: Layout
    words: int

    def physical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """In bytes."""
        return self.layout.physical_shape(shape)

    def pack(self, array: np.ndarray) -> np.ndarray:
        """The stored array of a logical ``array``; LoweringError where its products could exceed 16 bits."""
        if not has_short_sums(array, encoding := short_sums(self.words)):
            raise LoweringError(
                f"a weight of shape {list(array.shape)} is not what its encoding {encoding} says: products of it could exceed 16 bits; "
                "make it by mlc.ir.short_sums.with_short_sums, or give it the dense type"
            )
        return self.layout.pack(array)

    def __str__(self) -> str:
        return f"{self.layout} for sums of {self.words} words in 16 bits"
