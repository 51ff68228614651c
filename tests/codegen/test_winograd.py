"""Winograd convolution: its matrices, its kernels against the interpreter, and where it is not used."""

from __future__ import annotations

import numpy as np
import pytest
from anchored import NHWC, check, f32, task_of

from mlc.codegen.constant_layout import constant_layouts_document, constant_layouts_of
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Numerics, Task
from mlc.codegen.templates.conv import ConvTemplate
from mlc.codegen.winograd import WinogradWeight
from mlc.ir import Graph, GraphBuilder, Layout

CONV = ConvTemplate()


def conv(
    x: tuple[int, ...],
    outputs: int,
    padding: tuple[tuple[int, int], ...] = ((1, 1), (1, 1)),
    *,
    window: int = 3,
    stride: int = 1,
    dilation: int = 1,
    layout: Layout | None = NHWC,
    residual: bool = False,
) -> Graph:
    """relu(conv(x) + bias [+ residual])."""
    attributes = {"stride": (stride,) * 2, "padding": padding, "dilation": (dilation,) * 2, "groups": 1}
    weight = (outputs, x[1], window, window)
    scratch = GraphBuilder()
    typed = scratch.call("conv", scratch.input(f32(*x)), scratch.input(f32(*weight)), scratch.input(f32(outputs)), **attributes)
    builder = GraphBuilder()
    operands = [builder.input(f32(*x, layout=layout)), builder.input(f32(*weight)), builder.input(f32(outputs))]
    result = builder.add("conv", *operands, attributes=attributes, types=[typed.tensor.with_layout(layout)]).output
    if residual:
        result = builder.call("add", result, builder.input(typed.tensor.with_layout(layout)))
    return builder.finish([builder.call("relu", result)])


def algorithms(task: Task) -> dict[int, list[Config]]:
    """The configs of the task's space by the algorithm they take."""
    found: dict[int, list[Config]] = {}
    for config in CONV.space(task).configs:
        found.setdefault(config["winograd"], []).append(config)
    return found


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize(
    "graph",
    [
        conv((1, 32, 16, 16), 32),
        conv((2, 16, 9, 11), 48, residual=True),
        conv((3, 16, 5, 7), 16, ((0, 1), (2, 0))),
        conv((1, 32, 13, 6), 64, ((0, 0), (0, 0))),
        conv((1, 16, 2, 3), 16),
        conv((1, 16, 10, 10), 16, layout=Layout((0, 1, 2, 3))),
    ],
    ids=str,
)
def test_kernels(graph: Graph, outputs: int) -> None:
    task = task_of(graph, {1})
    configs = algorithms(task)[outputs]
    by_threads = {config["row_groups"]: config for config in reversed(configs)}
    check(CONV, task, list(by_threads.values()))


@pytest.mark.parametrize("processor", ["x86-64-v2", "x86-64-v3"])
def test_narrow_vectors_and_one_thread(processor: str) -> None:
    task = task_of(conv((1, 16, 9, 9), 24), {1}, Target.parse(f"cpu -mcpu={processor}"), threads=1)
    configs = algorithms(task)
    check(CONV, task, [configs[2][0], configs[4][0]])


def test_large_convolutions_take_it_by_default() -> None:
    assert CONV.space(task_of(conv((1, 128, 28, 28), 128), {1})).default["winograd"] == 4


def test_threads_that_would_wait_for_weights_share_them() -> None:
    """Of 512 channels on few pixels, groups of threads with all the weights each, and the larger tiles, read more than they multiply."""
    target = Target.parse("cpu -mcpu=znver5 -threads=2")
    found = algorithms(task_of(conv((1, 512, 7, 7), 512), {1}, target))
    assert set(found) == {0, 2} and {config["row_groups"] for config in found[2]} == {1}
    assert set(algorithms(task_of(conv((1, 64, 56, 56), 64), {1}, target))) == {0, 2, 4}


@pytest.mark.parametrize(
    "task",
    [
        task_of(conv((1, 16, 9, 9), 16)),  # a weight that changes from call to call
        task_of(conv((1, 16, 9, 9), 16, stride=2), {1}),
        task_of(conv((1, 16, 9, 9), 16, dilation=2), {1}),
        task_of(conv((1, 16, 9, 9), 16, window=5), {1}),
        task_of(conv((1, 12, 9, 9), 16), {1}, Target.parse("cpu -mcpu=x86-64-v3")),
        Task(conv((1, 16, 9, 9), 16), frozenset({1}), task_of(conv((1, 16, 9, 9), 16)).target, 2, Numerics.STRICT),
        task_of(conv((1, 16, 9, 9), 16), {1}, Target.parse("cortex-m4")),
    ],
    ids=["computed weight", "stride", "dilation", "window", "channels", "strict", "scalar target"],
)
def test_not_used(task: Task) -> None:
    assert set(algorithms(task)) == {0}


@pytest.mark.parametrize("outputs", [2, 4])
def test_transformed_weight(outputs: int) -> None:
    """A window of ones at one tap gives the powers of the points over their distances; lanes of a panel are output channels."""
    weight = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    layout = WinogradWeight(outputs, 4)
    stored = layout.pack(weight)
    assert stored.shape == layout.physical_shape(weight.shape) == (2, (outputs + 2) ** 2, 3, 4)
    assert stored.dtype == np.float32
    # The point at infinity of both axes is the last tap itself; the point 0 of both the first, over the distances.
    np.testing.assert_array_equal(stored[0, -1, :, 1], weight[1, :, 2, 2])
    np.testing.assert_allclose(stored[1, 0, :, 0], weight[4, :, 0, 0], rtol=1e-6)
    assert not stored[1, :, :, 2:].any()


def test_layouts_in_files() -> None:
    layouts = {1: WinogradWeight(4, 16), 3: Layout((1, 0), ((1, 32),))}
    assert constant_layouts_of(constant_layouts_document(layouts)) == layouts
