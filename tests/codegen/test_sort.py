"""Sorting and top-k: stable order, ties, every axis, few of many."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, region, tensor

from mlc.codegen.templates.sort import Sort
from mlc.ir import DType

TEMPLATE = Sort()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis", "count"), [((3, 37), 1, None), ((20, 3), 0, 7), ((2, 300), 1, 5), ((1,), 0, None), ((2, 40), 1, 1)], ids=str
)
def test_values_and_indices(shape: tuple[int, ...], axis: int, count: int | None, descending: bool) -> None:
    graph = region(
        [tensor(shape)], lambda b, x: b.add("sort", x, attributes={"axis": axis, "count": count, "descending": descending}).outputs
    )
    # Rounded, so that there are ties.
    values = np.round(np.random.default_rng(0).standard_normal(shape) * 3).astype(np.float32)
    check(TEMPLATE, graph, inputs=[values])


def test_selection_among_infinities() -> None:
    values = np.full((2, 100), -np.inf, np.float32)
    values[0, [3, 70]] = 1.0, np.inf
    graph = region([tensor((2, 100))], lambda b, x: b.add("sort", x, attributes={"axis": 1, "count": 4, "descending": True}).outputs)
    check(TEMPLATE, graph, inputs=[values])


def test_integers_with_a_prologue_and_one_output() -> None:
    graph = region([tensor((4, 19), DType.INT64)], lambda b, x: b.add("sort", b.call("neg", x), attributes={"axis": 1}).outputs[1])
    check(TEMPLATE, graph, threads=2)
