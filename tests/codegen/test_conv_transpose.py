"""Transposed convolution: strides, paddings, groups and dilation, against the float64 reference."""

from __future__ import annotations

import pytest
from anchored import NHWC, check, f32, task_of

from mlc.codegen.templates.conv_transpose import ConvTransposeTemplate
from mlc.ir import Graph, GraphBuilder

TEMPLATE = ConvTransposeTemplate()


def transposed(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    stride: int,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Graph:
    axes = len(x) - 2
    layout = NHWC if axes == 2 else None
    builder = GraphBuilder()
    operands = [builder.input(f32(*x, layout=layout)), builder.input(f32(*weight)), builder.input(f32(weight[1] * groups))]
    attributes = {
        "stride": (stride,) * axes,
        "padding": ((padding, padding),) * axes,
        "dilation": (dilation,) * axes,
        "output_padding": (output_padding,) * axes,
        "groups": groups,
    }
    y = builder.add("conv_transpose", *operands, attributes=attributes).output
    return builder.finish([builder.call("relu", y)])


@pytest.mark.parametrize(
    "graph",
    [
        transposed((1, 24, 7, 9), (24, 40, 2, 2), 2),
        transposed((2, 16, 6, 5), (16, 20, 3, 3), 2, 1, 1),
        transposed((1, 16, 6, 6), (16, 16, 4, 4), 2, 1),
        transposed((1, 12, 6, 6), (12, 5, 3, 3), 2, 1, 0, 2, 2),
        transposed((1, 8, 5, 5), (8, 16, 2, 2), 3),
        transposed((1, 16, 8, 8), (16, 33, 3, 3), 1, 1),
        transposed((2, 10, 20), (10, 18, 5), 3, 2, 1),
    ],
    ids=str,
)
def test_conv_transpose(graph: Graph) -> None:
    check(TEMPLATE, task_of(graph, {1}))


def test_other_configs_and_a_weight_known_only_at_run_time() -> None:
    graph = transposed((2, 16, 6, 5), (16, 20, 3, 3), 2, 1, 1)
    task = task_of(graph, {1})
    check(TEMPLATE, task, TEMPLATE.space(task).sample(3, 0))
    check(TEMPLATE, task_of(graph))
