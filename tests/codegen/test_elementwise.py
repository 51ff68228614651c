"""The elementwise template: arithmetic, views and data movement in any layout, on shapes that do not fit vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from check import check, region, tensor
from harness import HOST

from mlc.codegen.build import build_module
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.templates.elementwise import Elementwise
from mlc.ir import ArrayConstant, DType

TEMPLATE = Elementwise()
NHWC = (0, 2, 3, 1)
SHAPES = [(), (1,), (3,), (17,), (64,), (5, 7), (3, 1, 33), (2, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_arithmetic_on_odd_shapes(shape: tuple[int, ...]) -> None:
    graph = region([tensor(shape), tensor(shape)], lambda b, x, y: b.call("gelu", b.call("add", b.call("mul", x, y), x)))
    check(TEMPLATE, graph, all_configs=shape == (5, 7))


def test_a_long_chain_of_vector_mathematics_compiles() -> None:
    """The analyzer of the code generator must not expand definitions: this chain would then have some 10^20 terms."""

    def build(b, x):
        for _ in range(6):
            x = b.call("mul", b.call("tanh", b.call("mul", b.call("sigmoid", x), x)), b.call("softplus", x))
        return x

    check(TEMPLATE, region([tensor((3, 32))], build), tolerance=1e-5)


def test_broadcasting_operands() -> None:
    graph = region(
        [tensor((2, 5, 48)), tensor((48,)), tensor((5, 1)), tensor(())],
        lambda b, x, row, column, scalar: b.call("mul", b.call("add", b.call("add", x, row), column), scalar),
    )
    check(TEMPLATE, graph)


def test_several_outputs_share_their_work() -> None:
    def build(b, x, y):
        total = b.call("add", x, y)
        return [total, b.call("relu", total), b.call("reshape", total, shape=(21,)), b.call("permute", total, order=(1, 0))]

    check(TEMPLATE, region([tensor((3, 7)), tensor((3, 7))], build))


@pytest.mark.parametrize("dtype", [DType.INT64, DType.INT32, DType.INT8, DType.UINT8, DType.FLOAT64])
def test_other_dtypes(dtype: DType) -> None:
    graph = region(
        [tensor((3, 19), dtype), tensor((3, 19), dtype)],
        lambda b, x, y: b.call("where", b.call("lt", x, y), b.call("add", x, y), b.call("mul", x, x)),
    )
    check(TEMPLATE, graph)


def test_mask_building() -> None:
    def build(b, attended):
        rows = b.call("reshape", b.call("iota", size=9), shape=(9, 1))
        causal = b.call("le", b.call("iota", size=9), rows)
        mask = b.call("logical_and", b.call("broadcast_to", causal, shape=(2, 1, 9, 9)), b.call("reshape", attended, shape=(2, 1, 1, 9)))
        zero = b.call("full", shape=(), value=0.0, dtype=DType.FLOAT32)
        lowest = b.call("full", shape=(), value=-3.4e38, dtype=DType.FLOAT32)
        return [mask, b.call("where", mask, zero, lowest), b.call("cast", b.call("logical_not", mask), dtype=DType.INT64)]

    check(TEMPLATE, region([tensor((2, 9), DType.BOOL)], build))


@pytest.mark.parametrize("op", ["floor_div", "remainder", "fmod"])
@pytest.mark.parametrize("dtype", [DType.INT64, DType.FLOAT32])
def test_division_with_signs(op: str, dtype: DType) -> None:
    values = np.array([7, -7, 7, -7, 6, -6, 1, 0], dtype.numpy), np.array([3, 3, -3, -3, 3, -3, 5, 4], dtype.numpy)
    graph = region([tensor((8,), dtype), tensor((8,), dtype)], lambda b, x, y: b.call(op, x, y))
    check(TEMPLATE, graph, inputs=values)


@pytest.mark.parametrize("exponent", [2.0, 3.0, -1.0, 0.5, -0.5, 1.7, 0.0])
def test_powers(exponent: float) -> None:
    graph = region([tensor((37,))], lambda b, x: b.call("pow", x, b.call("full", shape=(), value=exponent, dtype=DType.FLOAT32)))
    check(TEMPLATE, graph, inputs=[np.random.default_rng(1).random(37).astype(np.float32) + 0.1])


UNARY = [
    "neg",
    "abs",
    "square",
    "sign",
    "floor",
    "ceil",
    "round",
    "trunc",
    "reciprocal",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "elu",
    "isnan",
    "isinf",
    "logical_not",
    "relu",
]


@pytest.mark.parametrize("op", UNARY)
def test_unary_operations(op: str) -> None:
    values = np.array([-2.5, -1.5, -0.5, 0.25, 0.5, 1.5, 2.5, 3.75, -7.0, 6.0, 1e9, -1e9, 1.0], np.float32)
    check(TEMPLATE, region([tensor((13,))], lambda b, x: b.call(op, x)), inputs=[values])


_PLACES = np.array([0.0, -0.0, 1.0, -1.0, 0.3, -0.7, 5.0, -200.0, 1e30, -1e-30, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_angles_of_points(dtype: DType) -> None:
    y, x = (array.reshape(-1).astype(dtype.numpy) for array in np.meshgrid(_PLACES, _PLACES))
    graph = region([tensor(y.shape, dtype)] * 2, lambda b, y, x: b.call("atan2", y, x))
    check(TEMPLATE, graph, inputs=[y, x], tolerance=2e-7 if dtype is DType.FLOAT32 else 1e-15)


CALLED = ("exp2", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erfc")


@pytest.mark.parametrize("op", CALLED)
def test_functions_of_the_c_library(op: str) -> None:
    values = np.array([-2.5, -0.5, 0.0, 0.25, 0.75, 1.0, 1.5, 3.75, -7.0, 6.0, np.nan])
    check(TEMPLATE, region([tensor((11,), DType.FLOAT64)], lambda b, x: b.call(op, x)), inputs=[values], tolerance=1e-15)


def test_the_complementary_error_function_keeps_its_accuracy_far_right() -> None:
    values = np.array([9.0, 8.0, 5.0], np.float32)
    for count in range(1, 4):
        graph = region([tensor((count,))], lambda b, x: b.call("erfc", x))
        check(TEMPLATE, graph, inputs=[values[:count]], tolerance=2e-7)


@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8])
def test_comparisons_at_the_ends_of_a_range(dtype: DType) -> None:
    """TVM's analyzer ends the process when it meets a comparison of unsigned numbers with zero."""

    def build(b, x, y):
        zero = b.call("full", shape=(), value=0, dtype=dtype)
        compared = [b.call(op, x, zero) for op in ("lt", "ge", "maximum", "minimum")]
        limited = [b.call("clamp", x, min=low, max=high) for low, high in ((0, None), (-1000, 1000), (None, 0))]
        return [*compared, *limited, b.call("relu", x), b.call("sign", x), b.call("where", compared[0], x, y)]

    check(TEMPLATE, region([tensor((9,), dtype), tensor((9,), dtype)], build))


