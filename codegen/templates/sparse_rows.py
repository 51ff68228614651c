"""Products with a sparse weight, rows as vectors: for every output, a vector of rows is multiplied with each of its numbers.

So unstructured sparsity skips its zeros in products of many rows, such as pointwise convolutions (Elsen et al., "Fast Sparse ConvNets",
2020). A tile of rows is transposed into the workspace first, so that a vector holds some rows of one input; mlc keeps images channels last,
where inputs are innermost. The results of as many outputs as a vector has lanes are collected and transposed back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph
from ..emit import VECTORIZED, Expr, index, ramp, spread
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import multiply_add
from .sparse_cost import WORD, has_two_sets, row_vector_cycles, threads_worth
from .sparse_gather import MOST_ROWS
from .sparse_product import SparseProduct
from .stored_panels import PanelKernel
from .tiling import divisors, share, threads
from .transpose import transposed_tile

_ENCODINGS = ("block_sparse",)
_WIDTHS = (1, 2, 4)
_VECTORS = (1, 2, 3, 4, 6, 8, 12)
_CHOSEN = 4
"""Tiles kept for each way of sharing the rows."""


class SparseRows(Template):
    """Regions around one product of more than four rows whose weight is block sparse in panels of one, two or four outputs.

    Knobs: ``vectors`` of rows in a tile, ``row_groups``: into how many groups the threads are split along the rows (the others split
    the outputs).
    """

    name = "sparse_rows"

    def takes(self, graph: Graph) -> bool:
        product = SparseProduct.find(graph, _ENCODINGS)
        return product is not None and product.parameter("width") in _WIDTHS and product.rows > MOST_ROWS

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def pulls_operand(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        product = SparseProduct.of(task, _ENCODINGS)
        parallel = _parallel(task, product)
        whole = -(-product.rows // task.target.vector_lanes)
        points = [
            {"row_groups": group, "vectors": count}
            for group in divisors(parallel)
            for count in _fitting(task, product)
            if group <= -(-whole // count)
        ]
        ranked = sorted(points, key=lambda knobs: _cycles(product, task.target, parallel, knobs))
        return Space.of_points(self.name, ranked, "row_groups", _CHOSEN)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        product = SparseProduct.of(task, _ENCODINGS)
        parallel = _parallel(task, product)
        return [_cycles(product, task.target, parallel, {name: config[name] for name in ("row_groups", "vectors")}) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config).lower()


def _fitting(task: Task, product: SparseProduct) -> list[int]:
    """Numbers of vectors of rows that a tile may have."""
    whole, width = -(-product.rows // task.target.vector_lanes), product.parameter("width")
    return [count for count in _VECTORS if count <= whole and count * width + width + 1 <= task.target.vector_registers] or [1]


def _parallel(task: Task, product: SparseProduct) -> int:
    entries, width = product.parameter("entries"), product.parameter("width")
    alone = min(_cycles(product, task.target, 1, {"row_groups": 1, "vectors": vectors}) for vectors in _fitting(task, product))
    moved = WORD * (product.rows * (product.depth + product.columns) + entries * width)
    return threads_worth(task.target, task.threads, alone, float(moved))


def _tiles(rows: int, vectors: int, lanes: int) -> tuple[int, int]:
    """How many tiles of ``vectors`` vectors there are, and of how many vectors the one behind them is (0: there is none)."""
    tiles, rest = divmod(rows, vectors * lanes)
    return tiles, -(-rest // lanes)


def _cycles(product: SparseProduct, target: Target, parallel: int, knobs: Mapping[str, int]) -> float:
    """Estimated cycles of the slowest thread."""
    lanes, groups = target.vector_lanes, knobs["row_groups"]
    tiles, rest = _tiles(product.rows, knobs["vectors"], lanes)
    entries, width = product.parameter("entries"), product.parameter("width")
    parts = parallel // groups

    def cycles(vectors: int) -> float:
        return row_vector_cycles(target, vectors, width, entries / parts, product.columns / parts, product.depth)

    return -(-tiles // groups) * cycles(knobs["vectors"]) + (cycles(rest) if rest else 0.0)


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.product = product = SparseProduct.of(task, _ENCODINGS)
        self.parallel = _parallel(task, product)
        self.groups = config["row_groups"]
        self.vectors = config["vectors"]
        self.tile_words = product.depth * self.vectors * self.lanes
        self.frame = frame = PanelKernel(task, product, self.parallel // self.groups, self.parallel * self.tile_words)
        self.width, self.panels = frame.width, frame.panels
        self.together = self.lanes // self.width
        """Panels whose results are stored together."""
        self.emitter = frame.emitter
        self.tile: Any = frame.kernel.workspace(self.parallel * self.tile_words, "float32", 0, "tile")

    def lower(self) -> LoweredKernel:
        emitter, product = self.emitter, self.product
        parts = self.parallel // self.groups
        tiles, rest = _tiles(product.rows, self.vectors, self.lanes)
        with threads(emitter, self.parallel) as thread:
            place = emitter.bind(emitter.simplify(thread * self.tile_words), "tile_at")
            bounds = self._bounds(emitter.simplify(thread % parts), parts)
            group = emitter.simplify(thread // parts)
            if tiles:
                with (
                    share(emitter, group, self.groups, tiles) as (low, high),
                    emitter.loop(emitter.simplify(high - low), name="tile", start=low) as number,
                ):
                    self._tile(place, bounds, emitter.bind(number * (self.vectors * self.lanes), "row"), self.vectors)
            if rest:
                with emitter.when(tirx.EQ(group, index(self.groups - 1))) if self.groups > 1 else emitter.scope():
                    # The tile ends with the rows; what it has in common with the one before is computed twice.
                    start = max(product.rows - rest * self.lanes, 0)
                    self._tile(place, bounds, index(start), rest)
        return self.frame.finish()

    def _bounds(self, part: Expr, parts: int) -> tuple[Expr, Expr]:
        """The panels of a thread, in units of those that are stored together."""
        low, high = self.frame.stored.share(part)
        if parts == 1:
            return index(0), index(-(-self.panels // self.together))
        emitter, size = self.emitter, self.together
        last = tirx.Select(high >= self.panels, index(-(-self.panels // size)), high // size)
        return emitter.bind(low // size, "low"), emitter.bind(last, "high")

    def _tile(self, place: Expr, bounds: tuple[Expr, Expr], row: Expr, vectors: int) -> None:
        """All outputs within ``bounds`` of ``vectors`` vectors of rows from ``row`` on."""
        emitter = self.emitter
        rows = min(vectors * self.lanes, self.product.rows)
        with emitter.scope():
            self._transpose(place, row, vectors, rows)
        low, high = bounds
        whole = self.product.columns // self.lanes
        rest = self.product.columns % self.lanes
        with emitter.loop(high - low, name="outputs", start=low) as number:
            if not rest:
                self._outputs(place, number, row, vectors, rows, self.lanes)
                return
            if whole:
                with emitter.when(number < whole):
                    self._outputs(place, number, row, vectors, rows, self.lanes)
            with emitter.when(number >= whole):
                self._outputs(place, index(whole), row, vectors, rows, rest)

    def _transpose(self, place: Expr, row: Expr, vectors: int, rows: int) -> None:
        """Stores the rows of the operand as [depth, vectors * lanes]; rows beyond the last are copies of it."""
        emitter, product, lanes = self.emitter, self.product, self.lanes
        width = vectors * lanes

        def element(at: Expr, k: Expr) -> Expr:
            if rows < width:
                at = tirx.Min(at, index(product.rows - 1))
            if self.frame.rows is not None:
                return emitter.load(self.frame.rows, at * product.depth + k)
            return self.frame.operand(at, k)

        whole, rest = divmod(product.depth, lanes)
        with emitter.loop(vectors, name="vector") as vector:
            first = emitter.bind(emitter.simplify(row + vector * lanes), "first")
            with emitter.loop(whole, name="square") as square:
                start = square * lanes
                transposed_tile(
                    emitter,
                    lanes,
                    "float32",
                    lambda step, k: element(first + step, start + k),
                    lambda k: (self.tile, place + (start + k) * width + vector * lanes),
                )
            with emitter.loop(rest, name="k") as k, emitter.loop(lanes, VECTORIZED, "lane") as lane:
                value = element(first + lane, k + whole * lanes)
                emitter.store(self.tile, value, place + (k + whole * lanes) * width + vector * lanes + lane)

    def _outputs(self, place: Expr, number: Expr, row: Expr, vectors: int, rows: int, columns: int) -> None:
        """The results of ``columns`` outputs, of panels that are stored together."""
        emitter, lanes, width = self.emitter, self.lanes, vectors * self.lanes
        results = emitter.allocate(lanes * width, "float32", "results")
        panels = -(-columns // self.width)
        with emitter.loop(panels, name="panel") as panel:
            sums = self._panel(place, emitter.bind(number * self.together + panel, "panel"), vectors)
            for each in range(self.width * vectors):
                value = tirx.BufferLoad(sums, [ramp(each * lanes, lanes)])
                emitter.emit(tirx.BufferStore(results, value, [ramp(panel * (self.width * width) + each * lanes, lanes)]))
        lines = emitter.allocate(width * lanes, "float32", "lines")
        with emitter.loop(vectors, name="vector") as vector:
            transposed_tile(
                emitter,
                lanes,
                "float32",
                lambda output, step: emitter.load(results, output * width + vector * lanes + step),
                lambda step: (lines, (vector * lanes + step) * lanes),
            )
        with emitter.loop(rows, name="row") as step, emitter.loop(columns, VECTORIZED, "output") as output:
            self.frame.store(row + step, number * lanes + output, emitter.load(lines, step * lanes + output))

    def _panel(self, place: Expr, panel: Expr, vectors: int) -> Any:
        """A buffer that holds the sums of a panel: [outputs of the panel, rows]."""
        emitter, lanes = self.emitter, self.lanes
        count = self.width * vectors
        # Where the sums are few, every other entry has its own, since additions to the same ones wait for each other.
        sets = 2 if has_two_sets(self.target, self.width, vectors) else 1
        sums = emitter.allocate(sets * count * lanes, "float32", "sums")
        for each in range(sets * count):
            emitter.emit(tirx.BufferStore(sums, spread(tirx.const(0.0, "float32"), lanes), [ramp(each * lanes, lanes)]))
        first, entries = self.frame.stored.entries(panel)
        whole = emitter.bind(entries // sets, "whole")
        with emitter.loop(whole, name="step") as step:
            for number in range(sets):
                self._entry(place, emitter.bind(first + step * sets + number, "entry"), vectors, sums, number * count)
        if sets > 1:
            with emitter.loop(entries - whole * sets, name="entry", start=first + whole * sets) as entry:
                self._entry(place, entry, vectors, sums, 0)
            for each in range(count):
                here, there = ramp(each * lanes, lanes), ramp((count + each) * lanes, lanes)
                emitter.emit(tirx.BufferStore(sums, tirx.BufferLoad(sums, [here]) + tirx.BufferLoad(sums, [there]), [here]))
        return sums

    def _entry(self, place: Expr, entry: Expr, vectors: int, sums: Any, first: int) -> None:
        """Adds the products of an entry to the ``sums`` from vector ``first`` on."""
        emitter, lanes, width = self.emitter, self.lanes, self.width
        at = emitter.bind(place + self.frame.stored.column(entry) * (vectors * lanes), "at")
        values = self.frame.stored.values
        factors = [spread(emitter.bind(values.number(entry * width + output), "weight"), lanes) for output in range(width)]
        for vector in range(vectors):
            data = tirx.BufferLoad(self.tile, [ramp(at + vector * lanes, lanes)])
            data = emitter.bind(data, "data") if width > 1 else data
            for output, factor in enumerate(factors):
                target = ramp((first + output * vectors + vector) * lanes, lanes)
                total = multiply_add(self.target, lanes, factor, data, tirx.BufferLoad(sums, [target]))
                emitter.emit(tirx.BufferStore(sums, total, [target]))
