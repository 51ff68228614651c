"""Elementwise operations as TIR expressions over one element (which vectorised loops turn into vectors)."""

from __future__ import annotations

import math as pymath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import tirx

from ...errors import LoweringError
from ...ir import DType, Node, Value
from . import activations, circular, halves, inverse, math, power
from .attributes import attributes_of
from .bits import BIT_RULES
from .comparison import bitwise, comparison, exclusive_or, larger, logical, smaller, truth
from .conversions import bitcast, cast, constant, differs
from .emitter import Emitter, Expr
from .kernel import compute_dtype, computes
from .math import Bind, select
from .quantisation import quantised
from .rule import Rule
from .special import SPECIAL, Wide


def _zero(dtype: DType) -> Expr:
    return constant(0, dtype)


def _one(dtype: DType) -> Expr:
    return constant(1, dtype)


def _transcendental(fast: Callable[[Bind, Expr], Expr], wide: Callable[[Expr], Expr]) -> Rule:
    """``fast`` for fp32; for fp64 the library function, called for each lane."""

    def rule(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
        return fast(bind, x[0]) if dtype is DType.FLOAT32 else wide(x[0])

    return rule


def _libm(name: str) -> Callable[[Expr], Expr]:
    return lambda x: tirx.call_pure_extern("float64", name, x)


def _atan2(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    if dtype is DType.FLOAT32:
        return inverse.atan2(bind, x[0], x[1])
    return tirx.call_pure_extern("float64", "atan2", x[0], x[1])


def _wide_sigmoid(x: Expr) -> Expr:
    return 1.0 / (1.0 + tirx.exp(-x))


def _wide_gelu(x: Expr) -> Expr:
    return x * 0.5 * (_libm("erf")(x * pymath.sqrt(0.5)) + 1.0)


def _wide_gelu_tanh(x: Expr) -> Expr:
    return x * 0.5 * (_libm("tanh")((x * x * x * 0.044715 + x) * pymath.sqrt(2 / pymath.pi)) + 1.0)


def _gelu(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    if attributes["approximate"] == "tanh":
        return activations.gelu_tanh(bind, x[0]) if dtype is DType.FLOAT32 else _wide_gelu_tanh(x[0])
    return activations.gelu(bind, x[0]) if dtype is DType.FLOAT32 else _wide_gelu(x[0])


def _relu(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    if dtype is DType.UINT8:
        return x[0]
    # NaN is not below 0, so it stays.
    return select(x[0] < _zero(dtype), _zero(dtype), x[0])


def _sign(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    zero, one = _zero(dtype), _one(dtype)
    if dtype is DType.UINT8:
        return select(x[0] > zero, one, zero)
    return select(x[0] > zero, one, select(x[0] < zero, zero - one, zero))


def _clamp(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    value = x[0]
    low, high = _within_range(attributes["min"], dtype), _within_range(attributes["max"], dtype)
    if low is not None and not _is_lowest(low, dtype):
        value = bind(select(value < constant(low, dtype), constant(low, dtype), value))
    if high is not None:
        value = bind(select(value > constant(high, dtype), constant(high, dtype), value))
    return value


def _within_range(bound: Any, dtype: DType) -> Any:
    """A bound of an integer type as a number of that type: what lies outside of its range limits like the end of it."""
    if bound is None or not dtype.is_integer:
        return bound
    limits = np.iinfo(dtype.numpy)
    return int(min(max(bound, int(limits.min)), int(limits.max)))


def _is_lowest(bound: Any, dtype: DType) -> bool:
    """Whether nothing is below ``bound``. TVM's simplifier ends the process over what is below an unsigned 0."""
    return dtype.is_integer and bool(bound == np.iinfo(dtype.numpy).min)


def _leaky_relu(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    return select(x[0] > _zero(dtype), x[0], tirx.Mul(x[0], constant(attributes["slope"], dtype)))


def _elu(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    low = bind(select(x[0] > _zero(dtype), _zero(dtype), x[0]))
    negative = math.expm1(bind, low) if dtype is DType.FLOAT32 else _libm("expm1")(low)
    return select(x[0] > _zero(dtype), x[0], tirx.Mul(negative, constant(attributes["alpha"], dtype)))


def _hardsigmoid(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    value = bind(x[0] * constant(1 / 6, dtype) + constant(0.5, dtype))
    value = bind(select(value < _zero(dtype), _zero(dtype), value))
    return select(value > _one(dtype), _one(dtype), value)


def _hardswish(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    return x[0] * _hardsigmoid(bind, x, attributes, dtype)


def _modulo(bind: Bind, x: Expr, y: Expr, dtype: DType) -> Expr:
    """C's remainder (the sign of x); integer division by zero gives the remainder by one instead of a trap."""
    if dtype.is_float:
        return bind(tirx.call_pure_extern(compute_dtype(dtype), "fmod" if dtype is DType.FLOAT64 else "fmodf", x, y))
    return bind(tirx.truncmod(x, bind(select(tirx.EQ(y, _zero(dtype)), _one(dtype), y))))


def _fmod(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    return _modulo(bind, x[0], x[1], dtype)


def _signdiffers(remainder: Expr, y: Expr, dtype: DType) -> Expr:
    zero = _zero(dtype)
    differs = tirx.Or(tirx.And(remainder < zero, y > zero), tirx.And(remainder > zero, y < zero))
    return differs


def _remainder(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    value = _modulo(bind, x[0], x[1], dtype)
    if dtype is DType.UINT8:
        return value
    return select(_signdiffers(value, x[1], dtype), value + x[1], value)


def _floor_div(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    a, b = x
    if dtype.is_integer:
        b = bind(select(tirx.EQ(b, _zero(dtype)), _one(dtype), b))
        quotient = bind(tirx.truncdiv(a, b))
        if dtype is DType.UINT8:
            return quotient
        return select(_signdiffers(bind(tirx.truncmod(a, b)), b, dtype), quotient - _one(dtype), quotient)
    # As PyTorch: exact quotient from the remainder, so that rounding of a / b does not matter.
    remainder = _modulo(bind, a, b, dtype)
    quotient = bind(tirx.Div(a - remainder, b))
    quotient = bind(select(_signdiffers(remainder, b, dtype), quotient - _one(dtype), quotient))
    whole = bind(tirx.floor(quotient))
    whole = bind(select(quotient - whole > constant(0.5, dtype), whole + _one(dtype), whole))
    return select(tirx.EQ(b, _zero(dtype)), tirx.Div(a, b), whole)


def _power(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    base, exponent = x
    if isinstance(exponent, tirx.FloatImm | tirx.IntImm):
        value = float(exponent.value)
        if value == int(value) and _multiplies(int(value), dtype):
            result = _integer_power(bind, base, abs(int(value)), dtype)
            return tirx.Div(_one(dtype), result) if value < 0 else result
        if abs(value) == 0.5:
            root = bind(tirx.sqrt(base))
            return root if value > 0 else tirx.Div(_one(dtype), root)
    if dtype.is_integer:
        wide = tirx.pow(tirx.Cast("float64", base), tirx.Cast("float64", exponent))
        return tirx.Cast(compute_dtype(dtype), tirx.Cast("int64", wide))
    if dtype is DType.FLOAT64:
        return tirx.pow(base, exponent)
    return power.pow(bind, base, exponent)


def _multiplies(exponent: int, dtype: DType) -> bool:
    """Whether a power of a whole ``exponent`` is computed by products: each squaring doubles the error that there was."""
    if dtype is DType.FLOAT32:
        return -2 <= exponent <= 7
    return abs(exponent) <= 64 and (dtype.is_float or exponent >= 0)


def _integer_power(bind: Bind, base: Expr, exponent: int, dtype: DType) -> Expr:
    result = None
    square = base
    while exponent:
        if exponent & 1:
            result = square if result is None else bind(result * square)
        exponent >>= 1
        if exponent:
            square = bind(square * square)
    return _one(dtype) if result is None else result


def _multiply(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    return tirx.And(x[0], x[1]) if dtype is DType.BOOL else tirx.Mul(x[0], x[1])


def _absolute(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
    if dtype.is_float:
        return tirx.abs(x[0])
    return x[0] if dtype is DType.UINT8 else select(x[0] < _zero(dtype), _zero(dtype) - x[0], x[0])


def _unary(make: Callable[[Expr, DType], Expr]) -> Rule:
    return lambda bind, x, attributes, dtype: make(x[0], dtype)


def _binary(make: Callable[[Expr, Expr], Expr]) -> Rule:
    return lambda bind, x, attributes, dtype: make(x[0], x[1])


def _in_fp64(function: Wide) -> Rule:
    def rule(bind: Bind, x: Sequence[Expr], attributes: Mapping[str, Any], dtype: DType) -> Expr:
        if dtype is DType.FLOAT64:
            return function(bind, x[0])
        return tirx.Cast(compute_dtype(dtype), function(bind, bind(tirx.Cast("float64", x[0]))))

    return rule


RULES: dict[str, Rule] = {
    "neg": _unary(lambda x, dtype: x * constant(-1, dtype) if dtype.is_float else _zero(dtype) - x),
    "abs": _absolute,
    "square": _unary(lambda x, dtype: x * x),
    "sign": _sign,
    "floor": _unary(lambda x, dtype: tirx.floor(x)),
    "ceil": _unary(lambda x, dtype: tirx.ceil(x)),
    "round": _unary(lambda x, dtype: tirx.nearbyint(x)),
    "trunc": _unary(lambda x, dtype: tirx.trunc(x)),
    "reciprocal": _unary(lambda x, dtype: tirx.Div(_one(dtype), x)),
    "sqrt": _unary(lambda x, dtype: tirx.sqrt(x)),
    "rsqrt": _unary(lambda x, dtype: tirx.Div(_one(dtype), tirx.sqrt(x))),
    "exp": _transcendental(math.exp, tirx.exp),
    "exp2": _transcendental(math.exp2, _libm("exp2")),
    "expm1": _transcendental(math.expm1, _libm("expm1")),
    "log": _transcendental(math.log, tirx.log),
    "log1p": _transcendental(math.log1p, _libm("log1p")),
    "log2": _transcendental(math.log2, _libm("log2")),
    "log10": _transcendental(math.log10, _libm("log10")),
    "sin": _transcendental(circular.sin, tirx.sin),
    "cos": _transcendental(circular.cos, tirx.cos),
    "tan": _transcendental(circular.tan, _libm("tan")),
    "asin": _transcendental(inverse.asin, _libm("asin")),
    "acos": _transcendental(inverse.acos, _libm("acos")),
    "atan": _transcendental(inverse.atan, _libm("atan")),
    "atan2": _atan2,
    "sinh": _transcendental(inverse.sinh, _libm("sinh")),
    "cosh": _transcendental(inverse.cosh, _libm("cosh")),
    "tanh": _transcendental(math.tanh, _libm("tanh")),
    "asinh": _transcendental(inverse.asinh, _libm("asinh")),
    "acosh": _transcendental(inverse.acosh, _libm("acosh")),
    "atanh": _transcendental(inverse.atanh, _libm("atanh")),
    "erf": _transcendental(math.erf, _libm("erf")),
    "sigmoid": _transcendental(math.sigmoid, _wide_sigmoid),
    "silu": _transcendental(activations.silu, lambda x: x * _wide_sigmoid(x)),
    "softplus": _transcendental(math.softplus, lambda x: tirx.Max(x, tirx.const(0.0, "float64")) + _libm("log1p")(tirx.exp(-tirx.abs(x)))),
    "gelu": _gelu,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "isnan": _unary(lambda x, dtype: math.is_nan(x)),
    "isinf": _unary(lambda x, dtype: tirx.EQ(tirx.abs(x), constant(pymath.inf, dtype))),
    "logical_not": _unary(lambda x, dtype: tirx.Not(truth(x, dtype))),
    "bitwise_not": _unary(lambda x, dtype: tirx.Not(x) if dtype is DType.BOOL else tirx.bitwise_not(x)),
    "clamp": _clamp,
    # The nodes themselves: Python's operators would fold x + 0.0 to x and x * 0.0 to 0.0, wrong for -0.0 and NaN, and refuse 1.0 / 0.0.
    "add": _binary(tirx.Add),
    "sub": _binary(tirx.Sub),
    "mul": _multiply,
    "div": _binary(tirx.Div),
    "floor_div": _floor_div,
    "remainder": _remainder,
    "fmod": _fmod,
    "pow": _power,
    "maximum": larger,
    "minimum": smaller,
    "eq": comparison(tirx.EQ, reflexive=True),
    "ne": comparison(differs, reflexive=False),
    "lt": comparison(tirx.LT, reflexive=False),
    "le": comparison(tirx.LE, reflexive=True),
    "gt": comparison(tirx.GT, reflexive=False),
    "ge": comparison(tirx.GE, reflexive=True),
    "logical_and": logical(tirx.And),
    "logical_or": logical(tirx.Or),
    "logical_xor": logical(exclusive_or),
    "bitwise_and": bitwise(tirx.And, tirx.bitwise_and),
    "bitwise_or": bitwise(tirx.Or, tirx.bitwise_or),
    "bitwise_xor": bitwise(exclusive_or, tirx.bitwise_xor),
    **BIT_RULES,
    **{name: _in_fp64(function) for name, function in SPECIAL.items()},
    "where": lambda bind, x, attributes, dtype: select(x[0], x[1], x[2]),
}


_CIRCULAR = ("tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
_CALLED_PER_LANE = (*_CIRCULAR, "exp2", "expm1", "log1p", "log2", "log10", "erf", "gelu", "elu", "softplus")


_REDUCED_TURNS = frozenset({"sin", "cos", "tan"})
"""Operations whose fp32 expressions are right up to a certain argument; beyond, the C library is called."""

_EXACT = frozenset({"neg", "abs", "relu", "sign", "maximum", "minimum", "where"})
"""Operations whose results are operands up to the sign: there is nothing to round."""


def vectorises(node: Node) -> bool:
    """Whether code for ``node`` may stand in a vectorised loop; not where it calls the C library for each element."""
    if not node.inputs:
        return True
    dtype = node.inputs[0].tensor.dtype
    if node.op in ("fmod", "remainder", "floor_div"):
        return dtype.is_integer
    if node.op in ("shift_left", "shift_right"):
        return _is_uniform(node.inputs[1])
    if node.op in SPECIAL or node.op in BIT_RULES:
        return False
    return dtype is not DType.FLOAT64 or node.op not in _CALLED_PER_LANE


def _is_uniform(value: Value) -> bool:
    """Whether every element of ``value`` is the same number, known when code is generated."""
    if value.node is None:
        return False
    return value.op == "full" or (value.op == "constant" and value.tensor.size == 1)


def has_rule(node: Node) -> bool:
    """Whether :func:`apply` can compute ``node``, given its dtypes."""
    if node.op not in RULES and node.op not in ("cast", "bitcast", "quantise"):
        return False
    return all(computes(value.tensor.dtype) for value in (*node.inputs, *node.outputs))


def apply(emitter: Emitter, node: Node, operands: Sequence[Expr]) -> Expr:
    """The result element of an elementwise ``node`` for operand elements; LoweringError for an operation without a rule."""
    bind = emitter.bind
    if node.op == "cast":
        return cast(emitter, operands[0], node.inputs[0].tensor.dtype, node.output.tensor.dtype)
    if node.op == "bitcast":
        return bitcast(bind, operands[0], node.inputs[0].tensor.dtype, node.output.tensor.dtype)
    if node.op == "quantise":
        x, rate = operands
        return quantised(emitter, x, rate, attributes_of(node)["zero_point"], node.output.tensor.dtype)
    rule = RULES.get(node.op)
    if rule is None:
        raise LoweringError(f"there is no elementwise code for the operation '{node.op}'")
    dtype = halves.arithmetic(node.inputs[-1].tensor.dtype)
    result = rule(bind, operands, node.attributes, dtype)
    if node.op in _REDUCED_TURNS and dtype is DType.FLOAT32:
        result = emitter.corrected(result, operands[0], circular.beyond, lambda x: tirx.call_pure_extern("float32", f"{node.op}f", x))
    return result if node.op in _EXACT else halves.rounded(emitter, result, node.output.tensor.dtype)
