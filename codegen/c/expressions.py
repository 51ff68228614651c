"""TIR expressions as C99.

TIR integers wrap, as PyTorch's do, and C's do not: arithmetic on data goes through unsigned integers. Index arithmetic over loop
variables stays below 2**31 (see ``emit/emitter.py``) and is printed as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from ...errors import LoweringError

C_TYPES = {
    "bool": "int",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "float32": "float",
    "float64": "double",
}
"""C types of TIR dtypes, of values in expressions."""

REINTERPRET = {
    ("float32", "int32"): ("mlc_bits32", "int32_t", "float"),
    ("int32", "float32"): ("mlc_float32", "float", "int32_t"),
    ("float64", "int64"): ("mlc_bits64", "int64_t", "double"),
    ("int64", "float64"): ("mlc_float64", "double", "int64_t"),
}
"""(from, to) -> name, result and argument type of the function that takes a value's representation for another type's."""

_ATOM, _UNARY, _PRODUCT, _SUM, _OTHER = 0, 1, 2, 3, 4

_COMPARISONS: dict[type, str] = {tirx.EQ: "==", tirx.NE: "!=", tirx.LT: "<", tirx.LE: "<=", tirx.GT: ">", tirx.GE: ">="}
_LOGICAL: dict[type, str] = {tirx.And: "&&", tirx.Or: "||"}
_ARITHMETIC: dict[type, tuple[str, int]] = {
    tirx.Add: ("+", _SUM),
    tirx.Sub: ("-", _SUM),
    tirx.Mul: ("*", _PRODUCT),
    tirx.Div: ("/", _PRODUCT),
    tirx.Mod: ("%", _PRODUCT),
}
_BITWISE: dict[type, str] = {tirx.BitwiseAnd: "&", tirx.BitwiseOr: "|", tirx.BitwiseXor: "^"}
_FUNCTIONS = {
    "tirx.sqrt": "sqrt",
    "tirx.floor": "floor",
    "tirx.ceil": "ceil",
    "tirx.trunc": "trunc",
    "tirx.round": "round",
    "tirx.nearbyint": "nearbyint",
    "tirx.fabs": "fabs",
    "tirx.exp": "exp",
    "tirx.exp2": "exp2",
    "tirx.log": "log",
    "tirx.log2": "log2",
    "tirx.log10": "log10",
    "tirx.log1p": "log1p",
    "tirx.sin": "sin",
    "tirx.cos": "cos",
    "tirx.tan": "tan",
    "tirx.asin": "asin",
    "tirx.acos": "acos",
    "tirx.atan": "atan",
    "tirx.atan2": "atan2",
    "tirx.sinh": "sinh",
    "tirx.cosh": "cosh",
    "tirx.tanh": "tanh",
    "tirx.asinh": "asinh",
    "tirx.acosh": "acosh",
    "tirx.atanh": "atanh",
    "tirx.erf": "erf",
    "tirx.pow": "pow",
    "tirx.fmod": "fmod",
    "tirx.hypot": "hypot",
    "tirx.ldexp": "ldexp",
    "tirx.nextafter": "nextafter",
    "tirx.copysign": "copysign",
    "tirx.fma": "fma",
}
"""Intrinsics to functions of <math.h>, whose fp32 variants end in f."""

_EXTERN = ("tirx.call_pure_extern", "tirx.call_extern")


def dtype_of(expr: Any) -> str:
    """The TIR dtype of an expression."""
    return str(expr.ty.dtype)


def c_type(dtype: str) -> str:
    """The C type of a TIR dtype; LoweringError for vectors and types that C99 lacks."""
    try:
        return C_TYPES[dtype]
    except KeyError:
        raise LoweringError(f"C99 has no type for {dtype}") from None


def number(value: float, dtype: str) -> str:
    """A floating-point constant that C reads back as exactly this fp32 or fp64 number."""
    narrow = dtype == "float32"
    if math.isnan(value):
        return "NAN" if narrow else "(double)NAN"
    if math.isinf(value):
        text = "INFINITY" if narrow else "(double)INFINITY"
        return text if value > 0 else f"(-{text})"
    exact = np.float32(value) if narrow else np.float64(value)
    if np.isinf(exact):
        return number(float(exact), dtype)
    text = (
        np.format_float_scientific(exact, unique=True, trim="0")
        if not _plain(float(exact))
        else np.format_float_positional(exact, trim="0")
    )
    return text + ("f" if narrow else "")


def _plain(value: float) -> bool:
    return value == 0 or 1e-4 <= abs(value) < 1e7


def integer(value: int, dtype: str) -> str:
    """An integer constant of a dtype."""
    if dtype == "int64":
        return "INT64_MIN" if value == -(2**63) else f"INT64_C({value})"
    if dtype == "int32" and value == -(2**31):
        return "INT32_MIN"
    if dtype in ("uint32", "uint64"):
        return f"UINT{dtype[4:]}_C({value})"
    return str(value)


class Expressions:
    """Prints expressions. ``name_of`` gives the C name of a variable or a buffer, ``is_index`` whether a variable is an index.

    ``helpers`` collects the names of the :data:`REINTERPRET` functions that the text calls.
    """

    def __init__(self, name_of: Callable[[Any], str], is_index: Callable[[Any], bool]) -> None:
        self._name_of = name_of
        self._is_index = is_index
        self._lets: list[tuple[Any, str]] = []
        self.helpers: set[str] = set()

    def text(self, expr: Any) -> str:
        """The expression, bare."""
        return self._print(expr)[0]

    def indexes(self, expr: Any) -> bool:
        """Whether an expression is arithmetic over index variables and constants, which cannot overflow."""
        if isinstance(expr, tirx.IntImm):
            return True
        if isinstance(expr, tirx.Var):
            return self._is_index(expr)
        if isinstance(expr, (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max)):
            return dtype_of(expr) == "int32" and self.indexes(expr.a) and self.indexes(expr.b)
        if isinstance(expr, tirx.Select):
            return self.indexes(expr.true_value) and self.indexes(expr.false_value)
        return False

    def _within(self, expr: Any, strength: int) -> str:
        text, loose = self._print(expr)
        return text if loose <= strength else f"({text})"

    def _print(self, expr: Any) -> tuple[str, int]:
        kind = type(expr)
        if isinstance(expr, tirx.IntImm):
            return integer(int(expr.value), dtype_of(expr)), _ATOM if int(expr.value) >= 0 else _UNARY
        if isinstance(expr, tirx.FloatImm):
            text = number(float(expr.value), dtype_of(expr))
            return text, _UNARY if text.startswith("-") else _ATOM
        if isinstance(expr, tirx.Var):
            for variable, text in reversed(self._lets):
                if variable.same_as(expr):
                    return text, _ATOM
            return self._name_of(expr), _ATOM
        if isinstance(expr, tvm.ir.TensorLoad):
            return f"{self._name_of(expr.source)}[{self.text(flat_index(expr))}]", _ATOM
        if kind in _ARITHMETIC:
            return self._arithmetic(expr)
        if kind in _COMPARISONS:
            return f"{self._within(expr.a, _SUM)} {_COMPARISONS[kind]} {self._within(expr.b, _SUM)}", _OTHER
        if kind in _LOGICAL:
            return f"{self._within(expr.a, _UNARY)} {_LOGICAL[kind]} {self._within(expr.b, _UNARY)}", _OTHER
        if kind in _BITWISE or isinstance(expr, (tirx.BitwiseNot, tirx.LShift, tirx.RShift)):
            return self._bits(expr)
        if isinstance(expr, tirx.Not):
            return f"!{self._within(expr.a, _ATOM)}", _UNARY
        if isinstance(expr, tirx.Select):
            return self._choice(expr.condition, expr.true_value, expr.false_value)
        if isinstance(expr, (tirx.Min, tirx.Max)):
            return self._extreme(expr)
        if isinstance(expr, (tirx.FloorDiv, tirx.FloorMod)):
            return self._floored(expr)
        if isinstance(expr, tirx.Cast):
            return self._cast(expr)
        if isinstance(expr, tirx.Let):
            self._lets.append((expr.var, f"({self.text(expr.value)})"))
            result = self._print(expr.body)
            self._lets.pop()
            return result
        if isinstance(expr, tvm.ir.Call):
            return self._call(expr)
        raise LoweringError(f"there is no C99 for {kind.__name__} of {dtype_of(expr)}")

    def _arithmetic(self, expr: Any) -> tuple[str, int]:
        symbol, strength = _ARITHMETIC[type(expr)]
        dtype = dtype_of(expr)
        left = self._within(expr.a, strength)
        right = self._within(expr.b, strength - 1)
        plain = f"{left} {symbol} {right}"
        if dtype.startswith("float") or self.indexes(expr):
            return plain, strength
        if dtype in ("int32", "int64"):
            if symbol in "/%":
                return plain, strength
            unsigned = f"u{dtype}_t"
            return f"({dtype}_t)(({unsigned}){self._within(expr.a, _ATOM)} {symbol} ({unsigned}){self._within(expr.b, _ATOM)})", _UNARY
        # Narrower integers are computed as int, where nothing overflows, and cut off.
        return f"({c_type(dtype)})({plain})", _UNARY

    def _bits(self, expr: Any) -> tuple[str, int]:
        type = c_type(dtype_of(expr))
        if isinstance(expr, tirx.BitwiseNot):
            return f"({type})~{self._within(expr.a, _ATOM)}", _UNARY
        left, right = self._within(expr.a, _ATOM), self._within(expr.b, _ATOM)
        if isinstance(expr, tirx.LShift):
            return f"({type})((u{type.removeprefix('u')}){left} << {right})", _UNARY
        symbol = ">>" if isinstance(expr, tirx.RShift) else _BITWISE[expr.__class__]
        text = f"{left} {symbol} {right}"
        return (f"({type})({text})", _UNARY) if type in ("int8_t", "int16_t", "uint8_t") else (text, _OTHER)

    def _choice(self, condition: Any, then: Any, otherwise: Any) -> tuple[str, int]:
        dtype = dtype_of(then)
        text = f"{self._within(condition, _SUM)} ? {self._within(then, _SUM)} : {self._within(otherwise, _SUM)}"
        if dtype in ("int8", "int16", "uint8"):
            return f"({c_type(dtype)})({text})", _UNARY
        return text, _OTHER

    def _extreme(self, expr: Any) -> tuple[str, int]:
        symbol = "<" if isinstance(expr, tirx.Min) else ">"
        left, right = self._within(expr.a, _SUM), self._within(expr.b, _SUM)
        return f"{left} {symbol} {right} ? {left} : {right}", _OTHER

    def _floored(self, expr: Any) -> tuple[str, int]:
        a, b = self._within(expr.a, _ATOM), self._within(expr.b, _ATOM)
        if isinstance(expr, tirx.FloorMod):
            return f"({a} % {b} + {b}) % {b}", _PRODUCT
        return f"{a} / {b} - (({a} % {b} != 0) & (({a} < 0) != ({b} < 0)))", _SUM

    def _cast(self, expr: Any) -> tuple[str, int]:
        dtype = dtype_of(expr)
        if dtype == "bool":
            return f"{self._within(expr.value, _SUM)} != 0", _OTHER
        return f"({c_type(dtype)}){self._within(expr.value, _ATOM)}", _UNARY

    def _call(self, expr: Any) -> tuple[str, int]:
        name = str(getattr(expr.op, "name", expr.op))
        arguments = list(expr.args)
        dtype = dtype_of(expr) if hasattr(expr.ty, "dtype") else "handle"
        if name == "tirx.reinterpret":
            return self._reinterpret(arguments[0], expr)
        if name == "tirx.address_of":
            return f"&{self.text(arguments[0])}", _UNARY
        if name == "prim.if_then_else":
            return self._choice(*arguments)
        if name == "tirx.isnan":
            return f"isnan({self.text(arguments[0])})", _ATOM
        if name in _EXTERN:
            # The first argument is the function's name; intrinsic lowering appends f for fp32.
            return f"{arguments[0].value}({', '.join(self.text(argument) for argument in arguments[1:])})", _ATOM
        if name in _FUNCTIONS:
            function = _FUNCTIONS[name] + ("f" if dtype == "float32" else "")
            return f"{function}({', '.join(self.text(argument) for argument in arguments)})", _ATOM
        raise LoweringError(f"there is no C99 for the intrinsic {name}")

    def _reinterpret(self, value: Any, expr: Any) -> tuple[str, int]:
        if not hasattr(expr.ty, "dtype"):  # a pointer
            element = str(expr.ty.element_type.dtype)
            return f"({c_type(element)}*)(void*){self._within(value, _UNARY)}", _UNARY
        key = (dtype_of(value), dtype_of(expr))
        if key not in REINTERPRET:
            raise LoweringError(f"there is no C99 for reading {key[0]} as {key[1]}")
        self.helpers.add(REINTERPRET[key][0])
        return f"{REINTERPRET[key][0]}({self.text(value)})", _ATOM


def flat_index(access: Any) -> Any:
    """The one index of a flat buffer's access; LoweringError when it is a vector."""
    if len(access.indices) != 1 or isinstance(access.indices[0], tirx.Ramp):
        raise LoweringError("C99 is printed from scalar code: this kernel accesses memory in vectors")
    return access.indices[0]
