"""The sparsity pass: which weights get which encoding, and which are left alone."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from golden import CONTEXT, STRICT, check_same

from mlc.codegen.target import Target
from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, TensorType, print_graph, verify
from mlc.passes import Context, EncodeWeights, Pipeline, Sparsity

GENERATOR = np.random.default_rng(5)


def weight(outputs: int, inputs: int, density: float, block: int = 1) -> np.ndarray:
    kept = np.repeat(GENERATOR.random((-(-outputs // block), inputs)) < density, block, 0)[:outputs]
    return np.where(kept, GENERATOR.standard_normal((outputs, inputs)), 0).astype(np.float32)


def linear(rows: int, data: np.ndarray) -> Graph:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (rows, data.shape[1])))
    return builder.finish([builder.call("linear", x, builder.constant(ArrayConstant(data)))])


def encodings(graph: Graph, ctx: Context = CONTEXT) -> list[str]:
    """The encoding of every constant after the pass, which has kept what the graph computes."""
    result = Sparsity().apply(graph, ctx)
    verify(result)
    check_same(graph, result)
    return [node.output.tensor.encoding.name for node in result.nodes if node.op == "constant"]


def test_dense_weights_and_their_graph_stay_as_they_are() -> None:
    graph = linear(128, weight(256, 256, 1.0))
    assert Sparsity().apply(graph, CONTEXT) is graph
    half = linear(128, weight(256, 256, 0.7))
    assert Sparsity().apply(half, CONTEXT) is half


def test_blocks_are_found() -> None:
    graph = linear(128, weight(256, 256, 0.2, 16))
    result = Sparsity().apply(graph, CONTEXT)
    (constant,) = [node for node in result.nodes if node.op == "constant"]
    given = dict(constant.output.tensor.encoding.parameters)
    assert constant.output.tensor.encoding.name == "block_sparse"
    assert given["width"] == 16
    assert constant.output.constant is graph.nodes[0].output.constant
    assert "as block_sparse(width=16" in print_graph(result)


@pytest.mark.parametrize("density", [0.1, 0.02])
@pytest.mark.parametrize("rows", [16, 196])
def test_unstructured_zeros_are_listed(rows: int, density: float) -> None:
    assert encodings(linear(rows, weight(512, 512, density))) == ["block_sparse"]


def test_weights_from_memory_are_packed_where_those_in_a_cache_are_not() -> None:
    data = weight(512, 1024, 0.3)
    assert encodings(linear(1, data)) == ["dense"]
    small = replace(CONTEXT, target=Target.parse("cpu -mcpu=x86-64-v3 -threads=2 -l3=1024"))
    assert encodings(linear(1, data), small) != ["dense"]


def test_n_of_m_is_found_for_a_few_rows() -> None:
    data = weight(512, 1024, 1.0).reshape(512, 256, 4)
    np.put_along_axis(data, np.argsort(GENERATOR.random(data.shape), axis=-1)[..., :2], 0, axis=-1)
    small = replace(CONTEXT, target=Target.parse("cpu -mcpu=x86-64-v3 -threads=2 -l3=1024"))
    assert encodings(linear(1, data.reshape(512, 1024)), small) == ["nm_sparse"]


@pytest.mark.parametrize(
    ("mode", "rows", "block", "density", "expected"),
    [
        ("w8", 128, 16, 0.2, r"entries=\d+, axis=0, values=affine\(storage=i8, scale=stored, axis=0\)\)"),
        ("w8", 64, 1, 0.05, r"entries=\d+, axis=0, values=affine\(storage=i8, scale=stored, axis=0\)\)"),
        # No kernel for many rows reads codes of 4 bits that are listed: their numbers are.
        ("w4", 128, 16, 0.2, r"as block_sparse\(width=16, entries=\d+, axis=0\)"),
        # Looking up sums of bits is quicker than gathering half of the numbers.
        ("w4", 1, 1, 0.5, r"constant\(\) .* : f32\[256,256\] as grouped\("),
    ],
)
def test_codes_are_listed_where_a_kernel_reads_them(mode: str, rows: int, block: int, density: float, expected: str) -> None:
    graph = EncodeWeights(mode).apply(linear(rows, weight(256, 256, density, block)), CONTEXT)
    result = Sparsity().apply(graph, CONTEXT)
    verify(result)
    check_same(graph, result)
    assert re.search(expected, print_graph(result))


@pytest.mark.parametrize(("mode", "n", "expected"), [("w4", 2, "nm_sparse"), ("w4", 1, "nm_sparse"), ("w8", 1, "nm_sparse")])
def test_codes_of_n_of_m(mode: str, n: int, expected: str) -> None:
    data = weight(1024, 1024, 1.0).reshape(1024, 256, 4)
    np.put_along_axis(data, np.argsort(GENERATOR.random(data.shape), axis=-1)[..., n:], 0, axis=-1)
    graph = EncodeWeights(mode).apply(linear(1, data.reshape(1024, 1024)), CONTEXT)
    assert encodings(graph) == [expected]


@pytest.mark.parametrize("density", [0.6, 0.5, 0.3])
@pytest.mark.parametrize("rows", [1, 4])
def test_panels_of_all_inputs_are_no_gain_where_caches_set_the_pace(rows: int, density: float) -> None:
    wide = replace(CONTEXT, target=Target.parse("cpu -mcpu=znver5 -threads=2"))
    assert encodings(linear(rows, weight(1024, 1024, density)), wide) == ["dense"]


def test_codes_of_n_of_m_stay_dense_where_they_multiply_as_bytes() -> None:
    data = weight(1024, 1024, 1.0).reshape(1024, 256, 4)
    np.put_along_axis(data, np.argsort(GENERATOR.random(data.shape), axis=-1)[..., :2], 0, axis=-1)
    ctx = replace(CONTEXT, target=Target.parse("cpu -mcpu=znver5 -threads=2"))
    coded = EncodeWeights(mode="w8").apply(linear(1, data.reshape(1024, 1024)), ctx)
    assert encodings(coded, ctx) == ["affine"]
    streamed = replace(ctx, target=Target.parse("cpu -mcpu=znver5 -threads=2 -l3=256"))
    assert encodings(coded, streamed) == ["nm_sparse"]


def test_convolutions() -> None:
    def convolution(window: int, block: int = 1) -> Graph:
        builder = GraphBuilder()
        x = builder.input(TensorType(DType.FLOAT32, (1, 64, 14, 14)))
        data = weight(128, 64 * window * window, 0.1, block).reshape(128, 64, window, window)
        pad = window // 2
        attributes = {"stride": (1, 1), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "groups": 1}
        return builder.finish([builder.call("conv", x, builder.constant(ArrayConstant(data)), **attributes)])

    assert encodings(convolution(1)) == ["block_sparse"]
    # With a window, zeros are left out where whole vectors of outputs have them.
    assert encodings(convolution(3)) == ["dense"]
    assert encodings(convolution(3, 16)) == ["block_sparse"]


def test_nothing_is_left_out_where_numbers_may_be_infinite() -> None:
    graph = linear(128, weight(256, 256, 0.1))
    assert Sparsity().apply(graph, STRICT) is graph


def test_the_text_form_has_its_options() -> None:
    assert str(Pipeline.parse("sparsity{gain=0.5}")) == "sparsity{gain=0.5}"
    graph = linear(128, weight(256, 256, 0.3))
    assert Sparsity(gain=0.01).apply(graph, CONTEXT) is graph
