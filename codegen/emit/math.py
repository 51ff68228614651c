"""Elementary functions in fp32 as branch-free expressions, so that they vectorise (LLVM would call libm for each lane).

Each function takes ``bind``, which gives a variable that holds an expression (so that it is evaluated once), and an fp32
expression. Finite arguments never give NaN; NaN arguments do. Results below 2^-125 may be zero.

Polynomials are near-minimax fits on the reduced range (least squares at Chebyshev nodes, reweighted after Lawson 1961). Range
reductions follow Cody and Waite (1980); exp and log split off powers of two by integer arithmetic on the representation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx

from .emitter import Expr

Bind = Callable[[Expr], Expr]

# exp(r) = 1 + r + r^2 q(r) for |r| <= log(2) / 2; relative error 3e-9.
_EXP = (0.49999994, 0.16666521, 0.04166839, 0.0083687175, 0.0013814596)
# log(1 + f) = f - f^2 / 2 + f^3 p(f) for sqrt(1/2) <= 1 + f <= sqrt(2); relative error 6e-9.
_LOG = (0.3333333, -0.25000823, 0.20001227, -0.16623357, 0.14201762, -0.13160194, 0.1276155, -0.0763443)
# erf(x) = x p(x^2) for |x| <= 0.92; relative error 2e-8.
_ERF_SMALL = (1.1283791, -0.37612498, 0.11281846, -0.02676772, 0.00499483, -0.0005999404)
# erf(x) = 1 - exp(-p(x)) for 0.9 <= x <= 4; relative error 2e-9.
_ERF_LARGE = (0.00016867922, 1.127788, 0.63699204, 0.10409954, -0.022308324, 0.0030637444, -0.00019804001)
_ERF_BORDER = 0.92
# sin(r) = r + r^3 p(r^2), cos(r) = 1 - r^2 / 2 + r^4 p(r^2) for |r| <= pi / 4.
_SIN = (-0.16666655, 0.008332178, -0.00019517234)
_COS = (0.041666646, -0.0013887315, 2.443308e-05)

_LOG2_E = 1.4426950408889634
# log(2) in two parts; the first has 9 trailing zero bits, so that its product with an exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = -2.12194440e-4
# Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits of the representation.
_ROUNDER = 12582912.0


def f32(value: float) -> Expr:
    """An fp32 constant."""
    return tirx.const(value, "float32")


def f64(value: float) -> Expr:
    """An fp64 constant."""
    return tirx.const(value, "float64")


def i32(value: int) -> Expr:
    """An int32 constant."""
    return tirx.const(value, "int32")


def is_nan(x: Expr) -> Expr:
    """Whether a float is NaN, by its representation (TVM's simplifier takes ``x != x`` for false)."""
    if x.ty.dtype == "float64":
        magnitude = tirx.reinterpret("int64", x) & tirx.const(0x7FFFFFFFFFFFFFFF, "int64")
        return magnitude > tirx.const(0x7FF0000000000000, "int64")
    return (_bits(x) & i32(0x7FFFFFFF)) > i32(0x7F800000)


def select(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    """``then`` where the condition holds, else ``otherwise``; both are evaluated."""
    return tirx.Select(condition, then, otherwise)


def horner(bind: Bind, x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial with these coefficients, lowest first."""
    result = f32(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + f32(coefficient)
    return bind(result)


def _bits(x: Expr) -> Expr:
    return tirx.reinterpret("int32", x)


def _float(bits: Expr) -> Expr:
    return tirx.reinterpret("float32", bits)


def _split_exponent(bind: Bind, x: Expr) -> tuple[Expr, Expr, Expr]:
    """(r, r^2 q(r), s) with exp(x) = 2 s (1 + r + r^2 q(r)), for -87.3 <= x <= 88.73; s is 0 below -87.

    The factor 2 stands apart because exp(88.7) needs 2^128, which is no fp32 number.
    """
    shifted = bind(x * f32(_LOG2_E) + f32(_ROUNDER))
    n = bind(shifted - f32(_ROUNDER))
    r = bind(n * f32(-_LN2_LOW) + (n * f32(-_LN2_HIGH) + x))
    tail = bind(r * r * horner(bind, r, _EXP))
    scale = bind(_float((_bits(shifted) << i32(23)) + i32(0x3F000000)))
    return r, tail, scale


def _clamp(bind: Bind, x: Expr, low: float | None, high: float | None) -> Expr:
    """x limited to [low, high]; NaN stays NaN."""
    if low is not None:
        x = bind(select(x < f32(low), f32(low), x))
    if high is not None:
        x = bind(select(x > f32(high), f32(high), x))
    return x


def exp(bind: Bind, x: Expr) -> Expr:
    """e to the x; 0 below -87, infinity above 88.72."""
    r, tail, scale = _split_exponent(bind, _clamp(bind, x, -87.3, 88.73))
    return bind((tail + r + f32(1.0)) * scale * f32(2.0))


def exp2(bind: Bind, x: Expr) -> Expr:
    """2 to the x; 0 below -125.5, infinity from 128 on."""
    x = _clamp(bind, x, -126.3, 128.4)
    shifted = bind(x + f32(_ROUNDER))
    n = bind(shifted - f32(_ROUNDER))
    r = bind((x - n) * f32(math.log(2)))
    tail = bind(r * r * horner(bind, r, _EXP))
    # Half of 2^n, since 2^128 is no fp32 number.
    scale = bind(_float((_bits(shifted) << i32(23)) + i32(0x3F000000)))
    return bind((tail + r + f32(1.0)) * scale * f32(2.0))


def exp_nonpositive(bind: Bind, x: Expr) -> Expr:
    """exp for arguments known not to exceed 0 (a softmax after its maximum is subtracted); -infinity gives 0."""
    x = _clamp(bind, x, -88.0, None)
    shifted = bind(x * f32(_LOG2_E) + f32(_ROUNDER))
    n = bind(shifted - f32(_ROUNDER))
    r = bind(n * f32(-_LN2_LOW) + (n * f32(-_LN2_HIGH) + x))
    tail = bind(r * r * horner(bind, r, _EXP))
    return bind((tail + r + f32(1.0)) * _float((_bits(shifted) << i32(23)) + i32(0x3F800000)))


def expm1(bind: Bind, x: Expr) -> Expr:
    """exp(x) - 1 without cancellation near 0."""
    r, tail, scale = _split_exponent(bind, _clamp(bind, x, -87.3, 88.73))
    return bind(((r + tail) * scale + (scale - f32(0.5))) * f32(2.0))


def log(bind: Bind, x: Expr) -> Expr:
    """Natural logarithm: -infinity at 0, NaN below, infinity at infinity; right for subnormal numbers."""
    smallest = f32(1.17549435e-38)
    tiny = bind(x < smallest)
    bits = bind(_bits(select(tiny, x * f32(8388608.0), x)))
    # Subtracting the bits of sqrt(1/2) puts the mantissa into [sqrt(1/2), sqrt(2)).
    exponent = bind((bits - i32(0x3F3504F3)) >> i32(23))
    f = bind(_float(bits - (exponent << i32(23))) - f32(1.0))
    e = bind(tirx.Cast("float32", exponent - select(tiny, i32(23), i32(0))))
    square = bind(f * f)
    tail = bind(horner(bind, f, _LOG) * (square * f) + e * f32(_LN2_LOW))
    result = bind(e * f32(_LN2_HIGH) + (f + (tail - square * f32(0.5))))
    infinity = f32(math.inf)
    result = bind(select(tirx.EQ(x, infinity), infinity, result))
    result = bind(select(tirx.EQ(x, f32(0.0)), f32(-math.inf), result))
    # False for NaN as well as for negative numbers.
    return bind(select(x >= f32(0.0), result, f32(math.nan)))


def log1p(bind: Bind, x: Expr) -> Expr:
    """log(1 + x) without cancellation near 0 (Kahan's correction of the rounding of 1 + x)."""
    u = bind(x + f32(1.0))
    d = bind(u - f32(1.0))
    exact = bind(tirx.EQ(d, x))
    corrected = log(bind, u) * (x / select(exact, f32(1.0), d))
    direct = log(bind, u)
    result = bind(select(exact, direct, corrected))
    result = bind(select(tirx.EQ(x, f32(math.inf)), f32(math.inf), result))
    return bind(select(tirx.EQ(u, f32(1.0)), x, result))


def with_sign_of(bind: Bind, magnitude: Expr, x: Expr) -> Expr:
    """``magnitude`` (not negative) with the sign bit of ``x``."""
    return bind(_float(_bits(magnitude) | (_bits(x) & i32(-0x80000000))))


def magnitude_of(bind: Bind, x: Expr) -> Expr:
    """|x|."""
    return bind(_float(_bits(x) & i32(0x7FFFFFFF)))


def tanh(bind: Bind, x: Expr) -> Expr:
    """Hyperbolic tangent, by expm1(-2 |x|)."""
    m = expm1(bind, bind(magnitude_of(bind, x) * f32(-2.0)))
    return with_sign_of(bind, bind((f32(0.0) - m) / (m + f32(2.0))), x)


def sigmoid(bind: Bind, x: Expr) -> Expr:
    """1 / (1 + exp(-x))."""
    return bind(f32(1.0) / (exp(bind, bind(f32(0.0) - x)) + f32(1.0)))


def erf(bind: Bind, x: Expr) -> Expr:
    """Error function: a polynomial near 0, 1 - exp of a polynomial beyond."""
    a = _clamp(bind, magnitude_of(bind, x), None, 4.0)
    small = bind(a * horner(bind, bind(a * a), _ERF_SMALL))
    large = bind(f32(1.0) - exp_nonpositive(bind, bind(f32(0.0) - horner(bind, a, _ERF_LARGE))))
    return with_sign_of(bind, bind(select(a < f32(_ERF_BORDER), small, large)), x)


def gelu(bind: Bind, x: Expr) -> Expr:
    """x times the normal distribution function at x."""
    half = bind(x * f32(0.5))
    return bind(half * erf(bind, bind(x * f32(math.sqrt(0.5)))) + half)


def gelu_tanh(bind: Bind, x: Expr) -> Expr:
    """The tanh approximation of gelu: with z = sqrt(2 / pi) (x + 0.044715 x^3) it is x / (1 + exp(-2 z))."""
    z = bind(x * (x * x * f32(0.044715 * math.sqrt(2 / math.pi)) + f32(math.sqrt(2 / math.pi))))
    return bind(x / (exp(bind, bind(z * f32(-2.0))) + f32(1.0)))


def silu(bind: Bind, x: Expr) -> Expr:
    """x * sigmoid(x)."""
    return bind(x / (exp(bind, bind(f32(0.0) - x)) + f32(1.0)))


def softplus(bind: Bind, x: Expr) -> Expr:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    positive = bind(select(x < f32(0.0), f32(0.0), x))
    return bind(positive + log1p(bind, exp_nonpositive(bind, bind(f32(0.0) - magnitude_of(bind, x)))))


def _quadrant(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(r, q): x = r + q * pi / 2 with |r| <= pi / 4 and q modulo 4, reduced in fp64; accurate up to about 1e9."""
    wide = bind(tirx.Cast("float64", x))
    count = bind(tirx.nearbyint(wide * f64(2 / math.pi)))
    reduced = bind(count * f64(-6.123233995736766e-17) + (count * f64(-math.pi / 2) + wide))
    # Far outside the accurate range the remainder is noise; it must not grow.
    reduced = bind(select(reduced > f64(0.8), f64(0.8), select(reduced < f64(-0.8), f64(-0.8), reduced)))
    # The sum above loses the sign of -0.0.
    reduced = bind(select(tirx.EQ(wide, f64(0.0)), wide, reduced))
    quarter = bind(count - tirx.floor(count * f64(0.25)) * f64(4.0))
    return bind(tirx.Cast("float32", reduced)), bind(tirx.Cast("float32", quarter))


def _reduced(bind: Bind, x: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """(sine, cosine, q, whether q is odd) where the first two are of the rest of x after q quarter turns."""
    r, quarter = _quadrant(bind, x)
    square = bind(r * r)
    # A product, not a sum, so that -0.0 stays.
    sine = bind(r * bind(square * horner(bind, square, _SIN) + f32(1.0)))
    cosine = bind(square * square * horner(bind, square, _COS) + (square * f32(-0.5) + f32(1.0)))
    return sine, cosine, quarter, bind(tirx.Or(tirx.EQ(quarter, f32(1.0)), tirx.EQ(quarter, f32(3.0))))


def _circular(bind: Bind, x: Expr, turned: bool) -> Expr:
    sine, cosine, quarter, odd = _reduced(bind, x)
    if turned:
        negative = bind(tirx.Or(tirx.EQ(quarter, f32(1.0)), tirx.EQ(quarter, f32(2.0))))
        value = bind(select(odd, sine, cosine))
    else:
        negative = bind(quarter >= f32(2.0))
        value = bind(select(odd, cosine, sine))
    return bind(select(negative, f32(0.0) - value, value))


def sin(bind: Bind, x: Expr) -> Expr:
    """Sine."""
    return _circular(bind, x, turned=False)


def cos(bind: Bind, x: Expr) -> Expr:
    """Cosine."""
    return _circular(bind, x, turned=True)


def tan(bind: Bind, x: Expr) -> Expr:
    """Tangent."""
    sine, cosine, _, odd = _reduced(bind, x)
    return bind(select(odd, f32(0.0) - cosine, sine) / select(odd, sine, cosine))
