"""Graphs run natively for passes that look at the numbers in them."""

from __future__ import annotations

import numpy as np
import pytest

from mlc.errors import SignatureError
from mlc.evaluation import HostEvaluator
from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, SymbolRange, TensorType, interpret, symbol


def graph_of(rows: object = 5) -> Graph:
    builder = GraphBuilder(symbols={} if rows == 5 else {"n": SymbolRange(1, 64)})
    x = builder.input(TensorType(DType.FLOAT32, (rows, 16)))  # type: ignore[arg-type]
    weight = builder.constant(ArrayConstant(np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)))
    y = builder.call("relu", builder.call("linear", x, weight))
    return builder.finish([builder.call("softmax", y, axis=1), y])


def test_results_are_those_of_the_interpreter_for_every_sample() -> None:
    evaluate, graph = HostEvaluator(), graph_of()
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((5, 16)).astype(np.float32)
        for got, wanted in zip(evaluate(graph, [x]), interpret(graph, [x]), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    (only,) = evaluate(Graph(graph.inputs, graph.nodes, graph.outputs[1:]), [x])
    np.testing.assert_allclose(only, wanted, rtol=1e-5, atol=1e-6)


def test_graphs_of_unknown_sizes_are_interpreted() -> None:
    x = np.ones((3, 16), np.float32)
    graph = graph_of(symbol("n"))
    for got, wanted in zip(HostEvaluator()(graph, [x]), interpret(graph, [x]), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(SignatureError):
        HostEvaluator()(graph_of(), [np.ones((4, 16), np.float32)])
