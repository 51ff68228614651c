"""Steps that compute element by element."""

from __future__ import annotations

import functools
from typing import Any

from ...ir import REQUIRED, DType, Trait, Value, registry
from .drawing import STORED, Drawing

_TAMES = frozenset({"abs", "ceil", "clamp", "cos", "floor", "neg", "relu", "round", "sigmoid", "sign", "sin", "tanh", "trunc", "isnan"})
"""Operations whose operands may be of any size."""

_POSITIVE = frozenset(
    {"log", "log2", "log10", "sqrt", "rsqrt", "log1p", "reciprocal", "lgamma", "digamma", "trigamma", "bessel_y0", "bessel_y1"}
)
"""Operations that are mostly given positive operands."""

UNARY_ANY = ("abs", "neg", "square", "sign", "relu", "logical_not", "clamp", "bitwise_not")
BINARY_FLOAT = ("div", "pow", "fmod", "remainder", "floor_div")
BINARY_INTEGER = ("bitwise_and", "bitwise_or", "bitwise_xor", "floor_div", "fmod", "remainder")

NEVER = frozenset({"state_read", "state_write", "fusion", "while", "put", "bitcast", "nextafter"})
"""Operations that are not generated: they need tokens, are made by passes, may not end, or look at bits, which float64 has others of."""


@functools.cache
def elementwise(operands: int) -> tuple[str, ...]:
    """The elementwise operations of the registry with that many operands, and without attributes that must be given."""
    return tuple(
        name
        for name, op in sorted(registry().items())
        if op.has(Trait.ELEMENTWISE)
        and len(op.operands) == operands
        and name not in (*NEVER, *BINARY_FLOAT, "cast", "where")
        and not any(default is REQUIRED for default in op.attributes.values())
    )


class ElementwiseSteps(Drawing):
    """Unary and binary operations, casts and choices between two values."""

    def unary(self) -> Value:
        x, op = self.floating(), self.choice(elementwise(1))
        if op not in _TAMES:
            limit = self.choice((0.9, 3.0, 8.0))
            x = self.limited(x, -limit, limit)
        choices: dict[str, dict[str, Any]] = {
            "gelu": {"approximate": self.choice(("none", "tanh"))},
            "elu": {"alpha": self.choice((1.0, 0.5, 2.0))},
            "leaky_relu": {"slope": self.choice((0.01, 0.3))},
        }
        if op in _POSITIVE and self.chance(0.8):
            x = self.builder.call("add", self.builder.call("abs", x), self.number(x, 0.5))
        return self.builder.call(op, x, **choices.get(op, {}))

    def unary_any(self) -> Value:
        x, op = self.pick(), self.choice(UNARY_ANY)
        if op == "clamp":
            low, high = self.choice(((-1, 2), (0, None), (None, 3), (1, 1), (2, -1)))
            return self.builder.call("clamp", x, min=low, max=high)
        return self.builder.call(op, x)

    def binary(self) -> Value:
        x = self.pick()
        y = self.partner(x)
        return self.builder.call(self.choice(elementwise(2)), *((x, y) if self.chance(0.7) else (y, x)))

    def binary_float(self) -> Value:
        x, op = self.floating(), self.choice(BINARY_FLOAT)
        y = self.partner(x)
        if op == "pow":
            base = self.builder.call("add", self.builder.call("abs", self.limited(x, -4.0, 4.0)), self.number(x, 0.25))
            exponent = self.limited(y, -3.0, 3.0) if self.chance(0.5) else self.number(x, self.choice((2.0, 3.0, 0.5, -1.0, -0.5, 0.0)))
            return self.builder.call("pow", base, exponent)
        if self.chance(0.8):
            y = self.builder.call("add", self.builder.call("abs", y), self.number(x, 0.5))
        return self.builder.call(op, x, y)

    def binary_integer(self) -> Value:
        x = self.pick(lambda type: type.dtype.is_integer)
        op = self.choice(BINARY_INTEGER)
        if op.startswith("bitwise"):
            return self.builder.call(op, x, self.partner(x))
        return self.builder.call(op, x, self.number(x, self.choice((1, 2, 3, 7) if x.tensor.dtype is DType.UINT8 else (1, 3, -2, -7))))

    def cast(self) -> Value:
        x, dtype = self.pick(), self.choice(STORED)
        if x.tensor.dtype.is_float and dtype.is_integer:
            x = self.limited(x, 0.0 if dtype is DType.UINT8 else -100.0, 100.0)
        return self.builder.call("cast", x, dtype=dtype)

    def quantise(self) -> Value:
        x, dtype = self.pick(lambda type: type.dtype is DType.FLOAT32), self.choice((DType.INT8, DType.UINT8))
        zero_point = self.choice((0, 3, 100))
        return self.builder.call("quantise", x, self.number(x, self.choice((2.0, 16.0))), dtype=dtype, zero_point=zero_point)

    def where(self) -> Value:
        x = self.pick()
        condition = self.pick(lambda type: type.dtype is DType.BOOL) if self.chance(0.5) else self.builder.call("gt", x, self.partner(x))
        return self.builder.call("where", condition, x, self.partner(x))
