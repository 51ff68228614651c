"""Sorting and top-k: stable order, ties, every axis, few of many; by counting, selection and merging."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, region, tensor

from mlc.codegen.templates.sort import Sort
from mlc.codegen.templates.sorting import Method
from mlc.ir import DType

TEMPLATE = Sort()


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis", "count"),
    [((3, 37), 1, None), ((20, 3), 0, 7), ((2, 300), 1, 5), ((1,), 0, None), ((2, 40), 1, 1), ((2, 1003), 1, None), ((600, 2), 0, 300)],
    ids=str,
)
def test_values_and_indices(shape: tuple[int, ...], axis: int, count: int | None, descending: bool) -> None:
    graph = region(
        [tensor(shape)], lambda b, x: b.add("sort", x, attributes={"axis": axis, "count": count, "descending": descending}).outputs
    )
    # Rounded, so that there are ties.
    values = np.round(np.random.default_rng(0).standard_normal(shape) * 3).astype(np.float32)
    check(TEMPLATE, graph, inputs=[values])


@pytest.mark.parametrize(("length", "count"), [(40, 40), (200, 3), (1500, 1500)], ids=str)
@pytest.mark.parametrize("descending", [False, True])
def test_not_a_number_is_the_largest_and_zeros_are_equal(length: int, count: int, descending: bool) -> None:
    generator = np.random.default_rng(1)
    values = generator.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0]), (2, length))
    graph = region(
        [tensor((2, length), DType.FLOAT64)],
        lambda b, x: b.add("sort", x, attributes={"axis": 1, "count": count, "descending": descending}).outputs,
    )
    check(TEMPLATE, graph, inputs=[values])


def test_every_method_is_chosen() -> None:
    chosen = [Method.choose(length, count, 16).name for length, count in ((40, 40), (200, 3), (1500, 1500))]
    assert chosen == ["count", "select", "merge"]


def test_long_rows_are_merged_in_the_workspace() -> None:
    values = np.random.default_rng(0).integers(-500, 500, (2, 20011))
    graph = region([tensor((2, 20011), DType.INT64)], lambda b, x: b.add("sort", x, attributes={"axis": 1}).outputs)
    check(TEMPLATE, graph, inputs=[values], threads=2)


def test_selection_among_infinities() -> None:
    values = np.full((2, 100), -np.inf, np.float32)
    values[0, [3, 70]] = 1.0, np.inf
    graph = region([tensor((2, 100))], lambda b, x: b.add("sort", x, attributes={"axis": 1, "count": 4, "descending": True}).outputs)
    check(TEMPLATE, graph, inputs=[values])


def test_integers_with_a_prologue_and_one_output() -> None:
    graph = region([tensor((4, 19), DType.INT64)], lambda b, x: b.add("sort", b.call("neg", x), attributes={"axis": 1}).outputs[1])
    check(TEMPLATE, graph, threads=2)
