"""Special functions, computed in fp64 whatever the operand is: they are rare, and one accurate form is worth more than two fast ones.

Where the C library has a function it is called; the others are branch-free expressions. Shifts and asymptotic series of the digamma
functions follow Abramowitz and Stegun (1964), 6.3 and 6.4; erfinv starts from Giles (2010) and takes Newton steps; the Bessel functions are
Chebyshev series over [0, 8] and [8, infinity), fitted in 40 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx

from .emitter import Expr
from .math import Bind, f64, select

Wide = Callable[[Bind, Expr], Expr]

_SHIFT = 10
"""The series of the digamma functions are used from here on, where they are exact to fp64."""
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_TRIGAMMA = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)

# erfinv(y) = y p(w) with w = -log(1 - y^2), below 5 in w - 5 / 2 and above in sqrt(w) - 3, lowest first (Giles 2010, fp32).
_ERFINV_CENTRE = (
    1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.000218580870, -4.39150654e-6, -3.5233877e-6, 3.43273939e-7, 2.81022636e-8,
)  # fmt: skip
_ERFINV_TAIL = (
    2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322, 0.000100950558, -0.000200214257,
)  # fmt: skip

# exp(-x) I0(x) over x / 4 - 1, sqrt(x) exp(-x) I0(x) over 16 / x - 1; the same of I1, the first divided by x.
_I0_NEAR = (
    0.33839763720473803, -0.3046826723431984, 0.17162090152220877, -0.09490109704804764, 0.04930528423967071, -0.02373741480589947,
    0.010546460394594998, -0.004324309995050576, 0.0016394756169413357, -0.0005763755745385824, 0.00018850288509584165,
    -5.754195010082104e-05, 1.6448448070728896e-05, -4.4167383584587505e-06, 1.1173875391201037e-06, -2.670793853940612e-07,
    6.046995022541919e-08, -1.300025009986248e-08, 2.6598237246823866e-09, -5.189795601635263e-10, 9.675809035373237e-11,
    -1.726826291441556e-11, 2.95505266312964e-12, -4.856446783111929e-13, 7.676185498604936e-14, -1.1685332877993451e-14,
    1.715391285555133e-15, -2.431279846547955e-16,
)  # fmt: skip
_I1_NEAR = (
    0.12629359322181682, -0.17641651835783406, 0.1026436586898471, -0.05294598120809499, 0.024726449030626516, -0.010564084894626197,
    0.004156422944312888, -0.0015135724506312532, 0.0005122859561685758, -0.00016176081582589674, 4.781565107550054e-05,
    -1.3273163656039436e-05, 3.4702513081376785e-06, -8.568720264695455e-07, 2.0032947535521353e-07, -4.445059128796328e-08,
    9.381537386495773e-09, -1.8872497517228294e-09, 3.625590281552117e-10, -6.663489723502027e-11, 1.1736186298890901e-11,
    -1.9839743977649436e-12, 3.223793365945575e-13, -5.042185504727912e-14, 7.600684294735408e-15, -1.1055969477353862e-15,
    1.5536319577362005e-16,
)  # fmt: skip
_I0_FAR = (
    0.4022452055070544, 0.0033691164782556943, 6.889758346916825e-05, 2.8913705208347567e-06, 2.0489185894690638e-07,
    2.266668990498178e-08, 3.3962320257083865e-09, 4.94060238822497e-10, 1.1889147107846439e-11, -3.1499165279632416e-11,
    -1.3215811840447713e-11, -1.7941785315068062e-12, 7.180124451383666e-13, 3.8527783827421426e-13, 1.54008621752141e-14,
    -4.150569347287222e-14, -9.554846698828307e-15, 3.8116806693526224e-15, 1.7725601330565263e-15, -3.425485619677219e-16,
    -2.8276239805165836e-16,
)  # fmt: skip
_I1_FAR = (
    0.38928811750914005, -0.009761097491361469, -0.00011058893876262371, -3.882564808877691e-06, -2.512236237870209e-07,
    -2.6314688468895196e-08, -3.835380385964237e-09, -5.589743462196584e-10, -1.8974958123505413e-11, 3.2526035830154884e-11,
    1.4125807436613782e-11, 2.0356285441470896e-12, -7.198551776245908e-13, -4.0835511110921974e-13, -2.1015418427726643e-14,
    4.272440016711951e-14, 1.0420276984128802e-14, -3.8144030724370075e-15, -1.8803547755107825e-15, 3.3082023109209285e-16,
    2.96262899764595e-16,
)  # fmt: skip


def called(name: str) -> Wide:
    """The C library's function of one fp64 number."""
    return lambda bind, x: bind(tirx.call_pure_extern("float64", name, x))


