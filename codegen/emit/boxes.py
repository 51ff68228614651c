"""Cuts an output into boxes within which no border of a concatenation or padding is crossed, so that no loop tests for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ...ir import Dim, Graph, Value
from .affine import Box
from .attributes import attributes_of

# More boxes than this cost more code than their loops save tests.
MOST_BOXES = 9


def boxes(graph: Graph, value: Value) -> list[Box]:
    """The boxes of ``value``: one if there is nothing to cut or if the cuts would make more than :data:`MOST_BOXES`.

    A symbolic axis is not cut: the order of its borders is not known.
    """
    shape = value.tensor.shape
    cuts: list[set[int]] = [set() for _ in shape]
    for axis, position in _borders(graph, value, tuple(range(len(shape)))):
        extent = shape[axis]
        if isinstance(position, int) and isinstance(extent, int) and 0 < position < extent:
            cuts[axis].add(position)
    edges: list[list[Dim]] = [[0, *sorted(positions), extent] for positions, extent in zip(cuts, shape, strict=True)]
    count = 1
    for edge in edges:
        count *= len(edge) - 1
    if count > MOST_BOXES:
        edges = [[0, extent] for extent in shape]
    ranges = [list(itertools.pairwise(edge)) for edge in edges]
    return [Box(tuple(low for low, _ in choice), tuple(high - low for low, high in choice)) for choice in itertools.product(*ranges)]


def _borders(graph: Graph, value: Value, axes: tuple[int, ...], offsets: tuple[Dim, ...] | None = None) -> Iterator[tuple[int, Dim]]:
    """(axis of the output, position) of each border; ``axes`` and ``offsets`` map the axes of ``value`` to the output's.

    Walks down through elementwise operations, permutations and unit-step slices; -1 stands for an axis that the output lacks.
    """
    node = value.node
    shifts = offsets or (0,) * len(axes)
    if node is None:
        return
    if node.op == "concat":
        axis = attributes_of(node)["axis"]
        start = 0
        for operand in node.inputs:
            yield axes[axis], start + shifts[axis]
            moved = tuple(shift + start if number == axis else shift for number, shift in enumerate(shifts))
            yield from _borders(graph, operand, axes, moved)
            start += operand.tensor.shape[axis]
    elif node.op == "pad":
        pads = attributes_of(node)["pads"]
        shape = node.inputs[0].tensor.shape
        for axis, (low, _) in enumerate(pads):
            yield axes[axis], low + shifts[axis]
            yield axes[axis], low + shape[axis] + shifts[axis]
        moved = tuple(shift + low for shift, (low, _) in zip(shifts, pads, strict=True))
        yield from _borders(graph, node.inputs[0], axes, moved)
    elif node.op == "permute":
        order: tuple[int, ...] = attributes_of(node)["order"]
        inverse = [order.index(axis) for axis in range(len(order))]
        yield from _borders(graph, node.inputs[0], tuple(axes[i] for i in inverse), tuple(shifts[i] for i in inverse))
    elif node.op == "slice" and node.attributes["step"] == 1:
        axis, start = attributes_of(node)["axis"], attributes_of(node)["start"]
        moved = tuple(shift - start if number == axis else shift for number, shift in enumerate(shifts))
        yield from _borders(graph, node.inputs[0], axes, moved)
    elif node.op not in ("reshape", "flip", "slice", "take", "take_along", "take_nd", "resample", "iota", "full", "constant"):
        for operand in node.inputs:
            if operand.tensor.rank <= len(axes):
                skipped = len(axes) - operand.tensor.rank
                yield from _borders(graph, operand, axes[skipped:], shifts[skipped:])
