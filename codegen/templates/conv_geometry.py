"""The geometry of a direct convolution: its extents, where pixels of the operand lie, and how result pixels are cut into tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...ir import Dim, Layout, Node
from ..emit import Expr, storage_dtype
from ..emit.attributes import attributes_of
from ..target import Target
from .region import AnchoredRegion
from .register_tile import ReductionLoop, merge_loops
from .tiling import FUSED, EvenSplit, Pace, aliases, tile_cycles

_FLOAT = 4
_PLANAR_CHANNELS = 8
"""An operand with fewer channels than this keeps its channels apart, as they come: pixels would be too short to copy in vectors."""


@dataclass(frozen=True)
class Convolution:
    """The geometry of a ``conv`` over two spatial axes; one over a single axis has a first axis of extent 1.

    Input channels are read in words of ``per_word`` (see :class:`Arithmetic`).
    """

    anchor: Node
    per_word: int = 1

    @cached_property
    def spatial(self) -> int:
        return self.anchor.output.tensor.rank - 2

    def _extents(self, shape: Sequence[Dim]) -> tuple[int, int]:
        return (1, int(shape[2])) if self.spatial == 1 else (int(shape[2]), int(shape[3]))

    def _pair(self, name: str, default: Any) -> tuple[Any, Any]:
        values = attributes_of(self.anchor)[name]
        return (default, values[0]) if self.spatial == 1 else (values[0], values[1])

    @cached_property
    def batch(self) -> Dim:
        """The only extent that may be symbolic."""
        return self.anchor.output.tensor.shape[0]

    @cached_property
    def groups(self) -> int:
        return int(attributes_of(self.anchor)["groups"])

    @cached_property
    def channels(self) -> int:
        """Input channels of a group."""
        return self.anchor.inputs[1].tensor.static_shape[1]

    @property
    def words(self) -> int:
        """Words of the input channels of a group, the last of which may be filled up."""
        return -(-self.channels // self.per_word)

    @cached_property
    def outputs(self) -> int:
        """Output channels of a group."""
        return int(self.anchor.output.tensor.shape[1]) // self.groups

    @cached_property
    def extents(self) -> tuple[int, int]:
        return self._extents(self.anchor.inputs[0].tensor.shape)

    @cached_property
    def results(self) -> tuple[int, int]:
        return self._extents(self.anchor.output.tensor.shape)

    @cached_property
    def window(self) -> tuple[int, int]:
        shape = self.anchor.inputs[1].tensor.static_shape
        return (1, shape[2]) if self.spatial == 1 else (shape[2], shape[3])

    @cached_property
    def stride(self) -> tuple[int, int]:
        return self._pair("stride", 1)

    @cached_property
    def dilation(self) -> tuple[int, int]:
        return self._pair("dilation", 1)

    @cached_property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self._pair("padding", (0, 0))

    @cached_property
    def padded(self) -> tuple[int, int]:
        """Extents of the part of the padded operand that is read."""
        first, second = (
            (result - 1) * stride + (window - 1) * dilation + 1
            for result, stride, window, dilation in zip(self.results, self.stride, self.window, self.dilation, strict=True)
        )
        return first, second

    @property
    def filling(self) -> int:
        """What padding holds."""
        return int(attributes_of(self.anchor)["filling"])

    @cached_property
    def depth(self) -> int:
        """Words that are multiplied for a result."""
        return self.words * math.prod(self.window)

    @property
    def is_depthwise(self) -> bool:
        return self.channels == 1 and self.outputs == 1 and self.groups > 1

    @property
    def flops(self) -> float:
        """Of words."""
        return 2.0 * self.anchor.output.tensor.elements * self.depth

    @property
    def bytes_moved(self) -> float:
        return float(sum(value.tensor.nbytes for value in (*self.anchor.inputs, self.anchor.output)))

    @property
    def has_padding(self) -> bool:
        return any(low or high for low, high in self.padding)

    def result_indices(self, batch: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        return [batch, channel, x] if self.spatial == 1 else [batch, channel, y, x]

    def operand_indices(self, batch: Expr, channel: Expr, y: Expr, x: Expr) -> list[Expr]:
        return [batch, channel, x] if self.spatial == 1 else [batch, channel, y, x]


@dataclass(frozen=True)
class Pixels:
    """How a register tile finds the pixels of the operand: strides, in words, of image, word of channels, row and column in a buffer.

    ``staged``: the kernel copies the operand there, with its padding; else it is where it lies. ``planar``: channels lie apart.
    """

    batch: int
    channel: int
    row: int
    column: int
    staged: bool
    planar: bool

    @staticmethod
    def of(region: AnchoredRegion, conv: Convolution, target: Target, dtype: str = "float32") -> Pixels:
        """``dtype`` is the TIR dtype that the elements must have."""
        x = region.anchor.inputs[0]
        strides = None
        if x.node is None:
            strides = [int(stride) for stride in x.tensor.layout.strides(x.tensor.shape)]
            if conv.spatial == 1:
                strides.insert(2, 0)
        channels = conv.channels * conv.groups
        planar = conv.per_word == 1 and channels < _PLANAR_CHANNELS and (strides is None or strides[1] != 1)
        words = strides is not None and strides[1] == 1 and conv.channels % conv.per_word == 0
        as_it_lies = not conv.has_padding and storage_dtype(x.tensor.dtype) == dtype and (words or planar)
        if strides is not None and as_it_lies:
            batch, row, column = (strides[axis] // conv.per_word for axis in (0, 2, 3))
            return Pixels(batch, strides[1], row, column, False, planar)
        height, width = conv.padded
        if planar:
            return Pixels(channels * height * width, height * width, width, 1, True, True)
        channels = conv.words * conv.groups
        pixel = channels
        if aliases(target, conv.stride[1] * channels * _FLOAT, target.vector_registers // 2):
            pixel += target.vector_lanes
        return Pixels(height * width * pixel, 1, width * pixel, pixel, True, False)

    def is_down_first(self, conv: Convolution) -> bool:
        """Whether the innermost loop walks down the window: where channels lie apart, or all are one word."""
        return self.planar or (conv.words == 1 and conv.per_word > 1)

    def nest(self, conv: Convolution, panel: int) -> tuple[ReductionLoop, ...]:
        """The reduction over window and channels, in the order of the packed weight."""
        (height, width), (down, right) = conv.window, conv.dilation
        rows, columns, channels = (
            (height, down * self.row),
            (width, right * self.column),
            (conv.words, self.channel),
        )
        # Steps of the innermost loop, which is unrolled, must not read each other's pixels: LLVM would keep them all in registers.
        order = (columns, channels, rows) if self.is_down_first(conv) else (rows, columns, channels)
        loops = []
        step = panel * conv.depth
        for extent, stride in order:
            step //= extent
            loops.append(ReductionLoop(extent, stride, step))
        return merge_loops(loops)

    def weight_layout(self, conv: Convolution, panel: int) -> Layout:
        axes = tuple(range(2, 2 + conv.spatial))
        words = ((1, conv.per_word),) if conv.per_word > 1 else ()
        return Layout((0, axes[-1], 1, *axes[:-1]) if self.is_down_first(conv) else (0, *axes, 1), ((0, panel), *words))


@dataclass(frozen=True)
class PixelTiles:
    """Output pixels cut into register tiles of whole rows, or of parts of one row.

    Where output pixels follow each other in the operand as in the result, all are one long row (``flat``).
    """

    rows: EvenSplit
    columns: EvenSplit
    flat: bool

    @staticmethod
    def of(conv: Convolution, pixels: Pixels, most: int) -> PixelTiles:
        height, width = conv.results
        flat = conv.stride[0] * pixels.row == width * conv.stride[1] * pixels.column
        if flat:
            height, width = 1, height * width
        return PixelTiles(EvenSplit(height, max(1, most // width)), EvenSplit(width, min(most, width)), flat)

    @property
    def largest(self) -> int:
        return self.rows.largest * self.columns.largest

    @property
    def shared(self) -> EvenSplit:
        """The axis that is shared among threads."""
        return self.columns if self.rows.tiles == 1 else self.rows

    def cycles(
        self, target: Target, vectors: int, depth: int, pace: Pace = FUSED, delays: Callable[[int, int, int], bool] | None = None
    ) -> float:
        """Estimated cycles of all tiles; those are ``delayed`` for whose pixels, vectors and number ``delays`` holds."""
        tiles = self.rows.tiles * self.columns.tiles
        total = 0.0
        for down in self.rows.runs:
            for across in self.columns.runs:
                pixels, count = down.size * across.size, down.count * across.count
                delayed = delays is not None and delays(pixels, vectors, count)
                total += count * tile_cycles(target, pixels, vectors, depth, tiles, pace=pace, delayed=delayed)
        return total
