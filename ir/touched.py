"""How much of its operands a fused graph reads, perhaps less than all: of the table of an embedding the rows that are taken."""

from __future__ import annotations

from .graph import Graph, Node, Value
from .stored_size import is_stored_densely, stored_bytes
from .types import TensorType


def touched_bytes(graph: Graph, value: Value) -> int:
    """Bytes of ``value`` that a kernel must read at least."""
    tensor = value.tensor
    elements = 0.0
    for node in set(graph.users.get(value, ())):
        elements += _touched_elements(graph, node, value)
    if value in graph.output_set:
        elements = tensor.elements
    return int(min(elements, tensor.elements) * _bytes_of_element(tensor))


def _bytes_of_element(tensor: TensorType) -> float:
    """Bytes in memory: of a tensor that is held as codes, or without its zeros, an equal share of all its parts."""
    if is_stored_densely(tensor) or not tensor.elements:
        return tensor.dtype.nbytes
    return stored_bytes(tensor) / tensor.elements


def _touched_elements(graph: Graph, node: Node, value: Value) -> float:
    total = float(value.tensor.elements)
    if node.op == "slice" or (node.op in ("take", "take_nd", "take_along") and node.inputs[0] is value and node.inputs[1] is not value):
        return min(total, float(node.outputs[0].tensor.elements))
    if node.op in ("reshape", "permute", "flip", "relayout"):
        return min(total, touched_bytes(graph, node.output) / node.output.tensor.dtype.nbytes)
    if node.op in ("conv", "window_reduce") and node.inputs[0] is value:
        window = node.inputs[1].tensor.static_shape[2:] if node.op == "conv" else node.integers("window")
        for size, stride in zip(window, node.integers("stride"), strict=True):
            total *= min(1.0, size / stride)
    return total
