"""Collects TIR statements in nested scopes, and simplifies index expressions with the ranges of the loops around them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import sym, tirx
from tvm.tirx import analysis

from ...ir import Dim, SymbolRange
from .division import truncating
from .extent import extent_of, is_dim, size_parameter
from .vector_functions import VectorFunction

Expr: TypeAlias = Any
"""A TIR expression (``tvm.ir.PrimExpr``)."""

_LARGEST = 2**31 - 1

CACHE_LINE = 64
"""Bytes."""
_READ, _DATA = tirx.IntImm("int32", 0), tirx.IntImm("int32", 1)
_SECOND_LEVEL = 2
"""Of the localities of llvm.prefetch; above it is the first level."""

INDEX = "int32"
"""The dtype of loop variables and offsets; tensors of 2**31 elements or more are refused (see :mod:`.kernel`)."""

SERIAL = tirx.ForKind.SERIAL
PARALLEL = tirx.ForKind.PARALLEL
VECTORIZED = tirx.ForKind.VECTORIZED
UNROLLED = tirx.ForKind.UNROLLED


def index(value: Dim) -> Expr:
    """An index constant, or the value of a symbolic dimension."""
    return extent_of(value) if is_dim(value) else tirx.IntImm(INDEX, value)


def bytes_of(dtype: str) -> int:
    """Bytes of an element of a TIR dtype that is no vector."""
    return np.dtype(dtype).itemsize


def ramp(start: Expr | int, lanes: int) -> Expr:
    """The place of ``lanes`` consecutive elements from ``start`` on; of one element, for targets without vectors, ``start``."""
    first = index(start) if isinstance(start, int) else start
    return tirx.Ramp(first, index(1), lanes) if lanes > 1 else first


def spread(value: Expr, lanes: int) -> Expr:
    """``value`` in every lane; for one lane ``value``."""
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def truth_as(value: Expr, dtype: str) -> Expr:
    """1 or 0 of ``dtype`` for a truth value (a cast, which TVM's code generator lacks for vectors of them)."""
    return tirx.Select(value, tirx.const(1, dtype), tirx.const(0, dtype))


@dataclass
class _VectorLoop:
    """An open vectorised loop: the number of the lane, their count, the statements around the loop, and variables that vary by lane;
    how many scopes are around it, and statements to come after it."""

    lane: Expr
    lanes: int
    around: list[Any]
    varying: set[Expr]
    depth: int
    after: list[Any]

    def varies(self, value: Expr) -> bool:
        """Whether ``value`` may differ between the lanes."""
        return any(variable in self.varying for variable in analysis.undefined_vars(value))


class Emitter:
    """Builds a TIR statement. Statements are appended to the innermost open scope.

    ``memo`` holds, for each open scope, expressions already bound there, so that an evaluator binds each only once; it is dropped
    with its scope.
    """

    def __init__(self) -> None:
        self.analyzer = sym.Analyzer()
        self._scopes: list[list[Any]] = [[]]
        self._memos: list[dict[Any, Expr]] = [{}]
        self._counter = 0
        self._vector_loop: _VectorLoop | None = None
        self._symbols: dict[str, SymbolRange] = {}
        self.vector_calls: set[str] = set()

    def declare_symbols(self, symbols: Mapping[str, SymbolRange]) -> None:
        """Tells the simplifier the bounds of size parameters."""
        self._symbols.update(symbols)
        for name, bounds in symbols.items():
            variable = size_parameter(name)
            upper = _LARGEST if bounds.upper is None else bounds.upper
            self.analyzer.update(variable, sym.ConstIntBound(bounds.lower, upper))

    def least(self, dim: Dim) -> int:
        """A number that ``dim`` is never below."""
        if isinstance(dim, int):
            return dim
        return max(int(self.analyzer.const_int_bound(self.analyzer.simplify(index(dim))).min_value), 0)

    def most(self, dim: Dim) -> int | None:
        """The number that ``dim`` never exceeds; None when nothing bounds it."""
        if isinstance(dim, int):
            return dim
        bound = int(self.analyzer.const_int_bound(self.analyzer.simplify(index(dim))).max_value)
        return bound if bound < _LARGEST else None

    def divides(self, number: int, dim: Dim) -> bool:
        """Whether ``dim`` is a multiple of ``number`` for all sizes."""
        if isinstance(dim, int):
            return dim % number == 0
        return bool(self.analyzer.can_prove_equal(index(dim) % number, index(0)))

    def fresh(self, name: str) -> str:
        self._counter += 1
        return f"{name}{self._counter}"

    def emit(self, statement: Any) -> None:
        """Appends a finished TIR statement."""
        self._scopes[-1].append(statement)

    def store(self, buffer: Any, value: Expr, offset: Expr | Dim) -> None:
        """``buffer[offset] = value``; the offset is simplified."""
        self.emit(tirx.BufferStore(buffer, value, [self.place(offset)]))

    def vector_store(self, buffer: Any, value: Expr, offset: Expr | Dim, store: Callable[[Any, Expr, Any, int], Any]) -> int:
        """Stores by ``store(buffer, first, vector, lanes)``, after the vectorised loop around, what the loop computes for consecutive
        places from ``first``, a multiple of ``lanes``, on; gives ``lanes``. Gives 0, and does nothing, where that is not known to be so.
        """
        loop = self._vector_loop
        if loop is None or loop.lanes & (loop.lanes - 1):
            return 0
        first = self.simplify(index(offset) - loop.lane if isinstance(offset, int) or is_dim(offset) else offset - loop.lane)
        inside = {made.var for scope in self._scopes[loop.depth :] for made in scope if isinstance(made, tirx.Bind)}
        if any(variable in loop.varying or variable in inside for variable in analysis.undefined_vars(first)):
            return 0
        if not self.analyzer.can_prove_equal(first % loop.lanes, index(0)):
            return 0
        vector = self._of_lanes(loop, str(value.ty.dtype), "vector")
        self.emit(tirx.BufferStore(vector, value, [loop.lane]))
        loop.after.append(store(buffer, self._finished(first), vector, loop.lanes))
        return loop.lanes

    def load(self, buffer: Any, offset: Expr | Dim) -> Expr:
        """``buffer[offset]``; the offset is simplified."""
        return tirx.BufferLoad(buffer, [self.place(offset)])

    def prefetch(self, buffer: Any, offset: Expr, count: int = 1, level: int = 2) -> None:
        """Brings ``count`` elements of ``buffer`` from ``offset`` on into cache level 1 or 2; the place need not exist."""
        locality = tirx.IntImm("int32", _SECOND_LEVEL + 2 - level)
        for start in range(0, count, CACHE_LINE // bytes_of(str(buffer.dtype))):
            place = tirx.address_of(tirx.BufferLoad(buffer, [self.simplify(offset + start)]))
            self.emit(tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", place, _READ, locality, _DATA)))

    def allocate(self, count: int, dtype: str, name: str = "local") -> Any:
        """A flat buffer of ``count`` elements on the stack, alive in the current scope. Keep it under some 100 KB.

        With constant offsets (after unrolling) LLVM keeps it in registers.
        """
        buffer = tirx.decl_buffer((count,), dtype, name=self.fresh(name), scope="local", data_alignment=64)
        self.emit(tirx.AllocBuffer(buffer))
        return buffer

    def bind(self, value: Expr, name: str = "t") -> Expr:
        """A variable that holds ``value`` (evaluated here, once); constants and variables are returned as they are."""
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm):
            return value
        if value.ty.dtype == "bool":
            return self._bind_truth(value, name)
        variable = tirx.Var(self.fresh(name), value.ty)
        opaque = self._opaque(self._finished(value), name)
        self.emit(tirx.Bind(variable, opaque))
        if self._vector_loop is not None and self._vector_loop.varies(opaque):
            self._vector_loop.varying.add(variable)
        return variable

    def _opaque(self, value: Expr, name: str) -> Expr:
        """``value`` by way of memory on the stack (a register, once LLVM has seen it), unless it is an index.

        TVM's analyzer puts the definition of a variable in the place of its uses, so that chains of definitions that use one another
        twice, as vector mathematics does, grow exponentially; it does not look through memory.
        """
        dtype = str(value.ty.dtype)
        if dtype == INDEX and _is_arithmetic(value):
            return value
        loop = self._vector_loop
        if loop is not None and loop.varies(value):
            buffer = self._of_lanes(loop, dtype, name)
            position = loop.lane
        else:
            buffer = tirx.decl_buffer((1,), dtype, name=self.fresh(name), scope="local", data_alignment=64)
            self.emit(tirx.AllocBuffer(buffer))
            position = index(0)
        self.emit(tirx.BufferStore(buffer, value, [position]))
        return tirx.BufferLoad(buffer, [position])

    def corrected(self, value: Expr, argument: Expr, rare: Callable[[Expr], Expr], correct: Callable[[Expr], Expr]) -> Expr:
        """``value``, and ``correct(argument)`` where ``rare(argument)`` holds: for what only some arguments need and costs much.

        A branch: ``correct`` is evaluated for such arguments alone, one by one. In a vectorised loop one test serves all lanes.
        """
        loop = self._vector_loop if self._vector_loop is not None and self._vector_loop.varies(argument) else None
        lanes, position = (loop.lanes, loop.lane) if loop is not None else (1, index(0))

        def held(element: Expr) -> Any:
            buffer = tirx.decl_buffer((lanes,), str(element.ty.dtype), name=self.fresh("held"), scope="local", data_alignment=64)
            (self._scopes[-1] if loop is None else loop.around).append(tirx.AllocBuffer(buffer))
            self.emit(tirx.BufferStore(buffer, element, [position]))
            return buffer

        result = held(value)
        if loop is None:
            with self.when(rare(argument)):
                self.emit(tirx.BufferStore(result, correct(argument), [position]))
        else:
            flags, source = held(truth_as(rare(argument), INDEX)), held(argument)
            # What does not name the vectorised loop's variable is scalar code that is run once for all lanes.
            any_lane = tirx.call_llvm_pure_intrin(INDEX, "llvm.vector.reduce.or", tirx.BufferLoad(flags, [ramp(0, lanes)]))
            with contextlib.ExitStack() as stack:
                stack.enter_context(self.when(tirx.NE(any_lane, index(0))))
                lane = stack.enter_context(self.loop(lanes, name="lane"))
                stack.enter_context(self.when(tirx.NE(tirx.BufferLoad(flags, [lane]), index(0))))
                self.emit(tirx.BufferStore(result, correct(tirx.BufferLoad(source, [lane])), [lane]))
        variable = tirx.Var(self.fresh("t"), value.ty)
        self.emit(tirx.Bind(variable, tirx.BufferLoad(result, [position])))
        if loop is not None:
            loop.varying.add(variable)
        return variable

    def _of_lanes(self, loop: _VectorLoop, dtype: str, name: str) -> Any:
        """A buffer around a vectorised loop with an element for each lane."""
        buffer = tirx.decl_buffer((loop.lanes,), dtype, name=self.fresh(name), scope="local", data_alignment=64)
        loop.around.append(tirx.AllocBuffer(buffer))
        return buffer

    def in_vectors(self, value: Expr, function: VectorFunction) -> Expr | None:
        """``function`` of the vector of ``value`` in all lanes of the vectorised loop around; None outside of one.

        ``vector_calls`` keeps the names that it was called by.
        """
        loop = self._vector_loop
        if loop is None or not loop.varies(value):
            return None
        everywhere = ramp(0, loop.lanes)
        argument = self._of_lanes(loop, str(value.ty.dtype), "vector")
        result = self._of_lanes(loop, function.result, "vector")
        self.emit(tirx.BufferStore(argument, value, [loop.lane]))
        # What does not name the loop's variable is run once for all lanes.
        made = function.call(tirx.BufferLoad(argument, [everywhere]), loop.lanes)
        self.emit(tirx.BufferStore(result, made, [everywhere]))
        self.vector_calls.add(function.name_of(loop.lanes))
        element = tirx.BufferLoad(result, [loop.lane])
        variable = tirx.Var(self.fresh("t"), element.ty)
        self.emit(tirx.Bind(variable, element))
        loop.varying.add(variable)
        return variable

    def _bind_truth(self, value: Expr, name: str) -> Expr:
        """Truth values are bound as bytes: TVM's code generator cannot hold vectors of them."""
        if isinstance(value, tirx.NE) and isinstance(value.a, tirx.Var) and isinstance(value.b, tirx.IntImm):
            return value
        byte = self.bind(truth_as(value, "uint8"), name)
        return tirx.NE(byte, tirx.const(0, "uint8"))

    @contextlib.contextmanager
    def loop(self, extent: Dim | Expr, kind: Any = SERIAL, name: str = "i", start: Dim | Expr = 0) -> Iterator[Expr]:
        """A loop over [start, start + extent) around what is emitted inside; yields its variable.

        A loop of one iteration is no loop: its variable is ``start``.
        """
        if isinstance(extent, int) and extent == 1:
            with self.scope():
                yield index(start) if isinstance(start, int) or is_dim(start) else start
            return
        variable = tirx.Var(self.fresh(name), INDEX)
        low = index(start) if isinstance(start, int) or is_dim(start) else start
        size = index(extent) if isinstance(extent, int) or is_dim(extent) else extent
        low, size = self._finished(low), self._finished(size)
        self.analyzer.bind(variable, tvm.ir.Range.from_min_extent(low, size))
        surrounding = self._vector_loop
        if kind == VECTORIZED:
            self._vector_loop = _VectorLoop(self.simplify(variable - low), int(extent), self._scopes[-1], {variable}, len(self._scopes), [])
        statements = self._open()
        opened = self._vector_loop
        try:
            yield variable
        finally:
            self._close()
            self._vector_loop = surrounding
        if statements:
            self.emit(tirx.For(variable, low, size, kind, _sequence(statements)))
        if opened is not None and opened is not surrounding:
            for statement in opened.after:
                self.emit(statement)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """A scope of its own for bound variables and memo, without a loop."""
        statements = self._open()
        try:
            yield
        finally:
            self._close()
        if statements:
            self.emit(_sequence(statements))

    @contextlib.contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """What is emitted inside runs only where ``condition`` holds (a scalar condition; not inside a vectorised loop)."""
        statements = self._open()
        try:
            with self.analyzer.constraint_scope(condition):
                yield
        finally:
            self._close()
        if statements:
            self.emit(tirx.IfThenElse(self._finished(condition), _sequence(statements), None))

    def simplify(self, value: Expr | Dim) -> Expr:
        """``value`` simplified with what is known of the loop variables."""
        if isinstance(value, int) or is_dim(value):
            return index(value)
        if isinstance(value, tirx.Var | tirx.IntImm):
            return value
        return self.analyzer.simplify(value)

    def place(self, offset: Expr | Dim) -> Expr:
        """An offset into a buffer, as it is to be emitted."""
        return self._finished(self.simplify(offset))

    def _finished(self, value: Expr) -> Expr:
        """An index or condition that nothing will be simplified with any more."""
        return truncating(value) if self._symbols else value

    def bind_range(self, variable: Expr, extent: Dim) -> None:
        """Tells the simplifier that ``variable`` lies in [0, extent)."""
        self.analyzer.bind(variable, tvm.ir.Range.from_min_extent(index(0), index(extent)))

    def proves(self, condition: Expr | bool) -> bool:
        """Whether ``condition`` holds for all values of the loop variables."""
        if isinstance(condition, bool):
            return condition
        return bool(self.analyzer.can_prove(condition))

    def remembered(self, key: Any, make: Callable[[], Expr]) -> Expr:
        """What ``make`` gave for ``key`` in an open scope, else what it gives now, bound in the innermost."""
        for memo in reversed(self._memos):
            if key in memo:
                return memo[key]
        result = self.bind(make())
        self._memos[-1][key] = result
        return result

    def finish(self) -> Any:
        """The statement built so far."""
        return _sequence(self._scopes[0])

    def _open(self) -> list[Any]:
        self._scopes.append([])
        self._memos.append({})
        return self._scopes[-1]

    def _close(self) -> None:
        self._scopes.pop()
        self._memos.pop()


def _sequence(statements: Sequence[Any]) -> Any:
    if not statements:
        return tirx.Evaluate(index(0))
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def _is_arithmetic(value: Expr) -> bool:
    """Whether an expression is made of variables, constants and binary operations only."""
    if isinstance(value, tirx.Var | tirx.IntImm):
        return True
    return hasattr(value, "b") and _is_arithmetic(value.a) and _is_arithmetic(value.b)
