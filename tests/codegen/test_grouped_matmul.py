"""Products of groups of rows with a matrix each: empty groups, rows left over, narrow panels, what is fused before and after."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, random_inputs, region, tensor

from mlc.codegen.templates.grouped_matmul import GroupedMatmul
from mlc.ir import DType, Graph

TEMPLATE = GroupedMatmul()


def graph_of(rows: int, depth: int, columns: int, groups: int) -> Graph:
    types = [tensor((rows, depth)), tensor((groups, depth, columns)), tensor((groups,), DType.INT32), tensor((columns,))]
    return region(
        types, lambda b, x, w, ends, bias: b.call("relu", b.call("add", b.call("grouped_matmul", b.call("neg", x), w, ends), bias))
    )


@pytest.mark.parametrize(
    ("shape", "ends"),
    [
        ((23, 9, 40, 4), (0, 7, 7, 23)),
        ((23, 16, 33, 3), (15, 11, 20)),
        ((2, 5, 7, 3), (1, 1, 99)),
        ((9, 8, 64, 2), (-3, 0)),
    ],
    ids=str,
)
def test_groups(shape: tuple[int, int, int, int], ends: tuple[int, ...]) -> None:
    graph = graph_of(*shape)
    inputs = random_inputs(graph)
    inputs[2] = np.array(ends, np.int32)
    check(TEMPLATE, graph, inputs=inputs, threads=2)


def test_packed_matrices_in_every_config() -> None:
    graph = region(
        [tensor((11, 6)), tensor((3, 6, 20)), tensor((3,), DType.INT64)], lambda b, x, w, ends: b.call("grouped_matmul", x, w, ends)
    )
    inputs = [*random_inputs(graph)[:2], np.array([2, 9, 10])]
    check(TEMPLATE, graph, inputs=inputs, constants=frozenset({1}), all_configs=True)
