"""Operands that are parts of values: a kernel that reads one slice of an operand gets a pointer to it instead.

The kernels of an unrolled loop differ only in which element of a sequence they read. With the offset in the call and not in the code, all
rounds share one kernel.
"""

from __future__ import annotations

from collections.abc import Collection

from ..ir import Graph, Node, Rewriter, TensorType, Value
from ..ir.program import ALIGNMENT


def without_offsets(region: Graph, fixed: Collection[int] = ()) -> tuple[Graph, dict[int, int]]:
    """``region`` with slices as inputs where it reads nothing else of an input, and the byte offsets of these inputs by position.

    Only slices that lie together in memory, at an aligned offset; the inputs at the positions ``fixed`` stay as they are.
    """
    parts = {}
    for position, value in enumerate(region.inputs):
        node = _only_slice(region, value)
        if position not in fixed and node is not None:
            offset = _offset(node)
            if offset is not None:
                parts[position] = (node, offset)
    if not parts:
        return region, {}
    inputs = list(region.inputs)
    for position, (node, _) in parts.items():
        type = inputs[position].tensor
        piece = TensorType(type.dtype, node.output.tensor.shape, type.layout)
        inputs[position] = Value(piece, inputs[position].name, None, position)
    removed = {reader for position in parts for reader in region.users[region.inputs[position]]}
    rest = tuple(node for node in region.nodes if node not in removed)
    rewriter = Rewriter(Graph(tuple(inputs), rest, region.outputs, region.name, region.symbols))
    for position in parts:
        for reader in region.users[region.inputs[position]]:
            rewriter.replace(reader.output, rewriter[inputs[position]])
    for node in rest:
        rewriter.copy(node)
    return rewriter.finish(), {position: offset for position, (_, offset) in parts.items()}


def _only_slice(region: Graph, value: Value) -> Node | None:
    """The slice through which alone ``region`` reads ``value``, if there is one."""
    users = region.users.get(value, ())
    if not users or value in region.output_set or not isinstance(value.type, TensorType) or not value.tensor.is_static:
        return None
    first = users[0]
    alike = all(node.op == "slice" and node.attributes == first.attributes for node in users)
    yielded = alike and any(output in region.output_set for node in users for output in node.outputs)
    return first if alike and not yielded and first.output.tensor.elements else None


def _offset(node: Node) -> int | None:
    """Bytes from the start of the operand of a slice to the slice; None when it is scattered or not aligned."""
    type = node.inputs[0].tensor
    axis, start, step = (node.attributes[name] for name in ("axis", "start", "step"))
    assert isinstance(axis, int) and isinstance(start, int)
    layout, shape = type.layout, type.static_shape
    if layout.is_blocked or step != 1 or not type.encoding.is_dense:
        return None
    outside = layout.order[: layout.order.index(axis)]
    offset = start * layout.strides(shape)[axis] * type.dtype.nbytes
    return offset if all(shape[other] == 1 for other in outside) and offset % ALIGNMENT == 0 else None
