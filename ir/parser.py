"""Reads the text form of graphs; the grammar is described in :mod:`mlc.ir.printer`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import Error, TextFormError
from .constant import ArrayConstant, Constant
from .encoding import DENSE, VALUES, Encoding, Parameter
from .expression import parse_expression
from .graph import UNKNOWN, Attribute, Graph, Location, Node, Value
from .layout import Layout, Padding
from .ops import lookup
from .types import Dim, DType, SymbolRange, TensorType, TokenType, Type
from .verifier import verify

_TOKEN = re.compile(
    r"""(?:\s+|//[^\n]*)*(?:
        (?P<value>%[\w.$-]+)
      | (?P<block>\d+x\d+)
      | (?P<range>\.\.)
      | (?P<number>-?(?:\d+\.(?!\.)\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+|inf\b)|nan\b|inf\b)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<punctuation>[(){}\[\],:=*+/-])
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<expression>`[^`\n]*`)
      | (?P<symbol>@[\w.$-]+)
      | (?P<digest>\#[0-9a-f]+)
      | (?P<unexpected>.)
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)

_MAX_DEPTH = 40
# Brackets and regions nested deeper than this are refused, before Python's own stack ends.

_MAX_DIGITS = 20
# Those of the largest 64-bit integers, with a sign.

_DTYPES = {dtype.text: dtype for dtype in DType}
_Item = TypeVar("_Item")


class _Token(NamedTuple):
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
    type = parser.any_type()
    parser.expect_kind("end", "the end of the type")
    return type


class _Parser:
    def __init__(self, text: str, constants: Mapping[str, Constant]) -> None:
        self.text = text
        self.constants = constants
        self.tokens = list(self._tokenise())
        self.position = 0
        self.depth = 0

    def _tokenise(self) -> Iterator[_Token]:
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup
            assert kind is not None
            token = _Token(kind, match[kind], match.start(kind))
            if kind == "unexpected":
                raise self._error_at(token.offset, f"unexpected character {token.text!r}")
            yield token
            if kind == "end":
                return

    def _error_at(self, offset: int, message: str) -> TextFormError:
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        quoted = self.text.split("\n")[line - 1].strip()
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

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Counts one level of nesting; TextFormError when there are too many."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"more than {_MAX_DEPTH} levels of nesting")
        yield
        self.depth -= 1

    def integer(self) -> int:
        start = self.token
        number = self.number()
        if not isinstance(number, int):
            raise self._error_at(start.offset, f"expected an integer, found '{start.text}'")
        return number

    def guarded(self, start: _Token, make: Callable[[], _Item]) -> _Item:
        """What ``make`` returns; its errors become text form errors at ``start``."""
        try:
            return make()
        except Error as error:
            raise self._error_at(start.offset, str(error)) from None

    # Graphs and nodes

    def graph(self) -> Graph:
        self.expect("graph")
        name = self.expect_kind("symbol", "the graph's name, such as @main")[1:]
        scope: dict[str, Value] = {}
        self.expect("(")

        def one_input() -> Value:
            value_name = self._new_name(scope)
            self.expect(":")
            scope[value_name] = Value(self.any_type(), value_name, None, len(scope))
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
        start = self.token
        name = self.expect_kind("word", "a symbol")
        if name in symbols:
            raise self._error_at(start.offset, f"the symbol {name} is declared twice")
        self.expect("in")
        lower = self.integer()
        self.expect("..")
        upper = self.integer() if self.token.kind == "number" else None
        symbols[name] = self.guarded(start, lambda: SymbolRange(lower, upper))

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
        start = self.token
        definition = self.guarded(start, lambda: lookup(start.text))
        self.advance()
        self.expect("(")
        inputs = self.list_of(lambda: self.operand(scope), ")")
        given: dict[str, Attribute] = {}
        if self.accept("{"):
            self._attributes(given)
        attributes = self.guarded(
            start, lambda: definition.normalise_axes(definition.complete_attributes(given), [value.type for value in inputs])
        )
        self.expect(":")
        types = [self.any_type() for _ in names[:1]]
        for _ in names[1:]:
            self.expect(",")
            types.append(self.any_type())
        location = self.location()
        regions = []
        while self.accept("{"):
            with self.nested():
                regions.append(self.graph())
            self.expect("}")
        node = Node(definition.name, inputs, attributes, types, regions, location)
        for name, value in zip(names, node.outputs, strict=True):
            value.name = name
            scope[name] = value
        return node

    def _attributes(self, given: dict[str, Attribute]) -> None:
        def attribute() -> None:
            start = self.token
            key = self.expect_kind("word", "an attribute name")
            if key in given:
                raise self._error_at(start.offset, f"the attribute '{key}' is given twice")
            self.expect("=")
            given[key] = self.attribute_value()

        self.list_of(attribute, "}")

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

    def attribute_value(self) -> Attribute:
        token = self.token
        if token.kind == "string":
            return self.string()
        if token.kind == "number":
            return self.number()
        if token.kind == "expression":
            return self.expression()
        if self.accept("["):
            with self.nested():
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
        start = self.token
        text = self.expect_kind("number", "a number")
        if not text.lstrip("-").isdigit():
            return float(text)
        if len(text) > _MAX_DIGITS:
            raise self._error_at(start.offset, f"a number of {len(text)} digits; integers have at most {_MAX_DIGITS}")
        return int(text)

    def expression(self) -> Dim:
        start = self.token
        text = self.expect_kind("expression", "an expression in backticks")
        return parse_expression(text[1:-1], lambda message: self._error_at(start.offset, message))

    def constant(self) -> Constant:
        start = self.token
        type = self.tensor_type()
        if not type.layout.is_row_major or not type.is_static:
            raise self._error_at(start.offset, f"a constant's type has a static shape and no layout, {type} does not fit")
        if self.token.kind == "digest":
            return self._elided_constant(type)
        if not type.encoding.is_dense:
            raise self._error_at(self.token.offset, f"an encoded constant is named by its #digest, found {self._found()}")
        data = self.token
        self.expect("[")
        numbers = self.list_of(self.number, "]")
        if len(numbers) != type.elements:
            raise self._error_at(data.offset, f"{type} needs {type.elements} numbers, found {len(numbers)}")
        for number in numbers:
            if not _can_hold(type.dtype, number):
                raise self._error_at(data.offset, f"{type.dtype.text} cannot hold {number}")
        wide = np.array(numbers, dtype=np.float64 if type.dtype.is_float else np.int64)
        return ArrayConstant(wide.astype(type.dtype.numpy).reshape(type.static_shape))

    def _elided_constant(self, type: TensorType) -> Constant:
        start = self.advance()
        constant = self.constants.get(start.text[1:])
        if constant is None:
            raise self._error_at(
                start.offset,
                f"the data of constant {start.text[:13]}... is not in this text; "
                "pass it in `constants` (mlc.ir.load_text reads it from the side file)",
            )
        if constant.type != type:
            raise self._error_at(start.offset, f"constant {start.text[:13]}... is {constant.type}, the text says {type}")
        return constant

    # Types

    def any_type(self) -> Type:
        if not self.accept("token"):
            return self.tensor_type()
        if not self.accept("("):
            return TokenType()
        buffer = self.tensor_type()
        self.expect(")")
        return TokenType(buffer)

    def tensor_type(self) -> TensorType:
        if self.token.text not in _DTYPES:
            raise self.error(f"expected a type such as f32[1,3], found {self._found()}")
        dtype = _DTYPES[self.advance().text]
        start = self.token
        self.expect("[")
        shape = tuple(self.list_of(self.dim, "]"))
        layout = self.layout() if self.token.text == "{" and self._layout_follows() else None
        encoding = self.encoding() if self.accept("as") else DENSE
        return self.guarded(start, lambda: TensorType(dtype, shape, layout, encoding))  # type: ignore[arg-type]

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
        if text.isdigit() and len(text) <= _MAX_DIGITS:
            return int(text)
        return parse_expression(text, lambda message: self._error_at(start.offset, message))

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
                axis, size = self.token.text.split("x")
                if len(self.advance().text) > 2 * _MAX_DIGITS:
                    raise self._error_at(start.offset, "a number has too many digits")
                blocks.append((int(axis), int(size)))
                self.accept(",")
            if self.accept(":"):
                if self.integer() != 0:
                    raise self.error("padding in a layout is 0 or left out")
                padding = Padding.ZERO
        self.expect("}")
        return self.guarded(start, lambda: Layout(tuple(order), tuple(blocks), padding))

    def encoding(self) -> Encoding:
        name = self.expect_kind("word", "an encoding")
        given: list[tuple[str, Parameter] | Encoding] = []
        if self.accept("("):
            given = self.list_of(self._encoding_parameter, ")")
        inner = [each for each in given if isinstance(each, Encoding)]
        if len(inner) > 1:
            raise self.error(f"encoding {name} gives '{VALUES}' twice")
        return Encoding(name, tuple(each for each in given if not isinstance(each, Encoding)), inner[0] if inner else None)

    def _encoding_parameter(self) -> tuple[str, Parameter] | Encoding:
        """A parameter, or the encoding of the numbers that a sparse one stores."""
        key = self.expect_kind("word", "a parameter")
        self.expect("=")
        if key == VALUES:
            with self.nested():
                return self.encoding()
        if self.token.kind == "number":
            return key, self.number()
        if self.token.kind == "digest":
            return key, self.advance().text
        return key, self.expect_kind("word", "a parameter value")


def _can_hold(dtype: DType, number: int | float) -> bool:
    """Whether ``dtype`` has the number of the text, rounded if it is a float."""
    if dtype.is_float:
        with np.errstate(over="ignore"):
            return not math.isfinite(number) or bool(np.isfinite(np.array(float(number)).astype(dtype.numpy)))
    if not isinstance(number, int):
        return False
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        return int(limits.min) <= number <= int(limits.max)
    return dtype is DType.BOOL and number in (0, 1)
