"""Matrix products as a schedule: their extents, how rows and depth are cut into blocks that caches hold, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir import Dim, Layout, Node
from ..emit import Emitter, Expr, unflatten
from ..target import Kind, Target
from .tile_rows import delays_rows
from .tiling import FUSED, EvenSplit, Pace, alias_penalty, busiest_share, round_up, sharing_cycles, tile_cycles

_FLOAT = 4
_L2_FILLED = 1.25
"""Times the second-level cache up to which reading rows in part from beyond it for each panel costs less than blocks do (measured)."""
_L2_FILLED_NARROW = 0.6
"""The same for narrow numbers, which are multiplied in half the time or less (measured on Zen 5 with weights from memory)."""
_SHALLOWEST = 128
"""Depth of a block below which reading and storing partial sums is no longer negligible."""
_BLOCK_ROWS = 128
"""With so many rows of a block, reading the second operand again for each block is negligible."""
_BLOCK_SHARE = 0.5
"""Of the second-level cache, for the rows of a block; panels and partial sums pass through the rest."""
_FINER_SHARE = 0.375
"""The same for a second depth to try: by 2% quicker on Zen 5 for 128 rows of 3072 with weights from memory (measured)."""
_L3_SHARE = 1 / 8
"""Of the last-level cache, for a second operand that is read again for each block of rows (measured)."""
_EXPOSED = 0.3
"""Share of the time for reading the second operand again that arithmetic does not hide."""
_TILES_OF_A_BLOCK = 8
"""Fewest register tiles along the rows of a block."""
_DISTANT_ROWS = 1.12
"""By how much reading the rows from beyond the second-level cache for each panel slows a product down (measured)."""


@dataclass(frozen=True)
class Product:
    """The product ``[batch, rows, depth] x [batch, depth, columns]`` that an anchor is, and the logical shapes around it.

    ``batch_shape`` are the leading axes of the result that stay apart because ``b`` differs along them, ``row_shape`` those axes
    of the result that together are the rows. ``depth`` counts words of ``per_word`` elements (see :class:`Arithmetic`), the last of
    which may be filled up.
    """

    anchor: Node
    batch_shape: tuple[Dim, ...]
    row_shape: tuple[Dim, ...]
    columns: int
    depth: int
    per_word: int = 1

    @staticmethod
    def of(anchor: Node, per_word: int = 1) -> Product:
        shape = anchor.output.tensor.shape
        b = anchor.inputs[1].tensor.shape
        depth = -(-int(anchor.inputs[0].tensor.shape[-1]) // per_word)
        if anchor.op == "linear":
            return Product(anchor, (), shape[:-1], int(b[0]), depth, per_word)
        if math.prod(b[:-2]) == 1:
            return Product(anchor, (), shape[:-1], int(b[-1]), depth, per_word)
        return Product(anchor, shape[:-2], shape[-2:-1], int(b[-1]), depth, per_word)

    @property
    def batch(self) -> Dim:
        return math.prod(self.batch_shape)

    @property
    def rows(self) -> Dim:
        return math.prod(self.row_shape)

    @property
    def elements(self) -> int:
        """Elements of the reduced axis."""
        return int(self.anchor.inputs[0].tensor.shape[-1])

    @property
    def flops(self) -> float:
        """Of words; static shapes only."""
        return 2.0 * int(self.batch) * int(self.rows) * self.columns * self.depth

    @property
    def bytes_moved(self) -> float:
        """Static shapes only."""
        rows, columns, depth = int(self.rows), self.columns, self.depth
        return float(_FLOAT * int(self.batch) * (rows * depth + depth * columns + rows * columns))

    def result_indices(self, emitter: Emitter, batch: Expr, row: Expr, column: Expr) -> list[Expr]:
        """Logical indices of an element of the anchor's result."""
        return [*unflatten(emitter, self.batch_shape, batch), *unflatten(emitter, self.row_shape, row), column]

    def b_layout(self, panel: int) -> Layout:
        """The packed layout of a constant ``b``."""
        rank = self.anchor.inputs[1].tensor.rank
        column, step = (0, 1) if self.anchor.op == "linear" else (rank - 1, rank - 2)
        words = ((step, self.per_word),) if self.per_word > 1 else ()
        return Layout((*range(rank - 2), column, step), ((column, panel), *words))


