"""The one-dimensional transforms of Winograd's minimal filtering, on vectors of channels; see :mod:`..winograd` for the points.

Points come in pairs of opposite sign, so that a pair shares the even and the odd part of its sums.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..emit import Expr
from ..winograd import LARGE, SMALL
from .vectors import Vectors, sum_of


def of_data(vectors: Vectors, outputs: int, d: Sequence[Expr]) -> list[Expr]:
    """B^T d: ``outputs`` + 2 data as as many factors."""
    return _data_2(vectors, d) if outputs == 2 else _data_4(vectors, d)


def of_products(vectors: Vectors, outputs: int, m: Sequence[Expr]) -> list[Expr]:
    """A^T m: ``outputs`` + 2 products as ``outputs`` results."""
    return _products_2(vectors, m) if outputs == 2 else _products_4(vectors, m)


def _data_2(v: Vectors, d: Sequence[Expr]) -> list[Expr]:
    # The coefficients of x^2 - 1, x (x + 1), x (x - 1), x^3 - x.
    return [v.subtract(d[2], d[0]), v.add(d[1], d[2]), v.subtract(d[2], d[1]), v.subtract(d[3], d[1])]


def _products_2(v: Vectors, m: Sequence[Expr]) -> list[Expr]:
    return [sum_of(v, m[:3]), v.add(v.subtract(m[1], m[2]), m[3])]


def _data_4(v: Vectors, d: Sequence[Expr]) -> list[Expr]:
    # (x^2 - 1/2)(x^2 - 2) = x^4 - 5/2 x^2 + 1, and x times that for infinity.
    first = v.multiply_add(-2.5, d[2], v.add(d[0], d[4]))
    last = v.multiply_add(-2.5, d[3], v.add(d[1], d[5]))
    found = [first]
    for point in (SMALL, LARGE):
        other = 1.0 / point**2
        # x (x +- point)(x^2 - other)
        even = v.multiply_add(-other, d[2], d[4])
        odd = v.multiply_add(-other, d[1], d[3])
        found += [v.multiply_add(point, odd, even), v.multiply_add(-point, odd, even)]
    return [*found, last]


def _products_4(v: Vectors, m: Sequence[Expr]) -> list[Expr]:
    # Result i sums point^i times each product.
    small_sum, small_difference = v.add(m[1], m[2]), v.subtract(m[1], m[2])
    large_sum, large_difference = v.add(m[3], m[4]), v.subtract(m[3], m[4])
    return [
        sum_of(v, [m[0], small_sum, large_sum]),
        v.multiply_add(SMALL, small_difference, v.multiply(LARGE, large_difference)),
        v.multiply_add(SMALL**2, small_sum, v.multiply(LARGE**2, large_sum)),
        v.multiply_add(SMALL**3, small_difference, v.multiply_add(LARGE**3, large_difference, m[5])),
    ]
