"""Scatters: every reduction, repeated and negative indices, updates that fall outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from op_case import NAN, Case, booleans, case, floats, integers

_TORCH = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter_cases() -> list[Case]:
    x, updates = floats(3, 4), floats(3, 4, seed=1)
    indices = integers(3, 4, low=0, high=3)
    special = np.array([NAN, 1.0, -0.0])
    cases = [
        case("scatter_along", [x, indices, updates], lambda x, i, u: x.scatter(0, i, u), axis=0),
        case("scatter_along", [x, indices[:2, :3], updates[:2, :3]], lambda x, i, u: x.scatter(-1, i, u), axis=-1),
        case("scatter_along", [x, integers(0, 4), floats(0, 4)], lambda x, i, u: x.clone(), axis=0),
        case("scatter_along", [booleans(5), np.array([0, 0, 4]), booleans(3)], lambda x, i, u: x.scatter(0, i, u), axis=0),
        case("scatter_along", [special, np.array([1, 1, 7, -4, -1]), floats(5)], _within, axis=0, reduction="max"),
        case("scatter_nd", [x, np.array([[2], [-3], [2]]), floats(3, 4)], lambda x, i, u: x.index_put((i[:, 0],), u)),
        case("scatter_nd", [x, np.array([[0, 1], [9, 0], [0, 1]]), floats(3)], lambda x, i, u: _first(x, u, (0, 1)), reduction="add"),
        case(
            "scatter_nd",
            [
                x,
                np.array([1, -1]),
                floats(),
            ],
            lambda x, i, u: x.index_put((i[0], i[1]), u),
        ),
        case("scatter_nd", [floats(3, 0), integers(2, 1, low=0, high=3), floats(2, 0)], lambda x, i, u: x),
        case("scatter_nd", [integers(4, 2), np.zeros((2, 2, 1), np.int32), integers(2, 2, 2)], _summed, reduction="add"),
    ]
    for reduction, name in _TORCH.items():
        for operand in (x, integers(3, 4)):
            cases.append(
                case(
                    "scatter_along",
                    [operand, indices, updates if operand is x else integers(3, 4, seed=2)],
                    lambda x, i, u, name=name: x.scatter_reduce(1, i, u, name),
                    axis=1,
                    reduction=reduction,
                )
            )
    return cases


def _within(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    inside = (indices >= -len(x)) & (indices < len(x))
    return x.scatter_reduce(0, indices[inside] % len(x), updates[inside], "amax")


def _first(x: torch.Tensor, updates: torch.Tensor, place: tuple[int, int]) -> torch.Tensor:
    result = x.clone()
    result[place] += updates[0] + updates[2]
    return result


def _summed(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> Any:
    accumulate: Callable[..., Any] = x.index_put
    return accumulate((indices[..., 0].long(),), updates, accumulate=True)
