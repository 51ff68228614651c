"""Winograd's minimal filtering of 3x3 windows: its matrices, and how a weight is stored for it.

F(m, 3) computes m x m results of a convolution from a tile of (m + 2) x (m + 2) data with (m + 2)**2 products for each pair of
channels instead of 9 m**2 (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016). The points of interpolation
are 0, 1, -1 for m = 2, and 0, +-1/sqrt(2), +-sqrt(2) for m = 4, besides infinity: reciprocal symmetric points halve the rounding
error of the usual 0, +-1, +-2 (compare Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution", 2020).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ir import Layout

WINDOW = 3
SMALL, LARGE = math.sqrt(0.5), math.sqrt(2.0)
"""The positive finite points of F(4, 3)."""
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, SMALL, -SMALL, LARGE, -LARGE)}
OUTPUTS = tuple(_POINTS)
"""The m for which there is an F(m, 3)."""


def products_share(outputs: int) -> float:
    """Products of F(m, 3) in two dimensions over those of a direct convolution."""
    return (outputs + WINDOW - 1) ** 2 / (WINDOW * outputs) ** 2


@functools.cache
def filter_matrix(outputs: int) -> np.ndarray:
    """G, float64 [m + 2, 3]: a window g becomes G g G^T. The factors that belong to the data's matrix are moved in here.

    Row i holds the powers of point i over the product of its distances from the other finite points; the last row stands for infinity.
    """
    points = _POINTS[outputs]
    rows = []
    for point in points:
        distance = math.prod(point - other for other in points if other != point)
        rows.append([point**power / distance for power in range(WINDOW)])
    return np.array([*rows, [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class WinogradWeight:
    """A weight [outputs, channels, 3, 3] stored as transformed windows in panels: [outputs / panel, (m + 2)**2, channels, panel].

    Takes the place of a :class:`Layout` where a kernel says how it wants a constant. Transformed in float64, stored as float32.
    """

    outputs: int
    panel: int

    @property
    def points(self) -> int:
        """Products for each tile and pair of channels."""
        return (self.outputs + WINDOW - 1) ** 2

    @property
    def _layout(self) -> Layout:
        return Layout((0, 1, 2), ((0, self.panel),))

    def physical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Extents of the stored array for a weight of ``shape``."""
        return self._layout.physical_shape((shape[0], self.points, shape[1]))

    def pack(self, array: np.ndarray) -> np.ndarray:
        """The stored array of a weight."""
        matrix = filter_matrix(self.outputs)
        half = np.tensordot(array.astype(np.float64), matrix, axes=(3, 1))  # [outputs, channels, 3, m + 2]
        whole = np.tensordot(half, matrix, axes=(2, 1))  # [outputs, channels, column, row]
        windows = whole.transpose(0, 3, 2, 1).reshape(array.shape[0], self.points, array.shape[1])
        return self._layout.pack(windows.astype(np.float32))

    def __str__(self) -> str:
        return f"{{winograd {self.outputs} panel {self.panel}}}"
