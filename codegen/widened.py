"""Bytes stored as 16-bit integers, for processors that multiply no bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir import Layout


@dataclass(frozen=True)
class WidenedBytes:
    """A constant of bytes in ``layout``, each as the two bytes of a 16-bit integer (the lower one first)."""

    layout: Layout

    def physical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """In bytes."""
        return (*self.layout.physical_shape(shape), 2)

    def pack(self, array: np.ndarray) -> np.ndarray:
        """The stored array of a logical ``array`` of 8-bit integers, as its own dtype; padded lanes are zero."""
        wide = self.layout.pack(array).astype("<i2")
        return wide.view(array.dtype).reshape(self.physical_shape(array.shape))

    def __str__(self) -> str:
        return f"{self.layout} in 16 bits"
