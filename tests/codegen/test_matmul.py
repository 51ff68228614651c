"""The matmul template: every kind of operand, remainders, fused operations, and points all over its space."""

from __future__ import annotations

import pytest
from anchored import check, f32, task_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc.codegen.target import Target
from mlc.codegen.templates.matmul import MatmulTemplate
from mlc.ir import Graph, GraphBuilder, Value

TEMPLATE = MatmulTemplate()


def linear(rows: tuple[int, ...], depth: int, columns: int, *, bias: bool = True) -> Graph:
    builder = GraphBuilder()
    operands: list[Value] = [builder.input(f32(*rows, depth)), builder.input(f32(columns, depth))]
    if bias:
        operands.append(builder.input(f32(columns)))
    return builder.finish([builder.call("linear", *operands)])


def matmul(a: tuple[int, ...], b: tuple[int, ...]) -> Graph:
    builder = GraphBuilder()
    return builder.finish([builder.call("matmul", builder.input(f32(*a)), builder.input(f32(*b)))])


@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [((1,), 64, 100), ((), 33, 17), ((2, 5), 20, 10), ((37,), 50, 131), ((130,), 257, 96)],
)
def test_linear_with_packed_weight(rows: tuple[int, ...], depth: int, columns: int) -> None:
    check(TEMPLATE, task_of(linear(rows, depth, columns), {1, 2}))


@pytest.mark.parametrize(
    ("a", "b", "constants"),
    [
        ((7, 30), (30, 45), {1}),
        ((7, 30), (30, 45), set()),
        ((2, 3, 19, 24), (2, 3, 24, 35), set()),
        ((2, 3, 19, 24), (2, 3, 24, 35), {1}),
        ((3, 9, 24), (2, 1, 24, 20), set()),
        ((5, 24), (3, 24, 20), {1}),
        ((4, 9, 24), (1, 24, 20), {1}),
        ((1024, 5), (5, 3), {1}),
    ],
)
def test_matmul_broadcasts_as_numpy(a: tuple[int, ...], b: tuple[int, ...], constants: set[int]) -> None:
    check(TEMPLATE, task_of(matmul(a, b), constants))


@pytest.mark.parametrize(("rows", "columns", "staged"), [(1, 176, False), (4, 160, False), (40, 160, True), (1, 170, True)])
def test_an_operand_that_is_read_once_stays_where_it_is(rows: int, columns: int, staged: bool) -> None:
    builder = GraphBuilder()
    a, b = builder.input(f32(14, rows, 27)), builder.input(f32(2, 7, 27, columns))
    task = task_of(builder.finish([builder.call("matmul", a, builder.call("reshape", b, shape=(14, 27, columns)))]))
    assert bool(TEMPLATE.lower(task, TEMPLATE.space(task).default).workspace_bytes) == staged
    check(TEMPLATE, task)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    rows=st.integers(1, 70),
    depth=st.integers(1, 70),
    columns=st.integers(1, 200),
    seed=st.integers(0, 100),
    constant=st.booleans(),
)
def test_every_point_of_the_space_is_right(rows: int, depth: int, columns: int, seed: int, constant: bool) -> None:
    task = task_of(linear((rows,), depth, columns), {1} if constant else set())
    check(TEMPLATE, task, TEMPLATE.space(task).sample(2, seed))


def test_rows_and_columns_shared_among_four_threads() -> None:
    task = task_of(linear((256,), 512, 200), {1}, threads=4)
    configs = [config for config in TEMPLATE.space(task).configs if config["unroll"] == 4]
    assert {config["row_groups"] for config in configs} >= {2, 4}
    check(TEMPLATE, task, configs[::3])


@pytest.mark.parametrize(("rows", "depth", "columns"), [((90,), 2100, 70), ((2, 65), 3072, 48)])
def test_depth_in_blocks_where_rows_do_not_fit_the_second_level_cache(rows: tuple[int, ...], depth: int, columns: int) -> None:
    target = Target.parse("cpu -mcpu=x86-64-v3 -l2=512")
    builder = GraphBuilder()
    x, w, bias = builder.input(f32(*rows, depth)), builder.input(f32(columns, depth)), builder.input(f32(columns))
    graph = builder.finish([builder.call("gelu", builder.call("linear", x, w, bias))])
    for constants, threads in (({1, 2}, 1), (set(), 2)):
        task = task_of(graph, constants, target, threads=threads)
        configs = TEMPLATE.space(task).configs
        blocked = [config for config in configs if config["block_depth"] < depth]
        assert blocked
        assert len(blocked) < len(configs)
        check(TEMPLATE, task, [*blocked[::6], next(config for config in configs if config["block_depth"] == depth)])


@pytest.mark.parametrize("threads", [1, 4])
def test_rows_in_blocks_where_they_do_not_fit_the_second_level_cache(threads: int) -> None:
    target = Target.parse("cpu -mcpu=x86-64-v3 -l2=64")
    task = task_of(linear((401,), 90, 70), {1, 2}, target, threads=threads)
    configs = TEMPLATE.space(task).configs
    assert all(config["block_depth"] == 90 for config in configs)
    check(TEMPLATE, task, configs[::7])
    both = task_of(linear((390,), 300, 50), {1}, target, threads=threads)
    blocked = [config for config in TEMPLATE.space(both).configs if config["block_depth"] < 300]
    check(TEMPLATE, both, blocked[::7])


@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64-v2"])
def test_narrow_vectors(processor: str) -> None:
    check(TEMPLATE, task_of(linear((37,), 30, 53), {1}, Target.parse(f"cpu -mcpu={processor}")))


def test_epilogue_reads_other_tensors_and_views_the_result() -> None:
    builder = GraphBuilder()
    x, w = builder.input(f32(1, 24, 40)), builder.input(f32(96, 40))
    residual, scale = builder.input(f32(1, 24, 96)), builder.input(f32(96))
    y = builder.call("gelu", builder.call("linear", x, w))
    y = builder.call("mul", builder.call("add", y, residual), scale)
    heads = builder.call("permute", builder.call("reshape", y, shape=(1, 24, 3, 32)), order=(0, 2, 1, 3))
    check(TEMPLATE, task_of(builder.finish([heads, y]), {1, 3}))


def test_prologue_is_evaluated_into_the_workspace() -> None:
    builder = GraphBuilder()
    x, w = builder.input(f32(2, 3, 24, 16)), builder.input(f32(70, 48))
    merged = builder.call("reshape", builder.call("permute", x, order=(0, 2, 1, 3)), shape=(2, 24, 48))
    y = builder.call("linear", builder.call("silu", merged), w)
    check(TEMPLATE, task_of(builder.finish([y]), {1}))


def test_transposed_operand() -> None:
    builder = GraphBuilder()
    q, k = builder.input(f32(2, 4, 18, 32)), builder.input(f32(2, 4, 21, 32))
    scores = builder.call("matmul", q, builder.call("permute", k, order=(0, 1, 3, 2)))
    check(TEMPLATE, task_of(builder.finish([scores])))


def test_takes_only_what_it_can_compute() -> None:
    builder = GraphBuilder()
    x, w = builder.input(f32(8, 8)), builder.input(f32(8, 8))
    y = builder.call("matmul", x, w)
    crossed = builder.finish([builder.call("add", y, builder.call("permute", y, order=(1, 0)))])
    assert not TEMPLATE.takes(crossed)
    builder = GraphBuilder()
    x = builder.input(f32(8, 8))
    assert not TEMPLATE.takes(builder.finish([builder.call("relu", x)]))
