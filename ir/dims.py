"""Comparing dimensions that may be symbolic: what is equal for all sizes, and which of two is larger for large ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from .types import Dim

_SAMPLES = (10007, 10037, 10061, 10079, 10093, 10103, 10133, 10151)
"""Primes that stand for symbols where only an order is wanted."""


def same_dim(first: Dim, second: Dim) -> bool:
    """Whether the two are the same number for all values of the symbols."""
    if isinstance(first, int) and isinstance(second, int):
        return first == second
    return first == second or _difference_vanishes(first, second)


@lru_cache(maxsize=8192)
def _difference_vanishes(first: Dim, second: Dim) -> bool:
    import sympy

    return bool(sympy.expand(first - second) == 0)


def below(first: Dim, second: Dim) -> bool:
    """Whether ``first`` is the smaller number where all symbols are large; a guide for searches, not a fact for all sizes."""
    if isinstance(first, int) and isinstance(second, int):
        return first < second
    return _below(first, second)


@lru_cache(maxsize=8192)
def _below(first: Dim, second: Dim) -> bool:
    import sympy

    difference = sympy.sympify(first - second)
    names = sorted(difference.free_symbols, key=str)
    values = {free: _SAMPLES[index % len(_SAMPLES)] + index // len(_SAMPLES) for index, free in enumerate(names)}
    return bool(difference.subs(values) < 0)


def product(dims: Sequence[Dim]) -> Dim:
    """The product of dimensions; 1 of none."""
    return math.prod(dims)
