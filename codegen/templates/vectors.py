"""Arithmetic on whole vector registers: expressions over lanes, for templates that say what each register holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ..emit import Emitter, Expr, ramp, spread
from ..target import Target


class Vectors:
    """Loads, stores and combines vectors of the target's ``lanes`` of fp32. Every result is bound to a variable of its own."""

    def __init__(self, emitter: Emitter, target: Target) -> None:
        self.lanes = target.vector_lanes
        self._emitter = emitter
        self._fused = "fma" in target.features
        self._dtype = f"float32x{self.lanes}" if self.lanes > 1 else "float32"

    def load(self, buffer: Any, offset: Expr | int) -> Expr:
        return self._bound(tirx.BufferLoad(buffer, [ramp(offset, self.lanes)]))

    def store(self, buffer: Any, offset: Expr | int, value: Expr) -> None:
        self._emitter.emit(tirx.BufferStore(buffer, value, [ramp(offset, self.lanes)]))

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

    def integers(self, number: int, dtype: str = "int32") -> Expr:
        return spread(tirx.const(number, dtype), self.lanes)

    def masked(self, a: Expr, mask: int) -> Expr:
        """The bits of integers ``a`` that are set in ``mask``."""
        return self._bound(tirx.bitwise_and(a, self.integers(mask, _element(a))))

    def shifted(self, a: Expr, places: int) -> Expr:
        """Integers shifted to the right (the sign moves in), by negative ``places`` to the left."""
        if places == 0:
            return a
        count = self.integers(abs(places), _element(a))
        return self._bound(tirx.shift_right(a, count) if places > 0 else tirx.shift_left(a, count))

    def united(self, a: Expr, b: Expr) -> Expr:
        """The bits of ``a`` or ``b``."""
        return self._bound(tirx.bitwise_or(a, b))

    def flipped(self, a: Expr, mask: int) -> Expr:
        """Integers with the bits of ``mask`` inverted."""
        return self._bound(tirx.bitwise_xor(a, self.integers(mask, _element(a))))

    def converted(self, a: Expr) -> Expr:
        """Integers or halves as fp32."""
        return self._bound(tirx.Cast(self._dtype, a))

    def widened(self, a: Expr) -> Expr:
        """Unsigned integers as int32."""
        return self._bound(tirx.Cast(f"int32x{self.lanes}" if self.lanes > 1 else "int32", a))

    def reinterpreted(self, a: Expr, element: str) -> Expr:
        """The same bits as elements of another dtype of the same width."""
        return self._bound(tirx.reinterpret(f"{element}x{self.lanes}" if self.lanes > 1 else element, a))

    def where_negative(self, integers: Expr, then: Expr, otherwise: Expr) -> Expr:
        return self._bound(tirx.Select(tirx.LT(integers, self.integers(0)), then, otherwise))

    def permuted(self, table: Expr, indices: Expr) -> Expr:
        """For each lane the lane of ``table`` that the low bits of ``indices`` number: one instruction, of 8 or 16 lanes."""
        if self.lanes == 16:
            return self._bound(tirx.call_llvm_pure_intrin(self._dtype, "llvm.x86.avx512.permvar.sf.512", table, indices))
        return self._bound(tirx.call_llvm_pure_intrin(self._dtype, "llvm.x86.avx2.permps", table, indices))

    def gathered(self, buffer: Any, indices: Expr) -> Expr:
        """The elements of ``buffer`` that the lanes of ``indices`` number."""
        return self._bound(tirx.BufferLoad(buffer, [indices]))

    def _bound(self, value: Expr) -> Expr:
        variable = tirx.Var(self._emitter.fresh("v"), value.ty)
        self._emitter.emit(tirx.Bind(variable, value))
        return variable


def _element(value: Expr) -> str:
    """The dtype of one lane."""
    return str(value.ty.dtype).partition("x")[0]


def sum_of(vectors: Vectors, values: Sequence[Expr]) -> Expr:
    """The sum of at least one vector, from left to right."""
    total = values[0]
    for value in values[1:]:
        total = vectors.add(total, value)
    return total
