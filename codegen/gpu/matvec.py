"""Products with few rows on a GPU: reading the weight is all the work, so every thread of a block reads a part of the same columns.

A block takes a few columns. Its threads share the depth, each keeps a sum for every row and column of the block, and the sums meet in
shared memory. A constant weight keeps its columns' elements next to each other, along which neighbouring threads read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvm import tirx

from ...ir import Graph, Layout
from ..emit import SERIAL, UNROLLED, Expr, compute_dtype, index
from ..emit.conversions import constant
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from ..templates.region import AnchoredRegion, Epilogue
from .kernel import SHARED_BYTES, GpuKernel
from .product import Contraction, constant_weight

_MOST_ROWS = 8
_THREADS = (64, 128, 256)
_COLUMNS = (1, 2, 4)
_LEAST_DEPTH = 128


class GpuMatvec(Template):
    """Regions around one matmul or linear layer of at most eight rows, as decoding a token has it, with a fused prologue and epilogue.

    Knobs: ``columns`` and ``threads`` of a block.
    """

    name: ClassVar[str] = "gpu_matvec"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("matmul", "linear"), any_dtype=True)
        if region is None:
            return False
        product = Contraction(region.anchor)
        return product.rows <= _MOST_ROWS and product.depth >= _LEAST_DEPTH and not product.second_along_columns(False)

    def space(self, task: Task) -> Space:
        product = Contraction(_region(task.graph).anchor)
        # Few columns of a block while there are not enough blocks for the device.
        busy = 4 * task.target.threads
        columns = max((count for count in _COLUMNS if product.batch * product.columns >= busy * count), default=1)
        threads = 128 if product.depth >= 512 else 64
        nbytes = max(product.dtype.nbytes, 4) * product.rows

        def allows(knobs: Mapping[str, int]) -> bool:
            return knobs["columns"] * knobs["threads"] * nbytes <= SHARED_BYTES

        default = Config.of(self.name, {"columns": columns, "threads": threads})
        return Space(self.name, (("columns", _COLUMNS), ("threads", _THREADS)), default, allows)

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        return _Lowering(task, config["columns"], config["threads"]).lower()


def _region(graph: Graph) -> AnchoredRegion:
    region = AnchoredRegion.find(graph, ("matmul", "linear"), any_dtype=True)
    assert region is not None
    return region


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, columns: int, threads: int) -> None:
        region = _region(task.graph)
        self.product = product = Contraction(region.anchor)
        self.columns, self.threads = columns, threads
        self.dtype = compute_dtype(product.dtype)
        self.column_blocks = -(-product.columns // columns)
        layouts: dict[int, Layout] = {}
        position = constant_weight(task, region)
        if position is not None:
            # Whatever the weight's type says: columns one after the other.
            rank = region.anchor.inputs[1].tensor.rank
            layouts[position] = Layout.row_major(rank)
        self.kernel = GpuKernel(region.graph, blocks=product.batch * self.column_blocks, threads=threads, layouts=layouts)
        self.emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, region)

    def lower(self) -> LoweredKernel:
        emitter, kernel, product = self.emitter, self.kernel, self.product
        evaluator = self.epilogue.evaluator
        batch = kernel.bounded(kernel.block // self.column_blocks, product.batch, "batch")
        start = emitter.bind(emitter.simplify(kernel.block % self.column_blocks) * self.columns, "start")
        count = product.rows * self.columns
        sums = emitter.allocate(count, self.dtype, "sums")
        with emitter.loop(count, UNROLLED) as place:
            emitter.store(sums, constant(0, product.dtype), place)
        steps = -(-product.depth // self.threads)
        with emitter.loop(steps, UNROLLED if steps <= 4 else SERIAL, "step") as step:
            wanted = emitter.bind(step * self.threads + kernel.thread, "wanted")
            with emitter.when(wanted < product.depth) if product.depth % self.threads else emitter.scope():
                depth = kernel.bounded(wanted, product.depth, "depth")
                rows = [emitter.bind(product.first(evaluator, batch, index(row), depth)) for row in range(product.rows)]
                for column in range(self.columns):
                    with emitter.scope():
                        weight = emitter.bind(product.second(evaluator, batch, depth, self._column(start, column)))
                        for row, element in enumerate(rows):
                            place = row * self.columns + column
                            emitter.store(sums, emitter.load(sums, place) + element * weight, place)
        shared = kernel.shared(count * self.threads, self.dtype, "partial")
        with emitter.loop(count, UNROLLED) as place:
            emitter.store(shared, emitter.load(sums, place), place * self.threads + kernel.thread)
        kernel.barrier()
        self._meet(shared, count)
        self._store(shared, batch, start, count)
        return kernel.lowered()

    def _column(self, start: Expr, column: int) -> Expr:
        """A column of the block; the last of all in place of those beyond, whose results are not stored."""
        position: Expr = start + column
        if self.product.columns % self.columns:
            position = tirx.Min(position, index(self.product.columns - 1))
        return self.kernel.bounded(position, self.product.columns, "column")

    def _meet(self, shared: Any, count: int) -> None:
        """The sums of all threads added up by halves, at the places of thread 0."""
        emitter, kernel = self.emitter, self.kernel
        half = self.threads // 2
        while half:
            with emitter.when(kernel.thread < half), emitter.loop(count, UNROLLED) as place:
                own = place * self.threads + kernel.thread
                emitter.store(shared, emitter.load(shared, own) + emitter.load(shared, own + half), own)
            kernel.barrier()
            half //= 2

    def _store(self, shared: Any, batch: Expr, start: Expr, count: int) -> None:
        """Thread number i applies what is fused after to result i of the block, and stores it."""
        emitter, kernel, product = self.emitter, self.kernel, self.product
        with emitter.when(kernel.thread < count):
            row = kernel.bounded(kernel.thread // self.columns, product.rows, "row")
            place = emitter.bind(start + emitter.simplify(kernel.thread % self.columns), "column")
            with emitter.when(place < product.columns):
                column = kernel.bounded(place, product.columns, "column")
                element = emitter.bind(emitter.load(shared, kernel.thread * self.threads))
                element = emitter.bind(product.with_bias(self.epilogue.evaluator, element, batch, column))
                self.epilogue.store(product.result(self.epilogue.evaluator, batch, row, column), element)
