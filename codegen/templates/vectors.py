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

    def _bound(self, value: Expr) -> Expr:
        variable = tirx.Var(self._emitter.fresh("v"), value.ty)
        self._emitter.emit(tirx.Bind(variable, value))
        return variable


def sum_of(vectors: Vectors, values: Sequence[Expr]) -> Expr:
    """The sum of at least one vector, from left to right."""
    total = values[0]
    for value in values[1:]:
        total = vectors.add(total, value)
    return total
