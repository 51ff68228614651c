"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...ir import Value
from ..conversion import Conversion, Number
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten


def _direct(op: str) -> Callable[[Conversion, Value], Value]:
    def convert(c: Conversion, x: Value) -> Value:
        return c.call(op, x)

    return convert


for _name in ("relu", "silu", "hardswish", "hardsigmoid"):
    converts(getattr(aten, _name).default)(_direct(_name))


@converts(aten.gelu.default)
def gelu(c: Conversion, x: Value, *, approximate: str = "none") -> Value:
    return c.call("gelu", x, approximate=approximate)


@converts(aten.leaky_relu.default)
def leaky_relu(c: Conversion, x: Value, negative_slope: Number = 0.01) -> Value:
    return c.call("leaky_relu", x, slope=float(negative_slope))


@converts(aten.hardtanh.default)
def hardtanh(c: Conversion, x: Value, min_val: Number = -1, max_val: Number = 1) -> Value:
    kind = float if c.dtype.is_float else int
    return c.call("clamp", x, min=kind(min_val), max=kind(max_val))


@converts(aten.rrelu.default)
def rrelu(c: Conversion, x: Value, lower: Number = 1 / 8, upper: Number = 1 / 3, training: bool = False, generator: object = None) -> Value:
    """The slope is random in training only; else it is the mean."""
    if training:
        raise Unsupported("random numbers are drawn: call model.eval() before compiling, or pass training=False to the function")
    return c.call("leaky_relu", x, slope=(float(lower) + float(upper)) / 2)


@converts(aten.rrelu_with_noise_functional.default)
def rrelu_with_noise(
    c: Conversion, x: Value, noise: Value, lower: Number = 1 / 8, upper: Number = 1 / 3, training: bool = False, generator: object = None
) -> tuple[Value, Value]:
    return rrelu(c, x, lower, upper, training), noise


@converts(aten.elu.default)
def elu(c: Conversion, x: Value, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Value:
    if input_scale != 1:
        raise Unsupported(f"input_scale is {input_scale}: only 1 is known")
    y = c.call("elu", x, alpha=float(alpha))
    return y if scale == 1 else c.call("mul", y, c.scalar(scale, c.dtype))


@converts(aten.softplus.default)
def softplus(c: Conversion, x: Value, beta: Number = 1, threshold: Number = 20) -> Value:
    """log(1 + exp(beta x)) / beta, and x itself above the threshold (where float32 sees no difference from the default one)."""
    scaled = x if beta == 1 else c.call("mul", x, c.scalar(beta, c.dtype))
    y = c.call("softplus", scaled)
    y = y if beta == 1 else c.call("mul", y, c.scalar(1 / beta, c.dtype))
    return c.call("where", c.call("gt", scaled, c.scalar(threshold, c.dtype)), x, y) if threshold < 20 else y


@converts(aten._prelu_kernel.default, aten.prelu.default)
def prelu(c: Conversion, x: Value, weight: Value) -> Value:
    """One slope, or one for each channel (axis 1)."""
    if weight.tensor.rank == 1 and x.tensor.rank >= 2:
        weight = c.reshape(weight, (weight.tensor.shape[0],) + (1,) * (x.tensor.rank - 2))
    return c.call("where", c.call("gt", x, c.scalar(0, c.dtype)), x, c.call("mul", x, c.cast(weight, c.dtype)))


@converts(aten.log_sigmoid_forward.default)
def log_sigmoid(c: Conversion, x: Value) -> tuple[Value | None, ...]:
    return c.call("neg", c.call("softplus", c.call("neg", x))), None


@converts(aten.glu.default)
def glu(c: Conversion, x: Value, dim: int = -1) -> Value:
    axis = dim % x.tensor.rank
    extent = x.tensor.shape[axis]
    half = extent // 2
    return c.call("mul", c.slice(x, axis, 0, half), c.call("sigmoid", c.slice(x, axis, half, extent)))
