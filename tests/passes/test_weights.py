"""Passes that rewrite weights: batch-norm folding, horizontal fusion; and decomposition."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from golden import CONTEXT, check, check_same, one_anchor, transformed

from mlc.codegen.task import Task
from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, TensorType, Value
from mlc.passes import Decompose, FoldBatchNorm, Horizontal, Pipeline

GENERATOR = np.random.default_rng(7)


def constant(builder: GraphBuilder, *shape: int, positive: bool = False) -> Value:
    data = GENERATOR.standard_normal(shape).astype(np.float32)
    return builder.constant(ArrayConstant(np.abs(data) + 0.5 if positive else data))


def f32(*shape: int) -> TensorType:
    return TensorType(DType.FLOAT32, shape)


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes if node.op != "constant"]


def normalised(builder: GraphBuilder, x: Value) -> Value:
    channels = x.tensor.static_shape[1]
    parameters = [constant(builder, channels), constant(builder, channels, positive=True), constant(builder, channels)]
    return builder.call("batch_norm", x, *parameters, constant(builder, channels), eps=1e-3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op", ["conv", "conv_transpose", "linear"])
def test_batch_norm_disappears_into_the_layer_before(op: str, bias: bool) -> None:
    builder = GraphBuilder()
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    extra = [constant(builder, 6)] if bias else []
    if op == "linear":
        product = builder.call("linear", builder.input(f32(5, 4)), constant(builder, 6, 4), *extra)
    elif op == "conv":
        product = builder.call("conv", builder.input(f32(1, 4, 5, 5)), constant(builder, 6, 2, 3, 3), *extra, groups=2, **window)
    else:
        weight = constant(builder, 4, 6, 3, 3)
        product = builder.call("conv_transpose", builder.input(f32(1, 4, 5, 5)), weight, *extra, output_padding=(0, 0), **window)
    graph = builder.finish([normalised(builder, product)])
    result = FoldBatchNorm().apply(graph, CONTEXT)
    assert ops(result) == [op]
    check_same(graph, result)


def test_batch_norm_of_a_value_that_others_read_becomes_scale_and_shift() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(1, 4, 5, 5))
    product = builder.call("conv", x, constant(builder, 4, 4, 1, 1), stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
    graph = builder.finish([normalised(builder, product), builder.call("relu", product)])
    result = FoldBatchNorm().apply(graph, CONTEXT)
    assert ops(result) == ["conv", "mul", "add", "relu"]
    check_same(graph, result)


def attention_block(builder: GraphBuilder, x: Value, biases: tuple[bool, bool, bool]) -> list[Value]:
    heads = []
    for bias in biases:
        layer = builder.call("linear", x, constant(builder, 8, 6), *([constant(builder, 8)] if bias else []))
        heads.append(builder.call("permute", builder.call("reshape", layer, shape=(1, x.tensor.static_shape[1], 2, 4)), order=(0, 2, 1, 3)))
    return heads


def test_queries_keys_and_values_become_one_layer() -> None:
    builder = GraphBuilder()
    q, k, v = attention_block(builder, builder.input(f32(1, 3, 6)), (True, False, True))
    graph = builder.finish([builder.call("attention", q, k, v, scale=0.5)])
    result = Horizontal().apply(graph, CONTEXT)
    assert ops(result).count("linear") == 1
    linear = next(node for node in result.nodes if node.op == "linear")
    assert linear.output.tensor.shape == (1, 3, 24)
    check_same(graph, result)


def test_layers_whose_results_take_epilogues_stay_apart() -> None:
    """gate and up of a gated feed-forward: the product is the epilogue of one of them."""
    builder = GraphBuilder()
    x = builder.input(f32(1, 3, 6))
    gate, up = (builder.call("linear", x, constant(builder, 8, 6)) for _ in range(2))
    graph = builder.finish([builder.call("mul", builder.call("silu", gate), up)])
    assert ops(Horizontal().apply(graph, CONTEXT)).count("linear") == 2


def test_large_layers_stay_apart() -> None:
    builder = GraphBuilder()
    q, k, v = attention_block(builder, builder.input(f32(1, 3, 6)), (False, False, False))
    graph = builder.finish([builder.call("attention", q, k, v, scale=0.5)])
    assert ops(Horizontal(max_features=23).apply(graph, CONTEXT)).count("linear") == 3


@dataclass(frozen=True)
class Oracle:
    """Predicts a time per feature of the layer, and one per kernel."""

    kernel: float
    feature: float

    def predict(self, task: Task) -> float:
        features = task.graph.outputs[0].tensor.static_shape[-1]
        return self.kernel + self.feature * features**2


@pytest.mark.parametrize(("oracle", "layers"), [(Oracle(100.0, 0.0), 1), (Oracle(0.0, 1.0), 3)], ids=["fewer kernels pay", "they do not"])
def test_the_oracle_decides_about_merging(oracle: Oracle, layers: int) -> None:
    builder = GraphBuilder()
    q, k, v = attention_block(builder, builder.input(f32(1, 3, 6)), (False, False, False))
    graph = builder.finish([builder.call("attention", q, k, v, scale=0.5)])
    assert ops(Horizontal().apply(graph, replace(CONTEXT, cost=oracle))).count("linear") == layers


def test_layers_of_one_row_become_one_whatever_the_oracle_says() -> None:
    """They are bound by reading weights, which the oracle may take for cached if there are few."""
    builder = GraphBuilder()
    q, k, v = attention_block(builder, builder.input(f32(1, 1, 6)), (False, False, False))
    graph = builder.finish([builder.call("attention", q, k, v, scale=0.5)])
    result = Horizontal().apply(graph, replace(CONTEXT, cost=Oracle(0.0, 1.0)))
    assert ops(result).count("linear") == 1
    check_same(graph, result)


def test_an_operation_that_no_template_takes_is_decomposed() -> None:
    builder = GraphBuilder()
    graph = builder.finish([builder.call("softmax", builder.input(f32(2, 5)), axis=1)])

    def no_softmax(region: Graph) -> bool:
        return one_anchor(region) and all(node.op != "softmax" for node in region.nodes)

    result = Decompose().apply(graph, replace(CONTEXT, takes=no_softmax))
    assert ops(result) == ["reduce", "sub", "exp", "reduce", "div"]
    check_same(graph, result)
    assert ops(Decompose().apply(graph, CONTEXT)) == ["softmax"]


def test_views_that_undo_each_other_lead_back_to_the_same_weight() -> None:
    builder = GraphBuilder()
    weight = constant(builder, 4, 4)
    x = builder.input(f32(2, 4))
    first = builder.call("linear", x, builder.call("permute", builder.call("permute", weight, order=(1, 0)), order=(1, 0)))
    graph = builder.finish([builder.call("add", first, builder.call("linear", x, weight))])
    result = Pipeline.parse("fold-constants,common-subexpressions").run(graph, CONTEXT)
    assert ops(result) == ["linear", "add"]


def test_a_bias_per_channel_joins_the_convolution() -> None:
    check(
        """
        graph @main(%x: f32[1,1,2,2], %w: f32[2,1,1,1]) {
          %b = constant() {value=const f32[2,1,1] [1.0,2.0]} : f32[2,1,1]
          %c = conv(%x, %w) {stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1]} : f32[1,2,2,2]
          %y = add(%b, %c) : f32[1,2,2,2]
          return %y
        }""",
        "simplify",
        """
        graph @main(%x: f32[1,1,2,2], %w: f32[2,1,1,1]) {
          %b = constant() {value=const f32[2] [1.0,2.0]} : f32[2]
          %y = conv(%x, %w, %b) {stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1]} : f32[1,2,2,2]
          return %y
        }""",
    )


def test_a_bias_along_the_wrong_axis_stays() -> None:
    text = transformed(
        """
        graph @main(%x: f32[2,2], %w: f32[2,2]) {
          %b = constant() {value=const f32[2,1] [1.0,2.0]} : f32[2,1]
          %l = linear(%x, %w) : f32[2,2]
          %y = add(%l, %b) : f32[2,2]
          return %y
        }""",
        "simplify",
    )
    assert "add(" in text
