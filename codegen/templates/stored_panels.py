"""The frame of kernels with a block-sparse weight: its parts as buffers, the operand as rows, and what becomes of sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from ...ir import Value
from ..emit import INDEX, Emitter, Expr, Kernel, index, ramp
from ..sparse_weight import PanelWeight, StoredValues
from ..task import Task
from ..template import LoweredKernel
from .arithmetic import bytes_as_floats
from .region import Epilogue
from .register_tile import RegisterTile
from .sparse_cost import WORD
from .sparse_product import SparseProduct
from .staging import copy_row, loop_kind
from .tiling import round_up


class StoredElements:
    """The elements that the form of a ``weight`` stores from ``word`` on, and the scales of its ``outputs`` from ``scales_word`` on."""

    def __init__(
        self, kernel: Kernel, weight: Value, values: StoredValues, word: int, elements: int, scales_word: int, outputs: int
    ) -> None:
        self._emitter = kernel.emitter
        self.buffer: Any = kernel.part(weight, values.dtype, word, elements, "values")
        self._scales: Any = None
        if values is not StoredValues.FLOATS:
            self._scales = kernel.part(weight, "float32", scales_word, outputs, "scales")

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


class StoredPanels:
    """The parts of a block-sparse ``weight`` of so many ``outputs`` and ``inputs``, stored as ``layout``."""

    def __init__(self, kernel: Kernel, weight: Value, layout: PanelWeight, outputs: int, inputs: int) -> None:
        self._emitter = kernel.emitter
        panels, capacity = layout.panels(outputs), layout.capacity
        self._starts: Any = kernel.part(weight, "int32", 0, panels + 1, "starts")
        self._bounds: Any = kernel.part(weight, "int32", layout.bounds_at(outputs), layout.shares + 1, "bounds")
        self.columns: Any = kernel.part(weight, layout.column_dtype(inputs), layout.columns_at(outputs), capacity, "columns")
        at, scales_at = layout.values_at(outputs, inputs), layout.scales_at(outputs, inputs)
        self.values = StoredElements(kernel, weight, layout.values, at, capacity * layout.width, scales_at, panels * layout.width)

    def share(self, part: Expr) -> tuple[Expr, Expr]:
        """The range [low, high) of panels that are ``part``'s."""
        emitter = self._emitter
        return emitter.bind(emitter.load(self._bounds, part), "low"), emitter.bind(emitter.load(self._bounds, part + 1), "high")

    def entries(self, panel: Expr) -> tuple[Expr, Expr]:
        """The first entry of a panel, and how many it has."""
        emitter = self._emitter
        first = emitter.bind(emitter.load(self._starts, panel), "first")
        return first, emitter.bind(emitter.load(self._starts, panel + 1) - first, "count")

    def column(self, entry: Expr) -> Expr:
        """The column of an entry, or the place that is stored for it."""
        return tirx.Cast(INDEX, self._emitter.load(self.columns, entry))

    def accumulate(
        self,
        tile: RegisterTile,
        panel: Expr,
        width: int,
        a: Any,
        a_offset: Expr,
        row_offsets: Sequence[int],
        factor: Callable[[Expr], Expr] | None = None,
    ) -> None:
        """Adds the products of the entries of a panel of ``width`` outputs with what lies in ``a`` at their columns, times the columns'
        ``factor``."""
        emitter = self._emitter
        first, count = self.entries(panel)
        with emitter.loop(count, name="entry", start=first) as entry:
            column = emitter.bind(self.column(entry), "column")
            place = emitter.bind(a_offset + column, "place")
            scale = emitter.bind(factor(column), "factor") if factor is not None else None
            tile.step(a, place, row_offsets, self.values.buffer, entry * width, scale)


class PanelKernel:
    """A kernel in the making: ``product`` with a weight in panels whose outputs are cut into ``shares``.

    Without a ``workspace`` of its own (in words) the kernel reads the operand as rows, :attr:`rows`, which :meth:`stage` puts into the
    workspace where they do not lie in memory so. A kernel that multiplies each column of them with its :meth:`factor` is ``scaled``: its
    rows are those of the product's operand before that.
    """

    def __init__(self, task: Task, product: SparseProduct, shares: int, workspace: int | None = None, scaled: bool = False) -> None:
        self.target = task.target
        self.lanes = task.target.vector_lanes
        self.product = product
        self.width = product.parameter("width")
        self.panels = -(-product.columns // self.width)
        self.layout = PanelWeight(self.width, product.parameter("entries"), shares, product.is_transposed, product.values)
        parts = product.scaled_source() if scaled else None
        self.source: Value | None = parts[0] if parts is not None else product.plain_source()
        self.factors: Value | None = parts[1] if parts is not None else None
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
        self.stored = StoredPanels(kernel, product.weight, self.layout, product.columns, product.depth)

    def finish(self) -> LoweredKernel:
        return LoweredKernel(self.kernel.finish(), {self.product.weight_position: self.layout}, self.kernel.workspace_bytes)

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

    def factor(self, column: Expr) -> Expr:
        """What the elements of a column of :attr:`rows` are multiplied with."""
        assert self.factors is not None
        axis = 1 - self.product.x.tensor.rank if self.product.anchor.op == "conv" else -1
        indices = [index(0)] * self.factors.tensor.rank
        indices[axis] = column
        return self.epilogue.evaluator.value_at(self.factors, indices)

    def store(self, row: Expr, column: Expr, total: Expr, *, bound: bool = False) -> None:
        """Stores what becomes of a sum of products; ``bound``: computed once, where it is read more than once."""
        self.product.store(self.epilogue, row, column, self.stored.values.scaled(total, column), bound=bound)
