"""Quantisation that is simulated in floats: rounding to the values that small integers can stand for."""

from __future__ import annotations

import torch

from ...ir import DType, Value
from ..conversion import Conversion
from ..registry import converts

aten = torch.ops.aten


def _fake(c: Conversion, x: Value, scale: Value, zero_point: Value, low: int, high: int) -> tuple[Value, Value]:
    """x rounded to multiples of ``scale`` whose quotient, shifted by ``zero_point``, lies in [low, high]; and whether it did."""
    dtype = c.dtype
    # As PyTorch: x times the inverse of the scale, rounded to even, in fp32.
    steps = c.call("round", c.call("add", c.call("mul", x, c.call("reciprocal", scale)), zero_point))
    bounded = c.call("clamp", steps, min=float(low), max=float(high))
    inside = c.call("logical_and", c.call("ge", steps, c.scalar(low, dtype)), c.call("le", steps, c.scalar(high, dtype)))
    return c.call("mul", c.call("sub", bounded, zero_point), scale), inside


@converts(aten.fake_quantize_per_tensor_affine_cachemask.default)
def per_tensor(c: Conversion, x: Value, scale: float, zero_point: int, quant_min: int, quant_max: int) -> tuple[Value, Value]:
    return _fake(c, x, c.scalar(scale, c.dtype), c.scalar(zero_point, c.dtype), quant_min, quant_max)


@converts(aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default)
def per_tensor_of_tensors(
    c: Conversion, x: Value, scale: Value, zero_point: Value, enabled: Value, quant_min: int, quant_max: int
) -> tuple[Value, Value]:
    one = (1,) * max(x.tensor.rank, 1)
    step, zero = (c.cast(c.reshape(value, one[: x.tensor.rank]), c.dtype) for value in (scale, zero_point))
    rounded, inside = _fake(c, x, step, zero, quant_min, quant_max)
    active = c.cast(c.reshape(enabled, one[: x.tensor.rank]), DType.BOOL)
    return c.call("where", active, rounded, x), c.call("logical_or", c.call("logical_not", active), inside)


@converts(aten.fake_quantize_per_channel_affine_cachemask.default)
def per_channel(c: Conversion, x: Value, scale: Value, zero_point: Value, axis: int, quant_min: int, quant_max: int) -> tuple[Value, Value]:
    shape = [1] * x.tensor.rank
    shape[axis] = -1
    extents = tuple(x.tensor.shape[number] if extent == -1 else extent for number, extent in enumerate(shape))
    step, zero = (c.cast(c.reshape(value, extents), c.dtype) for value in (scale, zero_point))
    return _fake(c, x, step, zero, quant_min, quant_max)
