"""Monarch products on the CPU: both block-diagonal factors in one kernel, what lies between them in a workspace that caches hold.

In the intermediate, a vector of groups is innermost. The first factor is then a matrix product for each block; in the second, vectors run
along the groups, so that each lane is a matrix of its own, nothing is transposed, and results are stored in whole vectors. A thread takes
some rows through both factors, in blocks whose intermediate fits the second-level cache; where there are too few rows for that, threads
share the blocks of the first factor, then the groups of the second.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import tirx

from ...ir import Graph, Layout, Value
from ..emit import VECTORIZED, Expr, Kernel, index, unflatten
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import Fp32, LaneByLane
from .loops import largest_power_of_two
from .region import AnchoredRegion, Epilogue
from .register_tile import ReductionLoop, RegisterTile, merge_loops
from .staging import copy_row, loop_kind
from .tiling import EvenSplit, distinct_splits, fits_registers, round_up, share, threads, tile_cycles, useful_threads

_FLOAT = 4
_ALIGNMENT = 64
_LEAST_GROUPS = 8
"""Groups must be a multiple of this, since vectors run along them: fewer are better computed as two products."""
_L2_SHARE = 0.5
"""Of the second-level cache, for the intermediate of a block of rows."""
_UNROLL = 4
_CHOSEN = 12
"""Points of a space."""


class Monarch(Template):
    """Regions around one ``monarch`` with elementwise operations and views before and after it.

    Knobs: ``rows`` of both register tiles, ``vectors`` of the first one's columns, ``results`` of each group in the second one.
    """

    name = "monarch"
    revision = 1

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("monarch",))
        return region is not None and region.anchor.inputs[1].tensor.static_shape[3] % _LEAST_GROUPS == 0

    def space(self, task: Task) -> Space:
        problem = _Problem.of(_region(task.graph), task.target)
        registers = task.target.vector_registers
        points = [
            {"rows": rows, "vectors": vectors, "results": results}
            for rows in distinct_splits(problem.rows, max(1, registers // 2))
            for vectors in (1, 2, 3, 4, 6)
            for results in (1, 2, 3, 4, 6, 8)
            if problem.groups % (vectors * problem.lanes) == 0 and results <= problem.width
            if fits_registers(task.target, rows, vectors) and fits_registers(task.target, rows, results)
        ]
        best = sorted(points, key=lambda knobs: _cycles(problem, task, knobs))[:_CHOSEN]
        chosen = {tuple(sorted(point.items())) for point in best}
        choices = tuple((name, tuple(sorted({point[name] for point in best}))) for name in sorted(best[0]))
        return Space(self.name, choices, Config.of(self.name, best[0]), lambda knobs: tuple(sorted(knobs.items())) in chosen)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        problem = _Problem.of(_region(task.graph), task.target)
        return [_cycles(problem, task, dict(config.knobs)) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        return _Lowering(task, config).lower()


def _region(graph: Graph) -> AnchoredRegion:
    region = AnchoredRegion.find(graph, ("monarch",))
    assert region is not None
    return region


@dataclass(frozen=True)
class _Problem:
    """Extents, as :mod:`mlc.ir.ops.structured` names them, and the ``lanes`` of a vector of groups."""

    rows: int
    blocks: int
    depth: int
    rank: int
    groups: int
    width: int
    lanes: int

    @staticmethod
    def of(region: AnchoredRegion, target: Target) -> _Problem:
        blocks, depth, rank, groups = region.anchor.inputs[1].tensor.static_shape
        rows = math.prod(region.anchor.output.tensor.static_shape[:-1])
        lanes = min(target.vector_lanes, largest_power_of_two(groups & -groups))
        return _Problem(rows, blocks, depth, rank, groups, region.anchor.inputs[2].tensor.static_shape[2], lanes)

    @property
    def inner(self) -> int:
        """Length of the reduction of the second factor."""
        return self.blocks * self.rank

    @property
    def pieces(self) -> int:
        """Elements of the intermediate for each row."""
        return self.inner * self.groups

    @property
    def depth_in_all(self) -> int:
        return self.blocks * self.depth

    @property
    def columns(self) -> int:
        return self.width * self.groups

    @cached_property
    def stored(self) -> int:
        """Elements of both factors."""
        return self.pieces * (self.depth + self.width)

    def threads(self, target: Target, available: int) -> int:
        moved = _FLOAT * (self.stored + self.rows * (self.depth_in_all + self.columns))
        return useful_threads(target, available, 2.0 * self.rows * self.stored, float(moved))


def _cycles(problem: _Problem, task: Task, knobs: Mapping[str, int]) -> float:
    """Estimated cycles of the busiest thread."""
    parallel = problem.threads(task.target, task.threads)
    split = EvenSplit(problem.rows, knobs["rows"])
    vectors, results = knobs["vectors"], knobs["results"]
    panels = problem.blocks * problem.rank * problem.groups // (vectors * problem.lanes)
    tiles = problem.groups // problem.lanes * -(-problem.width // results)
    total = 0.0
    for run in split.runs:
        first = tile_cycles(task.target, run.size, vectors, problem.depth, split.tiles)
        # Vectors of the intermediate are read, where the first factor has one element in all lanes.
        second = tile_cycles(task.target, run.size, results, problem.inner, split.tiles)
        total += run.count * (panels * first + tiles * second)
    if split.tiles >= parallel:
        return total * -(-split.tiles // parallel) / split.tiles
    return total / parallel


@dataclass(frozen=True)
class _Rows:
    """Row tiles numbered in [low, high) of the split (None: all), whose intermediate starts at ``base`` with the row ``first``."""

    low: Expr | None
    high: Expr | None
    first: Expr
    base: Expr


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.target = task.target
        self.region = _region(task.graph)
        self.problem = problem = _Problem.of(self.region, task.target)
        self.parallel = problem.threads(task.target, task.threads)
        self.split = EvenSplit(problem.rows, config["rows"])
        self.vectors, self.results = config["vectors"], config["results"]
        self.panel = self.vectors * problem.lanes
        self.within, self.across = Fp32(task.target, problem.lanes), LaneByLane(task.target, problem.lanes)
        self.by_rows = self.split.tiles >= self.parallel
        self.x_value, *factors = self.region.anchor.inputs
        packed = [self._constant_position(task, value) for value in factors]
        layouts = (Layout((0, 2, 3, 1), ((3, self.panel),)), Layout((3, 2, 0, 1), ((2, self.results), (3, problem.lanes))))
        self.layouts = {position: layout for position, layout in zip(packed, layouts, strict=True) if position is not None}
        self.x_source = self.region.source(self.x_value)
        sizes = [
            0 if self.x_source is not None else problem.rows * problem.depth_in_all,
            *(
                0 if position is not None else math.prod(layout.physical_shape(value.tensor.static_shape))
                for position, layout, value in zip(packed, layouts, factors, strict=True)
            ),
            self._intermediate_size(),
        ]
        offsets = [0]
        for size in sizes:
            offsets.append(offsets[-1] + int(round_up(size * _FLOAT, _ALIGNMENT)))
        self.kernel = Kernel(self.region.graph, workspace_bytes=offsets[-1], layouts=self.layouts)
        self.emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        scratch = [
            self.kernel.workspace(size, "float32", offset, name) if size else None
            for size, offset, name in zip(sizes, offsets, ("rows", "first", "second", "pieces"), strict=False)
        ]
        self.x: Any = scratch[0] if self.x_source is None else self.kernel.inputs[self.x_source]
        self.first, self.second = (
            made if made is not None else self.kernel.inputs[value] for made, value in zip(scratch[1:3], factors, strict=True)
        )
        self.pieces: Any = scratch[3]
        self._to_pack = [
            (made, value, layout) for made, value, layout in zip(scratch[1:3], factors, layouts, strict=True) if made is not None
        ]

    def _constant_position(self, task: Task, value: Value) -> int | None:
        """The position of a factor that is a constant input, which then is stored as it is read."""
        graph = self.region.graph
        if value not in graph.inputs or len(graph.users[value]) != 1:
            return None
        position = graph.inputs.index(value)
        return position if position in task.constant_inputs else None

    @cached_property
    def _chunks(self) -> int:
        """Into how many blocks a thread cuts its tiles of rows, so that the intermediate of each fits the second-level cache."""
        tiles = -(-self.split.tiles // self.parallel)
        fitting = int(_L2_SHARE * self.target.l2_bytes) // (_FLOAT * self.problem.pieces * self.split.largest)
        return -(-tiles // max(fitting, 1)) if self.target.l2_bytes else tiles

    def _intermediate_size(self) -> int:
        if not self.by_rows:
            return self.problem.rows * self.problem.pieces
        return self.parallel * self._rows_of_chunk * self.problem.pieces

    @cached_property
    def _rows_of_chunk(self) -> int:
        """Rows of a block, at most."""
        tiles = -(-self.split.tiles // self.parallel)
        return -(-tiles // self._chunks) * self.split.largest

    def lower(self) -> LoweredKernel:
        self._stage()
        emitter, problem = self.emitter, self.problem
        panels = problem.blocks * problem.rank * (problem.groups // self.panel)
        bundles = problem.groups // problem.lanes
        if self.by_rows:
            with threads(emitter, self.parallel) as thread, self._chunk(thread) as rows:
                with emitter.loop(panels, name="panel") as panel:
                    self._first_factor(rows, panel)
                with emitter.loop(bundles, name="bundle") as bundle:
                    self._second_factor(rows, bundle)
        else:
            rows = _Rows(None, None, index(0), index(0))
            with self._shared(panels, "panel") as panel:
                self._first_factor(rows, panel)
            with self._shared(bundles, "bundle") as bundle:
                self._second_factor(rows, bundle)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    @contextlib.contextmanager
    def _shared(self, count: int, name: str) -> Iterator[Expr]:
        """A loop over ``count`` items that the threads share."""
        emitter = self.emitter
        with (
            threads(emitter, self.parallel) as thread,
            share(emitter, thread, self.parallel, count) as (low, high),
            emitter.loop(emitter.simplify(high - low), name=name, start=low) as item,
        ):
            yield item

    @contextlib.contextmanager
    def _chunk(self, thread: Expr) -> Iterator[_Rows]:
        """A loop over the blocks of a thread's rows."""
        emitter, chunks = self.emitter, self._chunks
        base = emitter.simplify(thread * (self._rows_of_chunk * self.problem.pieces))
        if self.parallel == 1 and chunks == 1:
            yield _Rows(None, None, index(0), base)
            return
        with (
            share(emitter, thread, self.parallel, self.split.tiles) as (low, high),
            emitter.loop(chunks, name="rows") as chunk,
            share(emitter, chunk, chunks, emitter.simplify(high - low)) as (begin, end),
        ):
            start = emitter.bind(low + begin, "first_tile")
            yield _Rows(start, emitter.bind(low + end, "last_tile"), emitter.bind(self._row_of(start), "first_row"), base)

    def _row_of(self, tile: Expr) -> Expr:
        """The row at which a tile of the split starts."""
        large = self.split.runs[0]
        if len(self.split.runs) == 1:
            return tile * large.size
        # Tiles of the second run are shorter by one row.
        return tile * large.size - tirx.Max(tile - large.count, index(0))

    @property
    def _row_stride(self) -> int:
        """Between the rows of a vector of groups, whose pieces follow each other: a tile of them lies in one piece, so that its rows do not
        compete for the same sets of the cache."""
        return self.problem.inner * self.problem.lanes

    @property
    def _bundle_stride(self) -> int:
        """Between vectors of groups."""
        return (self._rows_of_chunk if self.by_rows else self.problem.rows) * self._row_stride

    def _piece_at(self, rows: _Rows, row: Expr, bundle: Expr) -> Expr:
        """Where the pieces of a row for a vector of groups start."""
        return rows.base + bundle * self._bundle_stride + (row - rows.first) * self._row_stride

    def _first_factor(self, rows: _Rows, panel: Expr) -> None:
        """The products of all tiles of ``rows`` with one panel of the first factor, into the intermediate."""
        emitter, problem = self.emitter, self.problem
        bundles = problem.groups // self.panel
        block = emitter.bind(emitter.simplify(panel // (problem.rank * bundles)), "block")
        factor_at = emitter.bind(panel * (problem.depth * self.panel), "factor_at")
        nest = merge_loops([ReductionLoop(problem.depth, 1, self.panel)])
        for run in self.split.runs:
            with self.split.loop(emitter, run, rows.low, rows.high) as row:
                tile = RegisterTile(emitter, self.within, run.size, self.vectors)
                x_at = emitter.bind(row * problem.depth_in_all + block * problem.depth, "x_at")
                offsets = [step * problem.depth_in_all for step in range(run.size)]
                tile.accumulate(self.x, x_at, offsets, self.first, factor_at, nest, _UNROLL)
                step = emitter.simplify(panel // bundles)
                bundle = emitter.simplify(panel % bundles) * self.vectors
                place = self._piece_at(rows, row, bundle) + step * problem.lanes
                tile.spill(self.pieces, emitter.bind(emitter.simplify(place), "piece_at"), self._row_stride, self._bundle_stride)

    def _second_factor(self, rows: _Rows, bundle: Expr) -> None:
        """The results of all tiles of ``rows`` in one vector of groups, tile by tile, whose pieces stay in the first-level cache."""
        emitter = self.emitter
        bunches, rest = divmod(self.problem.width, self.results)
        for run in self.split.runs:
            with self.split.loop(emitter, run, rows.low, rows.high) as row:
                with emitter.loop(bunches, name="bunch") as bunch:
                    self._bunch(rows, row, run.size, bundle, bunch, self.results)
                if rest:
                    self._bunch(rows, row, run.size, bundle, index(bunches), rest)

    def _bunch(self, rows: _Rows, row: Expr, count: int, bundle: Expr, bunch: Expr, results: int) -> None:
        """Of ``count`` rows, the ``results`` of each group from number ``bunch * self.results`` on."""
        emitter, problem, lanes = self.emitter, self.problem, self.problem.lanes
        step = self.results * lanes
        bunches = -(-problem.width // self.results)
        with emitter.scope():
            factor_at = emitter.bind((bundle * bunches + bunch) * (problem.inner * step), "factor_at")
            piece_at = emitter.bind(emitter.simplify(self._piece_at(rows, row, bundle)), "piece_at")
            tile = RegisterTile(emitter, self.across, count, results)
            offsets = [number * self._row_stride for number in range(count)]
            nest = merge_loops([ReductionLoop(problem.inner, lanes, step)])
            tile.accumulate(self.pieces, piece_at, offsets, self.second, factor_at, nest, _UNROLL)
            self._store(tile, row, bundle, bunch)

    def _store(self, tile: RegisterTile, row: Expr, bundle: Expr, bunch: Expr) -> None:
        """The tile's results, in loops where the epilogue is long."""
        emitter, problem, lanes = self.emitter, self.problem, self.problem.lanes
        shape = self.region.anchor.output.tensor.shape[:-1]
        buffer = tile.accumulators
        if self.epilogue.is_long:
            # A copy: accumulators that are read at an index unknown to LLVM would not stay in registers.
            buffer = emitter.allocate(tile.rows * tile.vectors * lanes, "float32", "tile")
            tile.spill(buffer, index(0), tile.vectors * lanes)
        for step, result in self._elements(tile):
            with step as own_row, result as number, emitter.loop(lanes, VECTORIZED, "lane") as lane:
                column = (bunch * self.results + number) * problem.groups + bundle * lanes + lane
                element = tirx.BufferLoad(buffer, [(own_row * tile.vectors + number) * lanes + lane])
                self.epilogue.store([*unflatten(emitter, shape, row + own_row), column], element)

    def _elements(self, tile: RegisterTile) -> Iterator[tuple[Any, Any]]:
        """Scopes that give the number of a row and of a result."""
        if self.epilogue.is_long:
            yield self.emitter.loop(tile.rows, name="row"), self.emitter.loop(tile.vectors, name="result")
            return
        for row in range(tile.rows):
            for result in range(tile.vectors):
                yield contextlib.nullcontext(row), contextlib.nullcontext(result)

    def _stage(self) -> None:
        """Evaluates what is not stored as it is read into the workspace."""
        emitter, problem = self.emitter, self.problem
        evaluator = self.epilogue.evaluator
        if self.x_source is None:
            shape = self.region.anchor.output.tensor.shape[:-1]
            with emitter.loop(problem.rows, loop_kind(self.parallel, problem.rows), "row") as row:
                leading = unflatten(emitter, shape, row)
                start = row * problem.depth_in_all
                copy_row(
                    emitter, problem.lanes, self.x, start, problem.depth_in_all, lambda k: evaluator.value_at(self.x_value, [*leading, k])
                )
        for buffer, value, layout in self._to_pack:
            self._pack(buffer, value, layout)

    def _pack(self, buffer: Any, value: Value, layout: Layout) -> None:
        """A factor that is no constant, in the layout that the tiles read. Results beyond the last are copies of it, which nothing
        stores."""
        emitter = self.emitter
        physical = layout.physical_shape(value.tensor.static_shape)
        lanes = physical[-1]
        count = math.prod(physical) // lanes
        with emitter.loop(count, loop_kind(self.parallel, count), "vector") as number:
            place = unflatten(emitter, physical[:-1], number)
            with emitter.loop(lanes, VECTORIZED, "lane") as lane:
                indices = [place[layout.order.index(axis)] for axis in range(4)]
                blocks = dict(zip((axis for axis, _ in layout.blocks), [*place[4:], lane], strict=True))
                for axis, size in layout.blocks:
                    last = index(value.tensor.static_shape[axis] - 1)
                    indices[axis] = tirx.Min(indices[axis] * size + blocks[axis], last) if axis == 2 else indices[axis] * size + lane
                emitter.store(buffer, self.epilogue.evaluator.value_at(value, indices), number * lanes + lane)
