"""The convolution templates: layouts, strides, padding, groups, remainders, fused operations, and points of their spaces."""

from __future__ import annotations

from typing import Any

import pytest
from anchored import NHWC, check, f32, task_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc.codegen.target import Target
from mlc.codegen.templates.conv import ConvTemplate
from mlc.codegen.templates.depthwise import DepthwiseTemplate
from mlc.ir import Graph, GraphBuilder, Layout, Value

CONV = ConvTemplate()
DEPTHWISE = DepthwiseTemplate()


def conv(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    stride: int = 1,
    padding: Any = 0,
    dilation: int = 1,
    groups: int = 1,
    *,
    layout: Layout | None = NHWC,
    source: Layout | None = None,
    activation: str | None = None,
) -> Graph:
    """A convolution with bias whose operand (unless ``source`` says otherwise) and result lie in ``layout``."""
    axes = len(x) - 2
    builder = GraphBuilder()
    operands: list[Value] = [builder.input(f32(*x, layout=source or layout)), builder.input(f32(*weight)), builder.input(f32(weight[0]))]
    attributes = {
        "stride": (stride,) * axes,
        "padding": padding if isinstance(padding, tuple) else ((padding, padding),) * axes,
        "dilation": (dilation,) * axes,
        "groups": groups,
    }
    inferred = builder.call("conv", *operands, **attributes).type
    builder = GraphBuilder()
    operands = [builder.input(value.type) for value in operands]
    node = builder.add("conv", *operands, attributes=attributes, types=[inferred.with_layout(layout)])  # type: ignore[union-attr]
    result = builder.call(activation, node.output) if activation else node.output
    return builder.finish([result])


@pytest.mark.parametrize(
    "graph",
    [
        conv((1, 32, 14, 14), (40, 32, 1, 1)),
        conv((2, 16, 9, 11), (33, 16, 3, 3), padding=1, activation="relu"),
        conv((1, 16, 15, 15), (32, 16, 3, 3), stride=2, padding=1),
        conv((1, 24, 13, 13), (32, 24, 1, 1), stride=2),
        conv((1, 3, 30, 31), (20, 3, 7, 7), stride=2, padding=3, source=Layout((0, 1, 2, 3))),
        conv((1, 3, 32, 32), (24, 3, 8, 8), stride=8, source=Layout((0, 1, 2, 3))),
        conv((1, 20, 12, 12), (24, 20, 3, 3), padding=2, dilation=2, source=Layout((0, 1, 2, 3))),
        conv((1, 16, 10, 10), (16, 16, 3, 3), padding=((0, 1), (2, 0))),
        conv((1, 16, 10, 10), (16, 16, 3, 3), padding=1, layout=Layout((0, 1, 2, 3))),
        conv((1, 32, 7, 7), (64, 16, 3, 3), padding=1, groups=2),
        conv((1, 24, 7, 7), (18, 4, 3, 3), padding=1, groups=6),
        conv((2, 12, 50), (20, 12, 3), stride=2, padding=1, layout=None),
        conv((1, 512, 7, 7), (16, 512, 3, 3), padding=1),
        conv((1, 16, 2, 2), (16, 16, 2, 2)),
    ],
    ids=str,
)
def test_conv(graph: Graph) -> None:
    check(CONV, task_of(graph, {1}))


def test_weight_known_only_at_run_time() -> None:
    check(CONV, task_of(conv((1, 16, 9, 9), (37, 16, 3, 3), padding=1)))


@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64-v2"])
def test_narrow_vectors(processor: str) -> None:
    check(CONV, task_of(conv((1, 16, 9, 9), (37, 16, 3, 3), padding=1), {1}, Target.parse(f"cpu -mcpu={processor}")))


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    channels=st.integers(1, 40),
    outputs=st.integers(1, 80),
    size=st.integers(3, 24),
    window=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    seed=st.integers(0, 100),
)
def test_every_point_of_the_space_is_right(
    channels: int, outputs: int, size: int, window: int, stride: int, padding: int, seed: int
) -> None:
    task = task_of(conv((1, channels, size, size + 2), (outputs, channels, window, window), stride, padding), {1}, threads=2)
    check(CONV, task, CONV.space(task).sample(2, seed))


def test_pixels_and_channels_shared_among_four_threads() -> None:
    task = task_of(conv((1, 64, 28, 28), (96, 64, 3, 3), padding=1), {1}, threads=4)
    configs = [config for config in CONV.space(task).configs if config["unroll"] == 4]
    assert {config["row_groups"] for config in configs} == {1, 2, 4}
    check(CONV, task, configs[::5])


def test_residual_after_and_activation_before() -> None:
    builder = GraphBuilder()
    x, w, b = builder.input(f32(1, 16, 8, 8, layout=NHWC)), builder.input(f32(32, 16, 3, 3)), builder.input(f32(32))
    residual = builder.input(f32(1, 32, 8, 8, layout=NHWC))
    attributes = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    activated = builder.call("silu", x)
    y = builder.add("conv", activated, w, b, attributes=attributes, types=[f32(1, 32, 8, 8, layout=NHWC)]).output
    graph = builder.finish([builder.call("relu", builder.call("add", y, residual))])
    check(CONV, task_of(graph, {1, 2}))


@pytest.mark.parametrize(
    "graph",
    [
        conv((1, 32, 14, 14), (32, 1, 3, 3), padding=1, groups=32, activation="relu"),
        conv((2, 40, 15, 17), (40, 1, 3, 3), stride=2, padding=1, groups=40),
        conv((1, 48, 7, 7), (48, 1, 5, 5), padding=2, groups=48),
        conv((1, 16, 12, 12), (16, 1, 3, 3), padding=2, dilation=2, groups=16),
        conv((1, 16, 6, 3), (16, 1, 7, 7), padding=3, groups=16),
        conv((1, 20, 9, 9), (20, 1, 3, 3), padding=((0, 1), (0, 1)), stride=2, groups=20, layout=Layout((0, 1, 2, 3))),
        conv((1, 24, 33), (24, 1, 4), padding=((3, 0),), groups=24, layout=None),
    ],
    ids=str,
)
def test_depthwise(graph: Graph) -> None:
    assert not CONV.takes(graph)
    task = task_of(graph, {1})
    check(DEPTHWISE, task, DEPTHWISE.space(task).configs[:3])
    check(DEPTHWISE, task_of(graph))


def test_depthwise_shared_among_threads_and_on_narrow_vectors() -> None:
    check(DEPTHWISE, task_of(conv((1, 200, 7, 7), (200, 1, 3, 3), padding=1, groups=200), {1}, threads=8))
    target = Target.parse("cpu -mcpu=x86-64-v3")
    check(DEPTHWISE, task_of(conv((1, 20, 9, 9), (20, 1, 3, 3), padding=1, groups=20), {1}, target))


@pytest.mark.parametrize("channels", [7, 24, 64, 100, 184])
def test_depthwise_with_a_long_epilogue_in_groups_of_blocks_of_channels(channels: int) -> None:
    graph = conv((1, channels, 9, 10), (channels, 1, 3, 3), padding=1, groups=channels, activation="silu")
    check(DEPTHWISE, task_of(graph, {1}))
    check(DEPTHWISE, task_of(graph, {1}, threads=8))


def test_several_outputs_for_each_channel_are_an_ordinary_convolution() -> None:
    graph = conv((1, 6, 9, 9), (12, 1, 3, 3), padding=1, groups=6)
    assert not DEPTHWISE.takes(graph)
    check(CONV, task_of(graph, {1}))