def test_divisions_by_a_constant_zero() -> None:
    def build(b, x):
        zero = b.call("full", shape=(), value=-0.0, dtype=DType.FLOAT32)
        return [
            b.call("div", x, zero),
            b.call("floor_div", x, zero),
            b.call("reciprocal", zero),
            b.call("rsqrt", zero),
            b.call("sign", zero),
        ]

    check(TEMPLATE, region([tensor((5,))], build))


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_nan_differs_from_everything_and_is_true(dtype: DType) -> None:
    def build(b, x):
        truth = b.call("cast", x, dtype=DType.BOOL)
        return [b.call("ne", x, x), b.call("eq", x, x), b.call("logical_not", x), truth, b.call("where", truth, x, b.call("abs", x))]

    graph = region([tensor((5,), dtype)], build)
    check(TEMPLATE, graph, inputs=[np.array([np.nan, 0.0, -0.0, 2.0, np.inf], dtype.numpy)])


def test_sign_of_nan_is_zero() -> None:
    graph = region([tensor((4,))], lambda b, x: b.call("sign", x))
    check(TEMPLATE, graph, inputs=[np.array([np.nan, -0.0, 3.0, -2.0], np.float32)])


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64, DType.INT32])
def test_comparing_a_value_with_itself_asks_for_nan(dtype: DType) -> None:
    values = np.array([1.0, np.nan, -3.0, np.inf, 0.0]) if dtype.is_float else np.arange(5)
    graph = region([tensor((5,), dtype)], lambda b, x: [b.call(op, x, x) for op in ("eq", "ne", "lt", "le", "gt", "ge")])
    check(TEMPLATE, graph, inputs=[values.astype(dtype.numpy)])


