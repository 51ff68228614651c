"""The parts of a block-sparse weight as buffers of a kernel."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..emit import INDEX, Emitter, Expr, Kernel
from ..sparse_weight import PanelWeight
from .sparse_product import SparseProduct


class StoredPanels:
    """What :class:`PanelWeight` stores of a ``product``'s weight: ``starts``, ``bounds``, ``columns`` and ``values``."""

    def __init__(self, kernel: Kernel, product: SparseProduct, layout: PanelWeight) -> None:
        weight, outputs, inputs = product.weight, product.columns, product.depth
        self.starts: Any = kernel.part(weight, "int32", 0, layout.panels(outputs) + 1, "starts")
        self.bounds: Any = kernel.part(weight, "int32", layout.bounds_at(outputs), layout.shares + 1, "bounds")
        self.columns: Any = kernel.part(weight, layout.column_dtype(inputs), layout.columns_at(outputs), layout.capacity, "columns")
        self.values: Any = kernel.part(weight, "float32", layout.values_at(outputs, inputs), layout.capacity * layout.width, "values")

    def share(self, emitter: Emitter, part: Expr) -> tuple[Expr, Expr]:
        """The range [low, high) of panels that are ``part``'s."""
        return emitter.bind(emitter.load(self.bounds, part), "low"), emitter.bind(emitter.load(self.bounds, part + 1), "high")

    def entries(self, emitter: Emitter, panel: Expr) -> tuple[Expr, Expr]:
        """The first entry of a panel, and how many it has."""
        first = emitter.bind(emitter.load(self.starts, panel), "first")
        return first, emitter.bind(emitter.load(self.starts, panel + 1) - first, "count")

    def column(self, emitter: Emitter, entry: Expr) -> Expr:
        """The column of an entry."""
        return tirx.Cast(INDEX, emitter.load(self.columns, entry))
