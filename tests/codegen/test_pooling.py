"""The pooling template against the interpreter in float64."""

from __future__ import annotations

import numpy as np
import pytest
from harness import HOST, NativeKernel, aligned

from mlc.codegen.task import Numerics, Task
from mlc.codegen.templates.pooling import PoolingTemplate
from mlc.ir import DType, GraphBuilder, Layout, TensorType, canonicalise, interpret, lookup

F32 = DType.FLOAT32
CHANNELS_LAST = Layout((0, 2, 3, 1))
PLAIN = Layout((0, 1, 2, 3))

CASES = {
    "resnet stem": ("max", (1, 64, 13, 15), (3, 3), (2, 2), ((1, 1), (1, 1)), {}),
    "odd channels": ("max", (2, 37, 7, 9), (2, 2), (2, 2), ((0, 0), (0, 0)), {}),
    "dilated": ("max", (1, 5, 12, 12), (3, 2), (1, 2), ((1, 1), (0, 1)), {"dilation": (2, 3)}),
    "large window": ("mean", (1, 20, 9, 9), (7, 7), (1, 1), ((3, 3), (3, 3)), {}),
    "mean of real elements": ("mean", (1, 20, 9, 8), (3, 3), (2, 1), ((1, 1), (1, 0)), {"count_include_pad": False}),
    "overhang does not count": ("mean", (1, 17, 8, 8), (3, 3), (2, 2), ((1, 2), (1, 2)), {"uncounted": (1, 1)}),
    "given divisor": ("mean", (1, 17, 8, 8), (3, 3), (2, 2), ((1, 1), (1, 1)), {"divisor": 5}),
}


@pytest.mark.parametrize("layout", [PLAIN, CHANNELS_LAST], ids=["channels first", "channels last"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_pooling_equals_the_reference(case, layout):
    kind, shape, window, stride, padding, more = case
    builder = GraphBuilder()
    x = builder.input(TensorType(F32, shape, layout))
    attributes = {"kind": kind, "window": window, "stride": stride, "padding": padding, "dilation": (1, 1), **more}
    inferred = lookup("window_reduce").infer_types([x.type], lookup("window_reduce").complete_attributes(attributes))
    result = builder.add("window_reduce", x, attributes=attributes, types=[inferred[0].with_layout(layout)]).output
    graph = builder.finish([builder.call("relu", result)])
    (expected,) = interpret(graph, [array := np.random.default_rng(0).standard_normal(shape).astype(np.float32)], wide=True)
    actual = run(graph, array, Numerics.FAST)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_nan_wins_a_maximum_when_numerics_are_strict():
    builder = GraphBuilder()
    x = builder.input(TensorType(F32, (1, 16, 4, 4), CHANNELS_LAST))
    attributes = {"kind": "max", "window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    graph = builder.finish([builder.call("window_reduce", x, **attributes)])
    array = np.random.default_rng(0).standard_normal((1, 16, 4, 4)).astype(np.float32)
    array[0, 3, 0, 0] = array[0, 5, 1, 1] = np.nan
    result = run(graph, array, Numerics.STRICT)
    assert np.isnan(result[0, 3, 0, 0]) and np.isnan(result[0, 5, 0, 0])
    assert np.isnan(result).sum() == 2


def run(graph, array, numerics):
    template = PoolingTemplate()
    task = Task(canonicalise(graph), frozenset(), HOST, 2, numerics)
    assert template.takes(task.graph)
    lowered = template.lower(task, template.space(task).default)
    layout = graph.inputs[0].tensor.layout
    stored = aligned(layout.physical_shape(array.shape), np.float32)
    stored[...] = layout.pack(array)
    type = graph.outputs[0].tensor
    output = aligned(type.physical_shape, np.float32)
    output[...] = np.nan
    NativeKernel(lowered.function)(stored, output)
    return type.layout.unpack(output, type.shape)
