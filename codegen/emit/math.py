"""Elementary functions in fp32 as branch-free expressions, so that they vectorise (LLVM would call libm for each lane).

Each function takes ``bind``, which gives a variable that holds an expression (so that it is evaluated once), and an fp32
expression. Finite arguments never give NaN; NaN arguments do. Results may be subnormal, but for :func:`exp_nonpositive`.
Circular functions are in :mod:`.circular` and :mod:`.inverse`, powers in :mod:`.power`, gelu and silu in :mod:`.activations`.
``docs/vector-maths.md`` has the errors.

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
# exp(-r) for |r| <= log(2) / 2; relative error 9e-8.
_EXP_OF_MINUS = (1.0, -0.9999997, 0.49999148, -0.16667639, 0.041898161, -0.0082902722)
# log(1 + f) = f - f^2 / 2 + f^3 p(f) for sqrt(1/2) <= 1 + f <= sqrt(2); relative error 6e-9.
_LOG = (0.3333333, -0.25000823, 0.20001227, -0.16623357, 0.14201762, -0.13160194, 0.1276155, -0.0763443)
# erf(x) = x p(x^2) for |x| <= 0.92; relative error 2e-8.
_ERF_SMALL = (1.1283791, -0.37612498, 0.11281846, -0.02676772, 0.00499483, -0.0005999404)
# erf(x) = 1 - exp(-p(x)) for 0.9 <= x <= 4; relative error 2e-9.
_ERF_LARGE = (0.00016867922, 1.127788, 0.63699204, 0.10409954, -0.022308324, 0.0030637444, -0.00019804001)
_ERF_BORDER = 0.92
# exp2(r) = 1 + r p(r) for |r| <= 1/2; relative error 3e-9.
_EXP2 = (0.69314718, 0.24022648, 0.055503588, 0.0096185049, 0.0013391459, 0.00015327834)

_LOG2_E = 1.4426950408889634
# log(2) in two parts; the first has 9 trailing zero bits, so that its product with an exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = -2.12194440e-4
# log10(2) in the same way, and log10(e).
_LOG10_2_HIGH = 0.301025390625
_LOG10_2_LOW = 4.605038981195214e-06
_LOG10_E = 0.4342944819032518
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


def rounded(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(n, bits): x rounded to a whole number, as a number and in the low bits of a representation; for |x| < 2^22."""
    shifted = bind(x + f32(_ROUNDER))
    return bind(shifted - f32(_ROUNDER)), bind(_bits(shifted))


def scaled(bind: Bind, x: Expr, bits: Expr) -> Expr:
    """x 2^n for -252 <= n <= 254, n in the low 9 ``bits``; rounded once where the result is subnormal."""
    # In two factors: neither 2^128 nor 2^-127 and below are normal numbers.
    half = bind((bits >> i32(1)) << i32(23))
    rest = bind((bits << i32(23)) - half)
    one = i32(0x3F800000)
    return bind(x * _float(bind(half + one)) * _float(bind(rest + one)))


def _exponential_tail(bind: Bind, x: Expr) -> tuple[Expr, Expr, Expr]:
    """(r, r^2 q(r), bits) with exp(x) = 2^n (1 + r + r^2 q(r)), n in the low bits."""
    shifted = bind(x * f32(_LOG2_E) + f32(_ROUNDER))
    n = bind(shifted - f32(_ROUNDER))
    r = bind(n * f32(-_LN2_LOW) + (n * f32(-_LN2_HIGH) + x))
    return r, bind(r * r * horner(bind, r, _EXP)), bind(_bits(shifted))


def _clamp(bind: Bind, x: Expr, low: float | None, high: float | None) -> Expr:
    """x limited to [low, high]; NaN stays NaN."""
    if low is not None:
        x = bind(select(x < f32(low), f32(low), x))
    if high is not None:
        x = bind(select(x > f32(high), f32(high), x))
    return x


def exp(bind: Bind, x: Expr) -> Expr:
    """e to the x; infinity above 88.72."""
    r, tail, bits = _exponential_tail(bind, _clamp(bind, x, -104.0, 88.73))
    return scaled(bind, bind(tail + r + f32(1.0)), bits)


def _exp_of_minus_magnitude(bind: Bind, x: Expr) -> Expr:
    """exp(-|x|)."""
    r, tail, bits = _exponential_tail(bind, _clamp(bind, bind(_float(_bits(x) | i32(-0x80000000))), -104.0, None))
    return scaled(bind, bind(tail + r + f32(1.0)), bits)


