"""Circular functions in fp32 as branch-free expressions, for arguments up to :data:`LARGEST`.

As in :mod:`.math`. Beyond, reducing the argument takes hundreds of digits of pi (Payne and Hanek 1983); the C library's functions do, which
:mod:`.scalar` calls for such arguments.
"""

from __future__ import annotations

import math

from tvm import tirx

from .emitter import Expr
from .math import Bind, f32, f64, horner, i32, rounded, select

LARGEST = 131072.0
"""Up to here the functions are right: beyond, the number of turns would not be exact in fp32 any more."""

# sin(r) = r + r^3 p(r^2) for |r| <= 1.59; relative error 8e-9.
_HALF_TURN = (-0.16666658, 0.0083330302, -0.00019806842, 2.5994661e-06)
# The same, and cos(r) = 1 - r^2 / 2 + r^4 p(r^2), for |r| <= pi / 4.
_SIN = (-0.16666655, 0.008332178, -0.00019517234)
_COS = (0.041666646, -0.0013887315, 2.443308e-05)

# pi in two parts; the first has 36 digits, so that its product with a number of half turns up to LARGEST, and a half, is exact in fp64.
_PI_HIGH = math.floor(math.pi * 2.0**34) / 2.0**34
_PI_LOW = 5.126688303189038e-12


def beyond(x: Expr) -> Expr:
    """Whether x is too large for these functions, infinite or NaN."""
    return (tirx.reinterpret("int32", x) & i32(0x7FFFFFFF)) > i32(0x48000000)


def _rest(bind: Bind, x: Expr, count: Expr, scale: float) -> Expr:
    """x - count * (scale * pi), reduced in fp64."""
    wide = bind(tirx.Cast("float64", count))
    rest = bind(wide * f64(-scale * _PI_HIGH) + tirx.Cast("float64", x))
    return bind(tirx.Cast("float32", bind(wide * f64(-scale * _PI_LOW) + rest)))


def _sine_of_rest(bind: Bind, r: Expr, bits: Expr) -> Expr:
    """sin(r), negated where the last one of ``bits`` is 1."""
    r = bind(tirx.reinterpret("float32", tirx.bitwise_xor(bind(tirx.reinterpret("int32", r)), bind(bits << i32(31)))))
    square = bind(r * r)
    # A product, not a sum, so that -0.0 stays.
    return bind(r * bind(square * horner(bind, square, _HALF_TURN) + f32(1.0)))


def sin(bind: Bind, x: Expr) -> Expr:
    """Sine: that of the rest after half turns, each of which changes the sign."""
    count, bits = rounded(bind, bind(x * f32(1 / math.pi)))
    return _sine_of_rest(bind, _rest(bind, x, count, 1.0), bits)


def cos(bind: Bind, x: Expr) -> Expr:
    """Cosine: as the sine, from the nearest odd number of quarter turns."""
    count, bits = rounded(bind, bind(x * f32(1 / math.pi) - f32(0.5)))
    return _sine_of_rest(bind, _rest(bind, x, bind(count + f32(0.5)), 1.0), bind(bits + i32(1)))


def tan(bind: Bind, x: Expr) -> Expr:
    """Tangent, from the rest after quarter turns."""
    count, bits = rounded(bind, bind(x * f32(2 / math.pi)))
    r = _rest(bind, x, count, 0.5)
    square = bind(r * r)
    sine = bind(r * bind(square * horner(bind, square, _SIN) + f32(1.0)))
    cosine = bind(square * square * horner(bind, square, _COS) + (square * f32(-0.5) + f32(1.0)))
    odd = bind(tirx.NE(bind(bits & i32(1)), i32(0)))
    return bind(select(odd, f32(0.0) - cosine, sine) / select(odd, sine, cosine))
