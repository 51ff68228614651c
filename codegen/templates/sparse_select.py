"""Products of few rows with an N:M sparse weight of few bits: lanes are outputs, and each selects its input among four.

What tensor cores for 2:4 sparsity do (Mishra et al., "Accelerating sparse deep neural networks", 2021), with a permutation within
registers: the four inputs of a group are broadcast, and a vector of positions picks one for each output. Codes are not shifted down to
integers but up, so that their sign is that of the word, and the scale makes up for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph
from ..emit import Expr, Kernel, index, ramp, spread
from ..emit.expansion import expansion_lanes
from ..selected_weight import CHUNK, FOUR, SelectedWeight, selected_bits
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .arithmetic import multiply_add
from .region import Epilogue
from .sparse_cost import WORD, select_cycles, threads_worth
from .sparse_product import SparseProduct
from .tiling import round_up, share, threads

_ENCODINGS = ("nm_sparse",)
MOST_ROWS = 4
_VECTORS = (1, 2, 4)
_POSITION_BITS = 2
_WORD_BITS = 32


class SparseSelect(Template):
    """Regions around one product of at most four rows whose weight holds codes of 4 or 8 bits, N of each 4 inputs.

    Knob ``vectors``: of outputs that are computed together.
    """

    name = "sparse_select"

    def takes(self, graph: Graph) -> bool:
        product = SparseProduct.find(graph, _ENCODINGS, any_values=True)
        return product is not None and product.rows <= MOST_ROWS and _bits(product) is not None

    def reads_encoded(self, graph: Graph) -> bool:
        return True

    def space(self, task: Task) -> Space:
        product = SparseProduct.of(task, _ENCODINGS, any_values=True)
        if not expansion_lanes(task.target):
            raise LoweringError(f"'{task.target}' has no quick way to select by positions; compile with sparsity=None")
        fitting = [count for count in _VECTORS if 2 * count * product.rows + 5 <= task.target.vector_registers]
        best = 2 if 2 in fitting else fitting[-1]
        return Space(self.name, (("vectors", tuple(fitting)),), Config.of(self.name, {"vectors": best}))

    def estimated_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float]:
        product = SparseProduct.of(task, _ENCODINGS, any_values=True)
        return [_cycles(task, product) / _parallel(task, product) for _ in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        if config not in self.space(task):
            raise LoweringError(f"config {config} is not in the space of this task; take one of Template.space(task).configs")
        return _Lowering(task, config["vectors"]).lower()


def _bits(product: SparseProduct) -> int | None:
    return selected_bits(product.encoding, 1 if product.is_transposed else 0)


def _cycles(task: Task, product: SparseProduct) -> float:
    """Estimated cycles on one thread."""
    kept = product.columns * product.depth * product.parameter("n") / FOUR
    bits = _bits(product)
    assert bits is not None
    return select_cycles(product.rows, bits, kept / task.target.vector_lanes, product.columns / task.target.vector_lanes)


def _parallel(task: Task, product: SparseProduct) -> int:
    bits = _bits(product)
    assert bits is not None
    moved = product.columns * product.depth / FOUR * product.parameter("n") * (bits + _POSITION_BITS) / 8
    return threads_worth(task.target, task.threads, _cycles(task, product), moved)


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, vectors: int) -> None:
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.vectors = vectors
        self.product = product = SparseProduct.of(task, _ENCODINGS, any_values=True)
        self.parallel = _parallel(task, product)
        bits = _bits(product)
        assert bits is not None
        self.bits = bits
        self.kept = product.parameter("n")
        self.layout = layout = SelectedWeight(vectors * self.lanes, self.kept, bits, product.is_transposed)
        self.panels, self.chunks = layout.panels(product.columns), layout.chunks(product.depth)
        self.stride = self.chunks * CHUNK
        self.source = product.plain_source() if product.depth == self.stride else None
        staged = 0 if self.source is not None else int(round_up(product.rows * self.stride * WORD, 64))
        self.layouts = {product.weight_position: layout}
        self.kernel = kernel = Kernel(product.region.graph, workspace_bytes=staged, layouts=self.layouts)
        kernel.declare_functions({_SELECT: _FUNCTIONS[self.lanes]})
        self.emitter = kernel.emitter
        self.epilogue = Epilogue(kernel, product.region)
        if self.source is not None:
            self.a: Any = kernel.inputs[self.source]
        else:
            self.a = kernel.workspace(product.rows * self.stride, "float32", 0, "rows")
        words = self.panels * self.chunks * layout.chunk_words * layout.width
        self.words = kernel.part(product.weight, "int32", 0, words, "words")
        at, count = layout.scales_at(product.columns, product.depth), layout.scales(product.columns, product.depth)
        self.scales = kernel.part(product.weight, layout.scale_dtype, at, count, "scales")

    def lower(self) -> LoweredKernel:
        if self.source is None:
            self.product.stage(self.epilogue, self.lanes, self.a, self.stride)
        emitter, product, width = self.emitter, self.product, self.layout.width
        with (
            threads(emitter, self.parallel) as thread,
            share(emitter, thread, self.parallel, self.panels) as (low, high),
            emitter.loop(emitter.simplify(high - low), name="panel", start=low) as panel,
        ):
            totals = self._panel(panel)
            tail = product.columns % width
            if not tail:
                self._store(panel, width, totals)
            else:
                with emitter.when(panel < self.panels - 1):
                    self._store(panel, width, totals)
                with emitter.when(panel >= self.panels - 1):
                    self._store(index(self.panels - 1), tail, totals)
        return LoweredKernel(self.kernel.finish(), self.layouts, self.kernel.workspace_bytes)

    def _panel(self, panel: Expr) -> Any:
        """A buffer that holds the results of a panel: [rows, width]."""
        emitter, rows, lanes, vectors = self.emitter, self.product.rows, self.lanes, self.vectors
        totals = self._zeros(rows * vectors, "totals")
        with emitter.loop(self.chunks, name="chunk") as chunk:
            number = emitter.bind(panel * self.chunks + chunk, "number")
            sums = self._zeros(rows * vectors, "sums") if self.bits < 8 else totals
            self._chunk(emitter.bind(number * (self.layout.chunk_words * self.layout.width), "at"), chunk * CHUNK, sums)
            if self.bits < 8:
                for vector in range(vectors):
                    scale = emitter.bind(self._scale(number, vector), "scale")
                    for row in range(rows):
                        place = ramp((row * vectors + vector) * lanes, lanes)
                        total = multiply_add(self.target, lanes, scale, tirx.BufferLoad(sums, [place]), tirx.BufferLoad(totals, [place]))
                        emitter.emit(tirx.BufferStore(totals, total, [place]))
        if self.bits == 8:
            for vector in range(vectors):
                scale = emitter.bind(self._scale(panel, vector), "scale")
                for row in range(rows):
                    place = ramp((row * vectors + vector) * lanes, lanes)
                    emitter.emit(tirx.BufferStore(totals, scale * tirx.BufferLoad(totals, [place]), [place]))
        return totals

    def _scale(self, number: Expr, vector: int) -> Expr:
        """The scales of a vector of outputs over what their codes are shifted up by."""
        lanes = self.lanes
        stored = tirx.BufferLoad(self.scales, [ramp(number * self.layout.width + vector * lanes, lanes)])
        wide = stored if self.bits == 8 else tirx.Cast(f"float32x{lanes}", stored)
        return wide * spread(tirx.const(0.5 ** (_WORD_BITS - self.bits), "float32"), lanes)

    def _chunk(self, at: Expr, first: Expr, sums: Any) -> None:
        """Adds the products of a chunk whose words begin ``at`` with the inputs from ``first`` on."""
        emitter, lanes, width = self.emitter, self.lanes, self.layout.width
        digits = spread(tirx.const(-(1 << (_WORD_BITS - self.bits)), "int32"), lanes)
        each = _WORD_BITS // self.bits
        for number in range(self.kept * CHUNK // FOUR):
            group = number // self.kept
            word, shift = divmod(number, _WORD_BITS // _POSITION_BITS)
            code_word, code = divmod(number, each)
            places = [
                tirx.address_of(emitter.load(self.a, emitter.simplify(first + row * self.stride + group * FOUR)))
                for row in range(self.product.rows)
            ]
            for vector in range(self.vectors):

                def loaded(which: int, vector: int = vector) -> Expr:
                    return tirx.BufferLoad(self.words, [ramp(at + which * width + vector * lanes, lanes)])

                positions = tirx.shift_right(loaded(word), spread(tirx.const(_POSITION_BITS * shift, "int32"), lanes))
                positions = emitter.bind(positions, "positions")
                up = spread(tirx.const(_WORD_BITS - self.bits * (code + 1), "int32"), lanes)
                shifted = tirx.shift_left(loaded(self.kept + code_word), up)
                weight = emitter.bind(tirx.Cast(f"float32x{lanes}", tirx.bitwise_and(shifted, digits)), "weight")
                for row, place in enumerate(places):
                    chosen = tirx.call_pure_extern(f"float32x{lanes}", _SELECT, place, positions)
                    target = ramp((row * self.vectors + vector) * lanes, lanes)
                    total = multiply_add(self.target, lanes, weight, chosen, tirx.BufferLoad(sums, [target]))
                    emitter.emit(tirx.BufferStore(sums, total, [target]))

    def _zeros(self, count: int, name: str) -> Any:
        """A buffer of so many vectors of zeros."""
        emitter, lanes = self.emitter, self.lanes
        buffer = emitter.allocate(count * lanes, "float32", name)
        for number in range(count):
            emitter.emit(tirx.BufferStore(buffer, spread(tirx.const(0.0, "float32"), lanes), [ramp(number * lanes, lanes)]))
        return buffer

    def _store(self, panel: Expr, outputs: int, totals: Any) -> None:
        width = self.layout.width
        self.product.store_group(self.epilogue, totals, width, panel * width, outputs)


_SELECT = "mlc_select"
_AVX2, _AVX512 = 8, 16


def _function(lanes: int, intrinsic: str) -> str:
    """The vector whose lanes hold of the four floats at a place those that the lowest bits of their positions say, in LLVM's language."""
    floats, integers = f"<{lanes} x float>", f"<{lanes} x i32>"
    copies = ", ".join(f"i32 {lane % FOUR}" for lane in range(lanes))
    return f"""
declare {floats} @{intrinsic}({floats}, {integers})
define internal {floats} @{_SELECT}(ptr %place, {integers} %positions) alwaysinline nounwind {{
  %four = load <4 x float>, ptr %place, align 4
  %all = shufflevector <4 x float> %four, <4 x float> poison, <{lanes} x i32> <{copies}>
  %result = call {floats} @{intrinsic}({floats} %all, {integers} %positions)
  ret {floats} %result
}}
"""


_FUNCTIONS = {
    _AVX2: _function(_AVX2, "llvm.x86.avx.vpermilvar.ps.256"),
    _AVX512: _function(_AVX512, "llvm.x86.avx512.vpermilvar.ps.512"),
}
