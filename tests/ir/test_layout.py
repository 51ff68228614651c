"""Layouts: pack and unpack against the definition of the physical order."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from graph_strategies import layouts
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.errors import TypeInferenceError
from mlc.ir import DType, Layout, Padding, TensorType, parse_type


@st.composite
def layouts_and_shapes(draw: st.DrawFn) -> tuple[Layout, tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    return draw(layouts(len(shape))), shape


def physical_index(layout: Layout, index: tuple[int, ...]) -> tuple[int, ...]:
    """Where the element at a logical index lies, straight from the definition: the last block of an axis is the innermost."""
    rest = list(index)
    inner = [0] * len(layout.blocks)
    for position in reversed(range(len(layout.blocks))):
        axis, size = layout.blocks[position]
        rest[axis], inner[position] = divmod(rest[axis], size)
    return (*(rest[axis] for axis in layout.order), *inner)


@given(layouts_and_shapes())
@settings(deadline=None, max_examples=150)
def test_pack_puts_every_element_where_the_layout_says(pair: tuple[Layout, tuple[int, ...]]) -> None:
    layout, shape = pair
    array = np.arange(1, math.prod(shape) + 1, dtype=np.int32).reshape(shape)
    stored = layout.pack(array)
    assert stored.shape == layout.physical_shape(shape)
    assert stored.flags.c_contiguous
    for index in itertools.product(*(range(extent) for extent in shape)):
        assert stored[physical_index(layout, index)] == array[index]
    assert np.count_nonzero(stored) == array.size, "padded lanes are zero"


@given(layouts_and_shapes())
@settings(deadline=None, max_examples=100)
def test_unpack_is_the_inverse_of_pack_whatever_the_padding_holds(pair: tuple[Layout, tuple[int, ...]]) -> None:
    layout, shape = pair
    array = np.arange(1, math.prod(shape) + 1, dtype=np.float32).reshape(shape)
    stored = layout.pack(array)
    np.testing.assert_array_equal(layout.unpack(np.where(stored == 0, np.nan, stored), shape), array)


@given(layouts_and_shapes())
@settings(deadline=None)
def test_strides_address_the_packed_array(pair: tuple[Layout, tuple[int, ...]]) -> None:
    layout, shape = pair
    layout = Layout(layout.order)
    array = np.arange(math.prod(shape)).reshape(shape)
    flat = layout.pack(array).reshape(-1)
    strides = layout.strides(shape)
    for index in itertools.product(*(range(extent) for extent in shape)):
        assert flat[sum(i * s for i, s in zip(index, strides, strict=True))] == array[index]


@given(layouts_and_shapes())
@settings(deadline=None)
def test_text_and_bytes(pair: tuple[Layout, tuple[int, ...]]) -> None:
    layout, shape = pair
    type = TensorType(DType.FLOAT32, shape, layout)
    assert parse_type(str(type)) == type
    assert type.nbytes == layout.pack(np.zeros(shape, np.float32)).nbytes


def test_known_layouts() -> None:
    assert TensorType(DType.FLOAT32, (1, 20, 5, 5), Layout((0, 1, 2, 3), ((1, 16),))).physical_shape == (1, 2, 5, 5, 16)
    assert Layout((0, 2, 3, 1)).strides((2, 3, 4, 5)) == (60, 1, 15, 3)
    assert Layout((1, 0), ((1, 32),)).physical_shape((100, 70)) == (3, 100, 32)
    assert str(Layout((0, 1), ((1, 4), (0, 2)), Padding.ZERO)) == "{0,1:1x4,0x2:0}"
    assert Layout.row_major(0).pack(np.float32(3.0)).shape == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layout((0, 2)), "is not a permutation"),
        (lambda: Layout((0, 1), ((2, 4),)), "needs an axis below 2"),
        (lambda: Layout((0, 1), ((1, 0),)), "a size of at least 1"),
        (lambda: Layout((0, 1), ((1, 4),)).strides((4, 4)), "has no strides per logical axis"),
        (lambda: Layout((0, 1)).strides((4,)), "has rank 2, the shape [4] has 1"),
        (lambda: Layout((0, 1)).pack(np.zeros(3)), "has rank 2"),
        (lambda: Layout((0, 1)).unpack(np.zeros(5), (2, 3)), "5 stored elements are not those of [2, 3]"),
        (lambda: TensorType(DType.FLOAT32, (2,), Layout((0, 1))), "has rank 2"),
    ],
)
def test_misuse_is_refused(make: object, message: str) -> None:
    with pytest.raises(TypeInferenceError, match=re.escape(message)):
        make()  # type: ignore[operator]
