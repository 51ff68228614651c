"""The tokens of the text form, and a reader that goes through them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from ..errors import Error, TextFormError

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

MAX_DIGITS = 20
# Those of the largest 64-bit integers, with a sign.

_Item = TypeVar("_Item")


class Token(NamedTuple):
    kind: str
    text: str
    offset: int


class TokenReader:
    """Goes through the tokens of ``text``; what is not as expected is a TextFormError with line and column."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokenise())
        self.position = 0
        self.depth = 0

    def _tokenise(self) -> Iterator[Token]:
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup
            assert kind is not None
            token = Token(kind, match[kind], match.start(kind))
            if kind == "unexpected":
                raise self.error_at(token.offset, f"unexpected character {token.text!r}")
            yield token
            if kind == "end":
                return

    def error_at(self, offset: int, message: str) -> TextFormError:
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        quoted = self.text.split("\n")[line - 1].strip()
        return TextFormError(f"line {line}, column {column}: {message}\n  {quoted}")

    def error(self, message: str) -> TextFormError:
        return self.error_at(self.token.offset, message)

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def advance(self) -> Token:
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
            raise self.error(f"expected '{text}', found {self.found()}")

    def expect_kind(self, kind: str, what: str) -> str:
        if self.token.kind != kind:
            raise self.error(f"expected {what}, found {self.found()}")
        return self.advance().text if kind != "end" else ""

    def found(self) -> str:
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
            raise self.error_at(start.offset, f"expected an integer, found '{start.text}'")
        return number

    def number(self) -> int | float:
        start = self.token
        text = self.expect_kind("number", "a number")
        if not text.lstrip("-").isdigit():
            return float(text)
        if len(text) > MAX_DIGITS:
            raise self.error_at(start.offset, f"a number of {len(text)} digits; integers have at most {MAX_DIGITS}")
        return int(text)

    def string(self) -> str:
        text = self.expect_kind("string", "a string")
        try:
            return str(json.loads(text))
        except ValueError:
            self.position -= 1
            raise self.error(f"malformed string {text}") from None

    def guarded(self, start: Token, make: Callable[[], _Item]) -> _Item:
        """What ``make`` returns; its errors become text form errors at ``start``."""
        try:
            return make()
        except Error as error:
            raise self.error_at(start.offset, str(error)) from None
