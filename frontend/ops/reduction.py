"""Reductions and running sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ...ir import DType, Value
from ..conversion import Conversion, Number, axes_of, static
from ..registry import converts

aten = torch.ops.aten

Axes = int | Sequence[int] | None


def _reduced(c: Conversion, kind: str, x: Value, axes: Axes, keepdim: bool) -> Value:
    """``kind`` over ``axes`` (None or empty: all); a 0-d tensor is its own sum, mean, product, maximum and minimum."""
    over = axes_of(axes, x.tensor.rank)
    return c.reduce(kind, x, over, keepdim) if over else x


def _accumulation(kind: str) -> Callable[..., Value]:
    """sum, mean and prod: PyTorch converts to the result's dtype first."""

    def convert(c: Conversion, x: Value, dim: Axes = None, keepdim: bool = False, *, dtype: object = None) -> Value:
        return _reduced(c, kind, c.cast(x, c.dtype), dim, keepdim)

    return convert


converts(aten.sum.default, aten.sum.dim_IntList)(_accumulation("sum"))
converts(aten.mean.default, aten.mean.dim)(_accumulation("mean"))
converts(aten.prod.default, aten.prod.dim_int)(_accumulation("prod"))


def _extremum(kind: str) -> Callable[..., Value]:
    def convert(c: Conversion, x: Value, dim: Axes = None, keepdim: bool = False) -> Value:
        return _reduced(c, kind, x, dim, keepdim)

    return convert


converts(aten.amax.default, aten.max.default)(_extremum("max"))
converts(aten.amin.default, aten.min.default)(_extremum("min"))


def _logical(kind: str) -> Callable[..., Value]:
    def convert(c: Conversion, x: Value, dim: Axes = None, keepdim: bool = False) -> Value:
        """The result is a boolean, or uint8 for uint8."""
        return c.cast(_reduced(c, kind, c.cast(x, DType.BOOL), dim, keepdim), c.dtype)

    return convert


converts(aten.any.default, aten.any.dim, aten.any.dims, aten._is_any_true.default)(_logical("any"))
converts(aten.all.default, aten.all.dim, aten.all.dims, aten._is_all_true.default)(_logical("all"))


def _position(c: Conversion, kind: str, x: Value, axis: int | None, keepdim: bool) -> Value:
    """argmax or argmin along an axis, or of the flattened tensor."""
    if x.tensor.dtype is DType.BOOL:
        x = c.cast(x, DType.UINT8)
    if axis is None or x.tensor.rank == 0:
        return c.reshape(c.reduce(kind, c.flatten(x), (0,)), (1,) * x.tensor.rank if keepdim else ())
    return c.reduce(kind, x, (axis % x.tensor.rank,), keepdim)


@converts(aten.argmax.default)
def argmax(c: Conversion, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _position(c, "argmax", x, dim, keepdim)


@converts(aten.argmin.default)
def argmin(c: Conversion, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _position(c, "argmin", x, dim, keepdim)


@converts(aten.max.dim)
def max_dim(c: Conversion, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _reduced(c, "max", x, dim, keepdim), _position(c, "argmax", x, dim, keepdim)


@converts(aten.min.dim)
def min_dim(c: Conversion, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _reduced(c, "min", x, dim, keepdim), _position(c, "argmin", x, dim, keepdim)


def _variance(c: Conversion, x: Value, dim: Axes, correction: Number | None, keepdim: bool) -> tuple[Value, Value]:
    """Variance, and mean; the sum of squares is divided by the number of elements less ``correction`` (1 if None)."""
    axes = axes_of(dim, x.tensor.rank)
    count = math.prod(static(x.tensor.shape[axis], "a reduced axis") for axis in axes)
    mean = _reduced(c, "mean", x, dim, True)
    total = _reduced(c, "sum", c.call("square", c.call("sub", x, mean)), dim, keepdim)
    divisor = c.scalar(max(0.0, count - (1 if correction is None else correction)), x.tensor.dtype)
    return c.call("div", total, divisor), c.reshape(mean, total.tensor.shape)


@converts(aten.var.correction)
def var(c: Conversion, x: Value, dim: Axes = None, *, correction: Number | None = None, keepdim: bool = False) -> Value:
    return _variance(c, x, dim, correction, keepdim)[0]


@converts(aten.var_mean.correction)
def var_mean(c: Conversion, x: Value, dim: Axes = None, *, correction: Number | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    return _variance(c, x, dim, correction, keepdim)


@converts(aten.linalg_vector_norm.default)
def vector_norm(c: Conversion, x: Value, ord: Number = 2, dim: Axes = None, keepdim: bool = False, *, dtype: object = None) -> Value:
    magnitude = c.call("abs", c.cast(x, c.dtype))
    if ord == math.inf:
        return _reduced(c, "max", magnitude, dim, keepdim)
    if ord == -math.inf:
        return _reduced(c, "min", magnitude, dim, keepdim)
    if ord == 0:
        return _reduced(c, "sum", c.cast(c.call("ne", magnitude, c.scalar(0, c.dtype)), c.dtype), dim, keepdim)
    if ord == 1:
        return _reduced(c, "sum", magnitude, dim, keepdim)
    if ord == 2:
        return c.call("sqrt", _reduced(c, "sum", c.call("square", magnitude), dim, keepdim))
    total = _reduced(c, "sum", c.call("pow", magnitude, c.scalar(ord, c.dtype)), dim, keepdim)
    return c.call("pow", total, c.scalar(1 / ord, c.dtype))
