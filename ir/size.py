"""Sizes that depend on symbolic dimensions, as plain data: evaluated at run time without sympy, and written as C.

A :class:`Size` is a program for a stack machine, as postfix calculators are: numbers and names of symbols push, operators take two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    import sympy

    from .types import Dim

Result = TypeVar("Result")
Item: TypeAlias = "int | str"
"""A number, the name of a symbol, or an operator."""

OPERATORS: Mapping[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "max": max,
    "min": min,
}
"""What two operands are combined to; division rounds down and the remainder has the divisor's sign, as in Python."""

_CALLED = {"//": "mlc_floor_div", "%": "mlc_floor_mod", "max": "mlc_max", "min": "mlc_min"}
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Size:
    """A number that depends on symbols. ValueError when ``code`` is no well-formed postfix program."""

    code: tuple[Item, ...]

    def __post_init__(self) -> None:
        depth = 0
        for item in self.code:
            if isinstance(item, str) and item not in OPERATORS and not _NAME.fullmatch(item):
                raise ValueError(f"a size cannot hold {item!r}")
            depth += -1 if item in OPERATORS else 1
            if depth < 1:
                raise ValueError("an operator of a size lacks operands")
        if depth != 1:
            raise ValueError("a size must come to one number")

    @property
    def symbols(self) -> frozenset[str]:
        """The names of the symbols it depends on."""
        return frozenset(item for item in self.code if isinstance(item, str) and item not in OPERATORS)

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The number for ``values`` of the symbols; KeyError when one is missing."""
        return self._fold(lambda item: values[item] if isinstance(item, str) else item, lambda name, a, b: OPERATORS[name](a, b))

    def to_c(self) -> str:
        """A C expression over ``int64_t`` variables ``dim_`` + symbol, and the functions ``mlc_floor_div``, ``mlc_max``, ..."""

        def combine(name: str, a: str, b: str) -> str:
            return f"{_CALLED[name]}({a}, {b})" if name in _CALLED else f"({a} {name} {b})"

        return self._fold(lambda item: f"dim_{item}" if isinstance(item, str) else f"INT64_C({item})", combine)

    def _fold(self, leaf: Callable[[Item], Result], combine: Callable[[str, Result, Result], Result]) -> Result:
        stack: list[Result] = []
        for item in self.code:
            if isinstance(item, str) and item in OPERATORS:
                right, left = stack.pop(), stack.pop()
                stack.append(combine(item, left, right))
            else:
                stack.append(leaf(item))
        return stack[0]

    def __str__(self) -> str:
        if len(self.code) == 1:
            return str(self.code[0])

        def combine(name: str, a: str, b: str) -> str:
            return f"{name}({a},{b})" if name in ("max", "min") else f"({a}{name}{b})"

        text = self._fold(str, combine)
        return text[1:-1] if text.startswith("(") else text


Extent: TypeAlias = "int | Size"
"""A number known at compile time, or one that depends on symbols."""


def evaluate(extent: Extent, values: Mapping[str, int]) -> int:
    """The number that ``extent`` is for ``values`` of the symbols."""
    return extent.evaluate(values) if isinstance(extent, Size) else extent


def largest(extents: Sequence[Extent]) -> Extent:
    """The maximum of ``extents``, which must not be none."""
    distinct = list(dict.fromkeys(extents))
    numbers = [extent for extent in distinct if isinstance(extent, int)]
    parts = [(number,) for number in ([max(numbers)] if numbers else [])] + [extent.code for extent in distinct if isinstance(extent, Size)]
    if len(parts) == 1:
        return distinct[0] if isinstance(distinct[0], Size) else max(numbers)
    code: list[Item] = [*parts[0]]
    for part in parts[1:]:
        code += [*part, "max"]
    return Size(tuple(code))


def size_of(dim: Dim) -> Extent:
    """``dim``, a number or an expression of sympy, as plain data. ValueError for a function that sizes do not know."""
    return dim if isinstance(dim, int) else _size_of(dim)


@lru_cache(maxsize=4096)
def _size_of(expression: sympy.Expr) -> Extent:
    code: list[Item] = []
    _emit(expression, code)
    return code[0] if len(code) == 1 and isinstance(code[0], int) else Size(tuple(code))


def _emit(expression: sympy.Expr, code: list[Item]) -> None:
    kind = type(expression).__name__
    if expression.is_Integer:
        code.append(int(expression))
    elif expression.is_Symbol:
        code.append(str(expression))
    elif kind == "floor":
        top, bottom = expression.args[0].as_numer_denom()
        _quotient(top, bottom, code)
    elif kind == "ceiling":
        top, bottom = expression.args[0].as_numer_denom()
        _quotient(top + bottom - 1, bottom, code)
    elif kind in ("Max", "Min", "Mod"):
        _chain({"Max": "max", "Min": "min", "Mod": "%"}[kind], expression.args, code)
    elif expression.is_Pow and expression.exp.is_Integer and int(expression.exp) > 0:
        _chain("*", [expression.base] * int(expression.exp), code)
    elif expression.is_Add or expression.is_Mul:
        top, bottom = expression.as_numer_denom()
        if bottom != 1:
            _quotient(top, bottom, code)
        else:
            _chain("+" if expression.is_Add else "*", expression.args, code)
    else:
        raise ValueError(f"the size {expression} cannot be computed at run time")


def _quotient(top: sympy.Expr, bottom: sympy.Expr, code: list[Item]) -> None:
    _emit(top, code)
    if bottom != 1:
        _emit(bottom, code)
        code.append("//")


def _chain(operator: str, operands: Sequence[sympy.Expr], code: list[Item]) -> None:
    for number, operand in enumerate(operands):
        _emit(operand, code)
        if number:
            code.append(operator)
