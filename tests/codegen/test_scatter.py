"""Scatters: all reductions, orders in memory and dtypes, updates outside, threads."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, random_inputs, region, tensor

from mlc.codegen.templates.scatter import Scatter
from mlc.ir import DType, Graph, TensorType

TEMPLATE = Scatter()


def inputs_of(graph: Graph) -> list[np.ndarray]:
    """Random operands; indices reach beyond both ends."""
    arrays = random_inputs(graph)
    arrays[1] = np.random.default_rng(1).integers(-7, 7, arrays[1].shape).astype(arrays[1].dtype)
    return arrays


def scatter(types: list[TensorType], order: tuple[int, ...] | None = None, **attributes: object) -> None:
    op = "scatter_along" if "axis" in attributes else "scatter_nd"
    graph = region(types, lambda b, x, i, u: b.call(op, b.call("neg", x), i, b.call("add", u, u), **attributes), [order] if order else [])
    check(TEMPLATE, graph, inputs=inputs_of(graph), all_configs=True, threads=2)


@pytest.mark.parametrize("reduction", ["assign", "add", "mul", "max", "min"])
def test_reductions_along_an_axis(reduction: str) -> None:
    scatter([tensor((6, 5)), tensor((9, 4), DType.INT64), tensor((9, 4))], axis=0, reduction=reduction)


@pytest.mark.parametrize(
    ("shape", "indices"), [((6, 37), (4, 1)), ((5, 6), (40, 2)), ((4, 3, 18), (2, 3, 1)), ((9,), (0, 1)), ((8, 6), (2, 2))], ids=str
)
def test_slices_and_elements(shape: tuple[int, ...], indices: tuple[int, ...]) -> None:
    updates = (*indices[:-1], *shape[indices[-1] :])
    scatter([tensor(shape), tensor(indices, DType.INT32), tensor(updates)], reduction="add")


def test_another_order_in_memory() -> None:
    types = [tensor((5, 6, 4), order=(2, 0, 1)), tensor((5, 3, 4), DType.INT64), tensor((5, 3, 4), order=(1, 2, 0))]
    scatter(types, (1, 0, 2), axis=1)


@pytest.mark.parametrize("dtype", [DType.INT64, DType.UINT8, DType.FLOAT64], ids=lambda dtype: dtype.text)
def test_dtypes(dtype: DType) -> None:
    types = [tensor((6, 5), dtype), tensor((9,), DType.INT64), tensor((9, 5), dtype)]
    graph = region(types, lambda b, x, i, u: b.call("scatter_nd", x, b.call("reshape", i, shape=(9, 1)), u, reduction="add"))
    check(TEMPLATE, graph, inputs=inputs_of(graph))


def test_truth_values() -> None:
    types = [tensor((6, 5), DType.BOOL), tensor((9, 5), DType.INT64), tensor((9, 5), DType.BOOL)]
    graph = region(types, lambda b, x, i, u: b.call("scatter_along", x, i, u, axis=0, reduction="add"))
    check(TEMPLATE, graph, inputs=inputs_of(graph))
