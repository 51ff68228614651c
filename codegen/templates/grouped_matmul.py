"""Products of groups of rows with a matrix each, where the borders of the groups are data.

Each thread takes some panels of columns of every group's matrix, packed as in :mod:`.matmul`, and walks over the group's rows in register
tiles; what is left of a group is done by tiles of 1, 2, 4, ... rows, as many as its number of rows has bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from tvm import tirx

from ...ir import DType, Graph, Layout, Value
from ..emit import VECTORIZED, Expr, Kernel, index, unflatten
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import Fp32
from .region import AnchoredRegion, Epilogue
from .register_tile import ReductionLoop, RegisterTile, merge_loops
from .staging import copy_row, loop_kind
from .tiling import fits_registers, panel_candidates, round_up, share, threads, tile_cycles, useful_threads

_FLOAT = 4
_ROWS = (1, 2, 4, 6, 8, 12)


class GroupedMatmul(Template):
    """Regions around one ``grouped_matmul`` in fp32 with elementwise operations before and after it.

    Knobs: ``rows`` and ``vectors`` of the register tile.
    """

    name: ClassVar[str] = "grouped_matmul"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("grouped_matmul",), any_dtype=True)
        if region is None or not all(vectorises(node) for node in graph.nodes if node is not region.anchor):
            return False
        a, b, _ = region.anchor.inputs
        return a.tensor.dtype is DType.FLOAT32 and a.tensor.elements > 0 and b.tensor.elements > 0

    def space(self, task: Task) -> Space:
        problem = _Problem(_region(task.graph))
        target = task.target
        vectors = panel_candidates(target, problem.columns, problem.rows)
        rows = tuple(count for count in _ROWS if count <= max(problem.rows, 1))

        def fits(knobs: Mapping[str, int]) -> bool:
            return fits_registers(target, knobs["rows"], knobs["vectors"])

        points = [{"rows": row, "vectors": vector} for row in rows for vector in vectors if fits_registers(target, row, vector)]
        best = min(points, key=lambda point: _cycles(target, problem, point["rows"], point["vectors"]))
        choices = (("rows", rows), ("vectors", vectors))
        return Space(self.name, choices, Config.of(self.name, best), fits)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        return _Lowering(task, config).lower()


def _region(graph: Graph) -> AnchoredRegion:
    region = AnchoredRegion.find(graph, ("grouped_matmul",), any_dtype=True)
    assert region is not None
    return region


class _Problem:
    """Extents: ``rows`` x ``depth`` times ``groups`` matrices of ``depth`` x ``columns``."""

    def __init__(self, region: AnchoredRegion) -> None:
        a, b, _ = region.anchor.inputs
        self.rows, self.depth = a.tensor.static_shape
        self.groups, _, self.columns = b.tensor.static_shape

    @property
    def flops(self) -> float:
        return 2.0 * self.rows * self.depth * self.columns

    @property
    def bytes_moved(self) -> float:
        used = min(self.groups, self.rows)
        return float(_FLOAT * (self.rows * (self.depth + self.columns) + used * self.depth * self.columns))


def _cycles(target: Target, problem: _Problem, rows: int, vectors: int) -> float:
    """Estimated cycles when the rows are spread evenly over the groups."""
    share_of_group = max(problem.rows // problem.groups, 1)
    whole, rest = divmod(share_of_group, rows)
    rests = [size for size in _rests(rows) if rest & size]
    tiles = whole + len(rests)
    total = whole * tile_cycles(target, rows, vectors, problem.depth, tiles)
    total += sum(tile_cycles(target, size, vectors, problem.depth, tiles) for size in rests)
    return total * -(-problem.columns // (vectors * target.vector_lanes))


def _rests(rows: int) -> list[int]:
    """Tiles for what is left after tiles of ``rows``, largest first."""
    return [1 << bit for bit in reversed(range((rows - 1).bit_length()))]


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.region = _region(task.graph)
        self.problem = problem = _Problem(self.region)
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.rows = config["rows"]
        self.panel = config["vectors"] * self.lanes
        self.panels = -(-problem.columns // self.panel)
        self.parallel = min(useful_threads(task.target, task.threads, problem.flops, problem.bytes_moved), self.panels)
        self.a_value, self.b_value, self.ends = self.region.anchor.inputs
        self.a_source = self.region.source(self.a_value)
        self.b_packed = self._packed_b(task)
        a_bytes = 0 if self.a_source is not None else round_up(problem.rows * problem.depth * _FLOAT, 64)
        b_bytes = 0 if self.b_packed is not None else problem.groups * self.panels * problem.depth * self.panel * _FLOAT
        self.layouts = {} if self.b_packed is None else {self.b_packed: Layout((0, 2, 1), ((2, self.panel),))}
        self.kernel = Kernel(self.region.graph, workspace_bytes=a_bytes + b_bytes, layouts=self.layouts)
        self.emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, self.region)
        self.evaluator = self.epilogue.evaluator
        self.a: Any = self.kernel.inputs[self.a_source] if self.a_source is not None else self._workspace(a_bytes, 0, "rows")
        self.b: Any = self.kernel.inputs[self.b_value] if self.b_packed is not None else self._workspace(b_bytes, a_bytes, "panels")

    def _workspace(self, nbytes: int, offset: int, name: str) -> Any:
        return self.kernel.workspace(nbytes // _FLOAT, "float32", offset, name)

    def _packed_b(self, task: Task) -> int | None:
        """The position of the constant input that holds the matrices, which then are stored in panels."""
        inputs = task.graph.inputs
        if self.b_value not in inputs or len(task.graph.users[self.b_value]) != 1:
            return None
        position = inputs.index(self.b_value)
        return position if position in task.constant_inputs else None

    def lower(self) -> LoweredKernel:
        self._stage()
        emitter = self.emitter
        with threads(emitter, self.parallel) as thread, share(emitter, thread, self.parallel, self.panels) as (low, high):
            count = emitter.simplify(high - low)
            border = emitter.allocate(1, "int32", "border")
            emitter.store(border, index(0), 0)
            with emitter.loop(self.problem.groups, name="group") as group:
                begin = emitter.bind(emitter.load(border, 0), "begin")
                end = emitter.bind(self._end(group, begin), "end")
                emitter.store(border, end, 0)
                # Nothing is known of an empty group's matrix: it need not even be read.
                with emitter.when(end > begin), emitter.loop(count, name="panel", start=low) as number, self._columns(number) as columns:
                    for position, width in columns:
                        with position:
                            self._panel(group, number, begin, end, width)
            begin = emitter.bind(emitter.load(border, 0), "begin")
            left = emitter.bind(index(self.problem.rows) - begin, "left")
            with (
                emitter.loop(left, name="row", start=begin) as row,
                emitter.loop(count, name="panel", start=low) as number,
                self._columns(number) as columns,
            ):
                for position, width in columns:
                    with position, emitter.loop(width) as lane:
                        self.epilogue.store([row, number * self.panel + lane], tirx.const(0.0, "float32"))
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _end(self, group: Expr, begin: Expr) -> Expr:
        """Where the rows of ``group`` end: not before they begin, nor after the last row."""
        emitter = self.emitter
        raw = emitter.bind(tirx.Cast("int64", self.evaluator.value_at(self.ends, [group])))
        most = tirx.const(self.problem.rows, "int64")
        within = emitter.bind(tirx.Cast("int32", emitter.bind(tirx.Select(raw > most, most, raw))))
        return tirx.Select(within < begin, begin, within)

    @contextmanager
    def _columns(self, number: Expr) -> Iterator[list[tuple[Any, int]]]:
        """(scope, columns) for panel ``number``: the last one may be narrower, which is tested at run time."""
        tail = self.problem.columns % self.panel
        if not tail:
            yield [(self.emitter.scope(), self.panel)]
        elif self.panels == 1:
            yield [(self.emitter.scope(), tail)]
        else:
            last = index(self.panels - 1)
            yield [(self.emitter.when(number < last), self.panel), (self.emitter.when(tirx.EQ(number, last)), tail)]

    def _panel(self, group: Expr, number: Expr, begin: Expr, end: Expr, columns: int) -> None:
        """All rows of a group against one panel, of which ``columns`` columns exist."""
        emitter = self.emitter
        count = emitter.bind(end - begin, "count")
        whole = emitter.bind(tirx.floordiv(count, index(self.rows)), "whole")
        with emitter.loop(whole, name="tile") as tile:
            self._tile(group, number, emitter.bind(begin + tile * self.rows, "row"), self.rows, columns)
        rest = emitter.bind(count - whole * self.rows, "rest")
        start = emitter.bind(begin + whole * self.rows, "start")
        for size in _rests(self.rows):
            with emitter.when(tirx.NE(tirx.bitwise_and(rest, index(size)), index(0))):
                row = start + tirx.bitwise_and(rest, index(-2 * size))
                self._tile(group, number, emitter.bind(row, "row"), size, columns)

    def _tile(self, group: Expr, number: Expr, row: Expr, rows: int, columns: int) -> None:
        emitter, depth = self.emitter, self.problem.depth
        with emitter.scope():
            tile = RegisterTile(emitter, Fp32(self.target), rows, -(-columns // self.lanes))
            a_offset = emitter.bind(row * depth, "a_at")
            b_offset = emitter.bind((group * self.panels + number) * (depth * self.panel), "b_at")
            nest = merge_loops([ReductionLoop(depth, 1, self.panel)])
            tile.accumulate(self.a, a_offset, [step * depth for step in range(rows)], self.b, b_offset, nest, 4)

            def store(step: Expr | int, lane: Expr, element: Expr) -> None:
                self.epilogue.store([row + step, number * self.panel + lane], element)

            tile.for_each(columns, self.epilogue.is_long, store)

    def _stage(self) -> None:
        """Evaluates what is not stored as it is needed into the workspace."""
        emitter, problem = self.emitter, self.problem
        if self.a_source is None:
            with emitter.loop(problem.rows, loop_kind(self.parallel, problem.rows), "row") as row:
                copy_row(emitter, self.lanes, self.a, row * problem.depth, problem.depth, lambda k: self._element(self.a_value, [row, k]))
        if self.b_packed is None:
            count = problem.groups * self.panels
            with emitter.loop(count, loop_kind(self.parallel, count), "panel") as item:
                group, number = unflatten(emitter, (problem.groups, self.panels), item)
                with emitter.loop(problem.depth, name="k") as k, emitter.loop(self.panel, VECTORIZED, "lane") as lane:
                    # Columns beyond the last hold copies of it, which are never stored.
                    column = tirx.Min(number * self.panel + lane, index(problem.columns - 1))
                    place = (item * problem.depth + k) * self.panel + lane
                    emitter.store(self.b, self._element(self.b_value, [group, k, column]), place)

    def _element(self, value: Value, indices: list[Expr]) -> Expr:
        return self.evaluator.value_at(value, indices)
