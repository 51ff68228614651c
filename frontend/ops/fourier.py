"""Discrete Fourier transforms as products with matrices, split into smaller ones where they are long.

A transform of length n = a b is one of length a of each column, a multiplication by powers of the root of unity, and one of length b of
each row (Cooley and Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965). Where n is a large prime it
becomes a convolution with a chirp, of a length that has factors (Bluestein, 1970).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ...ir import Dim, DType, Value
from ..complex_values import Complex, converts_complex
from ..conversion import Conversion, axis_of, static
from .complex_numbers import product

aten = torch.ops.aten

_DIRECT = 384
"""Lengths up to this are one product with a matrix."""


def _roots(powers: np.ndarray, n: int, sign: int) -> np.ndarray:
    """exp(sign 2 pi i p / n) for integers p, in complex128."""
    turns = 2 * math.pi * (powers % n) / n
    return np.cos(turns) + 1j * sign * np.sin(turns)


def _constant(c: Conversion, numbers: np.ndarray, dtype: DType) -> Value:
    return c.constant(np.ascontiguousarray(numbers).astype(dtype.numpy))


def _constants(c: Conversion, numbers: np.ndarray, dtype: DType) -> Complex:
    return Complex(_constant(c, numbers.real, dtype), _constant(c, numbers.imag, dtype))


def _last(c: Conversion, x: Complex | Value) -> int:
    shape = x.shape if isinstance(x, Complex) else x.tensor.shape
    return static(shape[-1], "the axis of a Fourier transform")


def transform(c: Conversion, x: Complex | Value, sign: int, count: int | None = None) -> Complex:
    """The first ``count`` (None: all) coefficients of the unscaled transform along the last axis, with exp(sign 2 pi i j k / n)."""
    n = _last(c, x)
    first = n if count is None else count
    if n <= _DIRECT:
        return _direct(c, x, sign, first)
    rows = _factor(n)
    result = _chirp(c, x, sign) if rows == 1 else _split(c, x, sign, rows)
    return result.map(lambda part: c.slice(part, part.tensor.rank - 1, 0, first))


def _factor(n: int) -> int:
    """The divisor of ``n`` nearest below its square root."""
    return next(divisor for divisor in range(math.isqrt(n), 0, -1) if n % divisor == 0)


def _direct(c: Conversion, x: Complex | Value, sign: int, count: int) -> Complex:
    """One product with [cos; sin] of a real operand, with [[cos, -sin]; [sin, cos]] of both parts of a complex one."""
    n = _last(c, x)
    matrix = _roots(np.outer(np.arange(count), np.arange(n)), n, sign)
    if isinstance(x, Complex):
        weights = np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])
        operand = c.call("concat", x.real, x.imag, axis=len(x.shape) - 1)
        dtype = x.dtype
    else:
        weights, operand, dtype = np.concatenate([matrix.real, matrix.imag]), x, x.tensor.dtype
    both = c.call("linear", operand, _constant(c, weights, dtype))
    axis = both.tensor.rank - 1
    return Complex(c.slice(both, axis, 0, count), c.slice(both, axis, count, 2 * count))


def _split(c: Conversion, x: Complex | Value, sign: int, rows: int) -> Complex:
    """By the factors ``rows`` and the rest: x[j1 b + j2] gives X[k1 + a k2]."""
    n = _last(c, x)
    columns = n // rows

    def exchanged(value: Value) -> Value:
        rank = value.tensor.rank
        return c.permute(value, [*range(rank - 2), rank - 1, rank - 2])

    def spread(value: Value) -> Value:
        return exchanged(c.reshape(value, (*value.tensor.shape[:-1], rows, columns)))

    inner = transform(c, x.map(spread) if isinstance(x, Complex) else spread(x), sign)
    twiddles = _roots(np.outer(np.arange(columns), np.arange(rows)), n, sign)
    turned = product(c, inner, _constants(c, twiddles, inner.dtype))
    outer = transform(c, turned.map(exchanged), sign)
    return outer.map(lambda value: c.reshape(exchanged(value), (*value.tensor.shape[:-2], n)))


def _chirp(c: Conversion, x: Complex | Value, sign: int) -> Complex:
    """jk = (j^2 + k^2 - (k - j)^2) / 2 makes the transform a convolution with a chirp, which transforms of a power of two compute."""
    n = _last(c, x)
    length = 1 << (2 * n - 2).bit_length()
    squares = np.arange(n, dtype=np.int64) ** 2 % (2 * n)
    chirp = _roots(squares, 2 * n, sign)
    kernel = np.zeros(length, dtype=np.complex128)
    kernel[:n] = chirp.conj()
    kernel[length - n + 1 :] = chirp.conj()[1:][::-1]
    dtype = x.dtype if isinstance(x, Complex) else x.tensor.dtype
    factors = _constants(c, chirp, dtype)
    z = x if isinstance(x, Complex) else Complex(x, c.broadcast(c.scalar(0, dtype), x.tensor.shape))

    def extended(value: Value) -> Value:
        return c.call("pad", value, pads=((0, 0),) * (value.tensor.rank - 1) + ((0, length - n),), value=0.0)

    spectrum = transform(c, product(c, z, factors).map(extended), -1)
    # The scale of the inverse transform goes into the constant.
    filtered = product(c, spectrum, _constants(c, np.fft.fft(kernel) / length, dtype))
    return product(c, transform(c, filtered, 1, n), factors)


def _along(c: Conversion, x: Complex | Value, dim: int, sign: int, count: int | None = None) -> Complex:
    """:func:`transform` along any axis."""
    rank = len(x.shape) if isinstance(x, Complex) else x.tensor.rank
    axis = axis_of(dim, rank)
    order = [other for other in range(rank) if other != axis] + [axis]
    back = [order.index(position) for position in range(rank)]
    moved = x.map(lambda part: c.permute(part, order)) if isinstance(x, Complex) else c.permute(x, order)
    return transform(c, moved, sign, count).map(lambda part: c.permute(part, back))


def _scale(normalization: int, lengths: Sequence[int]) -> float:
    """PyTorch's ``fft_norm_mode``: none, by the root of the number of elements, by the number."""
    count = math.prod(lengths)
    return (1.0, 1 / math.sqrt(count), 1 / count)[normalization]


