"""Products of few rows with a weight whose numbers are listed one by one (CSR): gather what they are multiplied with.

Such products read every stored number once, with 2 bytes that say where it belongs. Some numbers of an output are a vector; the elements
of the other operand, which the first-level cache holds, are loaded one by one into another. Gather instructions of processors with AVX2
are no faster than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph
from ..emit import Expr, ramp, spread
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import multiply_add
from .sparse_cost import gather_cycles, threads_worth
from .sparse_product import SparseProduct
from .stored_panels import PanelKernel
from .tiling import threads

_ENCODINGS = ("block_sparse",)
MOST_ROWS = 4
_AHEAD = 512
"""Entries by which memory is asked in advance: a tenth faster than what the hardware foresees by itself (measured)."""


class SparseGather(Template):
    """Regions around one product of at most four rows whose weight is block sparse in panels of one output.

    Knob ``lanes``: numbers that are multiplied at once.
    """

    name = "sparse_gather"

    def takes(self, graph: Graph) -> bool:
        product = SparseProduct.find(graph, _ENCODINGS)
        return product is not None and product.parameter("width") == 1 and product.rows <= MOST_ROWS

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        return Space(self.name, (("lanes", (lanes,)),), Config.of(self.name, {"lanes": lanes}))

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        product = SparseProduct.of(task, _ENCODINGS)
        cycles = gather_cycles(task.target, product.rows, product.columns, product.parameter("entries"))
        return [cycles / _parallel(task, product) for _ in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config["lanes"]).lower()


def _parallel(task: Task, product: SparseProduct) -> int:
    cycles = gather_cycles(task.target, product.rows, product.columns, product.parameter("entries"))
    return threads_worth(task.target, task.threads, cycles, _bytes(product))


def _bytes(product: SparseProduct) -> float:
    """Of the stored weight."""
    return float(product.parameter("entries") * (product.values.nbytes + 2))


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, lanes: int) -> None:
        self.target = task.target
        self.lanes = lanes
        self.product = product = SparseProduct.of(task, _ENCODINGS)
        self.parallel = _parallel(task, product)
        self.frame = PanelKernel(task, product, self.parallel)
        self.emitter = self.frame.emitter
        self.a = self.frame.rows
        self.is_distant = _bytes(product) > task.target.l2_bytes
        """Whether the weight comes from beyond the second-level cache."""

    def lower(self) -> LoweredKernel:
        self.frame.stage(threads=1)
        emitter = self.emitter
        with threads(emitter, self.parallel) as thread:
            low, high = self.frame.stored.share(thread)
            with emitter.loop(high - low, name="output", start=low) as output:
                self._output(output)
        return self.frame.finish()

    def _output(self, output: Expr) -> None:
        """All rows of one output."""
        emitter, rows, lanes = self.emitter, self.product.rows, self.lanes
        first, count = self.frame.stored.entries(output)
        sums = emitter.allocate(rows * lanes, "float32", "sums")
        for row in range(rows):
            emitter.emit(tirx.BufferStore(sums, spread(tirx.const(0.0, "float32"), lanes), [ramp(row * lanes, lanes)]))
        whole = emitter.bind(count // lanes, "whole")
        with emitter.loop(whole, name="vector") as vector:
            self._vector(emitter.bind(first + vector * lanes, "entry"), sums)
        totals = emitter.allocate(rows, "float32", "totals")
        for row in range(rows):
            # Lanes may be added in any order.
            lines = tirx.BufferLoad(sums, [ramp(row * lanes, lanes)])
            total = tirx.call_llvm_pure_intrin("float32", "llvm.vector.reduce.fadd", tirx.const(-0.0, "float32"), lines)
            emitter.store(totals, total, row)
        with emitter.loop(count - whole * lanes, name="entry", start=first + whole * lanes) as entry:
            column = emitter.bind(self.frame.stored.column(entry), "column")
            weight = emitter.bind(self.frame.stored.values.number(entry), "weight")
            for row in range(rows):
                product = emitter.load(self.a, column + row * self.product.depth) * weight
                emitter.store(totals, emitter.load(totals, row) + product, row)
        for row in range(rows):
            with emitter.scope():
                self.frame.store(emitter.simplify(row), output, emitter.load(totals, row), bound=True)

    def _vector(self, entry: Expr, sums: Any) -> None:
        """Adds the products of the ``lanes`` entries from ``entry`` on."""
        emitter, lanes = self.emitter, self.lanes
        if self.is_distant:
            emitter.prefetch(self.frame.stored.values.buffer, entry + _AHEAD)
            emitter.prefetch(self.frame.stored.columns, entry + _AHEAD)
        columns = [emitter.bind(self.frame.stored.column(entry + lane), "column") for lane in range(lanes)]
        weights = emitter.bind(self.frame.stored.values.vector(entry, lanes), "weights")
        for row in range(self.product.rows):
            gathered = emitter.allocate(lanes, "float32", "gathered")
            for lane, column in enumerate(columns):
                emitter.store(gathered, emitter.load(self.a, column + row * self.product.depth), lane)
            place = ramp(row * lanes, lanes)
            vector, total = tirx.BufferLoad(gathered, [ramp(0, lanes)]), tirx.BufferLoad(sums, [place])
            fused = multiply_add(self.target, lanes, weights, vector, total)
            emitter.emit(tirx.BufferStore(sums, fused, [place]))
