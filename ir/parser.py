"""Reads the text form of graphs; the grammar is described in :mod:`mlc.ir.printer`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import Error, TextFormError
from .constant import ArrayConstant, Constant
from .graph import UNKNOWN, Attribute, Graph, Location, Node, Value
from .layout import Layout, Padding
from .ops import lookup
from .types import Dim, DType, Encoding, SymbolRange, TensorType, TokenType, Type
from .verifier import verify

if TYPE_CHECKING:
    import sympy

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<expression>`[^`\n]*`)
      | (?P<value>%[\w.$-]+)
      | (?P<symbol>@[\w.$-]+)
      | (?P<digest>\#[0-9a-f]+)
      | (?P<block>\d+x\d+)
      | (?P<range>\.\.)
      | (?P<number>-?(?:\d+\.(?!\.)\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+|inf\b)|nan\b|inf\b)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<punctuation>[(){}\[\],:=*+/-])
    """,
    re.VERBOSE,
)

_DTYPES = {dtype.text: dtype for dtype in DType}
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    offset: int


def parse(text: str, constants: Mapping[str, Constant] | None = None) -> Graph:
    """The verified graph of ``text``. ``constants`` gives, by digest, those whose data the text leaves out.

    TextFormError with line and column when the text is malformed; VerificationError when it is well-formed but not a valid graph.
    """
    parser = _Parser(text, constants or {})
    graph = parser.graph()
    parser.expect_kind("end", "the end of the text")
    verify(graph)
    return graph


def parse_type(text: str) -> Type:
    """The type of a text form such as ``f32[1,64,56,56]{0,2,3,1}``; TextFormError when malformed."""
    parser = _Parser(text, {})
    type = parser.type()
    parser.expect_kind("end", "the end of the type")
    return type


