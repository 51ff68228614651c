"""What a config's knobs mean for the machine: register tile, cache footprints, vector waste, balance between threads.

Templates name their knobs as they like; :data:`ROLES` says which knob sets which extent. A knob without a role still reaches
the learned model as a number.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..codegen.space import Config
from ..codegen.task import Task
from ..codegen.winograd import products_share
from .workload import Anchor, AnchorKind, workload


class Role(enum.Enum):
    """What a knob sets, in the terms of :class:`Anchor`."""

    TILE_ROWS = enum.auto()
    """Rows of the register tile, at most: the rows are cut into equal tiles."""
    TILE_VECTORS = enum.auto()
    """Columns of the register tile, in vectors."""
    BLOCK_DEPTH = enum.auto()
    """Depth of a cache block."""
    UNROLL = enum.auto()
    ROW_GROUPS = enum.auto()
    """Groups the threads are split into along the rows; within a group they split batch and columns."""
    MINIMAL_FILTERING = enum.auto()
    """Results along each axis of a tile of Winograd's algorithm; 0 where products are those of the direct one."""


ROLES: Mapping[str, Role] = {
    "rows": Role.TILE_ROWS,
    "pixels": Role.TILE_ROWS,
    "vectors": Role.TILE_VECTORS,
    "block_depth": Role.BLOCK_DEPTH,
    "unroll": Role.UNROLL,
    "row_groups": Role.ROW_GROUPS,
    "winograd": Role.MINIMAL_FILTERING,
}

TILED = frozenset({AnchorKind.MATMUL, AnchorKind.CONV, AnchorKind.DEPTHWISE, AnchorKind.ATTENTION, AnchorKind.POOLING})
"""Anchors whose rows and columns are computed in register tiles."""


@dataclass(frozen=True)
class Schedule:
    """A config seen by the machine. Footprints are bytes; ``register_pressure`` is accumulators and operands over the registers there are.

    ``vector_efficiency`` is useful lanes over computed ones; ``balance`` the work of all threads over threads times
    the work of the busiest.
    """

    tile_rows: int
    tile_vectors: int
    block_depth: int
    unroll: int
    row_groups: int
    row_tiles: int
    panels: int
    register_pressure: float
    vector_efficiency: float
    balance: float
    row_bytes: int
    panel_bytes: int
    loads_per_multiply: float
    arithmetic: float
    """Products over those of the direct algorithm."""

    @property
    def efficiency(self) -> float:
        """Rough share of the arithmetic peak that the register tile can reach: between 0 and 1, but for algorithms that save products."""
        spill = 1.0 if self.register_pressure <= 1 else 1 / (1 + 2 * (self.register_pressure - 1))
        return self.vector_efficiency * self.balance * spill / max(self.loads_per_multiply, 1.0) / self.arithmetic


def schedule(task: Task, config: Config) -> Schedule:
    """The schedule of ``config``. Knobs without a role are left aside; an anchor without tiles has one-vector tiles."""
    work = workload(task.graph, task.constant_inputs)
    anchor, target = work.anchor, task.target
    given = {ROLES[name]: value for name, value in config.knobs if name in ROLES and value > 0}
    lanes = max(target.vector_lanes, 1)
    vectors = given.get(Role.TILE_VECTORS, 1)
    tiled = anchor.kind in TILED
    rows, row_tiles = _cut(anchor, given.get(Role.TILE_ROWS, 1)) if tiled else (1, max(anchor.rows, 1))
    panels = max(-(-anchor.columns // (vectors * lanes)), 1) if tiled else 1
    groups = given.get(Role.ROW_GROUPS, 1)
    depth = max(min(given.get(Role.BLOCK_DEPTH, anchor.depth), anchor.depth), 1)
    contiguous = anchor.depth if anchor.kind in (AnchorKind.REDUCTION, AnchorKind.NORMALISATION) else anchor.columns
    return Schedule(
        tile_rows=rows,
        tile_vectors=vectors,
        block_depth=depth,
        unroll=given.get(Role.UNROLL, 1),
        row_groups=groups,
        row_tiles=row_tiles,
        panels=panels,
        register_pressure=(rows * vectors + vectors + 1) / target.vector_registers if tiled else 0.0,
        vector_efficiency=max(contiguous, 1) / (max(-(-contiguous // lanes), 1) * lanes),
        balance=_balance(row_tiles, groups) * _balance(anchor.batch * panels, max(task.threads // groups, 1)),
        row_bytes=4 * rows * depth,
        panel_bytes=4 * vectors * lanes * depth,
        # Per inner iteration: `vectors` loads and `rows` broadcasts feed rows * vectors multiply-adds.
        loads_per_multiply=(vectors + rows) / (rows * vectors) if tiled else 1.0,
        arithmetic=products_share(given[Role.MINIMAL_FILTERING]) if Role.MINIMAL_FILTERING in given else 1.0,
    )


def _cut(anchor: Anchor, most: int) -> tuple[int, int]:
    """Rows of the largest tile, and number of tiles, when rows are cut evenly into tiles of at most ``most`` within or along runs."""
    lines, run = (anchor.rows // anchor.run, anchor.run) if 0 < anchor.run < anchor.rows else (1, max(anchor.rows, 1))
    across = -(-run // min(most, run))
    down = -(-lines // max(1, most // run))
    return -(-run // across) * -(-lines // down), across * down


def _balance(parts: int, threads: int) -> float:
    """Share of the threads' time that is work when ``parts`` equal parts are dealt out."""
    return parts / (math.ceil(parts / threads) * threads)
