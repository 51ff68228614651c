"""Which views cost nothing: those whose result occupies the very bytes of their operand.

``permute``, ``reshape`` and ``relayout`` only rename indices; whether data must move depends on the layouts of operand and result.
Assembly lets an alias share its operand's buffer, and passes choose layouts such that views become aliases.
"""

from __future__ import annotations

from collections.abc import Sequence

from .dims import below, same_dim
from .graph import Node
from .layout import Layout
from .types import Dim, TensorType


def is_alias(node: Node) -> bool:
    """Whether the result of ``node`` is byte for byte its operand (unblocked tensors only), for all sizes if its shape is symbolic."""
    if node.op not in ("reshape", "permute", "relayout"):
        return False
    (operand,) = node.inputs
    source, result = operand.tensor, node.output.tensor
    if source.encoding != result.encoding:
        return False
    layout: Layout | None
    if node.op == "permute":
        layout = permuted_layout(source.layout, node.attributes["order"])  # type: ignore[arg-type]
    elif node.op == "reshape":
        layout = reshaped_layout(source.shape, source.layout, result.shape)
    else:
        layout = source.layout
    return layout is not None and same_bytes(layout, result.layout, result.shape)


def same_bytes(first: Layout, second: Layout, shape: Sequence[Dim]) -> bool:
    """Whether a tensor of ``shape`` lies in memory alike in both layouts; axes of extent 1 may stand anywhere."""
    if first == second:
        return True
    if first.is_blocked or second.is_blocked:
        return False
    return wide_axes(first, shape) == wide_axes(second, shape)


def wide_axes(layout: Layout, shape: Sequence[Dim]) -> list[int]:
    """The axes with more than one element, outermost first."""
    return [axis for axis in layout.order if shape[axis] != 1]


def normal_layout(type: TensorType) -> TensorType:
    """``type`` with the plainest layout that has the same bytes: row-major where possible."""
    if type.layout.is_row_major or type.layout.is_blocked:
        return type
    return type.with_layout(_with_narrow_axes(wide_axes(type.layout, type.shape), type.shape))


def permuted_layout(layout: Layout, order: Sequence[int]) -> Layout:
    """The layout of ``permute(x, order)`` that has the bytes of x in ``layout``."""
    position = {axis: index for index, axis in enumerate(order)}
    blocks = tuple((position[axis], size) for axis, size in layout.blocks)
    return Layout(tuple(position[axis] for axis in layout.order), blocks, layout.padding)


def reshaped_layout(shape: Sequence[Dim], layout: Layout, result: Sequence[Dim]) -> Layout | None:
    """The layout of ``reshape(x, result)`` that has the bytes of x (``shape`` in ``layout``); None when data must move.

    The reshape splits into independent groups of axes; each group of several axes must lie together in memory, in order.
    """
    if layout.is_blocked:
        return layout if tuple(shape) == tuple(result) else None
    if layout.is_row_major or 0 in shape:
        return Layout.row_major(len(result))
    groups = _groups(shape, result)
    if groups is None:
        return None
    places = {axis: place for place, axis in enumerate(wide_axes(layout, shape))}
    runs: list[tuple[int, list[int]]] = []
    for left, right in groups:
        first = places[left[0]]
        if [places[axis] for axis in left] != list(range(first, first + len(left))):
            return None
        runs.append((first, right))
    return _with_narrow_axes([axis for _, right in sorted(runs) for axis in right], result)


def _groups(source: Sequence[Dim], result: Sequence[Dim]) -> list[tuple[list[int], list[int]]] | None:
    """Pairs of source axes and result axes with equal products, without axes of extent 1; None when the sizes differ."""
    left_axes = [axis for axis, extent in enumerate(source) if extent != 1]
    right_axes = [axis for axis, extent in enumerate(result) if extent != 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left_axes) or j < len(right_axes):
        if i == len(left_axes) or j == len(right_axes):
            return None
        left, right = [left_axes[i]], [right_axes[j]]
        left_size, right_size = source[left_axes[i]], result[right_axes[j]]
        i, j = i + 1, j + 1
        while not same_dim(left_size, right_size):
            if below(left_size, right_size):
                if i == len(left_axes):
                    return None
                left.append(left_axes[i])
                left_size *= source[left_axes[i]]
                i += 1
            else:
                if j == len(right_axes):
                    return None
                right.append(right_axes[j])
                right_size *= result[right_axes[j]]
                j += 1
        groups.append((left, right))
    return groups


def _with_narrow_axes(order: list[int], shape: Sequence[Dim]) -> Layout:
    """A layout with the wide axes in ``order`` and each axis of extent 1 behind its left neighbour."""
    complete = list(order)
    for axis, extent in enumerate(shape):
        if extent == 1:
            complete.insert(complete.index(axis - 1) + 1 if axis else 0, axis)
    return Layout(tuple(complete))