class _Parser:
    def __init__(self, text: str, constants: Mapping[str, Constant]) -> None:
        self.text = text
        self.constants = constants
        self.tokens = list(self._tokenise())
        self.position = 0

    def _tokenise(self) -> list[_Token]:
        tokens, offset = [], 0
        while offset < len(self.text):
            match = _TOKEN.match(self.text, offset)
            if match is None:
                raise self._error_at(offset, f"unexpected character {self.text[offset]!r}")
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match.group(), offset))
            offset = match.end()
        tokens.append(_Token("end", "", len(self.text)))
        return tokens

    def _error_at(self, offset: int, message: str) -> TextFormError:
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        quoted = self.text.splitlines()[line - 1].strip() if self.text.splitlines()[line - 1 : line] else ""
        return TextFormError(f"line {line}, column {column}: {message}\n  {quoted}")

    def error(self, message: str) -> TextFormError:
        return self._error_at(self.token.offset, message)

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def advance(self) -> _Token:
        token = self.token
        self.position += 1
        return token

    def accept(self, text: str) -> bool:
        if self.token.kind in ("punctuation", "word", "range") and self.token.text == text:
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected '{text}', found {self._found()}")

    def expect_kind(self, kind: str, what: str) -> str:
        if self.token.kind != kind:
            raise self.error(f"expected {what}, found {self._found()}")
        return self.advance().text if kind != "end" else ""

    def _found(self) -> str:
        return f"'{self.token.text}'" if self.token.text else "the end of the text"

    def list_of(self, item: Callable[[], _Item], close: str) -> list[_Item]:
        """Comma-separated items up to and including ``close``."""
        items: list[_Item] = []
        if self.accept(close):
            return items
        items.append(item())
        while not self.accept(close):
            self.expect(",")
            items.append(item())
        return items

    def integer(self) -> int:
        text = self.expect_kind("number", "an integer")
        try:
            return int(text)
        except ValueError:
            self.position -= 1
            raise self.error(f"expected an integer, found '{text}'") from None

    # Graphs and nodes

    def graph(self) -> Graph:
        self.expect("graph")
        name = self.expect_kind("symbol", "the graph's name, such as @main")[1:]
        scope: dict[str, Value] = {}
        self.expect("(")

        def one_input() -> Value:
            value_name = self._new_name(scope)
            self.expect(":")
            scope[value_name] = Value(self.type(), value_name, None, len(scope))
            return scope[value_name]

        inputs = self.list_of(one_input, ")")
        symbols: dict[str, SymbolRange] = {}
        if self.accept("where"):
            self._symbol_range(symbols)
            while self.accept(","):
                self._symbol_range(symbols)
        self.expect("{")
        nodes = []
        while not self.accept("return"):
            nodes.append(self.node(scope))
        outputs = [] if self.accept("}") else self._operands_until_brace(scope)
        return Graph(tuple(inputs), tuple(nodes), tuple(outputs), name, symbols)

    def _operands_until_brace(self, scope: Mapping[str, Value]) -> list[Value]:
        return self.list_of(lambda: self.operand(scope), "}")

    def _symbol_range(self, symbols: dict[str, SymbolRange]) -> None:
        name = self.expect_kind("word", "a symbol")
        self.expect("in")
        lower = self.integer()
        self.expect("..")
        symbols[name] = SymbolRange(lower, self.integer() if self.token.kind == "number" else None)

    def _new_name(self, scope: Mapping[str, Value]) -> str:
        name = self.token.text[1:]
        if name in scope:
            raise self.error(f"%{name} is defined twice")
        self.expect_kind("value", "a value such as %x")
        return name

    def operand(self, scope: Mapping[str, Value]) -> Value:
        name = self.token.text[1:]
        if self.token.kind == "value" and name not in scope:
            raise self.error(f"%{name} is not defined before this use")
        self.expect_kind("value", "a value such as %x")
        return scope[name]

    def node(self, scope: dict[str, Value]) -> Node:
        names: list[str] = []
        if not self.accept("="):
            names.append(self._new_name(scope))
            while not self.accept("="):
                self.expect(",")
                names.append(self._new_name(scope))
        op = self.token.text
        try:
            definition = lookup(op)
        except Error as error:
            raise self.error(str(error)) from None
        self.advance()
        self.expect("(")
        inputs = self.list_of(lambda: self.operand(scope), ")")
        given: dict[str, Attribute] = {}
        if self.accept("{"):
            given = dict(self.list_of(self.attribute, "}"))
        try:
            attributes = definition.complete_attributes(given)
        except Error as error:
            raise self.error(str(error)) from None
        self.expect(":")
        types = [self.type() for _ in names[:1]]
        for _ in names[1:]:
            self.expect(",")
            types.append(self.type())
        location = self.location()
        regions = []
        while self.accept("{"):
            regions.append(self.graph())
            self.expect("}")
        node = Node(op, inputs, attributes, types, regions, location)
        for name, value in zip(names, node.outputs, strict=True):
            value.name = name
            scope[name] = value
        return node

    def location(self) -> Location:
        if not self.accept("at"):
            return UNKNOWN
        self.expect("(")
        parts = self.list_of(self.string, ")")
        if len(parts) != 3:
            raise self.error(f"a location has 3 parts (module, source, origin), found {len(parts)}")
        return Location(*parts)

    def string(self) -> str:
        text = self.expect_kind("string", "a string")
        try:
            return str(json.loads(text))
        except ValueError:
            self.position -= 1
            raise self.error(f"malformed string {text}") from None

    # Attributes

    def attribute(self) -> tuple[str, Attribute]:
        key = self.expect_kind("word", "an attribute name")
        self.expect("=")
        return key, self.attribute_value()

    def attribute_value(self) -> Attribute:
        token = self.token
        if token.kind == "string":
            return self.string()
        if token.kind == "number":
            return self.number()
        if token.kind == "expression":
            return self.expression()
        if self.accept("["):
            return tuple(self.list_of(self.attribute_value, "]"))
        if self.accept("const"):
            return self.constant()
        for word, value in (("none", None), ("true", True), ("false", False)):
            if self.accept(word):
                return value
        if token.text in _DTYPES:
            self.advance()
            return _DTYPES[token.text]
        raise self.error(f"expected an attribute value, found {self._found()}")

    def number(self) -> int | float:
        text = self.expect_kind("number", "a number")
        return int(text) if text.lstrip("-").isdigit() else float(text)

    def expression(self) -> sympy.Expr:
        text = self.expect_kind("expression", "an expression in backticks")
        return _parse_expression(text[1:-1], lambda message: self._error_at(self.tokens[self.position - 1].offset, message))

    def constant(self) -> Constant:
        type = self.tensor_type()
        if self.token.kind == "digest":
            digest = self.token.text[1:]
            if digest not in self.constants:
                raise self.error(
                    f"the data of constant {digest[:12]}... is not in this text; pass it in `constants` (mlc.ir.load_text reads it from the side file)"
                )
            self.advance()
            return self.constants[digest]
        self.expect("[")
        start = self.token
        numbers = self.list_of(self.number, "]")
        if len(numbers) != math.prod(type.static_shape):
            raise self._error_at(start.offset, f"{type} needs {math.prod(type.static_shape)} numbers, found {len(numbers)}")
        try:
            return ArrayConstant(
                np.array(numbers).astype(type.dtype.numpy).reshape(type.static_shape)
                if numbers
                else np.zeros(type.static_shape, type.dtype.numpy)
            )
        except (OverflowError, ValueError) as error:
            raise self._error_at(start.offset, f"the numbers do not fit {type}: {error}") from None

    # Types

    def type(self) -> Type:
        return TokenType() if self.accept("token") else self.tensor_type()

    def tensor_type(self) -> TensorType:
        if self.token.text not in _DTYPES:
            raise self.error(f"expected a type such as f32[1,3], found {self._found()}")
        dtype = _DTYPES[self.advance().text]
        start = self.token
        self.expect("[")
        shape = tuple(self.list_of(self.dim, "]"))
        layout = self.layout() if self.token.text == "{" and self._layout_follows() else None
        encoding = self.encoding() if self.accept("as") else Encoding()
        try:
            return TensorType(dtype, shape, layout, encoding)  # type: ignore[arg-type]
        except Error as error:
            raise self._error_at(start.offset, str(error)) from None

    def _layout_follows(self) -> bool:
        following = self.tokens[self.position + 1]
        return following.kind == "number" or following.text == "}"

    def dim(self) -> Dim:
        """Everything up to the next comma or bracket at this level is one dimension."""
        start, depth = self.token, 0
        while self.token.kind != "end" and not (depth == 0 and self.token.text in (",", "]")):
            depth += (self.token.text == "(") - (self.token.text == ")")
            self.advance()
        text = self.text[start.offset : self.token.offset].strip()
        if text.isdigit():
            return int(text)
        return _parse_expression(text, lambda message: self._error_at(start.offset, message))

    def layout(self) -> Layout:
        start = self.token
        self.expect("{")
        order: list[int] = []
        blocks: list[tuple[int, int]] = []
        padding = Padding.UNDEFINED
        while self.token.kind == "number":
            order.append(self.integer())
            self.accept(",")
        if self.accept(":"):
            while self.token.kind == "block":
                axis, size = self.advance().text.split("x")
                blocks.append((int(axis), int(size)))
                self.accept(",")
            if self.accept(":"):
                if self.integer() != 0:
                    raise self.error("padding in a layout is 0 or left out")
                padding = Padding.ZERO
        self.expect("}")
        try:
            return Layout(tuple(order), tuple(blocks), padding)
        except Error as error:
            raise self._error_at(start.offset, str(error)) from None

    def encoding(self) -> Encoding:
        name = self.expect_kind("word", "an encoding")
        parameters: list[tuple[str, int | str]] = []
        if self.accept("("):

            def parameter() -> tuple[str, int | str]:
                key = self.expect_kind("word", "a parameter")
                self.expect("=")
                return key, self.integer() if self.token.kind == "number" else self.expect_kind("word", "a parameter value")

            parameters = self.list_of(parameter, ")")
        return Encoding(name, tuple(parameters))