def exp2_of_parts(bind: Bind, r: Expr, bits: Expr) -> Expr:
    """2 to the n + r for |r| <= 1/2, n in the low bits (see :func:`scaled`)."""
    return scaled(bind, bind(horner(bind, r, _EXP2) * r + f32(1.0)), bits)


def exp2(bind: Bind, x: Expr) -> Expr:
    """2 to the x; infinity from 128 on."""
    x = _clamp(bind, x, -150.0, 128.4)
    n, bits = rounded(bind, x)
    return exp2_of_parts(bind, bind(x - n), bits)


def _half_power(bind: Bind, bits: Expr) -> Expr:
    """2^(n - 1), n in the low ``bits``, for -126 < n <= 128: half, since 2^128 is no fp32 number."""
    return bind(_float((bits << i32(23)) + i32(0x3F000000)))


def exp_of_minus(bind: Bind, x: Expr) -> Expr:
    """exp(-x) for what is added to numbers near 1 or above: off by a relative 4e-7 at most; results below 2^-125 may be zero."""
    x = _clamp(bind, x, -88.73, 87.3)
    # The bias of exponents less one is added beforehand, so that the low bits become half a power of two: 2^128 is no fp32 number.
    rounder = f32(_ROUNDER + 126.0)
    shifted = bind(x * f32(-_LOG2_E) + rounder)
    n = bind(shifted - rounder)
    r = bind(n * f32(_LN2_LOW) + (n * f32(_LN2_HIGH) + x))
    return bind(horner(bind, r, _EXP_OF_MINUS) * _float(_bits(shifted) << i32(23)) * f32(2.0))


def exp_nonpositive(bind: Bind, x: Expr) -> Expr:
    """exp for arguments known not to exceed 0 (a softmax after its maximum is subtracted); 0 below -87.3, and at -infinity."""
    r, tail, bits = _exponential_tail(bind, _clamp(bind, x, -88.0, None))
    return bind((tail + r + f32(1.0)) * _float((bits << i32(23)) + i32(0x3F800000)))


def expm1(bind: Bind, x: Expr) -> Expr:
    """exp(x) - 1 without cancellation near 0."""
    # Its sign is that of x, which the sums lose where it is -0.0.
    return bind(_float(bind(_bits(_expm1(bind, x))) | (_bits(x) & i32(-0x80000000))))


def _expm1(bind: Bind, x: Expr) -> Expr:
    r, tail, bits = _exponential_tail(bind, _clamp(bind, x, -87.3, 88.73))
    scale = _half_power(bind, bits)
    return bind(((r + tail) * scale + (scale - f32(0.5))) * f32(2.0))


def _mantissa(bind: Bind, bits: Expr) -> tuple[Expr, Expr]:
    """(f, bits of 2^e) with the positive normal number of these ``bits`` = 2^e (1 + f) and sqrt(1/2) <= 1 + f < sqrt(2)."""
    exponent = bind(bind(bits - i32(0x3F3504F3)) & i32(-0x800000))
    return bind(_float(bind(bits - exponent)) - f32(1.0)), exponent


