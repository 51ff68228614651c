"""gelu and silu in fp32. Their errors are bounded relative to their argument: slight results far left of zero may have fewer right digits.

As the functions of :mod:`.math`, they take ``bind`` and an expression, and are branch-free.
"""

from __future__ import annotations

import math

from .emitter import Expr
from .math import Bind, exp_of_minus, f32, horner, magnitude_of, select
from .softmax_power import exp2_nonpositive

# log2(Phi(-a)) for the normal distribution function Phi and a >= 0: the least degree whose error in Phi(-a), 3e-7 at most, leaves
# room for rounding. Beyond a = 6.5 the polynomial falls without end, as the logarithm does, so that nothing limits a.
_LOG2_TAIL = (-1.0, -1.1510913, -0.45925472, -0.052561165, 0.0073974634, -0.00052044849)


def gelu(bind: Bind, x: Expr) -> Expr:
    """x times the normal distribution function at x, which is a power of two left of zero, and one less a power of two right of it."""
    tail = exp2_nonpositive(bind, horner(bind, magnitude_of(bind, x), _LOG2_TAIL))
    return bind(x * select(x < f32(0.0), tail, f32(1.0) - tail))


def gelu_tanh(bind: Bind, x: Expr) -> Expr:
    """The tanh approximation of gelu: with z = 2 sqrt(2 / pi) (x + 0.044715 x^3) it is x / (1 + exp(-z))."""
    slope = 2 * math.sqrt(2 / math.pi)
    z = bind(x * (x * x * f32(0.044715 * slope) + f32(slope)))
    return bind(x / (exp_of_minus(bind, z) + f32(1.0)))


def silu(bind: Bind, x: Expr) -> Expr:
    """x * sigmoid(x)."""
    return bind(x / (exp_of_minus(bind, x) + f32(1.0)))
