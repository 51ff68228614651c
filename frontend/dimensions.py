"""Symbolic sizes of PyTorch as dimensions of the IR."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._sympy import functions

from ..ir import Dim
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
