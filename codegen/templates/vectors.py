"""Arithmetic on whole vector registers: expressions over lanes, for templates that say what each register holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ..emit import Emitter, Expr, ramp, spread
from ..target import Target
from .wide_instructions import DOT_BYTES, pair_products


class Vectors:
    """Loads, stores and combines vectors of the target's ``lanes`` of fp32. Every result is bound to a variable of its own."""

    def __init__(self, emitter: Emitter, target: Target) -> None:
        self.lanes = target.vector_lanes
        self._emitter = emitter
        self._fused = "fma" in target.features
        self._dtype = f"float32x{self.lanes}" if self.lanes > 1 else "float32"

    def load(self, buffer: Any, offset: Expr | int, lanes: int | None = None) -> Expr:
        return self._bound(tirx.BufferLoad(buffer, [ramp(offset, lanes or self.lanes)]))

    def store(self, buffer: Any, offset: Expr | int, value: Expr) -> None:
        self._emitter.emit(tirx.BufferStore(buffer, value, [ramp(offset, _lanes(value))]))

    def constant(self, number: float) -> Expr:
        return spread(tirx.const(number, "float32"), self.lanes)

    def add(self, a: Expr, b: Expr) -> Expr:
        return self._bound(a + b)

    def subtract(self, a: Expr, b: Expr) -> Expr:
        return self._bound(a - b)

    def multiply(self, factor: float, a: Expr) -> Expr:
        return self._bound(self.constant(factor) * a)

    def multiply_add(self, factor: float, a: Expr, b: Expr) -> Expr:
        """``factor * a + b``, rounded once where the target can."""
        if not self._fused:
            return self._bound(self.constant(factor) * a + b)
        return self._bound(tirx.call_llvm_pure_intrin(self._dtype, "llvm.fma", self.constant(factor), a, b))

    def fused(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """``a * b + c``, rounded once where the target can."""
        if not self._fused:
            return self._bound(a * b + c)
        return self._bound(tirx.call_llvm_pure_intrin(self._dtype, "llvm.fma", a, b, c))

    def times(self, a: Expr, b: Expr) -> Expr:
        return self._bound(a * b)

    def everywhere(self, buffer: Any, offset: Expr | int) -> Expr:
        """One element of ``buffer`` in every lane."""
        return spread(self._bound(self._emitter.load(buffer, offset)), self.lanes)

    def across(self, a: Expr) -> Expr:
        """The sum of the lanes, one number."""
        if self.lanes == 1:
            return a
        return self._bound(tirx.call_llvm_pure_intrin("float32", "llvm.vector.reduce.fadd", tirx.const(0.0, "float32"), a))

    def masked(self, a: Expr, mask: int) -> Expr:
        """The bits of integers ``a`` that are set in ``mask``."""
        return self._bound(tirx.bitwise_and(a, _everywhere(mask, a)))

    def shifted(self, a: Expr, places: int) -> Expr:
        """Integers shifted to the right (the sign moves in), by negative ``places`` to the left."""
        if places == 0:
            return a
        count = _everywhere(abs(places), a)
        return self._bound(tirx.shift_right(a, count) if places > 0 else tirx.shift_left(a, count))

    def united(self, a: Expr, b: Expr) -> Expr:
        """The bits of ``a`` or ``b``."""
        return self._bound(tirx.bitwise_or(a, b))

    def flipped(self, a: Expr, mask: int) -> Expr:
        """Integers with the bits of ``mask`` inverted."""
        return self._bound(tirx.bitwise_xor(a, _everywhere(mask, a)))

    def converted(self, a: Expr) -> Expr:
        """Integers or halves as fp32."""
        return self._bound(tirx.Cast(self._dtype, a))

    def widened(self, a: Expr) -> Expr:
        """Unsigned integers as int32."""
        return self._bound(tirx.Cast(f"int32x{self.lanes}" if self.lanes > 1 else "int32", a))

    def reinterpreted(self, a: Expr, element: str) -> Expr:
        """The same bits as elements of another dtype."""
        lanes = _lanes(a) * _bits(_element(a)) // _bits(element)
        return self._bound(tirx.reinterpret(f"{element}x{lanes}" if lanes > 1 else element, a))

    def where_negative(self, integers: Expr, then: Expr, otherwise: Expr) -> Expr:
        return self._bound(tirx.Select(tirx.LT(integers, _everywhere(0, integers)), then, otherwise))

    def permuted(self, table: Expr, indices: Expr) -> Expr:
        """For each lane the lane of ``table`` that the low bits of ``indices`` number: one instruction, of 8 or 16 lanes."""
        if self.lanes == 16:
            return self._bound(tirx.call_llvm_pure_intrin(self._dtype, "llvm.x86.avx512.permvar.sf.512", table, indices))
        return self._bound(tirx.call_llvm_pure_intrin(self._dtype, "llvm.x86.avx2.permps", table, indices))

    def bytes_looked_up(self, table: Expr, indices: Expr) -> Expr:
        """For each of 32 bytes the one that the low 4 bits of ``indices`` number, of the 16 in its half of ``table``; none has its high bit
        set."""
        return self._bound(tirx.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.pshuf.b", table, indices))

    def byte_products(self, unsigned: Expr, signed: Expr) -> Expr:
        """Of unsigned bytes and signed ones the products, each two neighbours added to an integer of 16 bits, which saturates; by one
        instruction of AVX2 or AVX-512."""
        function = {8: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.avx512.pmaddubs.w.512"}[self.lanes]
        return self._bound(tirx.call_llvm_pure_intrin(f"int16x{2 * self.lanes}", function, unsigned, signed))

    def quad_products_added(self, sums: Expr, unsigned: Expr, signed: Expr) -> Expr:
        """To int32 ``sums`` the products of four unsigned bytes and four signed ones in each lane; the kernel declares
        :data:`.wide_instructions.DOT_BYTES`."""
        return self._bound(tirx.call_pure_extern(f"int32x{self.lanes}", DOT_BYTES.name(self.lanes), sums, unsigned, signed))

    def neighbours_added(self, shorts: Expr) -> Expr:
        """Of integers of 16 bits the sums of each two, as int32."""
        return self._bound(pair_products(self.lanes, shorts, _everywhere(1, shorts)))

    def largest_across(self, integers: Expr) -> Expr:
        """The largest lane of int32."""
        return self._bound(tirx.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smax", integers))

    def larger(self, a: Expr, b: Expr) -> Expr:
        return self._bound(tirx.Max(a, b))

    def rounded(self, a: Expr) -> Expr:
        """Of fp32 the nearest integers, ties to even, as int32."""
        return self._bound(tirx.Cast(f"int32x{self.lanes}", self._bound(tirx.nearbyint(a))))

    def offset(self, integers: Expr, number: int) -> Expr:
        """Integers and a constant added."""
        return self._bound(integers + _everywhere(number, integers))

    def quads_transposed(self, words: Expr) -> Expr:
        """Of each four words the first bytes as one word, then their second bytes, and so on."""
        bytes_ = self.reinterpreted(words, "int8")
        order = [16 * quad + 4 * number + byte for quad in range(self.lanes // 4) for byte in range(4) for number in range(4)]
        mixed = self._bound(tirx.Shuffle([bytes_], [tirx.IntImm("int32", place) for place in order]))
        return self.reinterpreted(mixed, "int32")

    def quads_added(self, words: Expr) -> Expr:
        """The sum of the four signed bytes of each word."""
        pairs = self.byte_products(self.reinterpreted(_everywhere(0x01010101, words), "int8"), self.reinterpreted(words, "int8"))
        return self.neighbours_added(pairs)

    def lanes_of_quads_added(self, integers: Expr) -> Expr:
        """The sum of the first lanes of all quads of lanes, of their second ones, and so on: 4 lanes."""
        quads = range(0, self.lanes, 4)
        total, *others = (tirx.Shuffle([integers], [tirx.IntImm("int32", quad + lane) for lane in range(4)]) for quad in quads)
        for other in others:
            total = total + other
        return self._bound(total)

    def scaled(self, integers: Expr, factor: int) -> Expr:
        """Integers times a constant."""
        return self._bound(integers * _everywhere(factor, integers))

    def interleaved(self, low: Expr, high: Expr, *, upper: bool) -> Expr:
        """Of two vectors of integers in 32 bytes those of twice the width, whose low and high parts they are: from the lower halves of each
        16 bytes, or from the upper ones."""
        element = _element(low)
        count = 32 // (int(element.removeprefix("int")) // 8)
        part = count // 2
        order = []
        for half in range(2):
            for position in range(part // 2):
                place = half * part + position + (part // 2 if upper else 0)
                order += [place, count + place]
        mixed = self._bound(tirx.Shuffle([low, high], [tirx.IntImm("int32", place) for place in order]))
        return self._bound(tirx.reinterpret({"int8": "int16x16", "int16": "int32x8"}[element], mixed))

    def gathered(self, buffer: Any, indices: Expr) -> Expr:
        """The elements of ``buffer`` that the lanes of ``indices`` number."""
        return self._bound(tirx.BufferLoad(buffer, [indices]))

    def _bound(self, value: Expr) -> Expr:
        variable = tirx.Var(self._emitter.fresh("v"), value.ty)
        self._emitter.emit(tirx.Bind(variable, value))
        return variable


def _everywhere(number: int, like: Expr) -> Expr:
    """``number`` in as many lanes, of the same dtype, as ``like`` has."""
    return spread(tirx.const(number, _element(like)), _lanes(like))


def _lanes(value: Expr) -> int:
    return int(value.ty.lanes) if hasattr(value.ty, "lanes") else int(str(value.ty.dtype).partition("x")[2] or 1)


def _bits(element: str) -> int:
    return int(element.lstrip("bfloatuin"))


def _element(value: Expr) -> str:
    """The dtype of one lane."""
    return str(value.ty.dtype).partition("x")[0]


def sum_of(vectors: Vectors, values: Sequence[Expr]) -> Expr:
    """The sum of at least one vector, from left to right."""
    total = values[0]
    for value in values[1:]:
        total = vectors.add(total, value)
    return total
