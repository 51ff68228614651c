"""Weights that came in 16 bits: stored as they came where that pays, with the results of before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden import CONTEXT, check_same

from mlc.codegen.target import Target
from mlc.codegen.task import Numerics
from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, TensorType, Value
from mlc.passes import KeepHalves, Pipeline

ZEN4 = replace(CONTEXT, target=Target.parse("cpu -mcpu=znver4 -threads=1"))


def graph_of(rows: int, half: DType, *, parts: int = 1) -> Graph:
    """A layer of a model in ``half`` as the passes before leave it: operands widened, weights folded."""
    generator = np.random.default_rng(0)
    builder = GraphBuilder()
    x = builder.input(TensorType(half, (rows, 32)))
    weights = [ArrayConstant(generator.standard_normal((12, 32)).astype(half.numpy)) for _ in range(parts)]
    widened = [builder.call("cast", builder.constant(weight), dtype=DType.FLOAT32) for weight in weights]
    weight = widened[0] if parts == 1 else builder.call("concat", *widened, axis=0)
    product = builder.call("linear", builder.call("cast", x, dtype=DType.FLOAT32), weight)
    return Pipeline.parse("fold-constants").run(builder.finish([builder.call("cast", product, dtype=half)]), CONTEXT)


def operands(graph: Graph) -> list[Value]:
    (node,) = (node for node in graph.nodes if node.op == "linear")
    return list(node.inputs)


@pytest.mark.parametrize("half", [DType.BFLOAT16, DType.FLOAT16])
@pytest.mark.parametrize("parts", [1, 3])
def test_few_rows_read_weights_as_they_came(half: DType, parts: int) -> None:
    graph = graph_of(2, half, parts=parts)
    assert operands(graph)[1].tensor.dtype is DType.FLOAT32 and operands(graph)[1].op == "constant"
    result = KeepHalves().apply(graph, CONTEXT)
    (stored,) = operands(result)[1].node.inputs  # type: ignore[union-attr]
    assert stored.op == "constant" and stored.tensor.dtype is half
    check_same(graph, result, tolerance=0)


def test_many_rows_keep_what_is_multiplied() -> None:
    graph = graph_of(100, DType.BFLOAT16)
    assert operands(KeepHalves().apply(graph, CONTEXT))[1].op == "constant"


def test_instructions_for_bfloat16_take_operands_as_they_came() -> None:
    graph = graph_of(100, DType.BFLOAT16)
    result = KeepHalves().apply(graph, ZEN4)
    assert [value.tensor.dtype for value in operands(result)] == [DType.BFLOAT16, DType.BFLOAT16]
    check_same(graph, result, tolerance=1e-6)
    strict = KeepHalves().apply(graph, replace(ZEN4, numerics=Numerics.STRICT))
    assert operands(strict)[0].tensor.dtype is DType.FLOAT32
    other = KeepHalves().apply(graph_of(100, DType.FLOAT16), ZEN4)
    assert operands(other)[0].tensor.dtype is DType.FLOAT32
