"""Index arithmetic: from logical indices to places in memory, and through reshapes."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir import Dim, Layout, TensorType, below, product, same_dim
from .emitter import Emitter, Expr, index
from .extent import extent_of


def physical_offset(type: TensorType, indices: Sequence[Expr]) -> Expr:
    """The element offset in memory of the logical ``indices`` of a tensor of ``type`` (not simplified)."""
    return layout_offset(type.layout, type.shape, indices)


def layout_offset(layout: Layout, shape: Sequence[Dim], indices: Sequence[Expr]) -> Expr:
    """The element offset of logical ``indices`` in an array of logical ``shape`` stored in ``layout`` (not simplified)."""
    physical = _physical_indices(layout, indices)
    return flatten(layout.physical_shape(shape), physical)


def _physical_indices(layout: Layout, indices: Sequence[Expr]) -> list[Expr]:
    outer = list(indices)
    inner: list[Expr] = [index(0)] * len(layout.blocks)
    # The last block of an axis is the innermost part of its index.
    for position in reversed(range(len(layout.blocks))):
        axis, size = layout.blocks[position]
        inner[position] = outer[axis] % size
        outer[axis] = outer[axis] // size
    return [outer[axis] for axis in layout.order] + inner


def flatten(shape: Sequence[Dim], indices: Sequence[Expr]) -> Expr:
    """The row-major position of ``indices`` in ``shape``."""
    result: Expr = index(0)
    for extent, position in zip(shape, indices, strict=True):
        result = result * extent_of(extent) + position if extent != 1 else result
    return result


def unflatten(emitter: Emitter, shape: Sequence[Dim], position: Expr) -> list[Expr]:
    """The indices into ``shape`` of a row-major ``position``, simplified."""
    indices: list[Expr] = []
    for axis, extent in enumerate(shape):
        rest = product([size for size in shape[axis + 1 :] if size != 0])
        if extent == 1:
            indices.append(index(0))
            continue
        value = position // extent_of(rest) if rest != 1 else position
        # The outermost index needs no modulo: the position lies within the shape.
        leading = all(size == 1 for size in shape[:axis])
        indices.append(emitter.simplify(value if leading else value % extent_of(extent)))
    return indices


def indices_of_physical(emitter: Emitter, type: TensorType, physical: Sequence[Expr]) -> list[Expr]:
    """The logical indices of the element at ``physical`` indices of an unblocked ``type``."""
    indices: list[Expr] = [index(0)] * type.rank
    for axis, value in zip(type.layout.order, physical, strict=True):
        indices[axis] = value
    return indices


def reshape_groups(source: Sequence[Dim], result: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """Splits a reshape into independent ones: pairs of source axes and result axes with equal products, as fine as can be.

    [2, 6, 64] -> [2, 6, 4, 16] gives ([0], [0]), ([1], [1]), ([2], [2, 3]). Axes of extent 1 may stand in any group. Symbolic
    products count as equal when they are so for all sizes.
    """
    if 0 in source or 0 in result:
        return [(list(range(len(source))), list(range(len(result))))]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(result):
        left: list[int] = []
        right: list[int] = []
        left_size: Dim = 1
        right_size: Dim = 1
        while True:
            if not below(right_size, left_size) and i < len(source):
                left_size *= source[i]
                left.append(i)
                i += 1
            elif j < len(result):
                right_size *= result[j]
                right.append(j)
                j += 1
            else:
                left.extend(range(i, len(source)))
                i = len(source)
                # Nothing is left that could make them equal: a division that is exact says so only in the model.
                break
            if same_dim(left_size, right_size) and (right or i == len(source) or source[i - 1] == 1):
                break
        groups.append((left, right))
    return groups


def through_reshape(emitter: Emitter, source: Sequence[Dim], result: Sequence[Dim], indices: Sequence[Expr]) -> list[Expr]:
    """The indices into ``source`` of the element that a reshape to ``result`` puts at ``indices``."""
    found: list[Expr] = [index(0)] * len(source)
    for left, right in reshape_groups(source, result):
        wide = [axis for axis in left if source[axis] != 1]
        if len(wide) == 1 and len([axis for axis in right if result[axis] != 1]) == 1:
            (axis,) = (axis for axis in right if result[axis] != 1)
            found[wide[0]] = indices[axis]
            continue
        position = emitter.simplify(flatten([result[axis] for axis in right], [indices[axis] for axis in right]))
        for axis, value in zip(left, unflatten(emitter, [source[axis] for axis in left], position), strict=True):
            found[axis] = value
    return found
