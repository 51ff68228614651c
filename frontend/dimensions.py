"""Symbolic sizes of PyTorch as dimensions of the IR."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sympy
import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._sympy import functions
from torch.utils._sympy.numbers import int_oo

from ..errors import ExportError
from ..ir import Dim, Graph, SymbolRange, TokenType, Value
from ..ir.program import SymbolSpec
from ..ir.types import symbol
from .unsupported import Unsupported

_FUNCTIONS: dict[type, Callable[..., sympy.Expr]] = {
    functions.FloorDiv: lambda a, b: sympy.floor(a / b),
    functions.CleanDiv: lambda a, b: sympy.floor(a / b),
    functions.CeilDiv: lambda a, b: sympy.ceiling(a / b),
    functions.Mod: sympy.Mod,
    functions.PythonMod: sympy.Mod,
    functions.Max: sympy.Max,
    functions.Min: sympy.Min,
    functions.PowByNatural: sympy.Pow,
    functions.Identity: lambda a: a,
    sympy.Add: sympy.Add,
    sympy.Mul: sympy.Mul,
    sympy.Pow: sympy.Pow,
    sympy.Mod: sympy.Mod,
    sympy.floor: sympy.floor,
    sympy.ceiling: sympy.ceiling,
    sympy.Max: sympy.Max,
    sympy.Min: sympy.Min,
}
"""Functions in PyTorch's expressions by plain ones, the only ones the IR's text knows."""


def dims(shape: Sequence[int | torch.SymInt]) -> tuple[Dim, ...]:
    """A PyTorch shape as dimensions of the IR."""
    return tuple(dimension(extent) for extent in shape)


def dimension(extent: int | torch.SymInt) -> Dim:
    """One extent as a number or an expression; :class:`Unsupported` if it depends on the data of tensors."""
    if isinstance(extent, int):
        return extent
    expression = extent.node.expr
    if expression.is_number:
        return int(expression)
    if not all(is_dimension(free) for free in expression.free_symbols):
        raise Unsupported("the shape of the result depends on the data: use torch.where or masks of a fixed shape instead")
    return _plain(expression)


def is_dimension(free: sympy.Symbol) -> bool:
    """Whether a symbol of PyTorch stands for the extent of an input, not for a number found in the data of tensors."""
    return not free_unbacked_symbols(free)


def _plain(expression: sympy.Expr) -> sympy.Expr:
    if expression.is_Symbol:
        return symbol(str(expression))
    if expression.is_number:
        return expression
    function = _FUNCTIONS.get(type(expression))
    if function is None:
        raise Unsupported(f"the size {expression} cannot be expressed: compile with static shapes")
    return function(*(_plain(argument) for argument in expression.args))


def symbol_specs(graph: Graph, arguments: int) -> tuple[SymbolSpec, ...]:
    """How the extents of the first ``arguments`` inputs tell the values of the symbols of ``graph``, the plainest extents first.

    ExportError when no input tells one by a linear function of it.
    """
    found: dict[str, SymbolSpec] = {}
    used = {str(free) for value in graph.values() for dim in _shape(value) if not isinstance(dim, int) for free in dim.free_symbols}
    candidates = []
    for position, value in enumerate(graph.inputs[:arguments]):
        for axis, dim in enumerate(_shape(value)):
            if not isinstance(dim, int) and len(dim.free_symbols) == 1:
                (free,) = dim.free_symbols
                candidates.append((dim.count_ops(), position, axis, dim, free))
    for _, position, axis, dim, free in sorted(candidates, key=lambda each: each[:3]):
        polynomial = dim.as_poly(free)
        if str(free) in found or polynomial is None or polynomial.degree() != 1:
            continue
        factor, offset = polynomial.all_coeffs()
        if factor.is_Integer and offset.is_Integer and factor > 0:
            bounds = graph.symbols[str(free)]
            found[str(free)] = SymbolSpec(str(free), bounds.lower, bounds.upper, position, axis, int(factor), int(offset))
    for name in graph.symbols:
        if name in used and name not in found:
            raise ExportError(
                f"the size {name} cannot be told from the shapes of the inputs: give a dimension that is a multiple of it or equal to it a "
                "Dim of its own in dynamic_shapes, or leave that dimension out"
            )
    return tuple(found[name] for name in graph.symbols if name in found)


def _shape(value: Value) -> tuple[Dim, ...]:
    """The shape of a tensor, or of the buffer of a token."""
    type = value.type.buffer if isinstance(value.type, TokenType) else value.type
    return type.shape if type is not None else ()


def symbol_ranges(exported: ExportedProgram) -> dict[str, SymbolRange]:
    """The symbolic dimensions of an exported program with their bounds; those that depend on data are left out."""
    ranges = {}
    for free, bounds in exported.range_constraints.items():
        if free.is_symbol and is_dimension(free):
            ranges[str(free)] = SymbolRange(int(bounds.lower), None if bounds.upper in (int_oo, sympy.oo) else int(bounds.upper))
    return ranges
