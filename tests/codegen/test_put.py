"""Assignment in place, against the interpreter; indices out of range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from check import random_inputs, region, tensor
from harness import HOST, NativeKernel, aligned

from mlc.codegen.task import Task
from mlc.codegen.templates.put import Put
from mlc.ir import DType, Graph, GraphBuilder, Value, interpret

I64 = DType.INT64


def doubled(b: GraphBuilder, x: Value, values: Value, *indices: Value) -> Value:
    return b.call("put", x, b.call("add", values, values), *indices, axes=(0, 2)[2 - len(indices) :])


def rows(b: GraphBuilder, x: Value, values: Value, start: Value) -> Value:
    """Positions that count on from ``start``, and values that another order of axes brings."""
    positions = b.call("add", b.call("iota", size=2, dtype=I64), start)
    return b.call("put", x, b.call("permute", values, order=(0, 2, 1, 3)), positions, axes=(2,))


CASES = {
    "rows": region([tensor((2, 3, 8, 19)), tensor((2, 2, 3, 19)), tensor((), I64)], rows),
    "one axis": region([tensor((5, 3, 4)), tensor((5, 3, 2)), tensor((2,), I64)], doubled),
    "two axes, integers": region([tensor((5, 3, 4), I64), tensor((2, 3, 1), I64), tensor((2,), I64), tensor((1,), I64)], doubled),
    "nothing": region([tensor((5, 3, 4)), tensor((5, 3, 0)), tensor((0,), I64)], doubled),
    "another order in memory": region([tensor((2, 6, 5), order=(0, 2, 1)), tensor((2, 6, 2)), tensor((2,), I64)], doubled, [(0, 2, 1)]),
}


def run(graph: Graph, inputs: Sequence[np.ndarray], choice: int = 0) -> np.ndarray:
    """What the output holds afterwards, which held the first input before; the kernel does not get at that otherwise."""
    template = Put()
    assert template.takes(graph) and template.in_place(graph) == 0
    task = Task(graph, frozenset(), HOST, 2)
    configs = list(template.space(task).configs)
    layout, x = graph.outputs[0].tensor.layout, inputs[0]
    output = aligned(graph.outputs[0].tensor.physical_shape, x.dtype)
    output[...] = layout.pack(x)
    arguments = [aligned(array.shape, array.dtype, 0xFF) for array in inputs]
    for argument, array in zip(arguments[1:], inputs[1:], strict=True):
        argument[...] = array
    NativeKernel(template.lower(task, configs[choice % len(configs)]).function, HOST)(*arguments, output)
    return layout.unpack(output, x.shape)


@pytest.mark.parametrize("name", CASES)
def test_put_in_place(name: str) -> None:
    graph = CASES[name]
    inputs = random_inputs(graph)
    np.testing.assert_array_equal(run(graph, inputs, len(name)), interpret(graph, inputs)[0])


def test_indices_count_from_the_end_and_must_be_in_range() -> None:
    graph = CASES["one axis"]
    x, values, _ = random_inputs(graph)
    np.testing.assert_array_equal(run(graph, [x, values, np.array([-1, -4])])[:, :, [3, 0]], 2 * values)
    for position in (4, -5):
        with pytest.raises(AssertionError):  # the harness holds the kernel to returning 0
            run(graph, [x, values, np.array([0, position])])


def test_what_is_read_for_the_update_cannot_be_overwritten() -> None:
    graph = region(
        [tensor((4, 3)), tensor((1,), I64)], lambda b, x, i: b.call("put", x, b.call("slice", x, axis=0, start=0, stop=1), i, axes=(0,))
    )
    assert not Put().takes(graph)
