"""An alias has the bytes of its operand, as packing both shows."""

from __future__ import annotations

import math

import numpy as np
from graph_strategies import layouts
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.ir import DType, GraphBuilder, Layout, Node, TensorType, interpret, is_alias, normal_layout, permuted_layout, reshaped_layout

SETTINGS = settings(deadline=None, max_examples=200)


@st.composite
def views(draw: st.DrawFn) -> Node:
    """A reshape, permute or relayout between random unblocked layouts, of up to a few dozen elements."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 1, 2, 3, 4, 0]), max_size=4)))
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.INT32, shape, Layout(tuple(draw(st.permutations(range(len(shape))))))))
    match draw(st.sampled_from(["reshape", "permute", "relayout"])):
        case "reshape":
            result = draw(st.sampled_from(reshapes(shape)))
            node = builder.add("reshape", x, attributes={"shape": result})
        case "permute":
            node = builder.add("permute", x, attributes={"order": tuple(draw(st.permutations(range(len(shape)))))})
        case _:
            node = builder.add("relayout", x)
    type = node.output.tensor
    node.output.type = type.with_layout(Layout(tuple(draw(st.permutations(range(type.rank))))))
    builder.finish([node.output])
    return node


def reshapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    size = math.prod(shape)
    pairs = [(left, size // left) for left in range(1, size + 1) if size % left == 0] or [(0, 3)]
    return [(size,), (1, size), *pairs, *[(left, 1, right) for left, right in pairs], shape, (*shape, 1)]


def stored(type: TensorType, array: np.ndarray) -> list[int]:
    flat: list[int] = type.layout.pack(array).reshape(-1).tolist()
    return flat


@given(views())
@SETTINGS
def test_an_alias_has_the_bytes_of_its_operand_and_nothing_else_is_missed(node: Node) -> None:
    source, result = node.inputs[0].tensor, node.output.tensor
    array = np.arange(source.elements, dtype=np.int32).reshape(source.static_shape)
    builder = GraphBuilder()
    x = builder.input(source)
    (moved,) = interpret(builder.finish(builder.add(node.op, x, attributes=node.attributes).outputs), [array])
    same = stored(source, array) == stored(result, moved)
    if is_alias(node):
        assert same
    elif source.elements > 1:
        assert not same


@given(views())
@SETTINGS
def test_layouts_that_make_views_aliases(node: Node) -> None:
    source = node.inputs[0].tensor
    if node.op == "permute":
        layout: Layout | None = permuted_layout(source.layout, node.attributes["order"])  # type: ignore[arg-type]
    else:
        layout = reshaped_layout(source.static_shape, source.layout, node.output.tensor.static_shape)
    if layout is not None:
        node.output.type = node.output.tensor.with_layout(layout)
        assert node.op == "relayout" or is_alias(node)


@given(st.data(), st.lists(st.integers(1, 3), max_size=4))
@SETTINGS
def test_the_normal_layout_has_the_same_bytes(data: st.DataObject, shape: list[int]) -> None:
    type = TensorType(DType.INT32, tuple(shape), data.draw(layouts(len(shape))))
    array = np.arange(1, type.elements + 1, dtype=np.int32).reshape(shape)
    assert stored(normal_layout(type), array) == stored(type, array)
