"""What values each attribute of an operation may take: checked by the verifier, shown in the documentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from ..constant import Constant
from ..types import DType

if TYPE_CHECKING:
    from ..graph import Attribute


@dataclass(frozen=True, eq=False)
class AttributeKind:
    """A set of attribute values: what it is in words, and the test."""

    description: str
    accept: Callable[[Any], bool]

    def or_none(self) -> AttributeKind:
        """This kind, or ``none``."""
        return AttributeKind(f"{self.description}, or none", lambda value: value is None or self.accept(value))


def is_expression(value: object) -> bool:
    """Whether ``value`` is a symbolic expression (of sympy, which need not be imported to tell)."""
    return bool(getattr(value, "free_symbols", None)) and hasattr(value, "subs")


def _is_int(value: object) -> TypeGuard[int]:
    return type(value) is int


def _is_dim(value: object) -> bool:
    return value >= 0 if _is_int(value) else is_expression(value)


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _tuple_of(accept: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(accept(item) for item in value)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_int(item) and item >= 0 for item in value)


def choice(*words: str) -> AttributeKind:
    """One of some words."""
    return AttributeKind("one of " + ", ".join(f"'{word}'" for word in words), lambda value: value in words)


BOOL = AttributeKind("true or false", lambda value: type(value) is bool)
COUNT = AttributeKind("an integer of at least 0", lambda value: _is_int(value) and value >= 0)
POSITIVE = AttributeKind("an integer of at least 1", lambda value: _is_int(value) and value >= 1)
INTEGER = AttributeKind("an integer", _is_int)
NONZERO = AttributeKind("an integer other than 0", lambda value: _is_int(value) and value != 0)
FLOAT = AttributeKind("a float", lambda value: isinstance(value, float))
NOT_NEGATIVE = AttributeKind("a finite float of at least 0", lambda value: isinstance(value, float) and 0 <= value < math.inf)
NUMBER = AttributeKind("a number", _is_number)
DTYPE = AttributeKind("a dtype", lambda value: isinstance(value, DType))
CONSTANT = AttributeKind("a constant", lambda value: isinstance(value, Constant))
DIM = AttributeKind("a dimension (an integer of at least 0, or an expression)", _is_dim)
DIMS = AttributeKind("a tuple of dimensions", _tuple_of(_is_dim))
AXIS = AttributeKind("an axis, counted from the front", lambda value: _is_int(value) and value >= 0)
AXES = AttributeKind("a tuple of axes, counted from the front", _tuple_of(AXIS.accept))
POSITIVES = AttributeKind("a tuple of integers of at least 1", _tuple_of(POSITIVE.accept))
COUNTS = AttributeKind("a tuple of integers of at least 0", _tuple_of(COUNT.accept))
PAIRS = AttributeKind("a tuple of (low, high) pairs of integers of at least 0", _tuple_of(_is_pair))
SCALES = AttributeKind(
    "a tuple of positive numbers or none", _tuple_of(lambda value: value is None or (_is_number(value) and 0 < value < math.inf))
)

USUAL: Mapping[str, AttributeKind] = {
    "axis": AXIS,
    "axes": AXES,
    "order": AXES,
    "shape": DIMS,
    "size": DIM,
    "dtype": DTYPE,
    "eps": NOT_NEGATIVE,
    "groups": POSITIVE,
    "stride": POSITIVES,
    "dilation": POSITIVES,
    "window": POSITIVES,
    "padding": PAIRS,
    "pads": PAIRS,
    "output_padding": COUNTS,
    "keepdims": BOOL,
    "value": NUMBER,
}
"""The kind of an attribute of this name, unless the operation says otherwise."""


def plain(value: Any) -> Attribute:
    """``value`` as the IR holds it: sequences as tuples, numbers of NumPy and sympy as Python's."""
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if getattr(value, "is_Integer", False):
        return int(value)
    unchanged: Attribute = value
    return unchanged


def is_attribute(value: object) -> bool:
    """Whether the IR can hold ``value`` as an attribute, and print and parse it."""
    if isinstance(value, tuple):
        return all(is_attribute(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | DType | Constant) or is_expression(value)
