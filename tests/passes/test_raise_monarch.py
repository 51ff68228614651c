"""Monarch products recognised in two batched products with a transposition between them."""

from __future__ import annotations

import numpy as np
import pytest
from golden import transformed

from mlc.ir import ArrayConstant, GraphBuilder, TensorType, Value, parse_type, print_graph


def written_out(rows: int, rank: int, *, constant: bool = True) -> str:
    """The graph of a model that computes it with 2 parts of 3 inputs and 4 groups of 3 results."""
    generator = np.random.default_rng(0)
    builder = GraphBuilder()
    x = builder.input(TensorType(parse_type("f32[1]").dtype, (rows, 6)), "x")

    def factor(*shape: int) -> Value:
        if not constant:
            return builder.input(TensorType(x.tensor.dtype, shape))
        return builder.constant(ArrayConstant(generator.standard_normal(shape).astype(np.float32)))

    first, second = factor(2, 3, 4 * rank), factor(4, 2 * rank, 3)
    parts = builder.call("permute", builder.call("reshape", x, shape=(rows, 2, 3)), order=(1, 0, 2))
    pieces = builder.call("reshape", builder.call("matmul", parts, first), shape=(2, rows, 4, rank))
    gathered = builder.call("reshape", builder.call("permute", pieces, order=(2, 1, 0, 3)), shape=(4, rows, 2 * rank))
    result = builder.call("permute", builder.call("matmul", gathered, second), order=(1, 2, 0))
    return print_graph(builder.finish([builder.call("reshape", result, shape=(rows, 12))]))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("rank", [1, 2])
def test_two_products_become_one(rows: int, rank: int) -> None:
    text = transformed(written_out(rows, rank), "simplify,raise-composites,fold-constants,simplify,dead-code")
    assert text.count("monarch(") == 1 and "matmul(" not in text and "permute(" not in text
    assert f"f32[2,3,{rank},4]" in text and f"f32[2,{rank},3,4]" in text


def test_factors_that_are_computed_stay_products() -> None:
    """The kernel wants them in an order of its own, which is free for constants only."""
    text = transformed(written_out(7, 1, constant=False), "simplify,raise-composites,simplify")
    assert "monarch(" not in text and text.count("matmul(") == 2