_EXPRESSION_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)|(\*\*|//|[-+*/(),]))")


def _parse_expression(text: str, fail: Callable[[str], TextFormError]) -> sympy.Expr:
    """A sum or product of integers, symbols, floor(...), Max(...), Min(...), as sympy prints them; nothing is evaluated by Python."""
    import sympy

    tokens: list[str] = []
    offset = 0
    while offset < len(text.rstrip()):
        match = _EXPRESSION_TOKEN.match(text, offset)
        if match is None:
            raise fail(f"malformed dimension '{text}'")
        tokens.append(match.group().strip())
        offset = match.end()
    functions = {"floor": sympy.floor, "ceiling": sympy.ceiling, "Max": sympy.Max, "Min": sympy.Min, "Mod": sympy.Mod}
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else ""

    def take(expected: str = "") -> str:
        nonlocal position
        token = peek()
        if not token or (expected and token != expected):
            raise fail(f"malformed dimension '{text}'")
        position += 1
        return token

    def addition() -> sympy.Expr:
        left = product()
        while peek() in ("+", "-"):
            left = left + product() if take() == "+" else left - product()
        return left

    def product() -> sympy.Expr:
        left = unary()
        while peek() in ("*", "/", "//"):
            operator, right = take(), unary()
            left = left * right if operator == "*" else left / right if operator == "/" else sympy.floor(left / right)
        return left

    def unary() -> sympy.Expr:
        if peek() == "-":
            take()
            return -unary()
        base = atom()
        if peek() == "**":
            take()
            return base ** unary()
        return base

    def atom() -> sympy.Expr:
        token = take()
        if token == "(":
            inner = addition()
            take(")")
            return inner
        if token.isdigit():
            return sympy.Integer(token)
        if token in functions and peek() == "(":
            take("(")
            arguments = [addition()]
            while peek() == ",":
                take()
                arguments.append(addition())
            take(")")
            return functions[token](*arguments)
        if token.isidentifier():
            return sympy.Symbol(token, integer=True, positive=True)
        raise fail(f"malformed dimension '{text}'")

    result = addition()
    if position != len(tokens):
        raise fail(f"malformed dimension '{text}'")
    return result
