"""Hyperbolic functions, and the inverses of the circular and hyperbolic ones, in fp32 as branch-free expressions.

As in :mod:`.math`. The polynomials of atan and asin are those of Moshier's Cephes library (1989).
"""

from __future__ import annotations

import math as pymath

from tvm import tirx

from .emitter import Expr
from .math import Bind, exp, expm1, f32, horner, log, log1p, magnitude_of, select, with_sign_of

# atan(x) = x + x^3 p(x^2) for |x| <= tan(pi / 8).
_ATAN = (-3.33329491539e-1, 1.99777106478e-1, -1.38776856032e-1, 8.05374449538e-2)
# asin(x) = x + x^3 p(x^2) for |x| <= 1/2.
_ASIN = (1.6666752422e-1, 7.4953002686e-2, 4.5470025998e-2, 2.4181311049e-2, 4.2163199048e-2)
_LARGE = 1e9
"""From here on x^2 + 1 is x^2 in fp32."""
_STEEP = 10.0
"""From here on the smaller exponential in sinh is below the last place of the larger."""


def _arctangent(bind: Bind, a: Expr) -> Expr:
    """atan for a >= 0."""
    large, middle = bind(a > f32(pymath.tan(3 * pymath.pi / 8))), bind(a > f32(pymath.tan(pymath.pi / 8)))
    over = bind(select(large, f32(-1.0), select(middle, a - f32(1.0), a)))
    under = bind(select(large, a, select(middle, a + f32(1.0), f32(1.0))))
    r = bind(over / under)
    start = bind(select(large, f32(pymath.pi / 2), select(middle, f32(pymath.pi / 4), f32(0.0))))
    square = bind(r * r)
    return bind(start + (horner(bind, square, _ATAN) * square * r + r))


def atan(bind: Bind, x: Expr) -> Expr:
    """Inverse tangent."""
    return with_sign_of(bind, _arctangent(bind, magnitude_of(bind, x)), x)


def atan2(bind: Bind, y: Expr, x: Expr) -> Expr:
    """The angle of the point (x, y), in [-pi, pi]; signs of zeros count."""
    zero, infinity = f32(0.0), f32(pymath.inf)
    across, up = magnitude_of(bind, x), magnitude_of(bind, y)
    steep = bind(up > across)
    low, high = bind(select(steep, across, up)), bind(select(steep, up, across))
    nothing = bind(tirx.And(tirx.EQ(low, zero), tirx.EQ(high, zero)))
    endless = bind(tirx.And(tirx.EQ(low, infinity), tirx.EQ(high, infinity)))
    ratio = bind(low / select(nothing, f32(1.0), high))
    angle = _arctangent(bind, bind(select(endless, f32(1.0), ratio)))
    angle = bind(select(steep, f32(pymath.pi / 2) - angle, angle))
    left = bind(tirx.reinterpret("int32", x) < tirx.const(0, "int32"))
    return with_sign_of(bind, bind(select(left, f32(pymath.pi) - angle, angle)), y)


def _arcsine(bind: Bind, x: Expr) -> Expr:
    """asin for |x| <= 1/2."""
    square = bind(x * x)
    return bind(horner(bind, square, _ASIN) * square * x + x)


def asin(bind: Bind, x: Expr) -> Expr:
    """Inverse sine; NaN outside [-1, 1]."""
    a = magnitude_of(bind, x)
    outer = bind(a > f32(0.5))
    # asin(a) = pi / 2 - 2 asin(sqrt((1 - a) / 2))
    part = _arcsine(bind, bind(select(outer, tirx.sqrt(bind(f32(0.5) - a * f32(0.5))), a)))
    return with_sign_of(bind, bind(select(outer, f32(pymath.pi / 2) - part * f32(2.0), part)), x)


def acos(bind: Bind, x: Expr) -> Expr:
    """Inverse cosine; NaN outside [-1, 1]."""
    a = magnitude_of(bind, x)
    outer = bind(a > f32(0.5))
    part = _arcsine(bind, bind(select(outer, tirx.sqrt(bind(f32(0.5) - a * f32(0.5))), x)))
    doubled = bind(part * f32(2.0))
    near = bind(select(x < f32(0.0), f32(pymath.pi) - doubled, doubled))
    return bind(select(outer, near, f32(pymath.pi / 2) - part))


def _half_exponential(bind: Bind, a: Expr) -> tuple[Expr, Expr]:
    """(exp(a) / 2, exp(a / 2)) for a >= 0; the first is right where exp(a) itself is no fp32 number any more."""
    root = exp(bind, bind(a * f32(0.5)))
    return bind(root * f32(0.5) * root), root


def sinh(bind: Bind, x: Expr) -> Expr:
    """Hyperbolic sine, by expm1 near 0."""
    a = magnitude_of(bind, x)
    e = expm1(bind, bind(select(a > f32(_STEEP), f32(_STEEP), a)))
    small = bind((e + e / (e + f32(1.0))) * f32(0.5))
    return with_sign_of(bind, bind(select(a > f32(_STEEP), _half_exponential(bind, a)[0], small)), x)


def cosh(bind: Bind, x: Expr) -> Expr:
    """Hyperbolic cosine."""
    half, root = _half_exponential(bind, magnitude_of(bind, x))
    return bind(half + f32(0.5) / (root * root))


def _large_logarithm(bind: Bind, a: Expr) -> Expr:
    """log(2 a)."""
    return bind(log(bind, a) + f32(pymath.log(2)))


def asinh(bind: Bind, x: Expr) -> Expr:
    """Inverse hyperbolic sine: log1p(a + a^2 / (1 + sqrt(a^2 + 1))) with a = |x|."""
    a = magnitude_of(bind, x)
    large = bind(a > f32(_LARGE))
    b = bind(select(large, f32(1.0), a))
    square = bind(b * b)
    small = log1p(bind, bind(b + square / (tirx.sqrt(bind(square + f32(1.0))) + f32(1.0))))
    return with_sign_of(bind, bind(select(large, _large_logarithm(bind, a), small)), x)


def acosh(bind: Bind, x: Expr) -> Expr:
    """Inverse hyperbolic cosine: log1p(t + sqrt(2 t + t^2)) with t = x - 1; NaN below 1."""
    large = bind(x > f32(_LARGE))
    t = bind(select(large, f32(1.0), x) - f32(1.0))
    small = log1p(bind, bind(t + tirx.sqrt(bind(t * f32(2.0) + t * t))))
    result = bind(select(large, _large_logarithm(bind, x), small))
    return bind(select(x < f32(1.0), f32(pymath.nan), result))


def atanh(bind: Bind, x: Expr) -> Expr:
    """Inverse hyperbolic tangent: log1p(2 a / (1 - a)) / 2 with a = |x|; NaN beyond 1."""
    a = magnitude_of(bind, x)
    ratio = bind(a * f32(2.0) / (f32(1.0) - a))
    return with_sign_of(bind, bind(log1p(bind, ratio) * f32(0.5)), x)
