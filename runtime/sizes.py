"""Symbolic dimensions of a call: their values from the shapes of the inputs, and a signature with numbers in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import SignatureError, SizeError
from ..ir.program import Signature, SymbolSpec, TensorSpec
from ..ir.size import Extent, Size, evaluate
from ..ir.types import SymbolRange
from . import _native

_LARGEST = 2**31 - 1
"""Kernels get sizes as 32-bit integers."""

_KINDS = {"+": 2, "*": 3, "//": 4, "%": 5, "max": 6, "min": 7}
"""Operators as ``sizes.h`` numbers them; 0 is a number, 1 a symbol."""


def native_size(size: Extent, symbols: Sequence[SymbolSpec]) -> _native.SizeTuple:
    """A size as the native extension wants it."""
    positions = {symbol.name: position for position, symbol in enumerate(symbols)}
    code = size.code if isinstance(size, Size) else (size,)
    pairs: list[int] = []
    for item in code:
        if isinstance(item, int):
            pairs += [0, item]
        else:
            pairs += [_KINDS[item], 0] if item in _KINDS else [1, positions[item]]
    return tuple(pairs)


def native_symbol(symbol: SymbolSpec) -> _native.SymbolTuple:
    """A symbol as the native extension wants it."""
    upper = _LARGEST if symbol.upper is None else symbol.upper
    return symbol.input, symbol.axis, symbol.factor, symbol.offset, symbol.lower, upper


def values_of(signature: Signature, leaves: Sequence[Any]) -> dict[str, int]:
    """The values of the symbols for a call on the flat inputs ``leaves``.

    SignatureError when an input has another rank; SizeError when a size is out of range or contradicts another one.
    """
    if not signature.symbols:
        return {}
    shapes = [_shape(spec, leaf) for spec, leaf in zip(signature.inputs, leaves, strict=False)]
    values: dict[str, int] = {}
    for symbol in signature.symbols:
        extent = shapes[symbol.input][symbol.axis]
        value, rest = divmod(extent - symbol.offset, symbol.factor)
        upper = _LARGEST if symbol.upper is None else symbol.upper
        if rest or not symbol.lower <= value <= upper:
            raise SizeError(
                f"input '{signature.inputs[symbol.input].name}' has the size {extent} along axis {symbol.axis}; "
                f"the program was compiled for {_allowed(symbol)}: pass such a size, or compile with wider dynamic_shapes"
            )
        values[symbol.name] = value
    for spec, shape in zip(signature.inputs, shapes, strict=True):
        for axis, (expected, extent) in enumerate(zip(spec.shape, shape, strict=True)):
            if isinstance(expected, Size) and expected.evaluate(values) != extent:
                raise SizeError(
                    f"input '{spec.name}' has the size {extent} along axis {axis}, where {expected.evaluate(values)} is needed: "
                    f"{_origin(signature, expected)}"
                )
    return values


def _shape(spec: TensorSpec, leaf: Any) -> tuple[int, ...]:
    shape = tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)
    if len(shape) != len(spec.shape):
        raise SignatureError(
            f"input '{spec.name}' has shape {shape}, the program was compiled for {len(spec.shape)} axes; pass a tensor with as many"
        )
    return shape


def _allowed(symbol: SymbolSpec) -> str:
    """The sizes along the axis that tells the symbol."""
    lower = symbol.lower * symbol.factor + symbol.offset
    steps = f" in steps of {symbol.factor}" if symbol.factor > 1 else ""
    if symbol.upper is None:
        return f"{lower} or more{steps}"
    return f"{lower} to {symbol.upper * symbol.factor + symbol.offset}{steps}"


def _origin(signature: Signature, size: Size) -> str:
    """Which axes tell a size."""
    told = [symbol for symbol in signature.symbols if symbol.name in size.symbols]
    axes = " and ".join(f"axis {symbol.axis} of '{signature.inputs[symbol.input].name}'" for symbol in told)
    plain = len(size.code) == 1
    return f"it must be equal to {axes}" if plain else f"it is {size} where {axes} {'gives' if len(told) == 1 else 'give'} the rest"


def typical_values(signature: Signature) -> dict[str, int]:
    """A value in the range of each symbol."""
    return {symbol.name: SymbolRange(symbol.lower, symbol.upper).typical for symbol in signature.symbols}


def concrete(signature: Signature, values: Mapping[str, int]) -> Signature:
    """``signature`` with ``values`` in place of its symbols."""
    if not signature.symbols:
        return signature

    def specs(side: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(dataclasses.replace(spec, shape=tuple(evaluate(extent, values) for extent in spec.shape)) for spec in side)

    return dataclasses.replace(signature, inputs=specs(signature.inputs), outputs=specs(signature.outputs), symbols=())
