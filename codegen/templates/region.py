"""Regions around one anchor: what a template computes itself, and the path of its result to the region's outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ...ir import Dim, DType, Graph, Layout, Node, TensorType, Value
from ..emit import Evaluator, Expr, Kernel, computes, flatten, pulls, unflatten
from ..emit.access import through_reshape
from ..emit.scalar import vectorises
from .loops import is_long

_STEPS = ("reshape", "permute", "relayout")
"""Views that an anchor's result may pass on its way to an output: bijections of its elements."""


@dataclass(frozen=True)
class AnchoredRegion:
    """A region in which every output is an elementwise function of one ``anchor``'s result, up to bijective views.

    ``paths`` gives for each value that depends on the anchor the views between them, in order.
    """

    graph: Graph
    anchor: Node
    paths: Mapping[Value, tuple[Node, ...]]

    @staticmethod
    def find(
        graph: Graph, ops: Collection[str], *, any_dtype: bool = False, free_outputs: bool = False, symbolic: bool = False
    ) -> AnchoredRegion | None:
        """The anchored region of ``graph`` if one of ``ops`` is its only anchor, else None.

        Unless ``any_dtype``, the anchor's operands and result must be fp32, and what is around it fit for vectorised loops. With
        ``free_outputs`` there may be outputs that do not depend on the anchor (and so have no path), as long as one does, with ``symbolic``
        symbolic dimensions.
        """
        anchors = [node for node in graph.nodes if not pulls(node)]
        if len(anchors) != 1 or anchors[0].op not in ops or not graph.outputs:
            return None
        anchor = anchors[0]
        if not any_dtype and not all(vectorises(node) for node in graph.nodes if node is not anchor):
            return None
        values = [*graph.inputs, *(value for node in graph.nodes for value in node.outputs)]
        if not all(isinstance(value.type, TensorType) and (symbolic or value.type.is_static) for value in values):
            return None
        if not any_dtype and any(value.tensor.dtype is not DType.FLOAT32 for value in (*anchor.inputs, anchor.output)):
            return None
        if not all(computes(value.tensor.dtype) for value in (*anchor.inputs, anchor.output)):
            return None
        if any(value.tensor.is_empty for value in (*anchor.inputs, anchor.output)):
            return None
        if any(value.tensor.layout.is_blocked for value in (*graph.inputs, *graph.outputs)):
            return None
        paths: dict[Value, tuple[Node, ...]] = {anchor.output: ()}
        for node in graph.nodes:
            carriers = [value for value in node.inputs if value in paths]
            if not carriers:
                continue
            step = _path_of(node, carriers, paths)
            if step is None:
                return None
            paths[node.output] = step
        if not (any if free_outputs else all)(value in paths for value in graph.outputs):
            return None
        return AnchoredRegion(graph, anchor, paths)

    @property
    def bias(self) -> Value | None:
        """What a contraction adds to each of its sums: its third operand."""
        inputs = self.anchor.inputs
        return inputs[2] if len(inputs) > 2 else None

    @property
    def is_long(self) -> bool:
        """Whether what is done with an element of the anchor's takes so many instructions that templates should emit them in a loop."""
        return any(is_long(node, self.graph) for node in self.graph.nodes if node is not self.anchor)

    def place(self, kernel: Kernel, output: Value, indices: Sequence[Expr]) -> list[Expr]:
        """The indices into ``output`` of the element that the anchor has at ``indices``."""
        place = list(indices)
        for node in self.paths[output]:
            source, result = node.inputs[0].tensor.shape, node.output.tensor.shape
            if node.op == "reshape":
                place = through_reshape(kernel.emitter, result, source, place)
            elif node.op == "permute":
                order: Sequence[int] = node.attributes["order"]  # type: ignore[assignment]
                place = [place[axis] for axis in order]
        return place

    def source(self, value: Value) -> Value | None:
        """The row-major graph input that holds the same elements in the same order as ``value``, if there is one."""
        while value.node is not None and value.node.op == "reshape":
            value = value.node.inputs[0]
        return value if value.node is None and value.tensor.layout.is_row_major else None


def only_batch_is_symbolic(*values: Value) -> bool:
    """Whether no axis but the first is symbolic, and that is the outermost in memory: every image then lies as in a static shape."""
    for value in values:
        type = value.tensor
        if not all(isinstance(dim, int) for dim in type.shape[1:]) or (not type.is_static and type.layout.order[0] != 0):
            return False
    return True


def _path_of(node: Node, carriers: Sequence[Value], paths: Mapping[Value, tuple[Node, ...]]) -> tuple[Node, ...] | None:
    """The path of ``node``'s result, None when its elements do not correspond one to one to the anchor's."""
    path = paths[carriers[0]]
    if node.op in _STEPS:
        return path if node.op == "relayout" else (*path, node)
    shape = node.output.tensor.shape
    elementwise = node.op not in ("broadcast_to", "slice", "flip", "pad", "concat", "take", "take_along", "take_nd", "resample")
    same = all(value.tensor.shape == shape and paths[value] == path for value in carriers)
    # Parameters of a batch norm are no elements at the same place.
    parameters = node.op == "batch_norm" and any(value in paths for value in node.inputs[1:])
    return path if elementwise and same and not parameters else None


class Epilogue:
    """Stores a region's outputs, given elements of its anchor's result."""

    def __init__(self, kernel: Kernel, region: AnchoredRegion) -> None:
        self._kernel = kernel
        self._region = region
        self._element: Expr = None
        self.evaluator = Evaluator(kernel, {region.anchor.output: lambda indices: self._element})
        self.is_long = region.is_long

    def store(self, indices: Sequence[Expr], element: Expr) -> None:
        """Stores what every output makes of ``element``, the anchor's at logical ``indices``. Open a scope for each element."""
        self._element = element
        for position, output in enumerate(self._region.graph.outputs):
            self.evaluator.store_outputs(position, self._region.place(self._kernel, output, indices))


def broadcast_row(kernel: Kernel, shape: Sequence[Dim], result: Sequence[Dim], position: Expr) -> list[Expr]:
    """Indices into leading axes ``shape``, broadcast to ``result``, of row-major ``position`` in ``result``."""
    indices = unflatten(kernel.emitter, result, position)
    own = indices[len(result) - len(shape) :]
    return [index if extent != 1 else index * 0 for extent, index in zip(shape, own, strict=True)]


__all__ = ["AnchoredRegion", "Epilogue", "Layout", "broadcast_row", "flatten"]
