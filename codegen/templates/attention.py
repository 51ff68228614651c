"""Attention that never stores the score matrix.

For a block of queries the keys are visited in blocks; the softmax is kept normalised on the fly by a running maximum and sum (Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022). Scores are computed with queries
along the vector lanes, so that maximum and sum are elementwise; their product with the values has the value's width along the lanes, so
that neither keys nor values need packing, and the output is written as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import DType, Graph, Value
from ..emit import PARALLEL, SERIAL, VECTORIZED, Emitter, Expr, Kernel, index
from ..emit.affine import Strided, strided
from ..emit.math import exp_nonpositive, f32
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .region import AnchoredRegion, Epilogue
from .register_tile import ReductionLoop, RegisterTile
from .tiling import EvenSplit, divisors, fits_registers, round_up, share, threads, useful_threads
from .transpose import transposed_tile

_FLOAT = 4
_LOWEST = -3.4028234663852886e38
"""Where the running maximum starts: finite, so that a row without any key stays zero instead of becoming NaN."""

_STACK_BYTES = 96 * 1024
"""Scratch of one block of queries stays below this."""


@dataclass(frozen=True)
class Problem:
    """The extents of an attention. ``stacked`` query heads that share a key head are treated as further queries of one head."""

    batch: int
    heads: int
    kv_heads: int
    length: int
    keys: int
    width: int
    value_width: int
    causal: bool
    stacked: int

    @staticmethod
    def of(region: AnchoredRegion, target: Target) -> Problem:
        q, k, v = (value.tensor.static_shape for value in region.anchor.inputs[:3])
        group = q[1] // k[1]
        # A few queries would leave most lanes empty: those of the heads that share keys fill them.
        stacked = group if q[2] < target.vector_lanes else 1
        return Problem(q[0], q[1], k[1], q[2], k[2], q[3], v[3], bool(region.anchor.attributes["is_causal"]), stacked)

    @property
    def queries(self) -> int:
        """Queries that one block may hold: those of a head, or of the heads stacked on it."""
        return self.length * self.stacked

    @property
    def groups(self) -> int:
        """Heads after stacking, over the whole batch."""
        return self.batch * self.heads // self.stacked

    @property
    def flops(self) -> float:
        whole = 2.0 * self.batch * self.heads * self.length * self.keys * (self.width + self.value_width)
        return whole / 2 if self.causal else whole

    @property
    def bytes_moved(self) -> float:
        queries = self.batch * self.heads * self.length * (self.width + self.value_width)
        return float(_FLOAT * (queries + self.batch * self.kv_heads * self.keys * (self.width + self.value_width)))


class AttentionTemplate(Template):
    """Regions around one ``attention``, with views and elementwise operations before and elementwise operations after it.

    Knobs: ``vectors`` of queries in a block, ``keys`` in a block.
    """

    name = "attention"
    revision = 1

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("attention",), any_dtype=True)
        return region is not None and all(
            value.tensor.dtype is DType.FLOAT32 for value in (*region.anchor.inputs[:3], region.anchor.output)
        )

    def space(self, task: Task) -> Space:
        target = task.target
        problem = Problem.of(_region(task), target)
        available = -(-problem.queries // target.vector_lanes)
        padded_width = round_up(problem.value_width, target.vector_lanes)

        def allows(knobs: Any) -> bool:
            lanes = knobs["vectors"] * target.vector_lanes
            scratch = _FLOAT * lanes * (problem.width + padded_width + knobs["keys"] + 4)
            return scratch <= _STACK_BYTES and fits_registers(target, 2, knobs["vectors"])

        vectors = tuple(count for count in (1, 2, 3, 4) if count <= available)
        keys = tuple(sorted({min(count, problem.keys) for count in (32, 64, 128)}))
        points = [{"keys": k, "vectors": v} for v in vectors for k in keys if allows({"keys": k, "vectors": v})]
        if not points:
            raise LoweringError(f"attention of width {problem.width} needs more scratch than {_STACK_BYTES} bytes; use narrower heads")

        def cost(knobs: Any) -> tuple[float, int]:
            lanes = sum(run.count * run.size for run in EvenSplit(available, knobs["vectors"]).runs) * target.vector_lanes
            rows = _key_rows(target, knobs["vectors"])
            step = max(rows * knobs["vectors"] / target.fma_units, (rows + knobs["vectors"]) / 2, 4) / (rows * knobs["vectors"])
            return (lanes * step, abs(knobs["keys"] - min(64, problem.keys)))

        default = Config.of(self.name, min(points, key=cost))
        return Space(self.name, (("keys", keys), ("vectors", vectors)), default, allows)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config).lower()


def _region(task: Task) -> AnchoredRegion:
    region = AnchoredRegion.find(task.graph, ("attention",), any_dtype=True)
    if region is None:
        raise LoweringError("the attention template takes regions with one attention; ask takes() first")
    return region


def _key_rows(target: Target, vectors: int) -> int:
    """Keys of a register tile of scores."""
    return max(1, min(14, (target.vector_registers - vectors - 1) // vectors))


@dataclass(frozen=True)
class _Operand:
    """Keys or values in memory: a flat buffer, where head ``(batch, head)`` starts, and strides in elements."""

    buffer: Any
    offset: int
    batch_stride: int
    head_stride: int
    row_stride: int
    column_stride: int

    def at(self, batch: Expr, head: Expr, row: Expr) -> Expr:
        return batch * self.batch_stride + head * self.head_stride + row * self.row_stride + self.offset


@dataclass(frozen=True)
class _Block:
    """A block of queries under construction: which head, where it starts, how many vectors, and its scratch."""

    batch: Expr
    head: Expr
    kv_head: Expr
    start: Expr
    vectors: int
    queries: Any
    scores: Any
    output: Any
    highest: Any
    total: Any
    factor: Any


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.region = _region(task)
        self.problem = problem = Problem.of(self.region, task.target)
        self.parallel = useful_threads(self.target, task.threads, problem.flops, problem.bytes_moved)
        self.split = EvenSplit(-(-problem.queries // self.lanes), config["vectors"])
        self.key_split = EvenSplit(problem.keys, config["keys"])
        self.scale = float(self.region.anchor.attributes["scale"])  # type: ignore[arg-type]
        self.q, self.k, self.v, *masks = self.region.anchor.inputs
        self.mask: Value | None = masks[0] if masks else None
        self.output_width = round_up(problem.value_width, self.lanes)
        keys = strided(task.graph, self.k)
        values = strided(task.graph, self.v)
        if values is not None and (values.strides[3] != 1 or problem.value_width % self.lanes):
            values = None
        copied_heads = problem.batch * problem.kv_heads * problem.keys
        key_bytes = 0 if keys is not None else round_up(copied_heads * problem.width * _FLOAT, 64)
        value_bytes = 0 if values is not None else round_up(copied_heads * self.output_width * _FLOAT, 64)
        mask_bytes = round_up(self._mask_rows() * self.split.extent * self.lanes * _FLOAT, 64)
        self.kernel = Kernel(self.region.graph, workspace_bytes=key_bytes + value_bytes + mask_bytes)
        self.emitter: Emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        self.value_at = self.epilogue.evaluator.value_at
        self.keys = self._operand(keys, self.k, problem.width, problem.width, 0)
        self.values = self._operand(values, self.v, problem.value_width, self.output_width, key_bytes)
        self.staged_mask = self.kernel.workspace(mask_bytes // _FLOAT, "float32", key_bytes + value_bytes, "mask") if mask_bytes else None
        if self.staged_mask is not None:
            self._stage_mask()

    # Operands

    def _operand(self, found: Strided | None, value: Value, width: int, padded: int, byte_offset: int) -> _Operand:
        """``value`` where it lies, or evaluated into the workspace when it is no strided view of an input."""
        if found is not None:
            return _Operand(self.kernel.inputs[found.value], found.offset, *found.strides)
        problem, emitter = self.problem, self.emitter
        heads, rows = problem.kv_heads, problem.keys
        count = problem.batch * heads * rows
        buffer = self.kernel.workspace(count * padded, "float32", byte_offset, "staged")
        with emitter.loop(count, PARALLEL if self.parallel > 1 else SERIAL, "row") as position:
            batch = emitter.simplify(position // (heads * rows))
            head = emitter.simplify(position // rows % heads)
            row = emitter.simplify(position % rows)
            for start in range(0, padded, self.lanes):
                exist = min(self.lanes, width - start)
                with emitter.loop(exist, VECTORIZED, "lane") as lane:
                    emitter.store(buffer, self.value_at(value, [batch, head, row, lane + start]), position * padded + start + lane)
                missing = min(self.lanes, padded - start) - exist
                if missing:
                    with emitter.loop(missing, VECTORIZED, "lane") as lane:
                        emitter.store(buffer, f32(0.0), position * padded + start + exist + lane)
        return _Operand(buffer, 0, heads * rows * padded, rows * padded, padded, 1)

    def _mask_shape(self) -> tuple[int, ...]:
        assert self.mask is not None
        shape = self.mask.tensor.static_shape
        return (1,) * (4 - len(shape)) + shape

    def _mask_rows(self) -> int:
        """Rows (one per key) of the staged mask; 0 when the mask is read where it lies."""
        if self.mask is None or self.problem.stacked > 1:
            return 0
        batch, heads, queries, keys = self._mask_shape()
        return batch * heads * keys if queries > 1 else 0

    def _stage_mask(self) -> None:
        """Writes the mask as numbers to add, queries innermost, so that a block reads it in whole vectors."""
        emitter = self.emitter
        _, heads, queries, keys = self._mask_shape()
        width = self.split.extent * self.lanes
        with emitter.loop(self._mask_rows(), PARALLEL if self.parallel > 1 else SERIAL, "row") as row:
            batch, head = emitter.simplify(row // (heads * keys)), emitter.simplify(row // keys % heads)
            key = emitter.simplify(row % keys)
            with (
                emitter.loop(self.split.extent, name="vector") as vector,
                emitter.loop(self.lanes, VECTORIZED, "lane") as lane,
            ):
                query = tirx.Min(vector * self.lanes + lane, index(queries - 1))
                addend = self._addend(self._mask_element(batch, head, query, key))
                emitter.store(self.staged_mask, addend, row * width + vector * self.lanes + lane)

    def _mask_element(self, batch: Expr, head: Expr, query: Expr, key: Expr) -> Expr:
        assert self.mask is not None
        shape = self._mask_shape()
        full = [index(0) if extent == 1 else place for extent, place in zip(shape, (batch, head, query, key), strict=True)]
        return self.value_at(self.mask, full[4 - self.mask.tensor.rank :])

    def _addend(self, element: Expr) -> Expr:
        """A mask's element as a number to add to a score."""
        assert self.mask is not None
        if self.mask.tensor.dtype is DType.BOOL:
            return tirx.Select(element, f32(0.0), f32(-math.inf))
        return element

    # The kernel

    def lower(self) -> LoweredKernel:
        emitter, problem = self.emitter, self.problem
        with threads(emitter, self.parallel) as thread:
            for run in self.split.runs:
                with (
                    share(emitter, thread, self.parallel, problem.groups * run.count) as (low, high),
                    emitter.loop(emitter.simplify(high - low), name="block", start=low) as item,
                ):
                    group = self._bounded(item // run.count, problem.groups, "group")
                    number = self._bounded(item % run.count, run.count, "number")
                    start = emitter.bind(emitter.simplify((number * run.size + run.start) * self.lanes), "query")
                    self._block(group, start, run.size)
        return LoweredKernel(self.kernel.finish(), {}, self.kernel.workspace_bytes)

    def _block(self, group: Expr, start: Expr, vectors: int) -> None:
        """The outputs of ``vectors`` vectors of queries from ``start`` on, of one head (or heads stacked)."""
        emitter, problem = self.emitter, self.problem
        width = vectors * self.lanes
        heads = problem.heads // problem.stacked
        largest = self.key_split.largest
        head = self._bounded(group % heads, heads, "head")
        sharing = problem.heads // problem.kv_heads // problem.stacked
        block = _Block(
            batch=self._bounded(group // heads, problem.batch, "batch"),
            head=head,
            kv_head=self._bounded(head // sharing, problem.kv_heads, "kv_head"),
            start=start,
            vectors=vectors,
            queries=emitter.allocate(problem.width * width, "float32", "queries"),
            scores=emitter.allocate(largest * width, "float32", "scores"),
            output=emitter.allocate(width * self.output_width, "float32", "output"),
            highest=emitter.allocate(width, "float32", "highest"),
            total=emitter.allocate(width, "float32", "total"),
            factor=emitter.allocate(width, "float32", "factor"),
        )
        self._load_queries(block)
        self._fill(block.highest, width, _LOWEST)
        self._fill(block.total, width, 0.0)
        self._fill(block.output, width * self.output_width, 0.0)
        for run in self.key_split.runs:
            with self.key_split.loop(emitter, run) as first_key:
                if problem.causal and problem.stacked == 1:
                    with emitter.when(first_key < block.start + width):
                        self._keys(block, first_key, run.size)
                else:
                    self._keys(block, first_key, run.size)
        self._store(block)

    def _head_and_query(self, block: _Block, lane: Expr) -> tuple[Expr, Expr]:
        """Head and position of the query at ``lane`` of a block; lanes beyond the last query repeat it."""
        query = tirx.Min(block.start + lane, index(self.problem.queries - 1))
        if self.problem.stacked == 1:
            return block.head, query
        return block.head * self.problem.stacked + query // self.problem.length, query % self.problem.length

    def _load_queries(self, block: _Block) -> None:
        """Scaled queries, transposed: lanes are queries."""
        emitter, width, lanes = self.emitter, self.problem.width, self.lanes
        count = block.vectors * lanes

        def element(lane: Expr, column: Expr) -> Expr:
            head, query = self._head_and_query(block, lane)
            return self.value_at(self.q, [block.batch, head, query, column]) * f32(self.scale)

        if width < lanes or lanes & (lanes - 1):
            with emitter.loop(width, name="column") as column, emitter.loop(count, VECTORIZED, "lane") as lane:
                emitter.store(block.queries, element(lane, column), column * count + lane)
            return
        tiles = -(-width // lanes)
        with emitter.loop(tiles, name="tile") as tile:
            # The last tile overlaps the one before it where the width is no multiple of the lanes.
            first = emitter.bind(tirx.Min(tile * lanes, index(width - lanes)), "column")
            for vector in range(block.vectors):
                with emitter.scope():
                    base = vector * lanes
                    transposed_tile(
                        emitter,
                        lanes,
                        "float32",
                        lambda row, column, base=base: element(row + base, first + column),  # type: ignore[misc]
                        lambda column, base=base: (block.queries, (first + column) * count + base),  # type: ignore[misc]
                    )

    def _keys(self, block: _Block, first_key: Expr, keys: int) -> None:
        """Takes ``keys`` keys from ``first_key`` on into account."""
        self._scores(block, first_key, keys)
        if self.problem.causal:
            last_seen = first_key + keys - 1
            if self.problem.stacked == 1:
                with self.emitter.when(last_seen > block.start):
                    self._mask_future(block, first_key, keys)
            else:
                self._mask_future(block, first_key, keys)
        self._softmax(block, first_key, keys)
        self._accumulate(block, first_key, keys)

    def _scores(self, block: _Block, first_key: Expr, keys: int) -> None:
        emitter, width = self.emitter, block.vectors * self.lanes
        rows = EvenSplit(keys, _key_rows(self.target, block.vectors))
        for run in rows.runs:
            with rows.loop(emitter, run) as row:
                tile = RegisterTile(emitter, self.target, run.size, block.vectors)
                place = emitter.bind(emitter.simplify(self.keys.at(block.batch, block.kv_head, first_key + row)), "key_at")
                offsets = [step * self.keys.row_stride for step in range(run.size)]
                nest = [ReductionLoop(self.problem.width, self.keys.column_stride, width)]
                tile.accumulate(self.keys.buffer, place, offsets, block.queries, index(0), nest, 4)
                for step in range(run.size):
                    for vector in range(block.vectors):
                        with tile.lanes_of(step, vector, self.lanes) as (lane, score):
                            emitter.store(block.scores, score, (row + step) * width + vector * self.lanes + lane)

    def _mask_future(self, block: _Block, first_key: Expr, keys: int) -> None:
        """Gives the scores of keys that come after their query minus infinity."""
        emitter, width = self.emitter, block.vectors * self.lanes
        with emitter.loop(keys, name="key") as key:
            for vector in range(block.vectors):
                with emitter.loop(self.lanes, VECTORIZED, "lane") as lane:
                    _, query = self._head_and_query(block, lane + vector * self.lanes)
                    offset = key * width + vector * self.lanes + lane
                    score = emitter.load(block.scores, offset)
                    emitter.store(block.scores, tirx.Select(first_key + key <= query, score, f32(-math.inf)), offset)

    def _masked(self, block: _Block, score: Expr, key: Expr, lane: Expr) -> Expr:
        if self.mask is None:
            return score
        if self.staged_mask is None:
            head, query = self._head_and_query(block, lane)
            return score + self._addend(self._mask_element(block.batch, head, query, key))
        batch, heads, _, keys = self._mask_shape()
        row: Expr = index(0)
        if batch > 1:
            row = row + block.batch * heads
        if heads > 1:
            row = row + block.head
        row = row * keys + (key if keys > 1 else 0)
        return score + self.emitter.load(self.staged_mask, row * (self.split.extent * self.lanes) + block.start + lane)

    def _softmax(self, block: _Block, first_key: Expr, keys: int) -> None:
        """Scores become weights relative to the highest score so far; what was summed up before is to be scaled by ``factor``."""
        emitter, lanes, width = self.emitter, self.lanes, block.vectors * self.lanes
        highest = self._copy(block.highest, width)
        with emitter.loop(keys, name="key") as key:
            for vector in range(block.vectors):
                with emitter.loop(lanes, VECTORIZED, "lane") as lane:
                    place = lane + vector * lanes
                    score = emitter.load(block.scores, key * width + place)
                    if self.mask is not None:
                        score = emitter.bind(self._masked(block, score, first_key + key, place))
                        emitter.store(block.scores, score, key * width + place)
                    emitter.store(highest, tirx.Max(emitter.load(highest, place), score), place)
        for vector in range(block.vectors):
            with emitter.loop(lanes, VECTORIZED, "lane") as lane:
                place = lane + vector * lanes
                now = emitter.bind(emitter.load(highest, place))
                shrink = emitter.bind(exp_nonpositive(emitter.bind, emitter.bind(emitter.load(block.highest, place) - now)))
                emitter.store(block.factor, shrink, place)
                emitter.store(block.highest, now, place)
                emitter.store(block.total, emitter.load(block.total, place) * shrink, place)
        total = self._copy(block.total, width)
        with emitter.loop(keys, name="key") as key:
            for vector in range(block.vectors):
                with emitter.loop(lanes, VECTORIZED, "lane") as lane:
                    place = lane + vector * lanes
                    score = emitter.load(block.scores, key * width + place)
                    weight = emitter.bind(exp_nonpositive(emitter.bind, emitter.bind(score - emitter.load(highest, place))))
                    emitter.store(block.scores, weight, key * width + place)
                    emitter.store(total, emitter.load(total, place) + weight, place)
        self._move(total, block.total, width)

    def _accumulate(self, block: _Block, first_key: Expr, keys: int) -> None:
        """``output = output * factor + weights x values``."""
        emitter, width = self.emitter, block.vectors * self.lanes
        with emitter.scope():
            count = self._real_queries(block)
            place = emitter.bind(emitter.simplify(self.values.at(block.batch, block.kv_head, first_key)), "value_at")
            total_vectors = self.output_width // self.lanes
            panels = EvenSplit(total_vectors, 4)
            most_rows = max(1, (self.target.vector_registers - panels.largest - 1) // panels.largest)
            rows = next(size for size in reversed(divisors(width)) if size <= most_rows)
            if self.problem.queries < rows:
                rows = self.problem.queries
            tiles = emitter.bind(emitter.simplify((count + rows - 1) // rows), "tiles")
            for run in panels.runs:
                for panel in range(run.count):
                    column = (run.start + panel * run.size) * self.lanes
                    with emitter.loop(tiles, name="tile") as number:
                        self._value_tile(block, place, number * rows, rows, column, run.size, keys, width)

    def _value_tile(self, block: _Block, place: Expr, row: Expr, rows: int, column: int, vectors: int, keys: int, width: int) -> None:
        emitter = self.emitter
        tile = RegisterTile(emitter, self.target, rows, vectors)
        nest = [ReductionLoop(keys, width, self.values.row_stride)]
        tile.accumulate(block.scores, row, list(range(rows)), self.values.buffer, place + column, nest, 4)
        for step in range(rows):
            factor = emitter.bind(emitter.load(block.factor, row + step), "factor")
            for vector in range(vectors):
                with tile.lanes_of(step, vector, self.lanes) as (lane, addend):
                    offset = (row + step) * self.output_width + column + vector * self.lanes + lane
                    emitter.store(block.output, emitter.load(block.output, offset) * factor + addend, offset)

    def _real_queries(self, block: _Block) -> Expr:
        """Queries of the block that exist."""
        return self.emitter.bind(
            self.emitter.simplify(tirx.Min(index(self.problem.queries) - block.start, index(block.vectors * self.lanes)))
        )

    def _store(self, block: _Block) -> None:
        emitter, problem = self.emitter, self.problem
        count = self._real_queries(block)
        with emitter.loop(count, name="row") as row:
            total = emitter.bind(emitter.load(block.total, row), "total")
            inverse = emitter.bind(tirx.Select(total > f32(0.0), f32(1.0) / total, f32(0.0)), "inverse")
            query = self._bounded(block.start + row, problem.queries, "query")
            head: Expr = block.head
            if problem.stacked > 1:
                head = self._bounded(block.head * problem.stacked + query // problem.length, problem.heads, "head")
                query = self._bounded(query % problem.length, problem.length, "query")
            for start in range(0, problem.value_width, self.lanes):
                with emitter.loop(min(self.lanes, problem.value_width - start), VECTORIZED, "lane") as lane:
                    element = emitter.load(block.output, row * self.output_width + start + lane) * inverse
                    self.epilogue.store([block.batch, head, query, lane + start], element)

    def _bounded(self, value: Expr, extent: int, name: str) -> Expr:
        """A variable that holds the index ``value``, known to lie in [0, extent)."""
        if extent == 1:
            return index(0)
        bound = self.emitter.bind(self.emitter.simplify(value), name)
        if isinstance(bound, tirx.Var) and not bound.same_as(value):
            self.emitter.bind_range(bound, extent)
        return bound

    # Scratch

    def _vectors(self, count: int) -> Sequence[int]:
        return range(0, count, self.lanes)

    def _fill(self, buffer: Any, count: int, value: float) -> None:
        emitter = self.emitter
        with emitter.loop(count // self.lanes, name="vector") as vector, emitter.loop(self.lanes, VECTORIZED, "lane") as lane:
            emitter.store(buffer, f32(value), vector * self.lanes + lane)

    def _copy(self, buffer: Any, count: int) -> Any:
        """A copy that LLVM keeps in registers."""
        copy = self.emitter.allocate(count, "float32", "copy")
        self._move(buffer, copy, count)
        return copy

    def _move(self, source: Any, destination: Any, count: int) -> None:
        for start in self._vectors(count):
            with self.emitter.loop(self.lanes, VECTORIZED, "lane") as lane:
                self.emitter.store(destination, self.emitter.load(source, lane + start), lane + start)
