"""How often loops run, read off their text: extents that are numbers, and those computed from the loops around them.

A thread's share of the tiles, say, is bound by ``low = thread * 2``, ``count = max(min(high, 4) - low, 0)`` and run by
``range(low, low + count)``. Such expressions are evaluated twice, in the first and in the last round of all loops around.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

Ends = tuple[int, int]
"""A value in the first and in the last round of the loops around."""
Bindings = Mapping[str, Ends]

_LOOP = re.compile(r"\s*for (?P<names>[\w, ]+) in \w+\((?P<extents>.*)\):")
_LET = re.compile(r"\s*(?P<name>\w+) = (?P<value>[^\[\]]+)$")


def bound_by(line: str, known: Bindings) -> tuple[Bindings, float]:
    """What is known below a line, if it is a loop or names a whole number, and how often it runs what is below it."""
    if loop := _LOOP.match(line):
        names, extents = loop["names"].split(", "), _arguments(loop["extents"], known)
        if extents is None:
            return known, 1.0
        ranges = [extents] if len(names) == 1 else [[extent] for extent in extents]
        found, trips = dict(known), 1.0
        for name, ends in zip(names, ranges, strict=False):
            begin, end = ends if len(ends) == 2 else ((0, 0), ends[0])
            found[name] = begin[0], max(end[1] - 1, begin[1])
            trips *= max(1.0, (max(end[0] - begin[0], 0) + max(end[1] - begin[1], 0)) / 2)
        return found, trips
    if (let := _LET.match(line)) and (value := _arguments(let["value"], known)) and len(value) == 1:
        return {**known, let["name"]: value[0]}, 1.0
    return known, 1.0


def _arguments(text: str, known: Bindings) -> list[Ends] | None:
    """The values of expressions with commas between; None when one of them is no whole number that is known."""
    expressions = _parsed(text)
    try:
        return [(_evaluate(each, known, 0), _evaluate(each, known, 1)) for each in expressions]
    except (KeyError, ValueError, ZeroDivisionError):
        return None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Sequence[ast.expr]:
    """The positional arguments of a call; one that is no number where the text is no expression."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except SyntaxError:
        return (ast.Constant(None),)
    return call.args if isinstance(call, ast.Call) else ()


def _evaluate(expression: ast.expr, known: Bindings, end: int) -> int:
    """ValueError for what is no whole-number arithmetic, KeyError for unknown names."""
    match expression:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return known[name][end]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, known, end)
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(operator, _evaluate(left, known, end), _evaluate(right, known, end))
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=[left, right]):
            values = _evaluate(left, known, end), _evaluate(right, known, end)
            return max(values) if name == "max" else min(values)
    raise ValueError("no whole-number arithmetic")


def _combined(operator: ast.operator, left: int, right: int) -> int:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.FloorDiv():
            return left // right
        case ast.Mod():
            return left % right
    raise ValueError("no whole-number arithmetic")
