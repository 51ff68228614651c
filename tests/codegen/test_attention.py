"""The attention template: shapes, masks, grouped heads, views on every operand, few and many queries."""

from __future__ import annotations

import math
import re

import pytest
from check import check, random_inputs, region, tensor
from harness import HOST

from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.template import LoweredKernel
from mlc.codegen.templates.attention import Attention
from mlc.ir import DType, Graph, GraphBuilder, TensorType, Value

TEMPLATE = Attention()


def plain(
    batch: int,
    heads: int,
    queries: int,
    keys: int,
    width: int,
    *,
    key_heads: int = 0,
    value_width: int = 0,
    causal: bool = False,
    mask: TensorType | None = None,
) -> Graph:
    key_heads, value_width = key_heads or heads, value_width or width
    types = [tensor((batch, heads, queries, width)), tensor((batch, key_heads, keys, width)), tensor((batch, key_heads, keys, value_width))]
    types += [mask] if mask is not None else []
    return region(types, lambda b, *x: b.call("attention", *x, scale=1 / math.sqrt(width), is_causal=causal))


CASES = {
    "square": plain(1, 2, 32, 32, 64),
    "ragged": plain(2, 1, 37, 29, 24),
    "odd width": plain(1, 1, 16, 17, 13, value_width=10),
    "long keys": plain(1, 1, 20, 700, 16),
    "causal": plain(1, 2, 50, 50, 16, causal=True),
    "causal long": plain(1, 1, 600, 600, 8, causal=True),
    "grouped": plain(1, 6, 20, 33, 16, key_heads=2),
    "grouped causal": plain(1, 4, 70, 70, 16, key_heads=2, causal=True),
    "several blocks of queries": plain(1, 1, 150, 40, 16),
    "several blocks of both, causal": plain(1, 1, 203, 203, 24, causal=True),
    "causal, more keys": plain(1, 2, 40, 150, 16, causal=True),
    "causal, more queries": plain(1, 2, 150, 40, 16, causal=True),
    "wide": plain(1, 1, 50, 60, 128),
    "values of overlapping vectors": plain(1, 2, 33, 30, 80, value_width=29),
    "values narrower than a vector": plain(1, 1, 20, 150, 16, value_width=5),
    "decode": plain(2, 2, 1, 45, 64),
    "decode grouped": plain(1, 8, 1, 100, 32, key_heads=2),
    "decode over wide values": plain(1, 4, 1, 150, 128, key_heads=1),
    "few queries": plain(1, 3, 5, 9, 20, causal=True),
    "one key": plain(1, 2, 1, 1, 16),
}


@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(name: str) -> None:
    check(TEMPLATE, CASES[name], tolerance=4e-6, all_configs=name in ("ragged", "decode grouped"))


@pytest.mark.parametrize("queries", [1, 33])
@pytest.mark.parametrize("shape", [(1, 1, "S", 40), (2, 1, 1, 40), ("S", 40), (2, 3, "S", 40)], ids=str)
@pytest.mark.parametrize("dtype", [DType.BOOL, DType.FLOAT32])
def test_masks(queries: int, shape: tuple[object, ...], dtype: DType) -> None:
    extents = tuple(queries if extent == "S" else extent for extent in shape)
    graph = plain(2, 3, queries, 40, 16, mask=tensor(extents, dtype))  # type: ignore[arg-type]
    check(TEMPLATE, graph, tolerance=4e-6)


def test_mask_on_key_counts_that_do_not_fit_vectors() -> None:
    check(TEMPLATE, plain(1, 2, 21, 27, 16, mask=tensor((21, 27), DType.BOOL)), tolerance=4e-6)
    check(TEMPLATE, plain(1, 1, 16, 530, 16, mask=tensor((16, 530), DType.FLOAT32)), tolerance=4e-6)
    check(TEMPLATE, plain(4, 3, 49, 49, 32, mask=tensor((4, 3, 49, 49), DType.FLOAT32)), tolerance=4e-6)


@pytest.mark.parametrize("length", [1, 7, 24, 31, 145, 270])
def test_the_diagonal(length: int) -> None:
    """Wherever the last key of a query lies within tiles and blocks of keys, with a mask that varies by query besides."""
    graph = plain(1, 1, length, length, 8, causal=True)
    check(TEMPLATE, graph, tolerance=4e-6, all_configs=length == 24)
    check(TEMPLATE, plain(1, 1, length, length, 8, causal=True, mask=tensor((length, length), DType.FLOAT32)), tolerance=4e-6)


def test_mask_that_hides_the_first_block_of_keys() -> None:
    graph = plain(1, 1, 80, 300, 16, mask=tensor((80, 300), DType.BOOL))
    arrays = random_inputs(graph)
    arrays[3][5:40, :200] = False
    check(TEMPLATE, graph, inputs=arrays, tolerance=4e-6)


