"""The contractions that no faster template takes: native code against the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
from check import check, region, tensor
from harness import HOST

from mlc.codegen.task import Task
from mlc.codegen.templates.contraction import Contraction
from mlc.codegen.templates.registry import template_for
from mlc.ir import DType, Graph, GraphBuilder, Value

TEMPLATE = Contraction()
F64 = DType.FLOAT64
DEEP = (0, 2, 3, 4, 1)
"""The order of memory with channels last, of three spatial axes."""


def product(op: str, dtype: DType, *shapes: tuple[int, ...]) -> Graph:
    return region([tensor(shape, dtype) for shape in shapes], lambda b, *x: b.call(op, *x))


@pytest.mark.parametrize("dtype", [F64, DType.INT64, DType.INT32, DType.INT16, DType.INT8, DType.UINT8], ids=lambda dtype: dtype.text)
@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        ("matmul", ((3, 5), (5, 37))),
        ("matmul", ((2, 1, 3, 4), (3, 4, 1))),
        ("matmul", ((1, 1), (1, 1))),
        ("linear", ((2, 3, 5), (19, 5), (19,))),
        ("linear", ((5,), (7, 5))),
    ],
    ids=["matmul", "broadcast", "one", "linear", "vector"],
)
def test_products(op: str, shapes: tuple[tuple[int, ...], ...], dtype: DType) -> None:
    check(TEMPLATE, product(op, dtype, *shapes), tolerance=1e-14, threads=2)


def convolution(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    dtype: DType = DType.FLOAT32,
    *,
    op: str = "conv",
    bias: int = 0,
    order: tuple[int, ...] | None = None,
    **attributes: Any,
) -> Graph:
    axes = len(x) - 2
    attributes = {"stride": (1,) * axes, "padding": ((0, 0),) * axes, "dilation": (1,) * axes, **attributes}
    inputs = [tensor(x, dtype, order), tensor(weight, dtype), *([tensor((bias,), dtype)] if bias else [])]

    def build(b: GraphBuilder, *values: Value) -> Value:
        return b.call(op, *values, **attributes)

    return region(inputs, build, [order] if order else [])


SAME = ((1, 1),) * 3
CONVOLUTIONS = {
    "plain": convolution((2, 3, 4, 5, 6), (5, 3, 2, 3, 1), bias=5),
    "channels last": convolution((2, 3, 4, 5, 6), (37, 3, 3, 3, 3), bias=37, order=DEEP, padding=SAME),
    "strided": convolution((1, 2, 7, 6, 9), (3, 2, 3, 3, 3), padding=((1, 0), (2, 1), (0, 2)), stride=(2, 1, 3), dilation=(1, 2, 1)),
    "groups": convolution((1, 6, 3, 4, 5), (4, 3, 2, 2, 3), groups=2, padding=SAME, bias=4),
    "groups, channels last": convolution((2, 6, 3, 4, 5), (4, 3, 2, 2, 3), groups=2, padding=SAME, order=DEEP),
    "depthwise": convolution((1, 18, 3, 3, 3), (18, 1, 3, 3, 3), groups=18, padding=SAME, order=DEEP),
    "four axes": convolution((1, 2, 3, 3, 3, 4), (2, 2, 2, 2, 2, 2)),
    "f64": convolution((2, 3, 8, 9), (5, 3, 3, 3), F64, padding=((1, 1), (1, 1)), bias=5),
    "f64, one axis": convolution((2, 4, 19), (6, 2, 3), F64, groups=2, stride=(2,), padding=((1, 2),)),
    "i64": convolution((1, 3, 5, 6), (4, 3, 3, 2), DType.INT64, bias=4),
    "transposed": convolution((1, 3, 3, 4, 5), (3, 4, 2, 3, 3), op="conv_transpose", bias=4, output_padding=(0, 0, 0)),
    "transposed, strided": convolution(
        (2, 4, 3, 2, 4),
        (4, 3, 3, 2, 3),
        op="conv_transpose",
        groups=2,
        stride=(2, 3, 2),
        dilation=(1, 1, 2),
        padding=((1, 1), (0, 0), (2, 1)),
        output_padding=(1, 0, 1),
        order=DEEP,
    ),
    "transposed f64": convolution(
        (1, 3, 4, 5), (3, 2, 3, 3), F64, op="conv_transpose", stride=(2, 2), padding=((1, 1), (1, 1)), output_padding=(1, 1)
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    check(TEMPLATE, CONVOLUTIONS[name], threads=2)
    check(TEMPLATE, CONVOLUTIONS[name], constants=frozenset({1}))


@pytest.mark.parametrize("name", ["channels last", "strided", "f64"])
def test_all_configs(name: str) -> None:
    check(TEMPLATE, CONVOLUTIONS[name], threads=3, all_configs=True, constants=frozenset({1, 2}))


def test_prologue_and_epilogue() -> None:
    def build(b: GraphBuilder, x: Value, w: Value, r: Value) -> list[Value]:
        y = b.call("linear", b.call("relu", x), w)
        z = b.call("add", b.call("gelu", y), r)
        return [b.call("permute", z, order=(1, 0)), b.call("cast", y, dtype=DType.FLOAT32)]

    graph = region([tensor((5, 4), F64), tensor((21, 4), F64), tensor((21,), F64)], build)
    # The epilogue calls the C library for each element, so that nothing is vectorised.
    check(TEMPLATE, graph, threads=2)


def test_what_faster_templates_compute_is_left_to_them() -> None:
    inner = region(
        [tensor((4, 6)), tensor((6, 5))], lambda b, x, w: b.call("reduce", b.call("matmul", x, w), kind="sum", axes=(0,), keepdims=False)
    )
    fast = [product("matmul", DType.FLOAT32, (4, 6), (6, 5)), convolution((1, 3, 8, 8), (4, 3, 3, 3)), inner]
    assert not any(TEMPLATE.takes(graph) for graph in fast)
    taken = template_for(CONVOLUTIONS["plain"])
    assert taken is not None and taken.name == "contraction"


def test_small_work_stays_on_one_thread() -> None:
    space = TEMPLATE.space(Task(CONVOLUTIONS["plain"], frozenset(), HOST, 2))
    assert space.default["parallel"] == 0 and {config["parallel"] for config in space.configs} == {0, 1}
