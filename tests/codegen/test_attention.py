"""The attention template against the interpreter in float64."""

from __future__ import annotations

import numpy as np
import pytest
from harness import HOST, NativeKernel, aligned

from mlc.codegen.task import Task
from mlc.codegen.templates.attention import AttentionTemplate
from mlc.ir import DType, GraphBuilder, Layout, TensorType, canonicalise, interpret

F32, BOOL = DType.FLOAT32, DType.BOOL

CASES = {
    "square": dict(shape=(1, 2, 2, 16, 16, 64)),
    "odd lengths through views, every config": dict(shape=(1, 2, 2, 37, 53, 64), views=True, every=True),
    "causal, grouped heads": dict(shape=(2, 4, 2, 37, 53, 32), causal=True),
    "causal, few queries stacked over heads": dict(shape=(2, 4, 2, 3, 53, 32), causal=True),
    "one query, width no multiple of the lanes": dict(shape=(2, 4, 2, 1, 53, 80)),
    "boolean mask per query": dict(shape=(2, 4, 4, 20, 20, 40), mask=(BOOL, (2, 1, 20, 20))),
    "boolean mask, queries stacked": dict(shape=(2, 4, 2, 2, 20, 16), mask=(BOOL, (2, 1, 2, 20))),
    "additive mask per key, narrow heads": dict(shape=(2, 4, 4, 20, 20, 8), mask=(F32, (2, 1, 1, 20)), views=True),
    "additive mask of rank 1": dict(shape=(2, 4, 4, 100, 20, 16), mask=(F32, (20,))),
    "one key": dict(shape=(1, 16, 4, 1, 1, 64)),
    "scaled keys, staged": dict(shape=(1, 2, 2, 18, 21, 16), doubled=True),
}


def build(shape, causal=False, mask=None, views=False, doubled=False, every=False):
    batch, heads, kv_heads, queries, keys, width = shape
    builder = GraphBuilder()

    def operand(count, length):
        if not views:
            return builder.input(TensorType(F32, (batch, count, length, width)))
        flat = builder.input(TensorType(F32, (batch, length, count * width)))
        return builder.call("permute", builder.call("reshape", flat, shape=(batch, length, count, width)), order=(0, 2, 1, 3))

    operands = [operand(heads, queries), operand(kv_heads, keys), operand(kv_heads, keys)]
    if doubled:
        operands[1:] = [builder.call("add", value, value) for value in operands[1:]]
    if mask is not None:
        operands.append(builder.input(TensorType(*mask)))
    result = TensorType(F32, (batch, heads, queries, width), Layout((0, 2, 1, 3)))
    node = builder.add("attention", *operands, attributes={"scale": width**-0.5, "is_causal": causal}, types=[result])
    return builder.finish([node.output])


def run(graph, arrays, config=None):
    template = AttentionTemplate()
    task = Task(canonicalise(graph), frozenset(), HOST, 2)
    assert template.takes(task.graph)
    lowered = template.lower(task, config or template.space(task).default)
    stored = []
    for array in arrays:
        buffer = aligned(array.shape, np.uint8 if array.dtype == np.bool_ else array.dtype)
        buffer[...] = array
        stored.append(buffer)
    output = aligned(graph.outputs[0].tensor.physical_shape, np.float32)
    output[...] = np.nan
    scratch = [aligned((lowered.workspace_bytes,), np.uint8, 0xFF)] if lowered.workspace_bytes else []
    NativeKernel(lowered.function)(*stored, output, *scratch)
    return graph.outputs[0].tensor.layout.unpack(output, graph.outputs[0].tensor.shape)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_attention_equals_the_reference(case):
    graph = build(**case)
    random = np.random.default_rng(0)
    arrays = [
        random.random(value.tensor.shape) > 0.4
        if value.tensor.dtype is BOOL
        else random.standard_normal(value.tensor.shape).astype(np.float32)
        for value in graph.inputs
    ]
    (expected,) = interpret(graph, arrays, wide=True)
    template = AttentionTemplate()
    task = Task(canonicalise(graph), frozenset(), HOST, 2)
    for config in template.space(task).configs if case.get("every") else [None]:
        assert np.abs(run(graph, arrays, config) - expected).max() < 2e-6


def test_a_query_without_keys_gives_zeros():
    graph = build((1, 1, 1, 4, 8, 16), mask=(BOOL, (4, 8)))
    random = np.random.default_rng(1)
    arrays = [random.standard_normal(value.tensor.shape).astype(np.float32) for value in graph.inputs[:3]]
    mask = np.ones((4, 8), bool)
    mask[2] = False
    result = run(graph, [*arrays, mask])
    assert not result[0, 0, 2].any()
    np.testing.assert_allclose(result, interpret(graph, [*arrays, mask], wide=True)[0], atol=1e-6)
