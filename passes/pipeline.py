"""Pipelines: passes in order, with a text form that can be pasted into a bug report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from ..errors import Error, PassError, PipelineSyntaxError
from ..ir import Graph, map_regions
from .base import Context, Option, Pass, passes
from .instruments import Instrument

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_VALUE = re.compile(r"[^,{}=\s]+")


@dataclass(frozen=True)
class Pipeline:
    """Passes applied one after the other, to the graph and to the regions of its control flow.

    ``str(pipeline)`` and :meth:`parse` are each other's inverse.
    """

    passes: tuple[Pass, ...]

    @staticmethod
    def parse(text: str) -> Pipeline:
        """The pipeline of a text such as ``simplify,fuse{max_ops=24},layout``.

        PipelineSyntaxError, with the position and what is known there, when the text is malformed.
        """
        return Pipeline(tuple(_Parser(text).pipeline()))

    def run(self, graph: Graph, ctx: Context, instruments: Iterable[Instrument] = ()) -> Graph:
        """The graph after all passes. PassError, naming the pass, when a pass fails or an instrument finds a fault."""
        watching = tuple(instruments)
        for position, step in enumerate(self.passes):
            for instrument in watching:
                instrument.before(position, step, graph)
            try:
                result = apply_everywhere(step, graph, ctx)
            except Error:
                raise
            except Exception as error:
                raise PassError(f"pass {position} '{step}' failed on graph @{graph.name}: {type(error).__name__}: {error}") from error
            for instrument in reversed(watching):
                instrument.after(position, step, graph, result)
            graph = result
        return graph

    def __str__(self) -> str:
        return ",".join(str(step) for step in self.passes)


def apply_everywhere(step: Pass, graph: Graph, ctx: Context) -> Graph:
    """``graph`` with ``step`` applied to the regions of its control flow, innermost first, and then to itself."""
    inner = replace(ctx, nested=True)
    return step.apply(map_regions(graph, lambda region: apply_everywhere(step, region, inner)), ctx)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def pipeline(self) -> list[Pass]:
        found: list[Pass] = []
        self._space()
        if self.position == len(self.text):
            return found
        while True:
            found.append(self._pass())
            if self.position == len(self.text):
                return found
            self._expect(",")

    def _error(self, message: str, position: int | None = None) -> PipelineSyntaxError:
        position = self.position if position is None else position
        return PipelineSyntaxError(f"{message} at position {position}\n  {self.text}\n  {' ' * position}^")

    def _space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def _found(self) -> str:
        return f"'{self.text[self.position]}'" if self.position < len(self.text) else "the end"

    def _expect(self, character: str) -> None:
        if not self.text.startswith(character, self.position):
            raise self._error(f"expected '{character}', found {self._found()}")
        self.position += 1
        self._space()

    def _match(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self.text, self.position)
        if match is None:
            raise self._error(f"expected {what}, found {self._found()}")
        self.position = match.end()
        self._space()
        return match.group()

    def _pass(self) -> Pass:
        start = self.position
        name = self._match(_NAME, "the name of a pass")
        known = passes()
        if name not in known:
            raise self._error(f"no pass is called '{name}' (known: {', '.join(known)})", start)
        kind = known[name]
        defaults: dict[str, Option] = {item.name: item.default for item in fields(kind)}  # type: ignore[misc]
        options: dict[str, Option] = {}
        if self.position < len(self.text) and self.text[self.position] == "{":
            self._expect("{")
            while not self.text.startswith("}", self.position):
                if options:
                    self._expect(",")
                start = self.position
                key = self._match(_KEY, "the name of an option")
                if key not in defaults:
                    raise self._error(f"pass '{name}' has no option '{key}' (known: {', '.join(defaults) or 'none'})", start)
                if key in options:
                    raise self._error(f"option '{key}' of pass '{name}' is given twice", start)
                self._expect("=")
                options[key] = self._value(key, defaults[key])
            self._expect("}")
        return kind(**options)

    def _value(self, key: str, default: Option) -> Option:
        start = self.position
        text = self._match(_VALUE, f"a value for '{key}'")
        try:
            if isinstance(default, bool):
                return {"true": True, "false": False}[text]
            return type(default)(text)
        except (KeyError, ValueError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(default), "a text")
            raise self._error(f"option '{key}' needs {wanted}, not '{text}'", start) from None
