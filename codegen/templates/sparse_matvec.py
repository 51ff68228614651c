"""Products of few rows with a weight stored as a bitmap: load sparse, compute dense.

Such products read every element of the weight once, so that the bytes of it are what they cost. The elements that are not zero lie next
to each other; a vector of them is expanded in registers to the lanes that its bits name (:mod:`..emit.expansion`), and multiplied as a
dense one (compare Xia et al., "Flash-LLM", 2023). Some outputs are computed together: they share the vectors of the other operand,
and their chains of additions hide each other's latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph
from ..emit import Expr, Kernel, index, ramp, spread
from ..emit.expansion import Expansion, expansion_lanes
from ..space import Config, Space
from ..sparse_weight import BitmapWeight
from ..target import Target
from ..task import Task
from ..template import LoweredKernel, Template
from .region import Epilogue
from .sparse_cost import WORD, bitmap_cycles, threads_worth
from .sparse_product import SparseProduct
from .stored_panels import StoredElements
from .tiling import round_up, threads

_ENCODINGS = ("bitmap", "nm_sparse")
MOST_ROWS = 4
_AHEAD = 2048
"""Elements by which memory is asked in advance: with 20% of them stored a quarter faster than what the hardware foresees, with 50% an
eighth (measured; 128 are slower than none, 8192 as good)."""
_OUTPUTS = (2, 4, 8)
"""Outputs that are computed together."""


class SparseMatvec(Template):
    """Regions around one product of at most four rows whose weight is stored as a bitmap, or N:M sparse along its inputs.

    Knob ``outputs``: how many are computed together.
    """

    name = "sparse_matvec"
    revision = 3

    def takes(self, graph: Graph) -> bool:
        product = SparseProduct.find(graph, _ENCODINGS)
        if product is None or product.rows > MOST_ROWS:
            return False
        # Along the inputs, and whole groups in a vector.
        return product.encoding.name == "bitmap" or (
            product.parameter("axis") == (0 if product.is_transposed else 1) and 8 % product.parameter("m") == 0
        )

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        product = SparseProduct.of(task, _ENCODINGS)
        if not expansion_lanes(task.target):
            raise LoweringError(f"'{task.target}' has no quick way to expand bitmaps; compile with sparsity=None")
        fitting = [count for count in _OUTPUTS if (count + 1) * product.rows + 3 <= task.target.vector_registers] or [_OUTPUTS[0]]
        best = 4 if 4 in fitting else fitting[-1]
        return Space(self.name, (("outputs", tuple(fitting)),), Config.of(self.name, {"outputs": best}))

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        product = SparseProduct.of(task, _ENCODINGS)
        parallel = _parallel(task, product)
        return [_cycles(task, product) / parallel for _ in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config["outputs"]).lower()


def _elements(product: SparseProduct) -> int:
    """Stored elements at most."""
    if product.encoding.name == "bitmap":
        return product.parameter("elements")
    return product.columns * product.depth // product.parameter("m") * product.parameter("n")


def _cycles(task: Task, product: SparseProduct) -> float:
    """Estimated cycles on one thread."""
    steps = -(-product.depth // max(expansion_lanes(task.target), 1))
    return bitmap_cycles(task.target, product.rows, product.columns, steps, product.encoding.name == "nm_sparse")


def _parallel(task: Task, product: SparseProduct) -> int:
    moved = product.values.nbytes * _elements(product) + product.columns * product.depth / 8
    return threads_worth(task.target, task.threads, _cycles(task, product), moved)


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, outputs: int) -> None:
        self.target: Target = task.target
        self.lanes = expansion_lanes(task.target)
        self.product = product = SparseProduct.of(task, _ENCODINGS)
        self.parallel = _parallel(task, product)
        self.together = outputs
        self.kept = (product.parameter("n"), product.parameter("m")) if product.encoding.name == "nm_sparse" else None
        self.layout = BitmapWeight(outputs, self.lanes, _elements(product), self.parallel, self.kept, product.is_transposed, product.values)
        self.layouts = {product.weight_position: self.layout}
        elements = _elements(product)
        self.prefetched = 0
        """Elements of each step that are asked for in advance, where they come from beyond the second-level cache."""
        if elements * product.values.nbytes > task.target.l2_bytes:
            self.prefetched = -(-elements * outputs * self.lanes // (product.columns * product.depth))
        self.source = product.plain_source() if product.depth % self.lanes == 0 else None
        self.steps = self.layout.steps(product.depth)
        self.stride = self.steps * self.lanes
        staged = 0 if self.source is not None else int(round_up(product.rows * self.stride * WORD, 64))
        self.kernel = kernel = Kernel(product.region.graph, workspace_bytes=staged, layouts=self.layouts)
        self.expansion = Expansion(self.lanes, product.values.dtype, halved=self.is_halved)
        kernel.declare_functions(self.expansion.functions)
        self.emitter = kernel.emitter
        self.epilogue = Epilogue(kernel, product.region)
        if self.source is not None:
            self.a: Any = kernel.inputs[self.source]
        else:
            self.a = kernel.workspace(product.rows * self.stride, "float32", 0, "rows")
        columns, depth, weight = product.columns, product.depth, product.weight
        self.groups = self.layout.groups(columns)
        self.starts = kernel.part(weight, "int32", 0, self.groups + 1, "starts")
        self.bounds = kernel.part(weight, "int32", self.layout.bounds_at(columns), self.parallel + 1, "bounds")
        masks = self.groups * self.steps * outputs
        self.bits = kernel.part(weight, f"uint{self.lanes}", self.layout.bits_at(columns), masks, "bits")
        stored = self.layout.stored(columns, depth) + self.lanes
        self.values = StoredElements(
            kernel,
            weight,
            product.values,
            self.layout.values_at(columns, depth),
            stored,
            self.layout.scales_at(columns, depth),
            self.groups * outputs,
        )

    def lower(self) -> LoweredKernel:
        if self.source is None:
            self.product.stage(self.epilogue, self.lanes, self.a, self.stride)
        emitter = self.emitter
        with threads(emitter, self.parallel) as thread:
            low = emitter.bind(emitter.load(self.bounds, thread), "low")
            high = emitter.bind(emitter.load(self.bounds, thread + 1), "high")
            with emitter.loop(high - low, name="group", start=low) as group:
                tail = self.product.columns % self.together
                if not tail:
                    self._group(group, self.together)
                else:
                    with emitter.when(group < self.groups - 1):
                        self._group(group, self.together)
                    with emitter.when(group >= self.groups - 1):
                        self._group(index(self.groups - 1), tail)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _group(self, group: Expr, outputs: int) -> None:
        """The results of a group of outputs for all rows; the first ``outputs`` of the group exist."""
        emitter, rows, together, lanes = self.emitter, self.product.rows, self.together, self.lanes
        sums = emitter.allocate(rows * together * lanes, "float32", "sums")
        for number in range(rows * together):
            emitter.emit(tirx.BufferStore(sums, spread(tirx.const(0.0, "float32"), lanes), [ramp(number * lanes, lanes)]))
        next_value = emitter.allocate(1, "int32", "next")
        emitter.store(next_value, emitter.load(self.starts, group), 0)
        first_bits = emitter.bind(emitter.simplify(group * (self.steps * together)), "bits_at")
        with emitter.loop(self.steps, name="step") as step:
            vectors = [emitter.bind(tirx.BufferLoad(self.a, [ramp(step * lanes + row * self.stride, lanes)]), "a") for row in range(rows)]
            start = emitter.bind(emitter.load(next_value, 0), "start")
            if self.prefetched:
                emitter.prefetch(self.values.buffer, start + _AHEAD, self.prefetched, level=1)
            for output in range(together):
                bits = emitter.bind(tirx.Cast("int32", emitter.load(self.bits, first_bits + step * together + output)), "bits")
                weight = emitter.bind(self.expansion.expanded(self.values.buffer, start, bits), "weight")
                for row, vector in enumerate(vectors):
                    place = ramp((row * together + output) * lanes, lanes)
                    total = tirx.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.fma", vector, weight, tirx.BufferLoad(sums, [place]))
                    emitter.emit(tirx.BufferStore(sums, total, [place]))
                start = emitter.bind(start + self._count(bits), "start")
            emitter.store(next_value, start, 0)
        self._store(group, outputs, sums)

    @property
    def is_halved(self) -> bool:
        """Whether at most half of the elements are stored, vector by vector."""
        return self.kept is not None and 2 * self.kept[0] <= self.kept[1]

    def _count(self, bits: Expr) -> Expr:
        """How many elements a vector takes."""
        if self.kept is not None:
            n, m = self.kept
            return index(self.lanes // m * n)
        return tirx.call_llvm_pure_intrin("int32", "llvm.ctpop", bits)

    def _store(self, group: Expr, outputs: int, sums: Any) -> None:
        emitter, product, together = self.emitter, self.product, self.together
        totals = emitter.allocate(product.rows * together, "float32", "totals")
        zero = tirx.const(-0.0, "float32")
        for number in range(product.rows * together):
            vector = tirx.BufferLoad(sums, [ramp(number * self.lanes, self.lanes)])
            # Lanes may be added in any order.
            total = tirx.call_llvm_pure_intrin("float32", "llvm.vector.reduce.fadd", zero, vector)
            emitter.store(totals, total, number)
        product.store_group(self.epilogue, totals, together, group * together, outputs, self.values.scaled)
