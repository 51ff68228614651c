"""Elementwise operations against eager PyTorch: values, promotion, 0-d and empty tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eager import bools, check, check_both_precisions, ints, rand
from torch import Tensor

X = rand(3, 4)
POSITIVE = rand(3, 4).abs() + 0.1
SPECIAL = torch.tensor([0.0, -0.0, 1.5, -1.5, 2.5, -2.5, math.inf, -math.inf, math.nan])
WHOLE = ints(3, 4)
DIVISOR = torch.where(ints(3, 4, seed=1) == 0, 7, ints(3, 4, seed=1))

UNARY: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "neg": (lambda x: -x, X),
    "abs": (torch.abs, SPECIAL),
    "sign": (torch.sign, torch.tensor([-2.0, 0.0, 3.0])),
    "square": (torch.square, X),
    "sqrt": (torch.sqrt, POSITIVE),
    "rsqrt": (torch.rsqrt, POSITIVE),
    "reciprocal": (torch.reciprocal, X),
    "floor": (torch.floor, SPECIAL),
    "ceil": (torch.ceil, SPECIAL),
    "trunc": (torch.trunc, SPECIAL),
    "round": (torch.round, SPECIAL),
    "round to decimals": (lambda x: (torch.round(x, decimals=2), torch.round(100 * x, decimals=-1)), X),
    "exp": (lambda x: (torch.exp(x), torch.exp2(x), torch.expm1(x)), X),
    "log": (lambda x: (torch.log(x), torch.log2(x), torch.log10(x), torch.log1p(x)), POSITIVE),
    "sin": (lambda x: (torch.sin(x), torch.cos(x), torch.tan(x)), X),
    "sinh": (lambda x: (torch.sinh(x), torch.cosh(x), torch.tanh(x)), X),
    "asinh": (lambda x: (torch.asinh(x), torch.acosh(x.abs() + 1), torch.atanh(torch.tanh(x))), X),
    "arcs": (lambda x: (torch.asin(x.sin()), torch.acos(x.cos()), torch.atan(x), torch.arctan2(x, x.flip(0))), X),
    "erf": (lambda x: (torch.erf(x), torch.erfc(x)), X),
    "sigmoid": (torch.sigmoid, SPECIAL),
    "isnan": (lambda x: (torch.isnan(x), torch.isinf(x), torch.isfinite(x)), SPECIAL),
    "logical_not": (torch.logical_not, SPECIAL),
    "nan_to_num": (torch.nan_to_num, SPECIAL),
    "relu": (lambda x: (F.relu(x), F.relu6(x)), SPECIAL),
    "silu": (F.silu, X),
    "mish": (F.mish, X),
    "gelu": (lambda x: (F.gelu(x), F.gelu(x, approximate="tanh")), X),
    "leaky_relu": (lambda x: (F.leaky_relu(x), F.leaky_relu(x, 0.3)), X),
    "elu": (lambda x: (F.elu(x), F.elu(x, 0.5), F.selu(x), F.celu(x, 0.7)), X),
    "softplus": (lambda x: (F.softplus(x), F.softplus(x, 3.0), F.softplus(x, 2.0, 1.0)), X),
    "softsign": (lambda x: (F.softsign(x), F.softshrink(x), F.hardshrink(x), F.tanhshrink(x)), X),
    "hardtanh": (lambda x: (F.hardtanh(x), F.hardtanh(x, -0.2, 0.3)), X),
    "hardswish": (lambda x: (F.hardswish(x), F.hardsigmoid(x)), 4 * X),
    "logsigmoid": (F.logsigmoid, 10 * X),
    "threshold": (lambda x: F.threshold(x, 0.1, 20), X),
    "glu": (lambda x: (F.glu(x), F.glu(x[:2], 0)), X),
    "prelu": (lambda x: (F.prelu(x, torch.tensor([0.2], dtype=x.dtype)), F.prelu(x, torch.arange(4.0, dtype=x.dtype))), X),
    "pow": (lambda x: (x**0, x**1, x**2, x**3, x**4, x**-1, x**-2, x**5), X),
    "roots": (lambda x: (x**0.5, x**-0.5, x**0.3, 2**x, torch.pow(x, x)), POSITIVE),
    "clamp": (lambda x: (x.clamp(0), x.clamp(max=0.5), x.clamp(-1, 1), x.clamp(1, -1), x.clip(-0.1, 0.1)), X),
    "clamp by tensors": (lambda x: (x.clamp(x * 0.5), x.clamp(max=-x), x.clamp(x - 1, x.T[0].mean())), rand(4, 4)),
    "add": (lambda x: (x + 1, 1 + x, x + x, torch.add(x, x, alpha=2), x + True), X),
    "sub": (lambda x: (x - 1, 1 - x, torch.sub(x, 3, alpha=2), torch.rsub(x, 2), torch.rsub(x, x, alpha=3)), X),
    "mul": (lambda x: (x * 2, x * x[0], x[:, :1] * x[:1]), X),
    "div": (lambda x: (x / 3, 3 / x, x / x.sum()), X),
    "rounded div": (lambda x: (torch.div(x, 0.3, rounding_mode="floor"), torch.div(x, 0.3, rounding_mode="trunc"), x // 0.7), X),
    "remainder": (lambda x: (x % 0.7, x % -0.7, torch.fmod(x, 0.7), 2.0 % x, torch.fmod(x, x[0])), X),
    "maximum": (lambda x: (torch.maximum(x, x.flip(0)), torch.minimum(x, x.flip(0))), SPECIAL),
    "fmax": (lambda x: (torch.fmax(x, x.flip(0)), torch.fmin(x, x.flip(0))), SPECIAL),
    "hypot": (lambda x: torch.hypot(x, 2 * x.flip(0)), X),
    "copysign": (lambda x: (torch.copysign(x, x.flip(0)), torch.copysign(x, -1.0)), SPECIAL[:-1]),
    "lerp": (lambda x: (torch.lerp(x, x.flip(0), 0.3), torch.addcmul(x, x, x, value=2), torch.addcdiv(x, x, x.exp())), X),
    "comparison": (lambda x: (x == 1.5, x != 1.5, x < 0, x <= 0, x > 0, x >= x.flip(0)), SPECIAL),
    "where": (lambda x: (torch.where(x > 0, x, -1), torch.where(x > 0, 0.0, x), torch.where(x > 0, x, x.sum())), X),
    "masked_fill": (lambda x: (x.masked_fill(x > 0, -math.inf), x.masked_fill(x[0] > 0, x.sum())), X),
    "0-d": (lambda x: (x + 1, torch.exp(x), x * x, torch.where(x > 0, x, 2)), torch.tensor(0.5)),
    "empty": (lambda x: (x + 1, torch.exp(x), x > 0), torch.empty(0, 3)),
    "in place": (lambda x: x.clone().add_(1).mul_(2).relu_(), X),
}


@pytest.mark.parametrize("name", UNARY)
def test_operation_on_floats(name: str) -> None:
    function, x = UNARY[name]
    check_both_precisions(function, [x])


INTEGERS: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "arithmetic": (lambda x, y: (x + y, x - y, x * y, -x, x.abs(), x.sign(), x**2, x**3, torch.square(x)), [WHOLE, DIVISOR]),
    "division": (
        lambda x, y: (x / y, x // y, x % y, torch.fmod(x, y), torch.div(x, y, rounding_mode="trunc"), 7 // y),
        [WHOLE, DIVISOR],
    ),
    "bits": (lambda x, y: (x & y, x | y, x ^ y, ~x, x & 3, x << 2, x >> 1), [WHOLE, DIVISOR]),
    "logic": (
        lambda x, y: (x & y, x | y, x ^ y, ~x, torch.logical_and(x, y), torch.logical_xor(x, y), x * y, x + y, x == y),
        [bools(5), bools(5, seed=1)],
    ),
    "small integers wrap": (lambda x: (x * 31, x + 100, -x), [ints(9, dtype=torch.int8)]),
    "bytes": (lambda x: (x + 200, x * 3, x // 2, x > 3, x.clamp(2, -1), x.clamp(-3, 50)), [ints(9, low=0, dtype=torch.uint8)]),
    "clamp": (lambda x: (x.clamp(0), x.clamp(-2, 5), x.clamp(0.5), F.relu(x)), [WHOLE]),
    "rounding is the identity": (lambda x: (torch.floor(x), torch.round(x)), [WHOLE]),
    "transcendental": (lambda x: (torch.exp(x), torch.sqrt(x.abs()), torch.sigmoid(x)), [WHOLE]),
    "classification": (lambda x: (torch.isnan(x), torch.isinf(x)), [WHOLE]),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_operation_on_integers(name: str) -> None:
    function, args = INTEGERS[name]
    check(function, args)


PROMOTION: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "f32 with bf16": (lambda x, y: (x + y, y * x, torch.where(x > 0, x, y)), [X, X.bfloat16()]),
    "f16 with 0-d f32 stays f16": (lambda x, y: (x + y, x * y, y - x), [X.half(), torch.tensor(0.3)]),
    "f16 with f32": (lambda x, y: x * y, [X.half(), X]),
    "int with float scalar": (lambda x: (x * 2.5, x + 0.5, 2.5 - x, x > 0.5, x == 1.0), [WHOLE]),
    "bool with numbers": (lambda x: (x * 2, x + 1.5, x > 0, x + True), [bools(5)]),
    "bool times float": (lambda x, y: (x * y, x + y, x == y), [bools(3, 4), X]),
    "f32 with f64": (lambda x, y: (x + y, x > y, torch.maximum(x, y)), [X, X.double()]),
    "f32 to an integer power": (lambda x, y: torch.pow(x, y), [POSITIVE, ints(3, 4, low=0, high=4, dtype=torch.int32)]),
    "where of f32 and i64": (lambda x, y: (torch.where(x > 0, x, y), torch.where(x > 0, y, 1.5)), [X, WHOLE]),
    "i32 with i64": (lambda x, y: (x + y, x < y, x // y), [ints(3, 4, dtype=torch.int32), DIVISOR]),
    "i64 with 0-d f32": (lambda x, y: (x + y, x > y), [WHOLE, torch.tensor(0.5)]),
    "u8 with i8": (lambda x, y: x + y, [ints(4, low=0, dtype=torch.uint8), ints(4, dtype=torch.int8)]),
    "lerp of halves": (lambda x: (torch.exp(x), x.sum(), F.gelu(x), x.softmax(-1)), [X.half()]),
    "bf16": (lambda x: (x * x + 1, torch.tanh(x), x.mean(0)), [X.bfloat16()]),
}


@pytest.mark.parametrize("name", PROMOTION)
def test_promotion_is_explicit(name: str) -> None:
    function, args = PROMOTION[name]
    check(function, args)


CASTS = [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("target", CASTS, ids=str)
def test_conversion_to(target: torch.dtype) -> None:
    values = torch.tensor([0.0, 1.0, 1.75, 3.2, 77.9])
    check(lambda *xs: [x.to(target) for x in xs], [values, values.double(), values.long(), values > 1, values.bfloat16()])
