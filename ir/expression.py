"""Reads symbolic expressions as sympy prints them: sums and products of integers and symbols, floor, ceiling, Max, Min, Mod.

Python evaluates nothing of the text, and what could make sympy run for ever (towers of powers, endless nesting) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import TextFormError
from .types import Dim, symbol

if TYPE_CHECKING:
    import sympy

_TOKEN = re.compile(r"\s*(?:(\d{1,20})|([A-Za-z_]\w*)|(\*\*|//|[-+*/(),]))", re.ASCII)
_MAX_TOKENS = 300
_MAX_DEPTH = 30
_MAX_EXPONENT = 16
_FUNCTIONS = {"floor": 1, "ceiling": 1, "Mod": 2, "Max": None, "Min": None}
# The number of arguments; None: at least one.


def parse_expression(text: str, fail: Callable[[str], TextFormError]) -> Dim:
    """The expression of ``text``, an int if it has no symbols. ``fail`` makes the error to raise from a message."""
    return _ExpressionParser(text, fail).parse()


class _ExpressionParser:
    def __init__(self, text: str, fail: Callable[[str], TextFormError]) -> None:
        self.text = text
        self.fail = fail
        self.tokens: list[str] = []
        self.position = 0
        self.depth = 0
        offset = 0
        while offset < len(text.rstrip()):
            match = _TOKEN.match(text, offset)
            if match is None:
                raise self.malformed()
            self.tokens.append(match.group().strip())
            offset = match.end()
        if len(self.tokens) > _MAX_TOKENS:
            raise fail(f"a dimension of {len(self.tokens)} tokens is too long")

    def malformed(self) -> TextFormError:
        return self.fail(f"malformed dimension '{self.text[:60]}'")

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise self.malformed()
        self.position += 1
        return token

    def parse(self) -> Dim:
        result = self.addition()
        if self.position != len(self.tokens):
            raise self.malformed()
        if result.is_Integer:
            return int(result)
        if not result.free_symbols or result.is_integer is False:
            raise self.fail(f"the dimension '{self.text[:60]}' is no integer")
        return result

    def addition(self) -> sympy.Expr:
        left = self.product()
        while self.peek() in ("+", "-"):
            left = left + self.product() if self.take() == "+" else left - self.product()
        return left

    def product(self) -> sympy.Expr:
        import sympy

        left = self.unary()
        while self.peek() in ("*", "/", "//"):
            operator, right = self.take(), self.unary()
            if operator == "*":
                left = left * right
                continue
            if right == 0:
                raise self.fail(f"division by zero in the dimension '{self.text[:60]}'")
            left = left / right if operator == "/" else sympy.floor(left / right)
        return left

    def unary(self) -> sympy.Expr:
        negative = False
        while self.peek() == "-":
            self.take()
            negative = not negative
        result = self.atom()
        if self.peek() == "**":
            self.take()
            exponent = self.take()
            if not exponent.isdigit() or int(exponent) > _MAX_EXPONENT:
                raise self.fail(f"exponents are integers from 0 to {_MAX_EXPONENT} in the dimension '{self.text[:60]}'")
            result = result ** int(exponent)
        return -result if negative else result

    def atom(self) -> sympy.Expr:
        import sympy

        token = self.take()
        if token == "(":
            inner = self.nested()
            self.take(")")
            return inner
        if token.isdigit():
            return sympy.Integer(token)
        if token in _FUNCTIONS and self.peek() == "(":
            return self.call(token)
        if token.isidentifier():
            return symbol(token)
        raise self.malformed()

    def nested(self) -> sympy.Expr:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.fail(f"more than {_MAX_DEPTH} nested brackets in a dimension")
        result = self.addition()
        self.depth -= 1
        return result

    def call(self, name: str) -> sympy.Expr:
        import sympy

        self.take("(")
        arguments = [self.nested()]
        while self.peek() == ",":
            self.take()
            arguments.append(self.nested())
        self.take(")")
        count = _FUNCTIONS[name]
        if count is not None and len(arguments) != count:
            raise self.fail(f"{name} takes {count} arguments in the dimension '{self.text[:60]}'")
        if name == "Mod" and arguments[1] == 0:
            raise self.fail(f"division by zero in the dimension '{self.text[:60]}'")
        function: Any = getattr(sympy, name)
        return function(*arguments)
