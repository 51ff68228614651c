"""Powers of fp32 numbers against PyTorch in float64: errors on dense grids, and the special cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from check import region, run, tensor

from mlc.codegen.templates.elementwise import Elementwise
from mlc.ir import DType, GraphBuilder, Value


def powers(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x to the y by a compiled kernel whose exponents are data."""
    graph = region([tensor(x.shape), tensor(y.shape)], lambda builder, x, y: builder.call("pow", x, y))
    return run(Elementwise(), graph, [x, y])[0]


def constant_power(x: np.ndarray, exponent: float) -> np.ndarray:
    """x to a power that is known when the kernel is compiled."""

    def build(builder: GraphBuilder, x: Value) -> Value:
        return builder.call("pow", x, builder.call("full", shape=(), value=exponent, dtype=DType.FLOAT32))

    graph = region([tensor(x.shape)], build)
    return run(Elementwise(), graph, [x])[0]


def error_in_units(result: np.ndarray, x: np.ndarray, y: np.ndarray | float) -> float:
    """The largest error in units in the last place; infinity counts as 2^128."""
    exact = torch.pow(torch.from_numpy(x).double(), torch.as_tensor(y).double()).numpy()
    assert (np.isnan(exact) == np.isnan(result)).all()
    known = ~np.isnan(exact)
    end = 2.0**128
    exact, wide = np.clip(exact[known], -end, end), np.clip(result[known].astype(np.float64), -end, end)
    unit = np.exp2(np.clip(np.floor(np.log2(np.maximum(np.abs(exact), 2.0**-126))), -126, 127) - 23)
    return float(np.max(np.abs(wide - exact) / unit))


def grid(bases: np.ndarray, exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every base with every exponent."""
    x, y = np.meshgrid(bases.astype(np.float32), exponents.astype(np.float32))
    return x.reshape(-1), y.reshape(-1)


GRIDS = {
    "ordinary": (np.linspace(1e-3, 20, 1501), np.linspace(-12, 12, 701)),
    "near 1": (1 + np.linspace(-0.05, 0.05, 1501), np.geomspace(1, 1e4, 701)),
    "all magnitudes": (np.exp2(np.linspace(-149, 127.9, 1501)), np.outer([1, -1], np.geomspace(1e-3, 160, 350)).reshape(-1)),
    "next to 1": ((np.float32(1).view(np.int32) + np.arange(-64, 65)).view(np.float32), np.geomspace(1e5, 2e9, 701)),
    "negative to whole numbers": (-np.exp2(np.linspace(-20, 20, 1501)), np.arange(-40, 41)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_error_in_units_of_the_last_place(name: str) -> None:
    x, y = grid(*GRIDS[name])
    assert error_in_units(powers(x, y), x, y) <= 1.5


def test_any_two_bit_patterns() -> None:
    generator = np.random.default_rng(0)
    x, y = (generator.integers(0, 2**32, 1 << 20, dtype=np.uint32).view(np.float32) for _ in range(2))
    # Exponents of every magnitude rarely give a finite result; the second half are moderate.
    y[len(y) // 2 :] = generator.uniform(-3, 3, len(y) // 2)
    assert error_in_units(powers(x, y), x, y) <= 1.5


def test_special_cases_are_those_of_pytorch() -> None:
    numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 2.0**24 + 2, 3.4e38, 1e-45, 1e-40, math.inf]
    numbers = [sign * number for number, sign in itertools.product(numbers, (1.0, -1.0))] + [math.nan]
    x, y = grid(np.array(numbers), np.array(numbers))
    result, expected = torch.from_numpy(powers(x, y)), torch.pow(torch.from_numpy(x).double(), torch.from_numpy(y).double()).float()
    torch.testing.assert_close(result, expected, rtol=2e-7, atol=2.0**-149, equal_nan=True)
    known = ~expected.isnan()
    assert torch.equal(result.signbit()[known], expected.signbit()[known])


@pytest.mark.parametrize("exponent", [2.0, 3.0, 7.0, 8.0, 33.0, -1.0, -2.0, -3.0, 0.5, -0.5, 1.7])
def test_powers_known_in_advance(exponent: float) -> None:
    x = np.exp2(np.linspace(-3, 3, 1 << 14)).astype(np.float32)
    assert error_in_units(constant_power(x, exponent), x, exponent) <= 4
