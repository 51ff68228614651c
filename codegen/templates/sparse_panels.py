"""Products with a block-sparse weight, panels of outputs as vectors: what a dense product does, over the inputs that a panel has.

The register tile of a dense product (:mod:`.register_tile`) walks along the stored entries of a panel instead of all inputs: the vectors
of the weight lie next to each other, the elements of the other operand are read where an entry says (compare Gray, Radford and
Kingma, "GPU kernels for block-sparse weights", 2017). A block of panels that half of the second-level cache holds is read for
each tile of rows, whose operand stays in the first-level cache meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph
from ..emit import Expr, Kernel, index
from ..space import Config, Space
from ..sparse_weight import PanelWeight
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import Fp32
from .region import Epilogue
from .register_tile import RegisterTile
from .sparse_cost import WORD, panel_cycles, threads_worth
from .sparse_product import SparseProduct
from .staging import copy_row, loop_kind
from .stored_panels import StoredPanels
from .tiling import EvenSplit, distinct_splits, divisors, fits_registers, share, threads

_ENCODINGS = ("block_sparse",)
_L2_SHARE = 0.5
"""Of the second-level cache, for a block of panels."""
_CHOSEN = 4
"""Register tiles kept for each way of sharing the rows."""


class SparsePanels(Template):
    """Regions around one product whose weight is block sparse in panels of whole vectors.

    Knobs: ``rows`` of the register tile, ``row_groups``: into how many groups the threads are split along the rows (the others split
    the panels).
    """

    name = "sparse_panels"

    def takes(self, graph: Graph) -> bool:
        product = SparseProduct.find(graph, _ENCODINGS)
        return product is not None and product.parameter("width") >= _NARROWEST

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        product = SparseProduct.of(task, _ENCODINGS)
        parallel = _parallel(task, product)
        groups = [count for count in divisors(parallel) if count <= product.rows]
        points = [{"row_groups": group, "rows": count} for group in groups for count in _row_choices(task, product)]
        ranked = sorted(points, key=lambda knobs: _cycles(product, task.target, parallel, knobs))
        return Space.of_points(self.name, ranked, "row_groups", _CHOSEN)

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        product = SparseProduct.of(task, _ENCODINGS)
        parallel = _parallel(task, product)
        return [_cycles(product, task.target, parallel, {name: config[name] for name in ("row_groups", "rows")}) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config).lower()


_NARROWEST = 8
"""Outputs of a panel from which on it is a vector; narrower ones are for :mod:`.sparse_rows`."""


def _row_choices(task: Task, product: SparseProduct) -> list[int]:
    """Numbers of rows that a register tile may have."""
    vectors = -(-product.parameter("width") // task.target.vector_lanes)
    most = max(1, task.target.vector_registers // 2)
    return [count for count in distinct_splits(product.rows, most) if fits_registers(task.target, count, vectors)] or [1]


def _parallel(task: Task, product: SparseProduct) -> int:
    entries, width = product.parameter("entries"), product.parameter("width")
    alone = min(_cycles(product, task.target, 1, {"row_groups": 1, "rows": rows}) for rows in _row_choices(task, product))
    return threads_worth(task.target, task.threads, alone, float(WORD * entries * (width + 1)))


def _cycles(product: SparseProduct, target: Target, parallel: int, knobs: Mapping[str, int]) -> float:
    """Estimated cycles of the slowest thread."""
    width = product.parameter("width")
    split = EvenSplit(product.rows, knobs["rows"])
    panels = -(-product.columns // width)
    tiles = -(-split.tiles // knobs["row_groups"]) / split.tiles
    parts = parallel // knobs["row_groups"]
    share = -(-panels // parts) / panels
    return sum(run.count * panel_cycles(target, run.size, width, product.parameter("entries"), panels) for run in split.runs) * (
        tiles * share
    )


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.product = product = SparseProduct.of(task, _ENCODINGS)
        self.parallel = _parallel(task, product)
        self.groups = config["row_groups"]
        self.split = EvenSplit(product.rows, config["rows"])
        self.width = product.parameter("width")
        self.panels = -(-product.columns // self.width)
        self.layout = PanelWeight(self.width, product.parameter("entries"), self.parallel // self.groups, product.is_transposed)
        self.layouts = {product.weight_position: self.layout}
        self.source = product.plain_source()
        staged = 0 if self.source is not None else product.rows * product.depth * WORD
        self.kernel = kernel = Kernel(product.region.graph, workspace_bytes=staged, layouts=self.layouts)
        self.emitter = kernel.emitter
        self.epilogue = Epilogue(kernel, product.region)
        if self.source is not None:
            self.a: Any = kernel.inputs[self.source]
        else:
            self.a = kernel.workspace(product.rows * product.depth, "float32", 0, "rows")
        self.stored = StoredPanels(kernel, product, self.layout)

    def lower(self) -> LoweredKernel:
        if self.source is None:
            self._stage()
        emitter = self.emitter
        parts = self.parallel // self.groups
        with threads(emitter, self.parallel) as thread:
            low, high = self.stored.share(emitter, emitter.simplify(thread % parts))
            with share(emitter, emitter.simplify(thread // parts), self.groups, self.split.tiles) as tiles:
                size = self._block()
                blocks = emitter.bind((high - low + (size - 1)) // size, "blocks")
                with emitter.loop(blocks, name="block") as block:
                    first = emitter.bind(low + block * size, "first")
                    last = emitter.bind(tirx.Min(first + size, high), "last")
                    for run in self.split.runs:
                        with self.split.loop(emitter, run, *tiles) as row, emitter.loop(last - first, name="panel", start=first) as number:
                            self._panel(number, row, run.size)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _block(self) -> int:
        """Panels that half of the second-level cache holds, on average."""
        panel_bytes = WORD * self.layout.capacity * (self.width + 1) / self.panels
        return max(1, min(self.panels, int(_L2_SHARE * self.target.l2_bytes / max(panel_bytes, 1.0))))

    def _panel(self, number: Expr, row: Expr, rows: int) -> None:
        """The register tile of ``rows`` from ``row`` on against a panel; only the last one may have fewer columns than others."""
        tail = self.product.columns % self.width
        if not tail:
            self._tile(number, row, rows, self.width)
            return
        if self.panels > 1:
            with self.emitter.when(number < self.panels - 1):
                self._tile(number, row, rows, self.width)
        with self.emitter.when(number >= self.panels - 1):
            self._tile(index(self.panels - 1), row, rows, tail)

    def _tile(self, number: Expr, row: Expr, rows: int, columns: int) -> None:
        emitter, product = self.emitter, self.product
        tile = RegisterTile(emitter, Fp32(self.target), rows, -(-self.width // self.lanes))
        a_offset = emitter.bind(emitter.simplify(row * product.depth), "a_at")
        offsets = [step * product.depth for step in range(rows)]
        first, count = self.stored.entries(emitter, number)
        with emitter.loop(count, name="entry", start=first) as entry:
            place = emitter.bind(a_offset + self.stored.column(emitter, entry), "place")
            tile.step(self.a, place, offsets, self.stored.values, entry * self.width)

        def store(step: Expr | int, lane: Expr, element: Expr) -> None:
            column = number * self.width + lane
            if product.bias is not None:
                element = element + self.epilogue.evaluator.value_at(product.bias, [column])
            self.epilogue.store(product.result_indices(emitter, row + step, column), element)

        tile.for_each(columns, self.epilogue.is_long, store)

    def _stage(self) -> None:
        """Evaluates the operand into rows in the workspace."""
        emitter, product = self.emitter, self.product
        with emitter.loop(product.rows, loop_kind(self.parallel, product.rows), "row") as row:

            def element(k: Expr) -> Expr:
                return self.epilogue.evaluator.value_at(product.x, product.operand_indices(emitter, row, k))

            copy_row(emitter, self.lanes, self.a, row * product.depth, product.depth, element)
