"""Elementwise special functions, and operations on the representation of numbers. References come from SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..types import DType, Kind
from .definition import REQUIRED
from .elementwise import TRANSCENDENTAL_FLOPS, elementwise

_FLOAT = (Kind.FLOAT,)
_INTEGER = (Kind.INTEGER,)


def _scipy(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function of scipy.special, which is imported when first called."""

    def evaluate(x: np.ndarray) -> np.ndarray:
        from scipy import special

        return np.asarray(getattr(special, name)(x))

    return evaluate


def _digamma(x: np.ndarray) -> np.ndarray:
    # SciPy gives NaN at 0; PyTorch the limit from the side of the sign.
    return np.where(x == 0, np.copysign(np.inf, -x), _scipy("digamma")(x))


def _trigamma(x: np.ndarray) -> np.ndarray:
    from scipy import special

    # trigamma(x) + trigamma(1 - x) = (pi / sin(pi x))^2, the argument of the sine reduced.
    mirrored = (np.pi / np.sin(np.pi * (x - np.rint(x)))) ** 2
    right = special.zeta(2.0, np.where(x < 0.5, 1 - x, x))
    return np.asarray(np.where(x < 0.5, mirrored - right, right))


for _name, _reference, _doc in (
    ("log2", np.log2, "logarithm to the base 2, exact for powers of 2"),
    ("log10", np.log10, "logarithm to the base 10"),
    ("lgamma", _scipy("gammaln"), "logarithm of the size of the gamma function"),
    ("digamma", _digamma, "derivative of lgamma; at 0 infinity with the opposite sign, NaN at negative integers"),
    ("trigamma", _trigamma, "second derivative of lgamma"),
    ("erfc", _scipy("erfc"), "1 - erf(x) without cancellation"),
    ("erfcx", _scipy("erfcx"), "exp(x^2) erfc(x)"),
    ("erfinv", lambda x: np.copysign(_scipy("erfinv")(x), x), "inverse of the error function"),
    ("ndtri", _scipy("ndtri"), "quantile of the standard normal distribution"),
    ("i0", _scipy("i0"), "modified Bessel function of the first kind, order 0"),
    ("i0e", _scipy("i0e"), "exp(-|x|) i0(x)"),
    ("i1", _scipy("i1"), "modified Bessel function of the first kind, order 1"),
    ("i1e", _scipy("i1e"), "exp(-|x|) i1(x)"),
    ("bessel_j0", _scipy("j0"), "Bessel function of the first kind, order 0"),
    ("bessel_j1", _scipy("j1"), "Bessel function of the first kind, order 1"),
    ("bessel_y0", _scipy("y0"), "Bessel function of the second kind, order 0"),
    ("bessel_y1", _scipy("y1"), "Bessel function of the second kind, order 1"),
):
    elementwise(_name, ("x",), _reference, kinds=_FLOAT, flops=4 * TRANSCENDENTAL_FLOPS, doc=_doc)


def _shift_left(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = x.dtype.itemsize * 8
    inside = (y >= 0) & (y < bits)
    return np.where(inside, np.left_shift(x, np.where(inside, y, 0)), 0).astype(x.dtype)


def _shift_right(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = x.dtype.itemsize * 8
    inside = (y >= 0) & (y < bits)
    # All bits gone, what is left is the sign: 0 or -1.
    return np.where(inside, np.right_shift(x, np.where(inside, y, 0)), np.where(x < 0, -1, 0)).astype(x.dtype)


elementwise("shift_left", ("x", "y"), _shift_left, kinds=_INTEGER, doc="x * 2^y, overflow wrapping; 0 for y outside [0, bits)")
elementwise(
    "shift_right", ("x", "y"), _shift_right, kinds=_INTEGER, doc="x / 2^y rounded down; 0 or -1 (by x's sign) for y outside [0, bits)"
)
elementwise("gcd", ("x", "y"), np.gcd, kinds=_INTEGER, flops=50, commutative=True, doc="greatest common divisor")
elementwise("signbit", ("x",), np.signbit, kinds=_FLOAT, result=DType.BOOL, doc="whether the sign bit is set, also that of -0.0")
elementwise("mantissa", ("x",), lambda x: np.frexp(x)[0], kinds=_FLOAT, flops=4, doc="m of x = m * 2^e with |m| in [1/2, 1) or x itself")
elementwise(
    "exponent",
    ("x",),
    lambda x: np.where(np.isfinite(x), np.frexp(x)[1], 0).astype(np.int32),
    kinds=_FLOAT,
    result=DType.INT32,
    flops=4,
    doc="e of x = m * 2^e with |m| in [1/2, 1); 0 for 0, infinities and NaN",
)


def _nextafter(x: np.ndarray, y: np.ndarray, dtype: DType) -> Any:
    return np.nextafter(x.astype(dtype.numpy), y.astype(dtype.numpy)).astype(np.float64)


elementwise(
    "nextafter",
    ("x", "y"),
    _nextafter,
    kinds=_FLOAT,
    attributes={"dtype": REQUIRED},
    doc="the number of the dtype (that of the operands) next to x in the direction of y",
)
