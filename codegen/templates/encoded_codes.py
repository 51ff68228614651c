"""The codes of encoded weights as vectors of fp32: what a kernel does with the words of a chunk (:mod:`..weight_packing`).

Integers are read in one of two ways. *Plainly*, by a shift, a mask and a conversion. Or as *digits*, without the shift: a word whose bits
above a code are masked away is a number whose leading digit is the code, and whose other digits are the codes below it, which were read
before. A sum of products with activations needs no more: with ``T(j) = u(0) + u(1) B + ... + u(j) B**j`` and ``B = 2**bits``

    sum x(j) u(j)  =  sum y(j) T(j),    y(j) = x(j) / B**j - x(j + 1) / B**(j + 1)

where the last y of a word has no second term. Neither is the mask of a word's last code needed, since a processor converts signed integers:
its highest bit is stored inverted, which subtracts B / 2 from the code. That leaves three instructions for a vector of weights (mask,
conversion, multiply-add), and no operation that only few of the processor's units can do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..emit import Emitter, Expr
from ..target import Target
from ..weight_format import CHUNK, CodeKind, WeightFormat
from ..weight_packing import NIBBLE_COLUMNS, NIBBLE_ENTRIES, Arrangement, digits_per_word
from .vectors import Vectors

_BYTES = 32
"""Of a vector in which bytes are looked up."""


def digit_places(bits: int) -> list[tuple[int, int]]:
    """For each code of a chunk its word and digit; word ``bits`` is the one made of what is left of the others."""
    count = digits_per_word(bits)
    return [divmod(k, count) if k < bits * count else (bits, k - bits * count) for k in range(CHUNK)]


def digit_weights(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(a, b), float32 [CHUNK], with y(k) = a(k) x(k) - b(k) x(k + 1)."""
    places = digit_places(bits)
    own = np.array([2.0 ** (-bits * digit) for _, digit in places], np.float32)
    following = [own[k + 1] if k + 1 < CHUNK and places[k + 1][0] == places[k][0] else 0 for k in range(CHUNK)]
    return own, np.array(following, np.float32)


def digit_offsets(bits: int) -> np.ndarray:
    """float32 [CHUNK]: what the inverted bits subtract from each code."""
    last = digits_per_word(bits) - 1
    fills = 32 % bits == 0
    return np.array([(1 << (bits - 1)) if fills and digit == last else 0 for _, digit in digit_places(bits)], np.float32)


class Codes(ABC):
    """Reads the chunks of a panel of ``count`` vectors from ``words``, a buffer of the dtype :attr:`element`."""

    element = "int32"

    def __init__(self, emitter: Emitter, target: Target, form: WeightFormat, words: Any, count: int) -> None:
        self.vectors = Vectors(emitter, target)
        self._emitter = emitter
        self.form = form
        self.words = words
        self.count = count
        self.lanes = target.vector_lanes

    @abstractmethod
    def open(self, at: Expr) -> None:
        """Takes the chunk whose words begin with word ``at``."""

    @abstractmethod
    def numbers(self, position: int) -> Sequence[Expr]:
        """For code ``position`` of each column, one vector after the other, the fp32 factor."""

    def _load(self, at: Expr) -> Expr:
        return self.vectors.load(self.words, at)


class _Words(Codes):
    """Codes in words, the last of which is made of what is left of the others."""

    def open(self, at: Expr) -> None:
        self._at = at
        self._held: dict[tuple[int, int], Expr] = {}
        self._rests: list[list[Expr]] = [[] for _ in range(self.count)]

    def _word(self, word: int, vector: int) -> Expr:
        """The word of a column; words are asked for in order."""
        bits, vectors = self.form.bits, self.vectors
        if (word, vector) in self._held:
            return self._held[word, vector]
        if word == bits:
            made = self._rests[vector][0]
            for rest in self._rests[vector][1:]:
                made = vectors.united(made, rest)
        else:
            made = self._load(self._at + (word * self.count + vector) * self.lanes)
            used = bits * digits_per_word(bits)
            left = 32 - used
            if left:
                place = left * word
                self._rests[vector].append(vectors.masked(vectors.shifted(made, used - place), ((1 << left) - 1) << place))
        self._held = {key: value for key, value in self._held.items() if key[0] == word} | {(word, vector): made}
        return made


class Digits(_Words):
    """Integers as digits: ``numbers`` are the T(j) above, for staged activations y."""

    def numbers(self, position: int) -> Sequence[Expr]:
        bits, vectors = self.form.bits, self.vectors
        word, digit = digit_places(bits)[position]
        found = []
        for vector in range(self.count):
            held = self._word(word, vector)
            top = bits * (digit + 1)
            is_rest_top = word == bits and digit == CHUNK - bits * digits_per_word(bits) - 1
            found.append(vectors.converted(held if top == 32 or is_rest_top else vectors.masked(held, (1 << top) - 1)))
        return found


class Plain(_Words):
    """Integers one by one: ``numbers`` are the u."""

    def numbers(self, position: int) -> Sequence[Expr]:
        bits, vectors = self.form.bits, self.vectors
        word, digit = digit_places(bits)[position]
        found = []
        for vector in range(self.count):
            held = self._word(word, vector)
            code = vectors.masked(vectors.shifted(held, bits * digit), (1 << bits) - 1)
            if bits * (digit + 1) == 32:
                code = vectors.flipped(code, 1 << (bits - 1))
            found.append(vectors.converted(code))
        return found


