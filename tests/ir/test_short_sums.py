"""Weights whose products with bytes fit 16 bits: what the encoding promises, and numbers that are made to keep it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.errors import TextFormError
from mlc.ir import ArrayConstant, DType, GraphBuilder, TensorType, constant_of, parse, parse_type, verify
from mlc.ir.short_sums import has_short_sums, short_sums, sums_of, with_short_sums


def sums_in_16_bits(weight: np.ndarray, words: int, bytes: np.ndarray) -> np.ndarray:
    """What is summed in 16 bits of the products of a matrix of weights with ``bytes``, in any number of bits."""
    products = weight.astype(np.int64) * bytes
    products = np.pad(products, ((0, 0), (0, -products.shape[1] % (4 * words))))
    return np.asarray(products.reshape(len(products), -1, words, 2, 2).sum(axis=(2, 4)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(words=st.sampled_from([1, 2]), inputs=st.integers(1, 40), size=st.sampled_from([40, 90, 128]), seed=st.integers(0, 99))
def test_sums_of_such_weights_fit_whatever_the_bytes(words: int, inputs: int, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.integers(-size, size, (5, inputs)).astype(np.int8)
    encoding = short_sums(words)
    kept = with_short_sums(weight, encoding)
    assert kept.dtype == np.int8 and has_short_sums(kept, encoding)
    for bytes in (255 * (kept > 0), 255 * (kept < 0)):
        extreme = sums_in_16_bits(kept, words, bytes)
        assert extreme.min() >= -(2**15) and extreme.max() < 2**15
    # Nothing changes sign or grows, and what kept the promise stays as it is.
    assert (np.abs(kept.astype(int)) <= np.abs(weight.astype(int))).all() and (kept.astype(int) * weight >= 0).all()
    np.testing.assert_array_equal(with_short_sums(kept, encoding), kept)
    if has_short_sums(weight, encoding):
        np.testing.assert_array_equal(kept, weight)
    else:
        # Of 129 and more in one sum, the whole is no longer sure to fit.
        assert max(int(sums_of(np.maximum(sign * weight.astype(int), 0), encoding)[0].max()) for sign in (1, -1)) > 128


@pytest.mark.parametrize(("words", "largest"), [(1, 64), (2, 32)])
def test_the_largest_weights_that_need_no_care(words: int, largest: int) -> None:
    for sign in (1, -1):
        assert has_short_sums(np.full((2, 16), sign * largest, np.int8), short_sums(words))
        assert not has_short_sums(np.full((2, 16), sign * (largest + 1), np.int8), short_sums(words))
    lonely = np.zeros((1, 16), np.int8)
    lonely[0, ::8] = 127
    assert has_short_sums(lonely, short_sums(words)), "a large number among small ones"


def test_sums_run_along_an_axis() -> None:
    weight = np.zeros((2, 4, 3, 3), np.int8)
    weight[:, :2] = 65
    assert not has_short_sums(weight, short_sums(1))
    apart = np.zeros((2, 8, 3, 3), np.int8)
    apart[:, ::2] = 65
    assert has_short_sums(apart, short_sums(1)) and not has_short_sums(apart, short_sums(2))
    np.testing.assert_array_equal(with_short_sums(weight, short_sums(1)), weight // 65 * 64)
    np.testing.assert_array_equal(with_short_sums(weight.swapaxes(0, 1), short_sums(1, axis=0)), weight.swapaxes(0, 1) // 65 * 64)


def test_text_form() -> None:
    type = TensorType(DType.INT8, (16, 32)).with_encoding(short_sums(2))
    assert str(type) == "i8[16,32] as short_sums(words=2, axis=1)" and parse_type(str(type)) == type
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.UINT8, (3, 4)))
    weight = builder.constant(ArrayConstant(np.eye(2, 4, dtype=np.int8)), parse_type("i8[2,4] as short_sums(words=1, axis=1)"))
    graph = builder.finish([builder.call("linear", x, weight, dtype=DType.INT32)])
    verify(graph)
    read = parse(str(graph))
    assert str(read) == str(graph) and "as short_sums(words=1, axis=1)" in str(graph)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f32[4,8] as short_sums(words=1, axis=1)", "is of weights of i8, the tensor holds f32"),
        ("u8[4,8] as short_sums(words=1, axis=1)", "is of weights of i8, the tensor holds u8"),
        ("i8[4,8] as short_sums(words=3, axis=1)", "neighbouring words in a sum, 1 or 2"),
        ("i8[4,8] as short_sums(words=2, axis=2)", "out of range for rank 2"),
        ("i8[4,8] as short_sums(axis=1)", "needs the parameter 'words'"),
    ],
)
def test_types_that_the_encoding_does_not_fit(text: str, message: str) -> None:
    with pytest.raises(TextFormError, match=message):
        parse_type(text)


def test_data_for_a_type_keeps_its_promise() -> None:
    type = parse_type("i8[4,8] as short_sums(words=2, axis=1)")
    constant = constant_of(np.full((4, 8), 100, np.int8), type)
    assert has_short_sums(constant.array(), type.encoding)
