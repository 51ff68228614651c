"""Softmax and the norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ...ir import DType, Value
from ..conversion import Conversion, static
from ..registry import converts

aten = torch.ops.aten


def _softmax(op: str) -> Callable[..., Value]:
    def convert(c: Conversion, x: Value, dim: int, half_to_float: object = None, dtype: object = None) -> Value:
        """PyTorch converts to the result's dtype first."""
        x = c.cast(x, c.dtype)
        if x.tensor.rank == 0:
            return c.reshape(c.call(op, c.reshape(x, (1,)), axis=0), ())
        return c.call(op, x, axis=dim % x.tensor.rank)

    return convert


converts(aten._softmax.default, aten.softmax.int)(_softmax("softmax"))
converts(aten._log_softmax.default, aten.log_softmax.int)(_softmax("log_softmax"))


def _parameters(c: Conversion, weight: Value | None, bias: Value | None, dtype: DType) -> tuple[list[Value], Value | None]:
    """The operands of a norm, and a bias that must be added afterwards since there is no weight before it."""
    if weight is None:
        return [], None if bias is None else c.cast(bias, dtype)
    return [c.cast(parameter, dtype) for parameter in (weight, bias) if parameter is not None], None


@converts(aten.layer_norm.default)
def layer_norm(
    c: Conversion,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Value:
    parameters, late_bias = _parameters(c, weight, bias, x.tensor.dtype)
    y = c.call("layer_norm", x, *parameters, axes=len(normalized_shape), eps=float(eps))
    return y if late_bias is None else c.call("add", y, late_bias)


@converts(aten.native_layer_norm.default)
def native_layer_norm(
    c: Conversion, x: Value, normalized_shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value | None, ...]:
    return layer_norm(c, x, normalized_shape, weight, bias, eps), None, None


@converts(aten.rms_norm.default)
def rms_norm(c: Conversion, x: Value, normalized_shape: Sequence[int], weight: Value | None = None, eps: float | None = None) -> Value:
    """Several normalised axes are one long one to the IR."""
    shape = x.tensor.shape
    if eps is None:
        eps = torch.finfo({DType.FLOAT64: torch.float64, DType.FLOAT32: torch.float32}.get(x.tensor.dtype, torch.float32)).eps
    count = len(normalized_shape)
    if count > 1:
        width = math.prod(static(extent, "a normalised axis") for extent in shape[-count:])
        x = c.reshape(x, (*shape[:-count], width))
        weight = None if weight is None else c.reshape(weight, (width,))
    y = c.call("rms_norm", x, *([] if weight is None else [c.cast(weight, x.tensor.dtype)]), eps=float(eps))
    return c.reshape(y, shape)


@converts(aten._fused_rms_norm.default)
def fused_rms_norm(
    c: Conversion, x: Value, normalized_shape: Sequence[int], weight: Value | None, eps: float | None
) -> tuple[Value | None, ...]:
    return rms_norm(c, x, normalized_shape, weight, eps), None


@converts(aten.native_group_norm.default)
def native_group_norm(
    c: Conversion,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    batch: int,
    channels: int,
    positions: int,
    groups: int,
    eps: float,
) -> tuple[Value | None, ...]:
    parameters, late_bias = _parameters(c, weight, bias, x.tensor.dtype)
    y = c.call("group_norm", x, *parameters, groups=groups, eps=float(eps))
    return (y if late_bias is None else _add_per_channel(c, y, late_bias)), None, None


def _add_per_channel(c: Conversion, x: Value, bias: Value) -> Value:
    return c.call("add", x, c.reshape(bias, (bias.tensor.shape[0],) + (1,) * (x.tensor.rank - 2)))


@converts(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    c: Conversion,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    momentum: float,
    eps: float,
) -> tuple[Value | None, ...]:
    dtype = x.tensor.dtype
    parameters, late_bias = _parameters(c, weight, bias, dtype)
    y = c.call("batch_norm", x, c.cast(mean, dtype), c.cast(variance, dtype), *parameters, eps=float(eps))
    return (y if late_bias is None else _add_per_channel(c, y, late_bias)), None, None


@converts(aten._native_batch_norm_legit.no_stats)
def batch_norm_of_the_batch(
    c: Conversion, x: Value, weight: Value | None, bias: Value | None, training: bool, momentum: float, eps: float
) -> tuple[Value | None, ...]:
    """Statistics over everything but the channels: what an instance norm becomes, with one channel per sample and channel."""
    parameters, late_bias = _parameters(c, weight, bias, x.tensor.dtype)
    channels = x.tensor.shape[1]
    if x.tensor.shape[0] == 1:
        y = c.call("group_norm", x, *parameters, groups=static(channels, "the number of channels"), eps=float(eps))
    else:
        axes = [axis for axis in range(x.tensor.rank) if axis != 1]
        mean, variance = _moments(c, x, axes)
        flat = [c.reshape(statistic, (channels,)) for statistic in (mean, variance)]
        y = c.call("batch_norm", x, *flat, *parameters, eps=float(eps))
    return (y if late_bias is None else _add_per_channel(c, y, late_bias)), None, None


def _moments(c: Conversion, x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """Mean and biased variance over ``axes``, which are kept."""
    mean = c.reduce("mean", x, axes, keepdims=True)
    return mean, c.reduce("mean", c.call("square", c.call("sub", x, mean)), axes, keepdims=True)