def normalised(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(bits of x, or of 2^23 x where x is below the normal numbers; the exponent to add, 0 or -23)."""
    tiny = bind(x < f32(1.17549435e-38))
    return bind(_bits(bind(select(tiny, x * f32(8388608.0), x)))), bind(select(tiny, f32(-23.0), f32(0.0)))


def split_logarithm(bind: Bind, x: Expr) -> tuple[Expr, Expr]:
    """(f, e) with x = 2^e (1 + f), for positive finite x, subnormal ones included."""
    bits, offset = normalised(bind, x)
    f, exponent = _mantissa(bind, bits)
    return f, bind(tirx.Cast("float32", exponent >> i32(23)) + offset)


def _log_tail(bind: Bind, f: Expr) -> tuple[Expr, Expr]:
    """(a, b) with log(1 + f) = f + (a - b), the latter small beside f."""
    square = bind(f * f)
    return bind(horner(bind, f, _LOG) * bind(square * f)), bind(square * f32(0.5))


def _logarithm(bind: Bind, x: Expr, result: Expr) -> Expr:
    """``result``, a logarithm of x, but as it must be where x is not both positive and finite."""
    result = bind(select(x < f32(math.inf), result, x))
    # False for NaN as well as for negative numbers.
    below = bind(select(tirx.EQ(x, f32(0.0)), f32(-math.inf), f32(math.nan)))
    return bind(select(x > f32(0.0), result, below))


def log(bind: Bind, x: Expr) -> Expr:
    """Natural logarithm: -infinity at 0, NaN below, infinity at infinity; right for subnormal numbers."""
    f, e = split_logarithm(bind, x)
    tail, half = _log_tail(bind, f)
    return _logarithm(bind, x, bind(e * f32(_LN2_HIGH) + (f + ((tail + e * f32(_LN2_LOW)) - half))))


def log2(bind: Bind, x: Expr) -> Expr:
    """Logarithm to the base 2, exact for powers of 2. As :func:`log`."""
    f, e = split_logarithm(bind, x)
    tail, half = _log_tail(bind, f)
    # log2(e) - 1 apart from 1, so that f keeps its digits.
    rest = bind(tail - half)
    return _logarithm(bind, x, bind(e + ((f + rest) * f32(_LOG2_E - 1) + rest + f)))


def log10(bind: Bind, x: Expr) -> Expr:
    """Logarithm to the base 10. As :func:`log`."""
    f, e = split_logarithm(bind, x)
    tail, half = _log_tail(bind, f)
    mantissa = bind((f + (tail - half)) * f32(_LOG10_E))
    return _logarithm(bind, x, bind(e * f32(_LOG10_2_HIGH) + (e * f32(_LOG10_2_LOW) + mantissa)))


def log1p(bind: Bind, x: Expr) -> Expr:
    """log(1 + x) without cancellation near 0: what rounding 1 + x lost is added to the mantissa."""
    u = bind(x + f32(1.0))
    lost = bind((x - (u - f32(1.0))) * f32(0.5))
    f, exponent = _mantissa(bind, bind(_bits(u)))
    # By 2^(1 - e): e is 128 at most, and -24 at least where u is positive.
    f = bind(lost * _float(bind(i32(0x40000000) - exponent)) + f)
    e = bind(tirx.Cast("float32", exponent >> i32(23)))
    tail, half = _log_tail(bind, f)
    result = bind(e * f32(_LN2_HIGH) + (f + ((tail + e * f32(_LN2_LOW)) - half)))
    # The sum loses the sign of -0.0.
    return bind(select(tirx.EQ(u, f32(1.0)), x, _logarithm(bind, u, result)))


def with_sign_of(bind: Bind, magnitude: Expr, x: Expr) -> Expr:
    """``magnitude`` (not negative) with the sign bit of ``x``."""
    return bind(_float(_bits(magnitude) | (_bits(x) & i32(-0x80000000))))


def magnitude_of(bind: Bind, x: Expr) -> Expr:
    """|x|."""
    return bind(_float(_bits(x) & i32(0x7FFFFFFF)))


def tanh(bind: Bind, x: Expr) -> Expr:
    """Hyperbolic tangent, by expm1(-2 |x|)."""
    m = _expm1(bind, bind(magnitude_of(bind, x) * f32(-2.0)))
    return with_sign_of(bind, bind((f32(0.0) - m) / (m + f32(2.0))), x)


def sigmoid(bind: Bind, x: Expr) -> Expr:
    """1 / (1 + exp(-x)), for negative x as exp(x) / (1 + exp(x))."""
    e = _exp_of_minus_magnitude(bind, x)
    return bind(bind(select(x < f32(0.0), e, f32(1.0))) / (e + f32(1.0)))


def erf(bind: Bind, x: Expr) -> Expr:
    """Error function: a polynomial near 0, 1 - exp of a polynomial beyond."""
    a = _clamp(bind, magnitude_of(bind, x), None, 4.0)
    small = bind(a * horner(bind, bind(a * a), _ERF_SMALL))
    large = bind(f32(1.0) - exp_nonpositive(bind, bind(f32(0.0) - horner(bind, a, _ERF_LARGE))))
    return with_sign_of(bind, bind(select(a < f32(_ERF_BORDER), small, large)), x)


def softplus(bind: Bind, x: Expr) -> Expr:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    positive = bind(select(x < f32(0.0), f32(0.0), x))
    return bind(positive + log1p(bind, _exp_of_minus_magnitude(bind, x)))