def _scaled(c: Conversion, x: Value, scale: float) -> Value:
    return x if scale == 1 else c.call("mul", x, c.scalar(scale, x.tensor.dtype))


def _lengths(c: Conversion, shape: Sequence[Dim], dims: Sequence[int]) -> list[int]:
    return [static(shape[axis_of(dim, len(shape))], "the axis of a Fourier transform") for dim in dims]


@converts_complex(aten._fft_c2c.default)
def fft_c2c(c: Conversion, z: Complex, dim: Sequence[int], normalization: int, forward: bool) -> Complex:
    scale = _scale(normalization, _lengths(c, z.shape, dim))
    for axis in reversed(dim):
        z = _along(c, z, axis, -1 if forward else 1)
    return z.map(lambda part: _scaled(c, part, scale))


@converts_complex(aten._fft_r2c.default)
def fft_r2c(c: Conversion, x: Value, dim: Sequence[int], normalization: int, onesided: bool) -> Complex:
    """The last of the axes first: there the operand is real, and half of the coefficients say all."""
    lengths = _lengths(c, x.tensor.shape, dim)
    scale = _scale(normalization, lengths)
    z = _along(c, c.cast(x, c.dtype), dim[-1], -1, lengths[-1] // 2 + 1 if onesided else None)
    for axis in reversed(dim[:-1]):
        z = _along(c, z, axis, -1)
    return z.map(lambda part: _scaled(c, part, scale))


@converts_complex(aten._fft_c2r.default)
def fft_c2r(c: Conversion, z: Complex, dim: Sequence[int], normalization: int, last_dim_size: int) -> Value:
    """From the half of the coefficients that says all; the last of the axes last."""
    rank = len(z.shape)
    n = last_dim_size
    lengths = [*_lengths(c, z.shape, dim[:-1]), n]
    for axis in reversed(dim[:-1]):
        z = _along(c, z, axis, 1)
    axis = axis_of(dim[-1], rank)
    order = [other for other in range(rank) if other != axis] + [axis]
    half = z.map(lambda part: c.slice(c.permute(part, order), rank - 1, 0, n // 2 + 1))
    result = c.permute(_real_inverse(c, half, n), [order.index(position) for position in range(rank)])
    return _scaled(c, result, _scale(normalization, lengths))


def _real_inverse(c: Conversion, z: Complex, n: int) -> Value:
    """Real numbers from the first n / 2 + 1 coefficients along the last axis; the imaginary parts of those that stand alone are ignored."""
    if n <= _DIRECT:
        count = n // 2 + 1
        matrix = _roots(np.outer(np.arange(n), np.arange(count)), n, 1)
        twice = np.full(count, 2.0)
        twice[0] = 1.0
        if n % 2 == 0:
            twice[-1] = 1.0
        weights = np.concatenate([matrix.real * twice, -matrix.imag * twice], axis=1)
        return c.call("linear", c.call("concat", z.real, z.imag, axis=len(z.shape) - 1), _constant(c, weights, z.dtype))
    axis = len(z.shape) - 1
    alone = np.ones(n // 2 + 1)
    alone[[0, -1] if n % 2 == 0 else [0]] = 0.0
    imaginary = c.call("mul", z.imag, _constant(c, alone, z.dtype))

    def mirrored(part: Value) -> Value:
        return c.call("flip", c.slice(part, axis, 1, (n + 1) // 2), axes=(axis,))

    real = c.call("concat", z.real, mirrored(z.real), axis=axis)
    imaginary = c.call("concat", imaginary, c.call("neg", mirrored(imaginary)), axis=axis)
    return transform(c, Complex(real, imaginary), 1).real
