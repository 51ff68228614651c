"""Monarch products: factors packed or not, few rows and many, results that fill no tile, what is fused before and after."""

from __future__ import annotations

import pytest
from check import check, region, tensor

from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.templates.monarch import Monarch
from mlc.ir import Graph

TEMPLATE = Monarch()


def graph_of(shape: tuple[int, ...], blocks: int, depth: int, rank: int, groups: int, width: int, epilogue: str = "relu") -> Graph:
    types = [
        tensor((*shape, blocks * depth)),
        tensor((blocks, depth, rank, groups)),
        tensor((blocks, rank, width, groups)),
        tensor((width * groups,)),
    ]
    return region(
        types, lambda b, x, first, second, bias: b.call(epilogue, b.call("add", b.call("monarch", b.call("neg", x), first, second), bias))
    )


@pytest.mark.parametrize(
    "extents",
    [
        ((1,), 8, 8, 1, 8, 8),
        ((3, 2), 4, 5, 2, 16, 3),
        ((37,), 3, 7, 1, 24, 5),
        ((), 2, 9, 3, 8, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 2])
def test_shapes(extents: tuple[tuple[int, ...], int, int, int, int, int], threads: int) -> None:
    check(TEMPLATE, graph_of(*extents), threads=threads)
    check(TEMPLATE, graph_of(*extents), threads=threads, constants=frozenset({1, 2}))


@pytest.mark.parametrize("rows", [1, 29])
def test_every_config(rows: int) -> None:
    graph = region(
        [tensor((rows, 40)), tensor((5, 8, 1, 16)), tensor((5, 1, 7, 16))], lambda b, x, first, second: b.call("monarch", x, first, second)
    )
    check(TEMPLATE, graph, constants=frozenset({1, 2}), all_configs=True)


@pytest.mark.parametrize("rows", [3, 300])
def test_threads_share_blocks_or_rows(rows: int) -> None:
    """Large enough for two threads: for few rows they share the factors, otherwise the rows, in blocks that fit the cache."""
    graph = region(
        [tensor((rows, 1024)), tensor((32, 32, 2, 32)), tensor((32, 2, 32, 32))],
        lambda b, x, first, second: b.call("monarch", x, first, second),
    )
    check(TEMPLATE, graph, threads=2, constants=frozenset({1, 2}))


def test_a_long_epilogue() -> None:
    check(TEMPLATE, graph_of((9,), 4, 6, 1, 8, 10, "gelu"), constants=frozenset({1, 2}))


@pytest.mark.parametrize("target", ["cpu -mcpu=znver4 -threads=2", "cpu -mcpu=x86-64 -threads=2"])
def test_vectors_of_other_targets(target: str) -> None:
    """Eight groups fill half a vector of 16 lanes, and two of 4."""
    task = Task(graph_of((6,), 4, 6, 1, 8, 10), frozenset({1, 2}), Target.parse(target), 1)
    space = TEMPLATE.space(task)
    assert all(TEMPLATE.lower(task, config).function is not None for config in space.configs)


def test_few_groups_are_not_taken() -> None:
    assert not TEMPLATE.takes(graph_of((6,), 4, 6, 1, 4, 10))