class Indices(_Words):
    """Indices into a table, which ``numbers`` look up."""

    def __init__(self, emitter: Emitter, target: Target, form: WeightFormat, words: Any, count: int, table: Any) -> None:
        super().__init__(emitter, target, form, words, count)
        self._lookup = Lookup(self.vectors, target, table, form.tabulated)

    def numbers(self, position: int) -> Sequence[Expr]:
        word, digit = digit_places(self.form.bits)[position]
        return [self._lookup.at(self._word(word, vector), self.form.bits * digit) for vector in range(self.count)]


class Nibbles(Codes):
    """Indices of 4 bits that are looked up byte by byte, 32 bytes at a time: four bytes of 32 numbers are interleaved to these numbers."""

    element = "int8"

    def __init__(self, emitter: Emitter, target: Target, form: WeightFormat, words: Any, count: int) -> None:
        super().__init__(emitter, target, form, words, count)
        self._tables = [self.vectors.load(words, place * _BYTES, _BYTES) for place in range(4)]

    def open(self, at: Expr) -> None:
        self._at = at * 4

    def numbers(self, position: int) -> Sequence[Expr]:
        vectors = self.vectors
        step, number = divmod(position, 8)
        if number == 0:
            first = self._at + step * self.count * _BYTES
            self._codes = [vectors.load(self.words, first + vector * _BYTES, _BYTES) for vector in range(self.count)]
        if number % 4 == 0:
            self._found = [self._looked_up(codes, 4 * (number // 4)) for codes in self._codes]
        return [found[number % 4] for found in self._found]

    def _looked_up(self, codes: Expr, place: int) -> list[Expr]:
        """Four vectors of numbers, for the codes in the half of each byte that begins with bit ``place``."""
        vectors = self.vectors
        if place:
            # There is no shift of bytes: what words bring in from their neighbours is masked away.
            codes = vectors.reinterpreted(vectors.shifted(vectors.reinterpreted(codes, "int32"), place), "int8")
        indices = vectors.masked(codes, 15)
        parts = [vectors.bytes_looked_up(table, indices) for table in self._tables]
        found = []
        for upper in (False, True):
            low, high = (vectors.interleaved(parts[part], parts[part + 1], upper=upper) for part in (0, 2))
            found += [vectors.reinterpreted(vectors.interleaved(low, high, upper=half), "float32") for half in (False, True)]
        return found


class Halves(Codes):
    """Floats of 8 bits, by way of the floats of 16 bits with the same leading digits; ``numbers`` lack the format's factor."""

    element = "int16"

    def open(self, at: Expr) -> None:
        self._at = at
        self._pairs: list[Expr] = []

    def numbers(self, position: int) -> Sequence[Expr]:
        vectors = self.vectors
        if position % 2 == 0:
            first = self._at * 2 + position // 2 * (self.count * self.lanes)
            self._pairs = [self._load(first + vector * self.lanes) for vector in range(self.count)]
        found = []
        for pair in self._pairs:
            half = vectors.shifted(pair, -8) if position % 2 == 0 else pair
            # A sign, 4 digits of exponent and 3 of mantissa move below the highest digit of a wider exponent.
            half = vectors.masked(vectors.shifted(half, 1), -0x4080) if self.form.storage == "e4m3" else vectors.masked(half, -0x100)
            found.append(vectors.converted(vectors.reinterpreted(half, "float16")))
        return found


class Lookup:
    """A table of fp32 held in vector registers, as far as the target can look up there."""

    def __init__(self, vectors: Vectors, target: Target, table: Any, entries: int) -> None:
        self._vectors = vectors
        self._table = table
        self._entries = entries
        self._width = lookup_width(target)
        self._parts = [vectors.load(table, start) for start in range(0, entries, max(self._width, 1))] if self._width else []

    def at(self, words: Expr, place: int) -> Expr:
        """The entries whose numbers stand in ``words`` from bit ``place`` on."""
        vectors = self._vectors
        if not self._width:
            chosen = vectors.masked(vectors.shifted(words, place), self._entries - 1)
            return vectors.gathered(self._table, chosen)
        shifted = vectors.shifted(words, place)
        found = [vectors.permuted(part, shifted) for part in self._parts]
        if len(found) == 1:
            return found[0]
        low, high = found
        return vectors.where_negative(vectors.shifted(words, place - 31 + self._width.bit_length() - 1), high, low)


def lookup_width(target: Target) -> int:
    """Entries of fp32 among which one instruction looks up each lane of a vector; 0 where there is none."""
    if target.vector_lanes == 16 and "avx512f" in target.features:
        return 16
    return 8 if target.vector_lanes == 8 and "avx2" in target.features else 0


def arrangement_of(form: WeightFormat, target: Target) -> Arrangement:
    """How codes lie that are read one by one."""
    if form.tabulated == NIBBLE_ENTRIES and lookup_width(target) == NIBBLE_COLUMNS:
        return Arrangement.NIBBLES
    return {CodeKind.INTEGER: Arrangement.DIGITS, CodeKind.INDEX: Arrangement.INDICES, CodeKind.FLOAT: Arrangement.HALVES}[form.kind]
