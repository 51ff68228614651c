"""Constants are addressed by content, derived ones evaluated once and only when asked for."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from mlc.errors import VerificationError
from mlc.ir import ArrayConstant, Constant, DerivedConstant, DType, TensorType

F3 = TensorType(DType.FLOAT32, (3,))


def test_equal_content_is_the_same_constant() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    strided = np.asfortranarray(array)
    assert ArrayConstant(array) == ArrayConstant(strided)
    assert len({ArrayConstant(array), ArrayConstant(array.copy())}) == 1


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((4, 1), np.float32),
        np.zeros((2, 2), np.float32),
        np.zeros(4, np.int32),
        np.array([0.0, 0.0, 0.0, -0.0], np.float32),
        np.zeros(8, np.float16),
    ],
)
def test_dtype_shape_and_every_bit_count(other: np.ndarray) -> None:
    assert ArrayConstant(np.zeros(4, np.float32)) != ArrayConstant(other)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (5,)])
@pytest.mark.parametrize("dtype", list(DType))
def test_every_dtype_and_shape(dtype: DType, shape: tuple[int, ...]) -> None:
    constant = ArrayConstant(np.zeros(shape, dtype.numpy))
    assert constant.type == TensorType(dtype, shape)
    assert constant.array().shape == shape
    assert len(constant.digest) == 64


def test_data_cannot_be_written_and_the_callers_array_stays_writable() -> None:
    array = np.zeros(3, np.float32)
    constant = ArrayConstant(array)
    with pytest.raises(ValueError, match="read-only"):
        constant.array()[0] = 1
    array[0] = 1


def test_foreign_dtypes_are_refused() -> None:
    for dtype in ("U3", ">f4", "f2,f2", "complex128", "datetime64[s]"):
        with pytest.raises(ValueError, match="no element type"):
            ArrayConstant(np.zeros(2, dtype))


def derived(
    evaluate: object, inputs: tuple[Constant, ...] = (), attributes: tuple[tuple[str, object], ...] = (), op: str = "neg"
) -> Constant:
    return DerivedConstant(op, inputs, attributes, 0, F3, evaluate)  # type: ignore[arg-type]


def test_derived_data_is_computed_once_and_late() -> None:
    calls = []

    def evaluate() -> np.ndarray:
        calls.append(1)
        time.sleep(0.02)
        return np.ones(3, np.float32)

    constant = derived(evaluate)
    assert constant.digest and not calls
    threads = [threading.Thread(target=constant.array) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert constant.array() is constant.array()
    assert len(calls) == 1
    assert not constant.array().flags.writeable


def test_digests_of_expressions() -> None:
    one, two = ArrayConstant(np.ones(3, np.float32)), ArrayConstant(np.zeros(3, np.float32))
    base = derived(None, (one,), (("axis", 1),))
    assert base == derived(None, (one,), (("axis", 1),))
    different = [
        derived(None, (two,), (("axis", 1),)),
        derived(None, (one, two), (("axis", 1),)),
        derived(None, (one,), (("axis", True),)),
        derived(None, (one,), (("axis", 1.0),)),
        derived(None, (one,), (("axis", "1"),)),
        derived(None, (one,), (("axis", one),)),
        derived(None, (one,), (("axis", two),)),
        derived(None, (one,), (("axis", (1,)),)),
        derived(None, (one,), (("axis", 1),), op="abs"),
        derived(None, (base,), (("axis", 1),)),
    ]
    assert len({constant.digest for constant in [base, *different]}) == 11
    assert derived(None, (), (("value", ArrayConstant(np.ones(3, np.float32))),)) == derived(None, (), (("value", one),))


def test_a_scalar_result_stays_a_scalar() -> None:
    scalar = DerivedConstant("sum", (), (), 0, TensorType(DType.FLOAT32, ()), lambda: np.float32(2.5))  # type: ignore[arg-type, return-value]
    assert scalar.array().shape == ()


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((1, 3), np.float32)])
def test_a_result_that_is_not_of_the_type_is_an_error(wrong: np.ndarray) -> None:
    with pytest.raises(VerificationError, match="its type says f32"):
        derived(lambda: wrong).array()
