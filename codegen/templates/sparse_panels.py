"""Products with a block-sparse weight, panels of outputs as vectors: what a dense product does, over the inputs that a panel has.

The register tile of a dense product (:mod:`.register_tile`) walks along the stored entries of a panel instead of all inputs: the vectors
of the weight lie next to each other, the elements of the other operand are read where an entry says (compare Gray, Radford and
Kingma, "GPU kernels for block-sparse weights", 2017). A block of panels that half of the second-level cache holds is read for
each tile of rows, whose operand stays in the first-level cache meanwhile. Where the operand is a product with a factor for each input, as
after squeeze and excitation, the vectors of the weight are multiplied with the factors, of which there are fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph
from ..emit import Expr, index
from ..space import Config, Space
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import BytesAsFloats, Fp32
from .register_tile import RegisterTile
from .sparse_cost import WORD, panel_cycles, threads_worth
from .sparse_product import SparseProduct
from .stored_panels import PanelKernel
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

    def pulls_operand(self, graph: Graph) -> bool:
        product = SparseProduct.find(graph, _ENCODINGS)
        return product is not None and product.scaled_source() is not None

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
    return threads_worth(task.target, task.threads, alone, float(entries * (product.values.nbytes * width + WORD)))


def _cycles(product: SparseProduct, target: Target, parallel: int, knobs: Mapping[str, int]) -> float:
    """Estimated cycles of the slowest thread."""
    width = product.parameter("width")
    split = EvenSplit(product.rows, knobs["rows"])
    panels = -(-product.columns // width)
    tiles = -(-split.tiles // knobs["row_groups"]) / split.tiles
    parts = parallel // knobs["row_groups"]
    share = -(-panels // parts) / panels
    every = (product.parameter("entries"), panels, split.tiles, product.values.nbytes, WORD * product.depth)
    return sum(run.count * panel_cycles(target, run.size, width, *every) for run in split.runs) * (tiles * share)


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, config: Config) -> None:
        self.target = task.target
        self.product = product = SparseProduct.of(task, _ENCODINGS)
        self.parallel = _parallel(task, product)
        self.groups = config["row_groups"]
        self.split = EvenSplit(product.rows, config["rows"])
        self.frame = PanelKernel(task, product, self.parallel // self.groups, scaled=True)
        self.emitter = self.frame.emitter

    def lower(self) -> LoweredKernel:
        self.frame.stage(self.parallel)
        emitter = self.emitter
        parts = self.parallel // self.groups
        with threads(emitter, self.parallel) as thread:
            low, high = self.frame.stored.share(emitter.simplify(thread % parts))
            with share(emitter, emitter.simplify(thread // parts), self.groups, self.split.tiles) as tiles:
                size = self._block()
                blocks = emitter.bind((high - low + (size - 1)) // size, "blocks")
                with emitter.loop(blocks, name="block") as block:
                    first = emitter.bind(low + block * size, "first")
                    last = emitter.bind(tirx.Min(first + size, high), "last")
                    for run in self.split.runs:
                        with self.split.loop(emitter, run, *tiles) as row, emitter.loop(last - first, name="panel", start=first) as number:
                            self._panel(number, row, run.size)
        return self.frame.finish()

    def _block(self) -> int:
        """Panels that half of the second-level cache holds, on average."""
        panels = self.frame.panels
        panel_bytes = self.frame.layout.capacity * (self.product.values.nbytes * self.frame.width + WORD) / panels
        return max(1, min(panels, int(_L2_SHARE * self.target.l2_bytes / max(panel_bytes, 1.0))))

    def _panel(self, number: Expr, row: Expr, rows: int) -> None:
        """The register tile of ``rows`` from ``row`` on against a panel; only the last one may have fewer columns than others."""
        width, panels = self.frame.width, self.frame.panels
        tail = self.product.columns % width
        if not tail:
            self._tile(number, row, rows, width)
            return
        if panels > 1:
            with self.emitter.when(number < panels - 1):
                self._tile(number, row, rows, width)
        with self.emitter.when(number >= panels - 1):
            self._tile(index(panels - 1), row, rows, tail)

    def _tile(self, number: Expr, row: Expr, rows: int, columns: int) -> None:
        emitter, product, frame = self.emitter, self.product, self.frame
        arithmetic = Fp32(self.target) if frame.stored.values.are_floats else BytesAsFloats(self.target)
        tile = RegisterTile(emitter, arithmetic, rows, -(-frame.width // frame.lanes))
        a_offset = emitter.bind(emitter.simplify(row * product.depth), "a_at")
        offsets = [step * product.depth for step in range(rows)]
        factor = frame.factor if frame.factors is not None else None
        frame.stored.accumulate(tile, number, frame.width, frame.rows, a_offset, offsets, factor)
        tile.for_each(
            columns, frame.epilogue.is_long, lambda step, lane, element: frame.store(row + step, number * frame.width + lane, element)
        )
