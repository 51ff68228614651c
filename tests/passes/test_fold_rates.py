"""Rates of codes that become part of constants, and limits that codes have by themselves."""

from __future__ import annotations

import numpy as np
from golden import CONTEXT, STRICT

from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, TensorType, Value, interpret, verify
from mlc.passes import Context, FoldRates

F32 = TensorType(DType.FLOAT32, (2, 3, 4, 5))
RATE = 3.7


def scalar(builder: GraphBuilder, number: float) -> Value:
    return builder.call("full", shape=(), value=float(np.float32(number)), dtype=DType.FLOAT32)


def channels(builder: GraphBuilder, seed: int = 0) -> Value:
    """A positive number for each channel."""
    return builder.constant(ArrayConstant(np.random.default_rng(seed).uniform(0.5, 2, (3, 1, 1)).astype(np.float32)))


def codes(builder: GraphBuilder, x: Value, rate: float = RATE, zero_point: int = 0, dtype: DType = DType.UINT8) -> Value:
    return builder.call("quantise", x, scalar(builder, rate), zero_point=zero_point, dtype=dtype)


def folded(graph: Graph, ctx: Context = CONTEXT, *, difference: int = 1, differing: float = 0.02) -> list[str]:
    """The operations after the pass, other than sources; codes must be at most ``difference`` from what they were, and few may differ."""
    after = FoldRates().apply(graph, ctx)
    verify(after)
    generator = np.random.default_rng(1)
    inputs = [(generator.standard_normal(value.tensor.static_shape) * 20).astype(np.float32) for value in graph.inputs]
    for array in inputs:
        array.flat[:4] = np.nan, np.inf, -np.inf, -0.0
    for before, now in zip(interpret(graph, inputs), interpret(after, inputs), strict=True):
        apart = np.abs(before.astype(np.int64) - now.astype(np.int64))
        assert apart.max() <= difference
        assert (apart > 0).mean() <= differing
    return [node.op for node in after.nodes if node.op not in ("full", "constant")]


def test_codes_without_negative_numbers_limit_by_themselves() -> None:
    builder = GraphBuilder()
    graph = builder.finish([codes(builder, builder.call("relu", builder.input(F32)))])
    assert folded(graph, difference=0) == ["quantise"]
    assert folded(graph, STRICT, difference=0) == ["quantise"]


def test_codes_of_negative_numbers_do_not() -> None:
    for zero_point, dtype in ((10, DType.UINT8), (0, DType.INT8)):
        builder = GraphBuilder()
        made = codes(builder, builder.call("relu", builder.input(F32)), zero_point=zero_point, dtype=dtype)
        assert folded(builder.finish([made])) == ["relu", "quantise"]
    builder = GraphBuilder()
    turned = codes(builder, builder.call("relu", builder.input(F32)), rate=-RATE)
    assert folded(builder.finish([turned])) == ["relu", "quantise"]


def test_products_are_codes_at_another_rate() -> None:
    for swapped in (False, True):
        builder = GraphBuilder()
        operands = [builder.input(F32), channels(builder)]
        graph = builder.finish([codes(builder, builder.call("relu", builder.call("mul", *(operands[::-1] if swapped else operands))))])
        assert folded(graph) == ["quantise"]


def test_products_with_a_number_too() -> None:
    builder = GraphBuilder()
    product = builder.call("mul", builder.input(F32), scalar(builder, 0.3))
    assert folded(builder.finish([codes(builder, product, zero_point=7)])) == ["quantise"]


def test_sums_take_the_rate_into_their_constants() -> None:
    builder = GraphBuilder()
    one = builder.call("mul", builder.input(F32), channels(builder, 1))
    other = builder.call("mul", builder.input(F32), scalar(builder, 0.3))
    graph = builder.finish([codes(builder, builder.call("relu", builder.call("add", one, other)))])
    assert folded(graph) == ["mul", "mul", "add", "quantise"]
    (last,) = (node for node in FoldRates().apply(graph, CONTEXT).nodes if node.op == "quantise")
    assert last.inputs[1].node is not None
    assert last.inputs[1].node.attributes["value"] == 1


def test_terms_may_be_rounded_to_bfloat16() -> None:
    builder = GraphBuilder()
    product = builder.call("mul", builder.input(F32), channels(builder, 1))
    rounded = builder.call("cast", builder.call("cast", product, dtype=DType.BFLOAT16), dtype=DType.FLOAT32)
    total = builder.call("add", rounded, builder.call("mul", builder.input(F32), channels(builder, 2)))
    graph = builder.finish([codes(builder, total)])
    assert folded(graph, difference=2, differing=0.1) == ["mul", "cast", "cast", "mul", "add", "quantise"]
    (last,) = (node for node in FoldRates().apply(graph, CONTEXT).nodes if node.op == "quantise")
    assert last.inputs[1].node is not None
    assert last.inputs[1].node.attributes["value"] == 1


def test_a_constant_term_is_multiplied_too() -> None:
    builder = GraphBuilder()
    total = builder.call("add", builder.call("mul", builder.input(F32), channels(builder, 1)), channels(builder, 2))
    assert folded(builder.finish([codes(builder, total)])) == ["mul", "add", "quantise"]


def test_what_others_read_stays() -> None:
    builder = GraphBuilder()
    product = builder.call("mul", builder.input(F32), channels(builder))
    graph = builder.finish([codes(builder, product), builder.call("cast", builder.call("floor", product), dtype=DType.INT32)])
    after = FoldRates().apply(graph, CONTEXT)
    (last,) = (node for node in after.nodes if node.op == "quantise")
    assert last.inputs[0].op == "mul"


def test_sums_of_anything_else_and_strict_numerics_stay() -> None:
    builder = GraphBuilder()
    total = builder.call("add", builder.call("mul", builder.input(F32), channels(builder)), builder.input(F32))
    assert folded(builder.finish([codes(builder, total)]), difference=0) == ["mul", "add", "quantise"]
    builder = GraphBuilder()
    product = builder.call("mul", builder.input(F32), channels(builder))
    assert folded(builder.finish([codes(builder, product)]), STRICT, difference=0) == ["mul", "quantise"]


def test_rates_found_at_run_time_stay() -> None:
    builder = GraphBuilder()
    x = builder.call("mul", builder.input(F32), channels(builder))
    largest = builder.call("reduce", builder.input(F32), kind="max", axes=(1, 2, 3), keepdims=True)
    made = builder.call("quantise", x, builder.call("abs", largest), zero_point=0, dtype=DType.UINT8)
    after = FoldRates().apply(builder.finish([made]), CONTEXT)
    assert [node.op for node in after.nodes if node.op == "mul"] == ["mul"]
