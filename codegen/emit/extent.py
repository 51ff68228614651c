"""Dimensions as extents of emitted code: numbers, or expressions over the size parameters of a kernel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from tvm import tirx

from ...errors import LoweringError
from ...ir import Dim
from ...ir.types import symbol

if TYPE_CHECKING:
    import sympy

Extent: TypeAlias = Any
"""A Python integer, or a TIR expression over size parameters."""

_PARAMETERS: dict[str, Any] = {}


def size_parameter(name: str) -> Any:
    """The parameter by which kernels learn the symbolic dimension ``name``: one variable for all kernels, so that equal sizes are equal
    expressions."""
    # setdefault is atomic: kernels are emitted by several threads.
    found = _PARAMETERS.get(name)
    return _PARAMETERS.setdefault(name, tirx.Var(f"size_{name}", "int32")) if found is None else found


def is_dim(value: object) -> TypeGuard[sympy.Expr]:
    """Whether ``value`` is a symbolic dimension of the IR."""
    return hasattr(value, "free_symbols")


def extent_of(dim: Dim) -> Extent:
    """``dim`` as an extent; LoweringError for a function that kernels cannot compute."""
    return _extent(dim) if is_dim(dim) else dim


def extents(shape: Sequence[Dim]) -> tuple[Extent, ...]:
    """Dimensions as extents."""
    return tuple(extent_of(dim) for dim in shape)


def _extent(dim: sympy.Expr) -> Any:
    kind = type(dim).__name__
    if dim.is_Integer:
        return tirx.IntImm("int32", int(dim))
    if dim.is_Symbol:
        return size_parameter(str(dim))
    if kind in ("floor", "ceiling"):
        top, bottom = dim.args[0].as_numer_denom()
        return _quotient(top + bottom - 1 if kind == "ceiling" else top, bottom)
    if kind == "Mod":
        return tirx.floormod(_extent(dim.args[0]), _extent(dim.args[1]))
    if kind in ("Max", "Min"):
        return functools.reduce(tirx.Max if kind == "Max" else tirx.Min, (_extent(argument) for argument in dim.args))
    if dim.is_Pow and dim.exp.is_Integer and int(dim.exp) > 0:
        return functools.reduce(lambda a, b: a * b, [_extent(dim.base)] * int(dim.exp))
    if dim.is_Add or dim.is_Mul:
        top, bottom = dim.as_numer_denom()
        if bottom != 1:
            return _quotient(top, bottom)
        return functools.reduce((lambda a, b: a + b) if dim.is_Add else (lambda a, b: a * b), (_extent(argument) for argument in dim.args))
    raise LoweringError(f"kernels cannot compute the size {dim}; compile with static shapes")


def _quotient(top: sympy.Expr, bottom: sympy.Expr) -> Any:
    return tirx.floordiv(_extent(top), _extent(bottom)) if bottom != 1 else _extent(top)


def dim_of(extent: Extent) -> Dim | None:
    """The dimension that ``extent`` is, if it holds nothing but numbers, size parameters and plain arithmetic; else None."""
    if isinstance(extent, int):
        return extent
    if isinstance(extent, tirx.IntImm):
        return int(extent.value)
    if isinstance(extent, tirx.Var):
        name = str(extent.name).removeprefix("size_")
        return symbol(name) if _PARAMETERS.get(name) is not None and extent.same_as(_PARAMETERS[name]) else None
    if not isinstance(extent, tirx.Add | tirx.Sub | tirx.Mul):
        return None
    left, right = dim_of(extent.a), dim_of(extent.b)
    if left is None or right is None:
        return None
    if isinstance(extent, tirx.Mul):
        return left * right
    return left + right if isinstance(extent, tirx.Add) else left - right
