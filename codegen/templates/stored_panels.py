"""The frame of kernels with a block-sparse weight: its parts as buffers, the operand as rows, and what becomes of sums."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..emit import INDEX, Emitter, Expr, Kernel, ramp
from ..sparse_weight import PanelWeight, StoredValues
from ..task import Task
from ..template import LoweredKernel
from .arithmetic import bytes_as_floats
from .region import Epilogue
from .sparse_cost import WORD
from .sparse_product import SparseProduct
from .staging import copy_row, loop_kind
from .tiling import round_up


class StoredValuesBuffer:
    """The elements that a weight's form stores from ``word`` on, and the scales of its ``outputs`` from ``scales_word`` on."""

    def __init__(self, kernel: Kernel, product: SparseProduct, word: int, elements: int, scales_word: int, outputs: int) -> None:
        self._emitter = kernel.emitter
        self.buffer: Any = kernel.part(product.weight, product.values.dtype, word, elements, "values")
        self._scales: Any = None
        if product.values is not StoredValues.FLOATS:
            self._scales = kernel.part(product.weight, "float32", scales_word, outputs, "scales")

    @property
    def are_floats(self) -> bool:
        return self._scales is None

    def number(self, at: Expr) -> Expr:
        """The element at ``at``, as a float."""
        element = self._emitter.load(self.buffer, at)
        return element if self.are_floats else tirx.Cast("float32", element)

    def vector(self, at: Expr, lanes: int) -> Expr:
        """The ``lanes`` elements from ``at`` on, as floats."""
        stored = tirx.BufferLoad(self.buffer, [ramp(at, lanes)])
        return stored if self.are_floats else bytes_as_floats(stored, lanes)

    def scaled(self, total: Expr, output: Expr) -> Expr:
        """The sum that ``total``, of products with elements of an output, stands for."""
        return total if self.are_floats else total * self._emitter.load(self._scales, output)


class PanelKernel:
    """A kernel in the making: ``product`` with a weight in panels whose outputs are cut into ``shares``.

    Without a ``workspace`` of its own (in words) the kernel reads the operand as rows, :attr:`rows`, which :meth:`stage` puts into the
    workspace where they do not lie in memory so.
    """

    def __init__(self, task: Task, product: SparseProduct, shares: int, workspace: int | None = None) -> None:
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.product = product
        self.width = product.parameter("width")
        self.panels = -(-product.columns // self.width)
        self.layout = PanelWeight(self.width, product.parameter("entries"), shares, product.is_transposed, product.values)
        self.source = product.plain_source()
        self._staged = workspace is None and self.source is None
        if workspace is None:
            workspace = 0 if self.source is not None else int(round_up(product.rows * product.depth, 64 // WORD))
        layouts = {product.weight_position: self.layout}
        self.kernel = kernel = Kernel(product.region.graph, workspace_bytes=WORD * workspace, layouts=layouts)
        self.emitter: Emitter = kernel.emitter
        self.epilogue = Epilogue(kernel, product.region)
        self.rows: Any = kernel.inputs[self.source] if self.source is not None else None
        if self._staged:
            self.rows = kernel.workspace(product.rows * product.depth, "float32", 0, "rows")
        weight, outputs, inputs, layout = product.weight, product.columns, product.depth, self.layout
        self._starts: Any = kernel.part(weight, "int32", 0, layout.panels(outputs) + 1, "starts")
        self._bounds: Any = kernel.part(weight, "int32", layout.bounds_at(outputs), layout.shares + 1, "bounds")
        self.columns: Any = kernel.part(weight, layout.column_dtype(inputs), layout.columns_at(outputs), layout.capacity, "columns")
        self.values = StoredValuesBuffer(
            kernel,
            product,
            layout.values_at(outputs, inputs),
            layout.capacity * layout.width,
            layout.scales_at(outputs, inputs),
            self.panels * self.width,
        )

    def finish(self) -> LoweredKernel:
        return LoweredKernel(self.kernel.finish(), {self.product.weight_position: self.layout}, self.kernel.workspace_bytes)

    def share(self, part: Expr) -> tuple[Expr, Expr]:
        """The range [low, high) of panels that are ``part``'s."""
        emitter = self.emitter
        return emitter.bind(emitter.load(self._bounds, part), "low"), emitter.bind(emitter.load(self._bounds, part + 1), "high")

    def entries(self, panel: Expr) -> tuple[Expr, Expr]:
        """The first entry of a panel, and how many it has."""
        emitter = self.emitter
        first = emitter.bind(emitter.load(self._starts, panel), "first")
        return first, emitter.bind(emitter.load(self._starts, panel + 1) - first, "count")

    def column(self, entry: Expr) -> Expr:
        """The column of an entry."""
        return tirx.Cast(INDEX, self.emitter.load(self.columns, entry))

    def stage(self, threads: int) -> None:
        """Evaluates the operand into rows in the workspace, if need be."""
        if not self._staged:
            return
        emitter, product = self.emitter, self.product
        with emitter.loop(product.rows, loop_kind(threads, product.rows), "row") as row:

            def element(k: Expr) -> Expr:
                return self.operand(row, k)

            copy_row(emitter, self.lanes, self.rows, row * product.depth, product.depth, element)

    def operand(self, row: Expr, k: Expr) -> Expr:
        """The operand's element as the region computes it."""
        return self.epilogue.evaluator.value_at(self.product.x, self.product.operand_indices(self.emitter, row, k))

    def store(self, row: Expr, column: Expr, total: Expr, *, bound: bool = False) -> None:
        """Stores what becomes of a sum of products; ``bound``: computed once, where it is read more than once."""
        element = self.values.scaled(total, column)
        if self.product.bias is not None:
            element = element + self.epilogue.evaluator.value_at(self.product.bias, [column])
        element = self.emitter.bind(element) if bound else element
        self.epilogue.store(self.product.result_indices(self.emitter, row, column), element)