def polynomial(bind: Bind, x: Expr, coefficients: Sequence[float]) -> Expr:
    """The fp64 polynomial with these coefficients, lowest first."""
    result = f64(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = bind(result * x + f64(coefficient))
    return result


def chebyshev(bind: Bind, x: Expr, coefficients: Sequence[float]) -> Expr:
    """The sum of Chebyshev polynomials with these coefficients, for x in [-1, 1] (Clenshaw 1955)."""
    after, last = f64(0.0), f64(0.0)
    doubled = bind(x * f64(2.0))
    for coefficient in reversed(coefficients[1:]):
        after, last = last, bind(doubled * last - after + f64(coefficient))
    return bind(x * last - after + f64(coefficients[0]))


def _nan() -> Expr:
    return f64(math.nan)


def digamma(bind: Bind, x: Expr) -> Expr:
    """The derivative of lgamma. At 0 infinity with the opposite sign, at negative integers NaN."""
    below = bind(x < f64(0.5))
    # psi(x) = psi(1 - x) - pi / tan(pi x), whose argument is reduced first.
    fraction = bind(x - called("nearbyint")(bind, x))
    mirrored = bind(f64(math.pi) / called("tan")(bind, bind(fraction * f64(math.pi))))
    y = bind(select(below, f64(1.0) - x, x))
    total = f64(0.0)
    for _ in range(_SHIFT):
        small = bind(y < f64(_SHIFT))
        total = bind(select(small, total - f64(1.0) / y, total))
        y = bind(select(small, y + f64(1.0), y))
    inverse = bind(f64(1.0) / (y * y))
    series = bind(inverse * polynomial(bind, inverse, _DIGAMMA))
    value = bind(total + called("log")(bind, y) - f64(0.5) / y - series)
    value = bind(select(below, value - mirrored, value))
    at_pole = bind(tirx.And(tirx.EQ(fraction, f64(0.0)), below))
    at_zero = bind(signed(bind, f64(math.inf), x) * f64(-1.0))
    return bind(select(at_pole, select(tirx.EQ(x, f64(0.0)), at_zero, _nan()), value))


def signed(bind: Bind, magnitude: Expr, sign: Expr) -> Expr:
    """``magnitude`` with the sign bit of ``sign``."""
    return bind(tirx.call_pure_extern("float64", "copysign", magnitude, sign))


def trigamma(bind: Bind, x: Expr) -> Expr:
    """The second derivative of lgamma; infinity at 0 and at negative integers."""
    below = bind(x < f64(0.5))
    fraction = bind(x - called("nearbyint")(bind, x))
    sine = called("sin")(bind, bind(fraction * f64(math.pi)))
    mirrored = bind(f64(math.pi**2) / (sine * sine))
    y = bind(select(below, f64(1.0) - x, x))
    total = f64(0.0)
    for _ in range(_SHIFT):
        small = bind(y < f64(_SHIFT))
        total = bind(select(small, total + f64(1.0) / (y * y), total))
        y = bind(select(small, y + f64(1.0), y))
    inverse = bind(f64(1.0) / (y * y))
    series = bind(f64(1.0) + f64(0.5) / y + inverse * polynomial(bind, inverse, _TRIGAMMA))
    value = bind(total + series / y)
    return bind(select(below, mirrored - value, value))


def erfinv(bind: Bind, y: Expr) -> Expr:
    """The inverse of the error function: infinite at -1 and 1, NaN beyond."""
    square = bind(f64(1.0) - y * y)
    inside = bind(square > f64(0.0))
    w = bind(called("log")(bind, bind(select(inside, square, f64(1.0)))) * f64(-1.0))
    root = called("sqrt")(bind, w)
    centre = polynomial(bind, bind(w - f64(2.5)), _ERFINV_CENTRE)
    tail = polynomial(bind, bind(root - f64(3.0)), _ERFINV_TAIL)
    # From there on sqrt(w) itself is near, and two Newton steps on log(erfc) do the rest.
    start = bind(select(w < f64(5.0), centre, select(w < f64(16.0), tail, root)))
    x = bind(start * y)
    for _ in range(3):
        # erf(x) - y, in the tails by erfc so that nothing cancels.
        size, aim = bind(tirx.abs(x)), bind(tirx.abs(y))
        central = bind(called("erf")(bind, size) - aim)
        error = bind(select(aim < f64(0.5), central, (f64(1.0) - aim) - called("erfc")(bind, size)))
        slope = bind(called("exp")(bind, bind(size * size * f64(-1.0))) * f64(2 / math.sqrt(math.pi)))
        step = bind(error / select(slope > f64(0.0), slope, f64(1.0)))
        # Halley's correction: the second derivative is -2 x times the first.
        size = bind(size - step / (f64(1.0) + size * step))
        x = signed(bind, size, y)
    endless = signed(bind, f64(math.inf), y)
    beyond = bind(select(tirx.EQ(tirx.abs(y), f64(1.0)), endless, _nan()))
    return bind(select(inside, x, beyond))


def ndtri(bind: Bind, p: Expr) -> Expr:
    """The quantile of the normal distribution: by erfinv, then Newton steps on the lower tail's probability."""
    mirrored = bind(p > f64(0.5))
    tail = bind(select(mirrored, f64(1.0) - p, p))
    inside = bind(tail > f64(0.0))
    safe = bind(select(inside, tail, f64(0.5)))
    # sqrt(-2 log p) less its logarithm's correction is near for small p, erfinv's start elsewhere.
    far = called("sqrt")(bind, bind(called("log")(bind, safe) * f64(-2.0)))
    corrected = bind(far - called("log")(bind, bind(far * f64(math.sqrt(2 * math.pi)))) / far)
    near = bind(erfinv(bind, bind(f64(1.0) - safe * f64(2.0))) * f64(math.sqrt(2)))
    x = bind(select(safe < f64(1e-6), corrected, near))
    for _ in range(4):
        q = bind(called("erfc")(bind, bind(x * f64(math.sqrt(0.5)))) * f64(0.5))
        density = bind(called("exp")(bind, bind(x * x * f64(-0.5))) * f64(1 / math.sqrt(2 * math.pi)))
        step = bind((q - safe) / select(density > f64(0.0), density, f64(1.0)))
        x = bind(x + step / (f64(1.0) - x * step * f64(0.5)))
    x = bind(select(tirx.EQ(safe, f64(0.5)), f64(0.0), x))
    edge = bind(select(tirx.EQ(tail, f64(0.0)), f64(math.inf), _nan()))
    size = bind(select(inside, x, edge))
    return bind(select(mirrored, size, size * f64(-1.0)))


def erfcx(bind: Bind, x: Expr) -> Expr:
    """exp(x^2) erfc(x), by an asymptotic series where erfc vanishes."""
    large = bind(x > f64(20.0))
    near = bind(select(large, f64(0.0), x))
    value = bind(called("exp")(bind, bind(near * near)) * called("erfc")(bind, near))
    far = bind(select(large, x, f64(20.0)))
    inverse = bind(f64(0.5) / (far * far))
    series = polynomial(bind, inverse, (1.0, -1.0, 3.0, -15.0, 105.0, -945.0))
    return bind(select(large, series / (far * f64(math.sqrt(math.pi))), value))


def _bessel(near: Sequence[float], far: Sequence[float], odd: bool, scaled: bool) -> Wide:
    """I0 (or, odd, I1), times exp(-|x|) if ``scaled``."""

    def function(bind: Bind, x: Expr) -> Expr:
        a = bind(tirx.abs(x))
        large = bind(a > f64(8.0))
        low, high = bind(select(large, f64(8.0), a)), bind(select(large, a, f64(8.0)))
        inner = chebyshev(bind, bind(low * f64(0.25) - f64(1.0)), near)
        inner = bind(inner * low) if odd else inner
        # Halves of 1 / x, so that nothing is lost where x is huge.
        outer = bind(chebyshev(bind, bind(f64(16.0) / high - f64(1.0)), far) / called("sqrt")(bind, high))
        value = bind(select(large, outer, inner))
        if not scaled:
            # In two halves: exp(x) overflows before the result does.
            half = called("exp")(bind, bind(a * f64(0.5)))
            value = bind(value * half * half)
        return signed(bind, value, x) if odd else value

    return function


i0, i0e = _bessel(_I0_NEAR, _I0_FAR, False, False), _bessel(_I0_NEAR, _I0_FAR, False, True)
i1, i1e = _bessel(_I1_NEAR, _I1_FAR, True, False), _bessel(_I1_NEAR, _I1_FAR, True, True)

SPECIAL: dict[str, Wide] = {
    "lgamma": called("lgamma"),
    "digamma": digamma,
    "trigamma": trigamma,
    "erfc": called("erfc"),
    "erfcx": erfcx,
    "erfinv": erfinv,
    "ndtri": ndtri,
    "i0": i0,
    "i0e": i0e,
    "i1": i1,
    "i1e": i1e,
    "bessel_j0": called("j0"),
    "bessel_j1": called("j1"),
    "bessel_y0": called("y0"),
    "bessel_y1": called("y1"),
}
"""Operations of one operand that are computed in fp64, each lane by itself."""