def test_nan_and_infinity() -> None:
    values = np.array([np.nan, 1.0, np.inf, -np.inf, -2.0, np.nan], np.float32)
    for op in ("isnan", "isinf", "relu"):
        check(TEMPLATE, region([tensor((6,))], lambda b, x, op=op: b.call(op, x)), inputs=[values])
    for op in ("maximum", "minimum"):
        check(TEMPLATE, region([tensor((6,)), tensor((6,))], lambda b, x, y, op=op: b.call(op, x, y)), inputs=[values, values[::-1].copy()])


def test_casts() -> None:
    values = np.array([-2.7, -1.0, 0.0, 0.5, 1.0, 2.9, 100.2, 127.0, 3.0], np.float32)
    for dtype in (DType.INT64, DType.INT32, DType.INT8, DType.BOOL, DType.FLOAT64, DType.FLOAT32):
        check(TEMPLATE, region([tensor((9,))], lambda b, x, dtype=dtype: b.call("cast", x, dtype=dtype)), inputs=[values])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (3, 2, 1, 0), (1, 0, 3, 2)], ids=str)
def test_permutations(order: tuple[int, ...]) -> None:
    graph = region([tensor((2, 17, 3, 20))], lambda b, x: b.call("permute", x, order=order))
    check(TEMPLATE, graph)


@pytest.mark.parametrize("shape", [(1, 64, 14, 14), (2, 19, 5, 7), (1, 3, 33, 21), (2, 40, 1, 17)], ids=str)
@pytest.mark.parametrize("mcpu", ["", " -mcpu=x86-64-v3"])
def test_relayout_between_channel_orders(shape: tuple[int, ...], mcpu: str) -> None:
    target = Target.parse("cpu" + mcpu)
    check(TEMPLATE, region([tensor(shape)], lambda b, x: b.call("relayout", x), [NHWC]), target=target)
    back = region([tensor(shape, order=NHWC)], lambda b, x: b.call("relu", b.call("relayout", x)))
    check(TEMPLATE, back, target=target, threads=2)


def test_reshape_of_a_permuted_layout() -> None:
    graph = region([tensor((2, 6, 4, 5), order=NHWC)], lambda b, x: b.call("reshape", x, shape=(2, 120)))
    check(TEMPLATE, graph)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concatenation(axis: int) -> None:
    shapes = [[2, 3, 20], [2, 3, 20], [2, 3, 20]]
    shapes[1][axis], shapes[2][axis] = 5, 1
    graph = region([tensor(shape) for shape in shapes], lambda b, *x: b.call("concat", *x, axis=axis))
    check(TEMPLATE, graph)
    wrapped = region(
        [tensor(shape) for shape in shapes],
        lambda b, *x: b.call("reshape", b.call("exp", b.call("concat", *x, axis=axis)), shape=(sum(s[0] * s[1] * s[2] for s in shapes),)),
    )
    check(TEMPLATE, wrapped)


def test_rotary_embedding() -> None:
    def build(b, x, cosine, sine):
        half = x.tensor.shape[-1] // 2
        left = b.call("slice", x, axis=3, start=0, stop=half)
        right = b.call("slice", x, axis=3, start=half, stop=2 * half)
        turned = b.call("concat", b.call("neg", right), left, axis=3)
        return b.call("add", b.call("mul", x, cosine), b.call("mul", turned, sine))

    check(TEMPLATE, region([tensor((2, 3, 5, 32)), tensor((5, 32)), tensor((5, 32))], build))


