"""Bounds of the vector mathematics' errors, against PyTorch in float64: on samples always, over all fp32 numbers in `make test-full`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from check import check as compare
from check import region, tensor
from sweep import CHUNK, PATTERNS, Exact, Measure, Sweep, Worst
from torch import Tensor

from mlc.codegen.templates.registry import template_for
from mlc.ir import GraphBuilder, Value


@dataclass(frozen=True)
class Bound:
    """How far an operation may be from ``exact``, its fp64 form, for any fp32 number."""

    name: str
    op: str
    exact: Exact
    limit: float
    measure: Measure = Measure.UNITS
    attributes: dict[str, object] = field(default_factory=dict)

    @functools.cached_property
    def sweep(self) -> Sweep:
        return Sweep(self.op, self.exact, self.measure, **self.attributes)


def _softplus(x: Tensor, *, out: Tensor) -> None:
    torch.abs(x, out=out).neg_().exp_().log1p_().add_(x.clamp(min=0.0))


def _gelu(approximate: str, name: str) -> Bound:
    def exact(x: Tensor, *, out: Tensor) -> None:
        torch.ops.aten.gelu.out(x, approximate=approximate, out=out)

    return Bound(name, "gelu", exact, 4e-7, Measure.RELATIVE_TO_ARGUMENT, {"approximate": approximate})


BOUNDS = (
    Bound("exp", "exp", torch.exp, 4),
    Bound("exp2", "exp2", torch.exp2, 4),
    Bound("expm1", "expm1", torch.expm1, 4),
    Bound("log", "log", torch.log, 4),
    Bound("log2", "log2", torch.log2, 4),
    Bound("log10", "log10", torch.log10, 4),
    Bound("log1p", "log1p", torch.log1p, 4),
    Bound("tanh", "tanh", torch.tanh, 4),
    Bound("erf", "erf", torch.erf, 4),
    Bound("sigmoid", "sigmoid", torch.sigmoid, 4),
    Bound("softplus", "softplus", _softplus, 4),
    Bound("rsqrt", "rsqrt", torch.rsqrt, 4),
    Bound("sin", "sin", torch.sin, 4),
    Bound("cos", "cos", torch.cos, 4),
    Bound("tan", "tan", torch.tan, 4),
    Bound("asin", "asin", torch.asin, 4),
    Bound("acos", "acos", torch.acos, 4),
    Bound("atan", "atan", torch.atan, 4),
    Bound("sinh", "sinh", torch.sinh, 4),
    Bound("cosh", "cosh", torch.cosh, 4),
    Bound("asinh", "asinh", torch.asinh, 4),
    Bound("acosh", "acosh", torch.acosh, 4),
    Bound("atanh", "atanh", torch.atanh, 4),
    Bound("silu", "silu", torch.ops.aten.silu.out, 4e-7, Measure.RELATIVE_TO_ARGUMENT),
    _gelu("none", "gelu"),
    _gelu("tanh", "gelu_tanh"),
)

each_bound = pytest.mark.parametrize("bound", BOUNDS, ids=[bound.name for bound in BOUNDS])


def edges() -> np.ndarray:
    """Where something changes: zeros, the ends of fp32 and of results, powers of 2, multiples of pi / 4; and the neighbours of all."""
    tops = [0.0, math.inf, 2.0**-149, 2.0**-126, 3.4028234663852886e38, 0.92, 10.0, 87.33655, 88.722839, 103.97208, 131072.0, 150.0]
    powers = 2.0 ** np.arange(-149, 128)
    turns = np.arange(1, 2000) * (math.pi / 4)
    positive = np.concatenate([tops, powers, turns]).astype(np.float32)
    inner = np.maximum(positive.view(np.int32) - 1, 0).view(np.float32)
    outer = np.minimum(positive.view(np.int32) + 1, 0x7F800000).view(np.float32)
    numbers = np.concatenate([positive, inner, outer])
    return np.concatenate([numbers, -numbers, np.array([math.nan], np.float32)])


def check(bound: Bound, worst: Worst) -> None:
    print(f"{bound.name}: {worst.error:.3g} at {worst.argument!r}")  # shown by pytest -s
    assert worst.error <= bound.limit, worst


@each_bound
def test_error_on_a_sample_of_all_numbers(bound: Bound) -> None:
    check(bound, bound.sweep.sample(1 << 20))


@each_bound
def test_error_at_edges(bound: Bound) -> None:
    check(bound, bound.sweep.numbers(edges()))


@each_bound
def test_infinities_and_signs_of_zeros_are_those_of_pytorch(bound: Bound) -> None:
    x = torch.tensor([0.0, -0.0, math.inf, -math.inf, 1.0, -1.0, 300.0, -300.0])
    result, exact = bound.sweep.results(x), torch.empty(len(x), dtype=torch.float64)
    bound.exact(x.double(), out=exact)
    exact = exact.float()
    assert torch.equal(result.isnan(), exact.isnan())
    assert torch.equal(result.isinf(), exact.isinf())
    assert torch.equal(result.signbit()[exact == 0], exact.signbit()[exact == 0])


@pytest.mark.full
@each_bound
def test_error_over_all_numbers(bound: Bound) -> None:
    check(bound, bound.sweep.patterns(0, PATTERNS))


@pytest.mark.parametrize("op", ["sin", "cos", "tan"])
def test_huge_arguments_amid_small_ones(op: str) -> None:
    x = torch.linspace(-3.0, 3.0, CHUNK)
    x[5::16] = torch.logspace(5.0, 38.0, CHUNK // 16)
    result = Sweep(op, getattr(torch, op)).results(x)
    torch.testing.assert_close(result.double(), getattr(torch, op)(x.double()), rtol=5e-7, atol=0.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda b, x: b.call("reduce", b.call("sin", x), kind="sum", axes=(1,), keepdims=False),
        lambda b, x: b.call("reduce", b.call("cos", x), kind="sum", axes=(0,), keepdims=False),
        lambda b, x: b.call("softmax", b.call("cos", x), axis=1),
        lambda b, x: b.call("permute", b.call("sin", x), order=(1, 0)),
    ],
    ids=["rows", "columns", "softmax", "transposed"],
)
def test_huge_arguments_in_kernels_that_compute_more(build: Callable[[GraphBuilder, Value], Value]) -> None:
    graph = region([tensor((40, 37))], build)
    x = np.random.default_rng(0).standard_normal((40, 37)).astype(np.float32)
    x[::3, ::2] *= 1e20
    template = template_for(graph)
    assert template is not None
    compare(template, graph, inputs=[x])