def test_memory_does_not_grow_with_the_scores() -> None:
    """Neither workspace nor stack (whose buffers have constant sizes) depends on the lengths."""

    def kernel(length: int) -> LoweredKernel:
        task = Task(plain(1, 1, length, length, 64, causal=True), frozenset(), HOST, 1)
        return TEMPLATE.lower(task, TEMPLATE.space(task).default)

    short, long = kernel(1008), kernel(16 * 1008)
    assert short.workspace_bytes == long.workspace_bytes == 0
    assert allocations(short) == allocations(long) != []


def allocations(kernel: LoweredKernel) -> list[str]:
    """The sizes of the buffers on a kernel's stack."""
    return re.findall(r"alloc_\w+\(\((\d+),\)", kernel.function.script())


@pytest.mark.parametrize("queries", [1, 16])
def test_rows_without_any_key_are_zero(queries: int) -> None:
    graph = plain(1, 1, queries, 20, 16, mask=tensor((queries, 20), DType.BOOL))
    arrays = random_inputs(graph)
    arrays[3][0, :] = False
    check(TEMPLATE, graph, inputs=arrays, tolerance=4e-6)


def test_operands_and_result_through_views() -> None:
    def build(b, q, k, v, residual):
        def heads(x):
            return b.call("permute", b.call("reshape", x, shape=(2, 18, 3, 16)), order=(0, 2, 1, 3))

        result = b.call("attention", heads(q), heads(k), heads(v), scale=0.25)
        flat = b.call("reshape", b.call("permute", result, order=(0, 2, 1, 3)), shape=(2, 18, 48))
        return b.call("add", flat, residual)

    check(TEMPLATE, region([tensor((2, 18, 48))] * 4, build), tolerance=4e-6, threads=2)


def test_large_scores_do_not_overflow() -> None:
    graph = plain(1, 1, 16, 24, 16)
    arrays = [array * 30 for array in random_inputs(graph)]
    check(TEMPLATE, graph, inputs=arrays, tolerance=1e-4)


@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_narrow_vectors(processor: str) -> None:
    target = Target.parse(f"cpu -mcpu={processor}")
    check(TEMPLATE, plain(1, 2, 19, 30, 24, causal=True), tolerance=4e-6, target=target)
    check(TEMPLATE, plain(1, 2, 1, 30, 24), tolerance=4e-6, target=target)


def decoded(queries: int, dtype: DType) -> Graph:
    """Attention over keys and values that are stored in fewer bits, with a scale for each."""
    types = [tensor((2, 4, queries, 24)), tensor((2, 2, 37, 24), dtype), tensor((2, 2, 37, 24), dtype), tensor((2, 2, 37, 1))]

    def build(b: GraphBuilder, q: Value, k: Value, v: Value, scales: Value) -> Value:
        keys, values = (b.call("mul", b.call("cast", x, dtype=DType.FLOAT32), scales) for x in (k, v))
        return b.call("attention", q, keys, values, scale=0.2)

    return region(types, build)


@pytest.mark.parametrize("dtype", [DType.INT8, DType.BFLOAT16, DType.FLOAT16])
def test_few_queries_read_keys_and_values_in_fewer_bits(dtype: DType) -> None:
    check(TEMPLATE, decoded(1, dtype), all_configs=True)
    check(TEMPLATE, decoded(7, dtype), threads=2)
    assert not TEMPLATE.takes(decoded(8, dtype))


def test_what_cutting_costs() -> None:
    """Tiles that queries do not fill cost as much as full ones; where few queries leave nothing to cut, nothing is reckoned."""
    target = Target.parse("cpu -mcpu=x86-64-v4 -threads=2")

    def cycles(graph: Graph) -> dict[int, float]:
        task = Task(graph, frozenset(), target, 2)
        default = TEMPLATE.space(task).default
        every = [config for config in TEMPLATE.space(task).configs if all(config[k] == v for k, v in default.knobs if k != "queries")]
        found = TEMPLATE.cut_cycles(task, every)
        assert found is not None
        return {config["queries"]: cost for config, cost in zip(every, found, strict=True)}

    square, causal = cycles(plain(1, 12, 512, 512, 64)), cycles(plain(1, 12, 512, 512, 64, causal=True))
    assert all(causal[queries] < 0.75 * square[queries] for queries in square)
    wasteful = cycles(plain(8, 12, 49, 49, 32))
    assert wasteful[3] > 1.2 * wasteful[2], "48 and 1 queries take two tiles of 48"
    few = Task(plain(1, 8, 1, 100, 32), frozenset(), target, 2)
    assert TEMPLATE.cut_cycles(few, [TEMPLATE.space(few).default]) is None


def test_keys_that_are_computed_are_not_taken() -> None:
    def build(b, q, k, v):
        return b.call("attention", q, b.call("exp", k), v, scale=1.0)

    assert not TEMPLATE.takes(region([tensor((1, 1, 4, 8))] * 3, build))
