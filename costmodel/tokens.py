"""Kernels as text, and text as tokens: what the text model reads.

The text of a kernel says what is computed (the task's graph) and how (its scheduled loops, as TVM prints them). Names lose the numbers
that make them unique. Numbers keep their size: a token for the power of two, and exact values beside it. What unrolling repeats is
written once with how often, so that a kernel is some hundred tokens whatever it is unrolled to; and each token carries how often
the loops around it run it.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..codegen.task import Task
from .loop_trips import Bindings, bound_by

MAX_TOKENS = 1024
"""Of a kernel. Statements that run least are left out of longer ones."""

CHANNELS = ("magnitude", "alignment", "executions", "copies", "depth")
"""What is known of a token in numbers: of a number log2(1 + value) and the trailing zeros of its binary form; of the statement it
stands in log2(1 + how often it runs), the same of how often it is written, and how deep it stands. Each over 16."""

_LARGEST_WORD = 16
"""Whole numbers up to this one are words of their own."""
_LONGEST_REPEAT = 16
"""Statements in a row that may repeat together."""

_LEXER = re.compile(r"(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<word>[%@A-Za-z_](?:[\w.]*\w)?)|(?P<sign>[\[=<>+\-*/%&|])")
_NOISE = re.compile(r": T\.let\[T\.int32\]|T\.let\[|T\.call_llvm_pure_intrin|, data=.*$|T\.(?=\w)")
"""What TVM prints without saying anything of its own."""
_TYPE = re.compile(r"[a-z]+\d+(?:x\d+)?$")
_TYPES = ("float", "int", "uint", "bfloat", "bool", "f", "i", "u", "bf", "in", "out")
"""Words whose number says something."""
_OFFSETS = re.compile(r" [+-] #")

Pair: TypeAlias = "tuple[str, float]"
"""A word, and its value where it is a number, else -1."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """A text as words, and the numbers that :data:`CHANNELS` name [words, channels]."""

    words: tuple[str, ...]
    channels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class _Statement:
    """A line with what is indented below it; or, without a line, statements that stand ``times`` times in a row.

    ``shape`` is equal for statements that differ only in numbers that are no extents of loops.
    """

    line: tuple[Pair, ...]
    body: tuple[_Statement, ...]
    shape: str | int
    trips: float = 1.0
    times: int = 1


def kernel_tokens(task: Task, loops: str, most: int = MAX_TOKENS) -> Tokens:
    """The tokens of a kernel: facts of its target, its graph, and the text of its ``loops``; at most ``most``."""
    heading = [(list(_pairs(line)), 0.0, 0, 0) for line in (_facts(task), *str(task.graph).splitlines()) if line.strip()]
    # A graph says what its loops say again, so that it may have half of the room at most.
    heading = _shortened(heading, most // 2)
    lines = [*heading, *_shortened(list(_flat(_collapsed(_parsed(loops)))), most - sum(len(line[0]) for line in heading))]
    words = tuple(sys.intern(word) for line in lines for word, _ in line[0])
    numbers = [channels for line in lines for channels in _channels(*line)]
    return Tokens(words, np.asarray(numbers, dtype=np.float32).reshape(len(words), len(CHANNELS)))


def _facts(task: Task) -> str:
    """What a schedule depends on besides the graph. Numbers rather than names of processors, so that a new one is no unknown word."""
    target = task.target
    caches = f"l {target.l1_bytes} l {target.l2_bytes} l {target.l3_bytes}"
    machine = f"lanes {target.vector_lanes} registers {target.vector_registers} fma {target.fma_units} {caches}"
    constants = " ".join(f"constant in{position}" for position in sorted(task.constant_inputs))
    return f"{machine} threads {task.threads} {task.numerics.value} {constants}"


def _pairs(line: str) -> Iterator[Pair]:
    for match in _LEXER.finditer(line):
        text = match[0]
        if match.lastgroup == "number":
            yield _number_word(text), float(text)
        else:
            yield _stem(text) if match.lastgroup == "word" else text, -1.0


def _number_word(text: str) -> str:
    if not text.isdigit():
        return "real"
    value = int(text)
    return text if value <= _LARGEST_WORD else f"2^{value.bit_length() - 1}"


@lru_cache(maxsize=8192)
def _stem(word: str) -> str:
    """A name without what makes it unique, a type or a parameter as it is."""
    if _TYPE.match(word) and word.rstrip("0123456789x") in _TYPES:
        return word
    return word.rstrip("0123456789") or word


def _parsed(loops: str) -> tuple[_Statement, ...]:
    """The statements of a text whose structure is its indentation."""
    lines = [_NOISE.sub("", line) for line in loops.splitlines() if line.strip() and not line.lstrip().startswith(("#", "@", "def "))]
    statements, _ = _block(lines, 0, -1, {})
    return statements


def _block(lines: Sequence[str], start: int, outer: int, known: Bindings) -> tuple[tuple[_Statement, ...], int]:
    """The statements from line ``start`` that are indented further than ``outer``, and the line after them."""
    found: list[_Statement] = []
    while start < len(lines) and (indent := _indent(lines[start])) > outer:
        text = lines[start]
        line = tuple(_pairs(text))
        below, trips = bound_by(text, known)
        is_loop = text.lstrip().startswith("for ")
        body, start = _block(lines, start + 1, indent, below)
        if not is_loop:
            known = below
        found.append(_Statement(line, body, _shape(line, is_loop), trips))
    return tuple(found), start


def _shape(line: Sequence[Pair], is_loop: bool) -> str:
    if is_loop:
        return " ".join(word if value < 0 else repr(value) for word, value in line)
    # An offset of zero is not printed, so that statements with and without one are alike.
    return _OFFSETS.sub("", " ".join(word if value < 0 else "#" for word, value in line))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _collapsed(statements: Sequence[_Statement]) -> tuple[_Statement, ...]:
    """Each run of equal statements, or of equal groups of them, once; innermost runs and short groups first."""
    found = tuple(_collapsed_body(statement) for statement in statements)
    for period in range(1, _LONGEST_REPEAT + 1):
        found = _collapse_period(found, period)
    return found


def _collapsed_body(statement: _Statement) -> _Statement:
    if not statement.body:
        return statement
    body = _collapsed(statement.body)
    return replace(statement, body=body, shape=hash((statement.shape, *(part.shape for part in body))))


def _collapse_period(statements: tuple[_Statement, ...], period: int) -> tuple[_Statement, ...]:
    """``statements`` with each run of equal groups of ``period`` statements written once."""
    shapes = [statement.shape for statement in statements]
    found: list[_Statement] = []
    position = 0
    while position < len(statements):
        end = position + period
        while end < len(shapes) and shapes[end] == shapes[end - period]:
            end += 1
        times = (end - position) // period
        if times < 2:
            found.append(statements[position])
            position += 1
        else:
            body = statements[position : position + period]
            found.append(_Statement((), body, hash((times, *shapes[position : position + period])), times=times))
            position += times * period
    return tuple(found)


Line: TypeAlias = "tuple[list[Pair], float, int, int]"
"""The words of a statement, how often it runs and is written, and how deep it stands."""


def _flat(statements: Sequence[_Statement], runs: float = 1.0, copies: int = 1, depth: int = 0) -> Iterator[Line]:
    for statement in statements:
        if statement.times > 1:
            yield [("times", -1.0), (_number_word(str(statement.times)), float(statement.times))], runs, copies, depth
            yield from _flat(statement.body, runs * statement.times, copies * statement.times, depth)
            continue
        yield list(statement.line), runs, copies, depth
        yield from _flat(statement.body, runs * statement.trips, copies, depth + 1)


def _shortened(lines: Sequence[Line], most: int) -> list[Line]:
    """The lines that run most often, in their order, as many as have room."""
    room, kept = most, set[int]()
    for position in sorted(range(len(lines)), key=lambda position: (-lines[position][1], position)):
        if len(lines[position][0]) <= room:
            room -= len(lines[position][0])
            kept.add(position)
    return [lines[position] for position in sorted(kept)]


def _channels(line: Sequence[Pair], runs: float, copies: int, depth: int) -> Iterator[tuple[float, ...]]:
    of_statement = math.log2(1 + runs) / 16, math.log2(1 + copies) / 16, depth / 16
    for _, value in line:
        whole = int(value) if value >= 1 and value.is_integer() else 0
        zeros = (whole & -whole).bit_length() - 1 if whole else 0
        yield math.log2(1 + max(value, 0.0)) / 16, zeros / 16, *of_statement


PADDING, UNKNOWN, RESERVED = 0, 1, 2
"""Numbers of a vocabulary that are no words of its own: for what fills a batch, and for words that training did not see; how many."""


@dataclass(frozen=True)
class Vocabulary:
    """Words with a number of their own, from :data:`RESERVED` on."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {word: number for number, word in enumerate(self.words, RESERVED)})

    @staticmethod
    def of(texts: Iterable[Tokens], rarest: int = 2) -> Vocabulary:
        """Every word that ``rarest`` kernels have at least, the most frequent first."""
        counts = Counter(word for text in texts for word in set(text.words))
        return Vocabulary(tuple(word for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count >= rarest))

    def __len__(self) -> int:
        return len(self.words) + RESERVED

    def encode(self, text: Tokens) -> NDArray[np.int64]:
        """The number of each word."""
        numbers: Mapping[str, int] = self._numbers  # type: ignore[attr-defined]
        return np.asarray([numbers.get(word, UNKNOWN) for word in text.words], dtype=np.int64)
