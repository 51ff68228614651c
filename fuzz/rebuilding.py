"""Copies of graphs with something changed: what is left out, cut off, or made smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import TypeInferenceError
from ..ir import ArrayConstant, Attribute, Graph, GraphBuilder, TensorType, Value

Extent = Callable[[int], int]
"""A new extent for an old one."""


def rebuild(
    graph: Graph,
    outputs: Sequence[Value] | None = None,
    cut: Mapping[Value, Value | None] | None = None,
    extent: Extent | None = None,
) -> Graph:
    """``graph`` with only what ``outputs`` (default: all) need.

    A value in ``cut`` becomes another value of its type or, for None, an input. ``extent`` changes every dimension, in types, in the
    attributes that state shapes and in constants. TypeInferenceError when the result is not well-typed.
    """
    wanted = tuple(graph.outputs if outputs is None else outputs)
    replaced = dict(cut or {})
    needed = _needed(graph, wanted, replaced)
    builder = GraphBuilder(graph.name, graph.symbols)
    made: dict[Value, Value] = {}

    def new(value: Value) -> Value:
        other = replaced.get(value)
        return new(other) if other is not None else made[value]

    for value in graph.inputs:
        if value in needed:
            made[value] = builder.input(_type(value.tensor, extent), value.name)
    for node in graph.nodes:
        for value in node.outputs:
            if value in replaced and replaced[value] is None and value in needed:
                made[value] = builder.input(_type(value.tensor.with_layout(None), extent), value.name)
        if not any(value in needed and value not in replaced for value in node.outputs):
            continue
        if node.op == "constant":
            made[node.output] = _constant(builder, node.output, extent)
            continue
        attributes = {name: _attribute(name, value, extent) for name, value in node.attributes.items()}
        if extent is not None and node.regions:
            raise TypeInferenceError("regions keep their shapes")
        types = [value.type for value in node.outputs] if extent is None else None
        copy = builder.add(
            node.op, *map(new, node.inputs), attributes=attributes, regions=node.regions, location=node.location, types=types
        )
        if extent is not None:
            for old, value in zip(node.outputs, copy.outputs, strict=True):
                if not old.tensor.layout.is_row_major and old.tensor.rank == value.tensor.rank:
                    value.type = value.tensor.with_layout(old.tensor.layout)
        for old, value in zip(node.outputs, copy.outputs, strict=True):
            made.setdefault(old, value)
    return builder.finish([new(value) for value in wanted])


def _needed(graph: Graph, outputs: Sequence[Value], replaced: Mapping[Value, Value | None]) -> set[Value]:
    needed: set[Value] = set()
    waiting = list(outputs)
    while waiting:
        value = waiting.pop()
        if value in needed:
            continue
        needed.add(value)
        if value in replaced:
            other = replaced[value]
            waiting += [other] if other is not None else []
        elif value.node is not None:
            waiting += value.node.inputs
    return needed


def _type(type: TensorType, extent: Extent | None) -> TensorType:
    if extent is None:
        return type
    return TensorType(type.dtype, tuple(map(extent, type.static_shape)))


def _constant(builder: GraphBuilder, value: Value, extent: Extent | None) -> Value:
    constant = value.constant
    assert constant is not None
    if extent is None:
        return builder.constant(constant, value.tensor)
    array = constant.array()
    shape = tuple(map(extent, array.shape))
    array = array[tuple(slice(0, size) for size in shape)]
    if array.dtype.kind == "i" and value.tensor.dtype.text == "i64" and array.size:
        # Probably indices: kept inside the smallest extent there may be.
        array = np.where(array < 0, -1, np.minimum(array, max(min(shape, default=1) - 1, 0)))
    return builder.constant(ArrayConstant(np.array(array, order="C")))


_SHAPES = ("shape",)
_EXTENTS = ("size", "trips")


def _attribute(name: str, value: Attribute, extent: Extent | None) -> Attribute:
    if extent is None:
        return value
    if name in _SHAPES and isinstance(value, tuple):
        return tuple(extent(item) if isinstance(item, int) else item for item in value)
    if name in _EXTENTS and isinstance(value, int):
        return extent(value)
    return value
