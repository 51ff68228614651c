"""Winograd convolution as a schedule: which convolutions it takes, how tiles are cut into blocks, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..target import Kind, Target
from ..task import Numerics, Task
from ..winograd import OUTPUTS, WINDOW
from .conv_geometry import Convolution
from .tiling import EvenSplit, busiest_share, group_penalty, round_up, tile_cycles

_FLOAT = 4
_LINE = 16
"""Elements of a cache line."""
_L2_SHARE = 0.75
"""Of the second-level cache, for the transformed data of a block; products and panels need the rest."""
_MOST_WAITING = 1.5
"""Of reading weights, over multiplying them: layers of ResNet-50 on Zen 5 with 256 channels take 365 us at 2.0, 260 us at 1.0; with 512
channels 560 us at 2.0 and 360 us at 1.0, where the direct schedule takes 485 us."""
_SHARED_DATA = 1.3
_BARRIER_CYCLES = 15000.0
_TRANSFORM_CYCLES = {2: (34.0, 30.0), 4: (115.0, 120.0)}
"""Of one tile of data and one of products, a vector of channels each (measured; arithmetic, loads and stores, tests of borders)."""


def applies(task: Task, conv: Convolution, weight_is_packed: bool) -> bool:
    """Whether the schedule can compute ``conv``: whole vectors of channels, a 3x3 window that moves by single pixels, a constant
    weight. With infinite or NaN data the sums of differences would not be what a direct convolution gives."""
    lanes = task.target.vector_lanes
    return (
        task.numerics is Numerics.FAST
        and task.target.kind is Kind.CPU
        and lanes > 1
        and not task.is_symbolic
        and weight_is_packed
        and conv.spatial == 2
        and conv.window == (WINDOW, WINDOW)
        and conv.stride == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.channels % lanes == 0
        and conv.outputs % lanes == 0
        and min(conv.results) > 1
    )


@dataclass(frozen=True)
class WinogradTiles:
    """Result pixels in tiles of ``outputs`` x ``outputs``; the tiles of all images, row by row, in ``blocks`` of some at a time.

    ``groups`` of threads have equal numbers of blocks. A register tile takes up to ``rows`` tiles of a block.
    """

    conv: Convolution
    outputs: int
    groups: int
    rows: int
    target: Target

    @property
    def side(self) -> int:
        """Data that a tile reads along each axis."""
        return self.outputs + WINDOW - 1

    @property
    def points(self) -> int:
        return self.side**2

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles down and across an image."""
        height, width = self.conv.results
        return -(-height // self.outputs), -(-width // self.outputs)

    @property
    def count(self) -> int:
        """Tiles in all."""
        return int(self.conv.batch) * math.prod(self.grid)

    @property
    def blocks(self) -> EvenSplit:
        """The tiles cut into blocks whose transformed data stays in the second-level cache while every panel is multiplied with it."""
        fitting = int(_L2_SHARE * self.target.l2_bytes) // (self.points * self.conv.channels * _FLOAT)
        most = max(2 * self.rows, fitting - fitting % self.rows)
        parts = -(-self.count // most)
        return EvenSplit(self.count, -(-self.count // round_up(parts, self.groups)))

    @property
    def data_stride(self) -> int:
        """Elements from one point's transformed data to the next: lines of all points must not meet in one set of a cache."""
        return self.largest * self.conv.channels + _LINE

    @property
    def largest(self) -> int:
        """Tiles of the largest block."""
        return self.blocks.largest

    def products_stride(self, panel: int) -> int:
        """Elements from one point's products to the next."""
        return self.largest * panel + _LINE

    def products(self, vectors: int, parallel: int) -> float:
        """Estimated cycles in which the slowest thread multiplies and transforms back."""
        target, conv = self.target, self.conv
        split = EvenSplit(self.largest, self.rows)
        tiles = sum(run.count * tile_cycles(target, run.size, vectors, conv.channels, split.tiles) for run in split.runs)
        inverse = self.largest * vectors * _TRANSFORM_CYCLES[self.outputs][1]
        blocks = -(-self.blocks.tiles // self.groups)
        panel = vectors * target.vector_lanes
        return busiest_share((self.points * tiles + inverse) * blocks, conv.outputs // panel, None, 1, parallel // self.groups)

    @property
    def weight_bytes(self) -> int:
        """Of the transformed weights."""
        return _FLOAT * self.points * self.conv.channels * self.conv.outputs

    @property
    def reading(self) -> float:
        """Cycles for reading the transformed weights, which in a network come from memory, once for each group of threads.

        The direct schedule's are a quarter of them or less, so that they hide behind arithmetic.
        """
        return self.groups * self.weight_bytes / self.target.memory_bandwidth * self.target.frequency

    def waits(self, vectors: int, parallel: int) -> bool:
        """Whether the threads would mostly wait for weights that the second-level cache cannot hold."""
        return self.weight_bytes > self.target.l2_bytes and self.reading > _MOST_WAITING * self.products(vectors, parallel)

    def cycles(self, vectors: int, parallel: int) -> float:
        """Estimated cycles of the slowest thread."""
        data = self.count * (self.conv.channels // self.target.vector_lanes) * _TRANSFORM_CYCLES[self.outputs][0] / parallel
        if self.groups < parallel:
            # Threads wait for each other, and find what the others transformed in the last level cache only.
            data = _SHARED_DATA * data + _BARRIER_CYCLES
        return data + max(self.products(vectors, parallel), self.reading) * group_penalty(self.groups)


def candidates(conv: Convolution, target: Target, parallel: int, knobs: Mapping[str, int]) -> list[tuple[float, dict[str, int]]]:
    """Points of the space, each with its estimated cycles; ``knobs`` are further ones to take over.

    None that would mostly wait for weights: measured by itself, with weights in the caches, such a kernel looks better than it is.
    """
    found = []
    for outputs in OUTPUTS:
        for groups in [group for group in range(1, parallel + 1) if parallel % group == 0]:
            for vectors in (1, 2, 3, 4, 6):
                rows = (target.vector_registers - 1 - vectors) // vectors
                if conv.outputs % (vectors * target.vector_lanes) or rows < 2:
                    continue
                tiles = WinogradTiles(conv, outputs, groups, rows, target)
                if tiles.blocks.tiles < groups or tiles.waits(vectors, parallel):
                    continue
                point = {**knobs, "pixels": rows, "row_groups": groups, "vectors": vectors, "winograd": outputs}
                found.append((tiles.cycles(vectors, parallel), point))
    return found
