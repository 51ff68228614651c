"""x to the y in fp32 as a branch-free expression: 2 to the y log2 |x|, the logarithm and the product in fp64.

An error of the logarithm is multiplied by the exponent, up to 150 times where the result is a finite number; fp32 would leave few digits.
"""

from __future__ import annotations

import math

from tvm import tirx

from .emitter import Expr
from .math import Bind, exp2_of_parts, f32, f64, i32, magnitude_of, rounded, select, split_logarithm

# log2((1 + s) / (1 - s)) = s p(s^2) for |s| <= 3 - sqrt(8); relative error 4e-12.
_LOG2 = (2.8853900817901947, 0.9617966731862823, 0.5770836169505419, 0.4116706844371417, 0.34076964849234104)
_LARGEST = 3.4028234663852886e38


def _wide(x: Expr) -> Expr:
    return tirx.Cast("float64", x)


def _log2(bind: Bind, a: Expr) -> Expr:
    """log2 of a >= 0 in fp64: infinite at 0 and at infinity, NaN for NaN."""
    f, e = split_logarithm(bind, a)
    e = bind(select(a < f32(math.inf), e, a))
    e = bind(select(tirx.EQ(a, f32(0.0)), f32(-math.inf), e))
    wide = bind(_wide(f))
    s = bind(wide / (wide + f64(2.0)))
    square = bind(s * s)
    series = f64(_LOG2[-1])
    for coefficient in reversed(_LOG2[:-1]):
        series = series * square + f64(coefficient)
    return bind(bind(series) * s + _wide(e))


def pow(bind: Bind, x: Expr, y: Expr) -> Expr:
    """x to the y, with the special cases of C99: 1 for y = 0 and x = 1 whatever the other is; negative x only to whole numbers."""
    a = magnitude_of(bind, x)
    # No infinite exponent: 0 times infinity would be NaN where |x| is 1.
    y = bind(select(y < f32(-_LARGEST), f32(-_LARGEST), y))
    y = bind(select(y > f32(_LARGEST), f32(_LARGEST), y))
    product = bind(_wide(y) * _log2(bind, a))
    product = bind(select(product < f64(-151.0), f64(-151.0), product))
    product = bind(select(product > f64(129.0), f64(129.0), product))
    n, bits = rounded(bind, bind(tirx.Cast("float32", product)))
    result = exp2_of_parts(bind, bind(tirx.Cast("float32", bind(product - _wide(n)))), bits)

    half = bind(y * f32(0.5))
    whole = bind(tirx.EQ(tirx.floor(y), y))
    even = bind(tirx.EQ(tirx.floor(half), half))
    # The sign bit of x where y is odd.
    sign = bind(bind(tirx.reinterpret("int32", x)) & i32(-0x80000000))
    sign = bind(select(tirx.Or(even, tirx.Not(whole)), i32(0), sign))
    result = bind(tirx.reinterpret("float32", bind(bind(tirx.reinterpret("int32", result)) | sign)))
    undefined = bind(tirx.And(tirx.And(x < f32(0.0), x > f32(-math.inf)), tirx.Not(whole)))
    result = bind(select(undefined, f32(math.nan), result))
    return bind(select(tirx.Or(tirx.EQ(y, f32(0.0)), tirx.EQ(x, f32(1.0))), f32(1.0), result))
