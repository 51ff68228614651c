"""Powers of two of numbers that are not positive: softmax with its logarithms taken to base 2.

A product with log2(e) before makes them powers of e. What it rounds off is an error relative to the result of at most 6e-8 times the
exponent, and the results of large negative exponents are too small for that to count in a sum.
"""

from __future__ import annotations

import math

from tvm import tirx

from .emitter import Expr
from .math import Bind, f32, horner, i32, select

# 2^r = 1 + r q(r) for |r| <= 1/2; relative error 1.1e-7.
_POWER = (1.0, 0.693147, 0.24022242, 0.055507336, 0.009671513, 0.0013264727)
_LOWEST = -127.0
# Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits of the representation.
_ROUNDER = 12582912.0


LOG2_E = math.log2(math.e)


def exp2_nonpositive(bind: Bind, x: Expr) -> Expr:
    """2^x for arguments known not to exceed 0; -infinity, and all from -127 down, give 0.

    The power of two is added to the exponent of the polynomial: where x is -127 the polynomial is exactly 1, whose representation
    less 127 steps of the exponent is 0.
    """
    x = bind(select(x > f32(_LOWEST), x, f32(_LOWEST)))
    shifted = bind(x + f32(_ROUNDER))
    r = bind(x - bind(shifted - f32(_ROUNDER)))
    exponent = tirx.reinterpret("int32", shifted) << i32(23)
    return bind(tirx.reinterpret("float32", tirx.reinterpret("int32", horner(bind, r, _POWER)) + exponent))
