"""Tensors made from nothing but their shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...ir import Dim, Value
from ..conversion import Conversion, Number, representable
from ..registry import converts

aten = torch.ops.aten

_WINDOWS = ("bartlett", "blackman", "hamming", "hann", "kaiser")


def _filled(c: Conversion, value: Number) -> Value:
    """``value``, converted to the result's dtype, everywhere in the result's shape."""
    if not c.shape:
        return c.scalar(value, c.dtype)
    return c.call("full", shape=c.shape, value=representable(value, c.dtype), dtype=c.dtype)


@converts(aten.full.default, aten.full_like.default, aten.new_full.default)
def full(c: Conversion, like_or_size: Any, size_or_value: Any, value: Number | None = None, **options: Any) -> Value:
    """full(size, value), full_like(x, value) or new_full(x, size, value)."""
    return _filled(c, size_or_value if value is None else value)


@converts(aten.scalar_tensor.default, torch.ops.prims.scalar_tensor.default)
def scalar_tensor(c: Conversion, value: Number, **options: Any) -> Value:
    return _filled(c, value)


@converts(
    aten.zeros.default,
    aten.zeros_like.default,
    aten.new_zeros.default,
    # What an empty tensor contains is undefined; zeros are reproducible.
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_permuted.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)
def zeros(c: Conversion, *arguments: Any, **options: Any) -> Value:
    return _filled(c, 0)


@converts(aten.ones.default, aten.ones_like.default, aten.new_ones.default)
def ones(c: Conversion, *arguments: Any, **options: Any) -> Value:
    return _filled(c, 1)


@converts(aten.fill.Scalar)
def fill(c: Conversion, x: Value, value: Number) -> Value:
    return _filled(c, value)


@converts(aten.fill.Tensor)
def fill_tensor(c: Conversion, x: Value, value: Value) -> Value:
    return c.broadcast(c.cast(value, c.dtype), c.shape)


def _iota(c: Conversion, start: Dim | float, step: Dim | float) -> Value:
    kind = float if c.dtype.is_float else lambda number: number
    return c.call("iota", size=c.shape[0], start=kind(start), step=kind(step), dtype=c.dtype)


@converts(aten.arange.start_step)
def arange_step(c: Conversion, start: Number, end: Number, step: Number = 1, **options: Any) -> Value:
    return _iota(c, start, step)


@converts(aten.arange.start)
def arange_start(c: Conversion, start: Number, end: Number, **options: Any) -> Value:
    return _iota(c, start, 1)


@converts(aten.arange.default)
def arange(c: Conversion, end: Number, **options: Any) -> Value:
    return _iota(c, 0, 1)


@converts(torch.ops.prims.iota.default)
def iota(c: Conversion, length: Dim, *, start: int, step: int, **options: Any) -> Value:
    return _iota(c, start, step)


def _triangle(c: Conversion, of: Callable[..., torch.Tensor], rows: int, columns: int, offset: int) -> Value:
    return c.cast(c.constant(of(rows, columns, offset).numpy()), c.dtype)


@converts(aten.tril_indices.default)
def tril_indices(c: Conversion, rows: int, columns: int, offset: int = 0, **options: Any) -> Value:
    return _triangle(c, torch.tril_indices, rows, columns, offset)


@converts(aten.triu_indices.default)
def triu_indices(c: Conversion, rows: int, columns: int, offset: int = 0, **options: Any) -> Value:
    return _triangle(c, torch.triu_indices, rows, columns, offset)


@converts(aten.fft_fftfreq.default)
def fftfreq(c: Conversion, count: int, spacing: float = 1.0, **options: Any) -> Value:
    return c.constant(np.fft.fftfreq(count, spacing).astype(c.dtype.numpy))


@converts(aten.fft_rfftfreq.default)
def rfftfreq(c: Conversion, count: int, spacing: float = 1.0, **options: Any) -> Value:
    return c.constant(np.fft.rfftfreq(count, spacing).astype(c.dtype.numpy))


@converts(
    *(getattr(getattr(aten, f"{name}_window"), overload) for name in _WINDOWS for overload in ("default", "periodic")),
    aten.hamming_window.periodic_alpha,
    aten.hamming_window.periodic_alpha_beta,
    aten.kaiser_window.beta,
)
def window(c: Conversion, *arguments: Any, **options: Any) -> Value:
    """The weights of a window function, which depend on nothing but its length."""
    assert isinstance(c.node.target, torch._ops.OpOverload)
    with torch.utils._python_dispatch._disable_current_modes():
        weights = c.node.target(*arguments, dtype=options.get("dtype"), device="cpu")
    return c.constant(weights.numpy())