def test_padding_slicing_and_flipping() -> None:
    def build(b, x):
        padded = b.call("pad", x, pads=((0, 0), (0, 0), (1, 2), (3, 1)), value=-1.5)
        return [padded, b.call("flip", x, axes=(1, 3)), b.call("slice", padded, axis=3, start=1, stop=padded.tensor.shape[3], step=3)]

    check(TEMPLATE, region([tensor((1, 3, 5, 18))], build))
    check(TEMPLATE, region([tensor((1, 18, 5, 6), order=NHWC)], lambda b, x: build(b, x)[0], [NHWC]))


@pytest.mark.parametrize("kind", ["nearest", "linear"])
@pytest.mark.parametrize("size", [(10, 14), (7, 5), (5, 7)], ids=str)
def test_resampling(kind: str, size: tuple[int, int]) -> None:
    for corners in (False, True) if kind == "linear" else (False,):
        build = lambda b, x: b.call("resample", x, kind=kind, size=size, align_corners=corners)  # noqa: E731, B023
        check(TEMPLATE, region([tensor((2, 3, 5, 7))], build))
        check(TEMPLATE, region([tensor((1, 19, 5, 7), order=NHWC)], build, [NHWC]))


def test_gathers() -> None:
    table, ids = tensor((11, 24)), tensor((2, 5), DType.INT64)
    indices = np.array([[0, 10, -1, 3, 3], [-11, 5, 2, 1, 9]])
    values = np.random.default_rng(0).standard_normal((11, 24)).astype(np.float32)
    check(TEMPLATE, region([table, ids], lambda b, x, i: b.call("take", x, i, axis=0)), inputs=[values, indices])
    check(TEMPLATE, region([tensor((3, 11, 4)), ids], lambda b, x, i: b.call("take", x, i, axis=1)))
    check(TEMPLATE, region([tensor((4, 6)), tensor((2, 6), DType.INT64)], lambda b, x, i: b.call("take_along", x, i, axis=0)))
    check(TEMPLATE, region([tensor((4, 6, 5)), tensor((7, 2), DType.INT64)], lambda b, x, i: b.call("take_nd", x, i)))


def test_parallel_kernels_agree() -> None:
    graph = region([tensor((64, 130)), tensor((130,))], lambda b, x, y: b.call("tanh", b.call("add", x, y)))
    check(TEMPLATE, graph, threads=2, all_configs=True)


def test_batch_norm_with_statistics() -> None:
    parameters = [tensor((5,))] * 4
    graph = region([tensor((2, 5, 3, 4)), *parameters], lambda b, *x: b.call("batch_norm", *x))
    values = [np.random.default_rng(3).random(value.tensor.static_shape).astype(np.float32) + 0.5 for value in graph.inputs]
    check(TEMPLATE, graph, inputs=values)


def test_bytes_are_compared_with_zero() -> None:
    def build(b, x):
        zero = b.constant(ArrayConstant(np.zeros((), np.uint8)))
        below = [b.call("lt", x, zero), b.call("ge", zero, x), b.call("minimum", x, zero), b.call("clamp", x, min=0, max=2)]
        return [b.call("relu", x), *below]

    check(TEMPLATE, region([tensor((257,), DType.UINT8)], build))


def test_outputs_that_no_cache_can_keep_are_stored_past_it() -> None:
    target = dataclasses.replace(HOST, l3_bytes=1024)
    for shape in ((1000,), (21, 37), (9, 64)):
        graph = region([tensor(shape), tensor(shape)], lambda b, x, y: b.call("gelu", b.call("add", x, y)))
        check(TEMPLATE, graph, target=target, threads=2, all_configs=True)
        task = Task(graph, frozenset(), target, 1)
        code = build_module(TEMPLATE.lower(task, TEMPLATE.space(task).default).function, "kernel", target).inspect_source("ll")
        assert "!nontemporal" in code
    small = region([tensor((16,))], lambda b, x: b.call("gelu", x))
    task = Task(small, frozenset(), target, 1)
    code = build_module(TEMPLATE.lower(task, TEMPLATE.space(task).default).function, "kernel", target).inspect_source("ll")
    assert "!nontemporal" not in code