def _are_distant(product: Product, target: Target, words: int) -> bool:
    """Whether rows of so many ``words`` in all come from beyond the second-level cache for each panel."""
    return words * _FLOAT > (_L2_FILLED if product.per_word == 1 else _L2_FILLED_NARROW) * target.l2_bytes


def _can_block(product: Product, target: Target) -> bool:
    return target.kind is Kind.CPU and target.l2_bytes > 0 and product.batch == 1


def block_depths(product: Product, target: Target, groups: int) -> tuple[int, ...]:
    """The whole depth, and a smaller one if too few rows of the whole fit the second-level cache (static shapes only)."""
    depth = _block_depth(product, target, groups, _BLOCK_SHARE)
    return (product.depth,) if depth is None else (depth, product.depth)


def finer_depths(product: Product, target: Target, groups: int) -> tuple[int, ...]:
    """A depth below those of :func:`block_depths`, whose blocks leave more of the second-level cache to panels; none where there are no
    blocks, or none that are smaller."""
    depth = _block_depth(product, target, groups, _FINER_SHARE)
    return () if depth is None or depth in block_depths(product, target, groups) else (depth,)


def _block_depth(product: Product, target: Target, groups: int, part: float) -> int | None:
    """The depth of blocks whose rows fill ``part`` of the second-level cache; None where the rows of the whole depth may be distant."""
    rows = max(min(int(product.rows) // groups, _BLOCK_ROWS), 1)
    if not _can_block(product, target) or not _are_distant(product, target, rows * product.depth):
        return None
    most = max(int(part * target.l2_bytes) // (_FLOAT * rows), _SHALLOWEST)
    depth = int(round_up(EvenSplit(product.depth, most).largest, 8))
    return depth if depth < product.depth else None


def row_blocks(product: Product, target: Target, groups: int, split: EvenSplit, depth: int) -> int:
    """Into how many blocks the rows of a thread are cut so that ``depth`` elements of each fit the second-level cache.

    1 where they do anyway, and where reading the second operand for each block costs more than it saves: it is large, or blocks would have
    few tiles.
    """
    rows = int(product.rows) // groups
    is_large = product.depth * product.columns * _FLOAT > _L3_SHARE * target.l3_bytes
    if not _can_block(product, target) or not _are_distant(product, target, rows * depth) or is_large:
        return 1
    blocks = -(-rows * depth * _FLOAT // int(_BLOCK_SHARE * target.l2_bytes))
    return blocks if split.tiles // groups >= _TILES_OF_A_BLOCK * blocks else 1


def predicted_cycles(
    product: Product,
    target: Target,
    parallel: int,
    knobs: Mapping[str, int],
    b_bytes: int = _FLOAT,
    pace: Pace = FUSED,
    *,
    delays: bool = False,
) -> float:
    """Estimated cycles of the slowest thread, where a word of ``b`` takes ``b_bytes`` and rows may be delayed or not (static shapes
    only)."""
    vectors, groups = knobs["vectors"], knobs["row_groups"]
    split = EvenSplit(int(product.rows), knobs["rows"])
    panel = vectors * target.vector_lanes
    full, tail = divmod(product.columns, panel)
    depth = knobs["block_depth"]
    blocks = -(-product.depth // depth)

    def panel_cycles(width: int) -> float:
        total = 0.0
        for run in split.runs:
            delayed = delays and delays_rows(target, run.size, width, depth, run.count)
            cycles = tile_cycles(target, run.size, width, product.depth / blocks, split.tiles, b_bytes, pace, delayed=delayed)
            total += run.count * cycles * blocks
        return total * -(-split.tiles // groups) / split.tiles

    tail_cycles = panel_cycles(-(-tail // target.vector_lanes)) if tail else None
    slowest = busiest_share(panel_cycles(vectors), full, tail_cycles, int(product.batch), parallel // groups)
    parts = row_blocks(product, target, groups, split, depth)
    distant = _can_block(product, target) and _are_distant(product, target, int(product.rows) // groups // parts * depth)
    # Every block of rows reads the second operand again, perhaps from memory.
    again = (parts - 1) * product.depth * product.columns * _FLOAT / target.memory_bandwidth
    slowest += _EXPOSED * again * target.frequency
    batch = int(product.batch) * product.depth
    sharing = sharing_cycles(parallel, groups, _FLOAT * batch * int(product.rows), b_bytes * batch * product.columns)
    return slowest * alias_penalty(product.depth * _FLOAT, split.largest) * (_DISTANT_ROWS if distant else 1.0) + sharing
