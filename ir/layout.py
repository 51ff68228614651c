"""Physical layouts: in which order the elements of a logical tensor lie in memory."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import TypeInferenceError


class Padding(enum.Enum):
    """What the lanes beyond a logical extent contain in a blocked layout."""

    UNDEFINED = "?"
    ZERO = "0"


@dataclass(frozen=True)
class Layout:
    """A permutation of the logical axes, outermost first, then inner blocks.

    ``order`` lists each logical axis once. Each ``(axis, size)`` in ``blocks`` splits that axis by ``size``: the axis' position in
    ``order`` then runs over ``ceil(extent / size)`` blocks and the block's elements follow behind all of ``order``. So NCHW16c is
    ``Layout((0, 1, 2, 3), ((1, 16),))`` and NHWC is ``Layout((0, 2, 3, 1))``. A matmul weight of shape [K, N] packed in panels of
    32 columns is ``Layout((1, 0), ((1, 32),))``: panels, then rows, then 32 columns.
    """

    order: tuple[int, ...]
    blocks: tuple[tuple[int, int], ...] = ()
    padding: Padding = Padding.UNDEFINED

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise TypeInferenceError(f"layout order {self.order} is not a permutation of the axes 0..{len(self.order) - 1}")
        for axis, size in self.blocks:
            if not 0 <= axis < len(self.order) or size < 1:
                raise TypeInferenceError(f"layout block {axis}x{size} needs an axis below {len(self.order)} and a size of at least 1")

    @staticmethod
    def row_major(rank: int) -> Layout:
        return Layout(tuple(range(rank)))

    @property
    def rank(self) -> int:
        return len(self.order)

    @cached_property
    def is_row_major(self) -> bool:
        return self.order == tuple(range(self.rank)) and not self.blocks

    @property
    def is_blocked(self) -> bool:
        return bool(self.blocks)

    def physical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Extents of the stored array for a static logical ``shape``, outermost first."""
        extents = self._block_counts(shape)
        return tuple(extents[axis] for axis in self.order) + tuple(size for _, size in self.blocks)

    def _block_counts(self, shape: Sequence[int]) -> list[int]:
        """For each logical axis how many (innermost) blocks, or elements if it has none, it is split into."""
        if len(shape) != self.rank:
            raise TypeInferenceError(f"layout {self} has rank {self.rank}, the shape {list(shape)} has {len(shape)}")
        extents = list(shape)
        for axis, size in self.blocks:
            extents[axis] = -(-extents[axis] // size)
        return extents

    def strides(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Element strides of the logical axes (unblocked layouts only)."""
        if self.blocks:
            raise TypeInferenceError(f"the blocked layout {self} has no strides per logical axis")
        self._block_counts(shape)  # checks the rank
        strides = [0] * self.rank
        step = 1
        for axis in reversed(self.order):
            strides[axis] = step
            step *= shape[axis]
        return tuple(strides)

    def pack(self, array: np.ndarray) -> np.ndarray:
        """The stored, C-contiguous array of a logical ``array``; padded lanes are zero."""
        shape = array.shape
        extents = self._block_counts(shape)
        pads = [0] * self.rank
        inner_of: dict[int, list[int]] = {}
        for axis, size in self.blocks:
            inner_of.setdefault(axis, []).append(size)
        for axis, sizes in inner_of.items():
            whole = extents[axis] * math.prod(sizes)
            pads[axis] = whole - array.shape[axis]
        if any(pads):
            array = np.pad(array, [(0, pad) for pad in pads])
        split_shape: list[int] = []
        outer_position: list[int] = []
        inner_position: dict[int, list[int]] = {}
        for axis in range(self.rank):
            outer_position.append(len(split_shape))
            split_shape.append(extents[axis])
            # The last block of an axis is the innermost part of its index.
            for size in inner_of.get(axis, []):
                inner_position.setdefault(axis, []).append(len(split_shape))
                split_shape.append(size)
        order = [outer_position[axis] for axis in self.order]
        taken = dict.fromkeys(inner_position, 0)
        for axis, _ in self.blocks:
            order.append(inner_position[axis][taken[axis]])
            taken[axis] += 1
        # The last reshape, because ascontiguousarray turns 0-d into 1-d.
        return np.ascontiguousarray(array.reshape(split_shape).transpose(order)).reshape(self.physical_shape(shape))

    def unpack(self, stored: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The logical array, of ``shape``, of a ``stored`` one: the inverse of :meth:`pack`."""
        if stored.size != math.prod(self.physical_shape(shape)):
            raise TypeInferenceError(f"{stored.size} stored elements are not those of {list(shape)} in layout {self}")
        index = np.arange(math.prod(shape), dtype=np.int64).reshape(tuple(shape)) + 1
        packed = self.pack(index).reshape(-1)
        flat = np.empty(math.prod(shape), dtype=stored.dtype)
        valid = packed > 0
        flat[packed[valid] - 1] = stored.reshape(-1)[valid]
        return flat.reshape(tuple(shape))

    def __str__(self) -> str:
        text = ",".join(str(axis) for axis in self.order)
        if self.blocks:
            text += ":" + ",".join(f"{axis}x{size}" for axis, size in self.blocks)
            if self.padding is Padding.ZERO:
                text += ":0"
        return "{" + text + "}"
