"""Accuracy and range of the vector mathematics, by dense sampling against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from harness import NativeKernel, aligned

from mlc.codegen.emit import VECTORIZED, Evaluator, Kernel
from mlc.ir import DType, GraphBuilder, TensorType, interpret

COUNT = 1 << 16


def run(op: str, x: np.ndarray, **attributes: object) -> tuple[np.ndarray, np.ndarray]:
    """(computed in fp32, reference in fp64) of a unary operation."""
    builder = GraphBuilder()
    graph = builder.finish([builder.call(op, builder.input(TensorType(DType.FLOAT32, x.shape)), **attributes)])  # type: ignore[arg-type]
    kernel = Kernel(graph)
    with kernel.emitter.loop(x.size // 16) as i, kernel.emitter.loop(16, VECTORIZED) as lane:
        Evaluator(kernel).store_outputs(0, [i * 16 + lane])
    source, result = aligned(x.shape, np.float32), aligned(x.shape, np.float32, 0xFF)
    source[:] = x
    NativeKernel(kernel.finish())(source, result)
    return result, interpret(graph, [x], wide=True)[0]


def samples(low: float, high: float) -> np.ndarray:
    """Evenly spaced and logarithmically spaced numbers of both signs in [low, high]."""
    even = np.linspace(low, high, COUNT // 2)
    small = np.geomspace(1e-30, max(abs(low), abs(high)), COUNT // 4)
    return np.clip(np.concatenate([even, small, -small]), low, high).astype(np.float32)


def ulps(result: np.ndarray, reference: np.ndarray, floor: float = 2.0**-126) -> float:
    """Largest error in units of the last place of the fp32 reference; magnitudes below ``floor`` count as ``floor``."""
    spacing = np.spacing(np.maximum(np.abs(reference), floor).astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(result - reference) / spacing))


@pytest.mark.parametrize(
    ("op", "low", "high", "limit"),
    [
        ("exp", -86.9, 88.72, 2),
        ("expm1", -87.0, 88.7, 3),
        ("log", 1e-38, 3e38, 2),
        ("log1p", -0.9999, 1e9, 4),
        ("tanh", -20.0, 20.0, 4),
        ("sigmoid", -87.0, 87.0, 4),
        ("erf", -6.0, 6.0, 4),
        ("softplus", -80.0, 80.0, 4),
        ("sin", -1e5, 1e5, 3),
        ("cos", -1e5, 1e5, 3),
        ("rsqrt", 1e-30, 1e30, 2),
        ("silu", -80.0, 80.0, 5),
        ("exp2", -125.4, 127.9, 2),
        ("tan", -1e5, 1e5, 4),
        ("asin", -1.0, 1.0, 4),
        ("acos", -1.0, 1.0, 4),
        ("atan", -1e4, 1e4, 4),
        ("sinh", -89.4, 89.4, 4),
        ("cosh", -89.4, 89.4, 4),
        ("asinh", -1e30, 1e30, 5),
        ("acosh", 1.0, 1e30, 5),
        ("atanh", -0.99999, 0.99999, 5),
    ],
)
def test_error_in_units_of_the_last_place(op: str, low: float, high: float, limit: float) -> None:
    result, reference = run(op, samples(low, high))
    assert ulps(result, reference) <= limit


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_accurate_relative_to_its_argument(approximate: str) -> None:
    x = samples(-10.0, 10.0)
    result, reference = run("gelu", x, approximate=approximate)
    # Far left, gelu cancels (1 + erf): the error is relative to x, as it is in PyTorch.
    assert np.max(np.abs(result - reference) / np.maximum(np.abs(x), 1e-30)) <= 4e-7


def test_small_arguments_keep_their_relative_accuracy() -> None:
    x = np.geomspace(1e-37, 1e-3, COUNT).astype(np.float32)
    for op in ("tanh", "erf", "expm1", "log1p", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh"):
        result, reference = run(op, x)
        assert ulps(result, reference) <= 4, op


def test_extreme_arguments_saturate() -> None:
    top = float(np.finfo(np.float32).max)
    x = np.array([top, -top, math.inf, -math.inf, 0.0, -0.0, 100.0, -100.0] * 2, np.float32)
    expected = {
        "exp": [math.inf, 0, math.inf, 0, 1, 1, math.inf, math.exp(-100)],
        "expm1": [math.inf, -1, math.inf, -1, 0, 0, math.inf, -1],
        "exp2": [math.inf, 0, math.inf, 0, 1, 1, 2.0**100, 2.0**-100],
        "tanh": [1, -1, 1, -1, 0, 0, 1, -1],
        "atan": [math.pi / 2, -math.pi / 2] * 2 + [0, 0, math.atan(100), -math.atan(100)],
        "sinh": [math.inf, -math.inf, math.inf, -math.inf, 0, 0, math.inf, -math.inf],
        "cosh": [math.inf] * 4 + [1, 1, math.inf, math.inf],
        "asinh": [math.asinh(top), -math.asinh(top), math.inf, -math.inf, 0, 0, math.asinh(100), -math.asinh(100)],
        "acosh": [math.acosh(top), math.nan, math.inf, math.nan, math.nan, math.nan, math.acosh(100), math.nan],
        "atanh": [math.nan] * 4 + [0, 0, math.nan, math.nan],
        "asin": [math.nan] * 4 + [0, 0, math.nan, math.nan],
        "acos": [math.nan] * 4 + [math.pi / 2, math.pi / 2, math.nan, math.nan],
        "erf": [1, -1, 1, -1, 0, 0, 1, -1],
        "sigmoid": [1, 0, 1, 0, 0.5, 0.5, 1, math.exp(-100)],
        "softplus": [top, 0, math.inf, 0, math.log(2), math.log(2), 100, math.exp(-100)],
    }
    for op, values in expected.items():
        np.testing.assert_allclose(run(op, x)[0][:8], np.array(values, np.float32), rtol=1e-6, err_msg=op)


def test_logarithm_at_the_ends_of_its_domain() -> None:
    x = np.array([0.0, -0.0, -1.0, math.inf, 1e-45, 1.0, math.nan, 1e-40] * 2, np.float32)
    result, _ = run("log", x)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(result, np.log(x.astype(np.float64)).astype(np.float32), rtol=1e-6)


def test_nan_stays_nan() -> None:
    x = np.full(16, math.nan, np.float32)
    exponential = ("exp", "exp2", "expm1", "log", "log1p", "sigmoid", "erf", "gelu", "silu", "softplus")
    circular = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
    for op in (*exponential, *circular, "relu", "sqrt", "rsqrt"):
        assert np.isnan(run(op, x)[0]).all(), op


def test_signed_zero_is_kept_by_odd_functions() -> None:
    x = np.array([0.0, -0.0] * 8, np.float32)
    for op in ("tanh", "erf", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh"):
        assert (np.signbit(run(op, x)[0]) == np.signbit(x)).all(), op
