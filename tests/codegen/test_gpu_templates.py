"""Every template for GPUs: its kernels run on the processor, through OpenCL, and are compiled by nvcc for two architectures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from check import region, tensor
from gpu_check import GPU, check

from mlc.codegen.gpu.compile import compile_image
from mlc.codegen.gpu.source import cuda_source
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.ir import DType, Graph, TensorType

NHWC = (0, 2, 3, 1)
F64, F16, BF16, I64, I32, U8, B1 = DType.FLOAT64, DType.FLOAT16, DType.BFLOAT16, DType.INT64, DType.INT32, DType.UINT8, DType.BOOL


@dataclass(frozen=True)
class Case:
    """A region, the template that must take it, constants among its inputs, and how many configs to try."""

    template: str
    graph: Graph
    constants: frozenset[int] = frozenset()
    configs: int = 1
    inputs: Sequence[np.ndarray] | None = None
    tolerance: float = 2e-6


def case(template: str, types: Sequence[TensorType], build: Callable, orders: Sequence[Sequence[int]] = (), **more: object) -> Case:
    return Case(f"gpu_{template}", region(types, build, orders), **more)  # type: ignore[arg-type]


def conv(**attributes: object) -> dict[str, object]:
    return {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1, **attributes}


def moved(b, x, y):
    z = b.call("permute", b.call("relu", b.call("add", x, y)), order=(2, 0, 1))
    return [b.call("concat", z, z, axis=1), b.call("gt", b.call("mul", x, y), x)]


def maths(b, x):
    return [b.call(op, x) for op in ("erf", "sin", "cos", "log10", "sigmoid", "round", "isnan")]


def whole_numbers(b, x, y):
    return [b.call(op, x, y) for op in ("remainder", "floor_div", "maximum", "lt")]


def attention(causal: bool) -> Callable:
    return lambda b, *x: b.call("relu", b.call("attention", *x, scale=0.3, is_causal=causal))


def normalised(b, x, y, weight, bias):
    total = b.call("add", x, y)
    return [total, b.call("gelu", b.call("layer_norm", total, weight, bias, eps=1e-5, axes=1))]


ROUNDED = [np.round(np.random.default_rng(0).standard_normal((3, 41, 20))).astype(np.float32)]
PUT = [
    np.zeros((2, 9, 4), np.float32),
    np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32),
    np.array([-1, 2, 0]),
]
BIG = [np.array([[-7, 7, 2**40, -(2**40)], [5, -5, 3, 0]]), np.array([3, -3, 7, 2**33])]

CASES = {
    "movement": case("elementwise", [tensor((5, 7, 9)), tensor((7, 1))], moved),
    "maths fp32": case("elementwise", [tensor((1000,))], maths),
    "powers": case("elementwise", [tensor((1000,)), tensor((1000,))], lambda b, x, y: b.call("pow", b.call("abs", x), y)),
    "huge angles": case(
        "elementwise", [tensor((1000,))], lambda b, x: b.call("sin", x), inputs=[np.geomspace(1e-3, 1e30, 1000).astype(np.float32)]
    ),
    "maths fp64": case("elementwise", [tensor((300,), F64)], maths),
    "integers": case("elementwise", [tensor((2, 4), I64), tensor((4,), I64)], whole_numbers, inputs=BIG),
    "gather": case("elementwise", [tensor((9, 5)), tensor((2, 3), I64)], lambda b, x, i: b.call("take", x, i, axis=0)),
    "scalar": case("elementwise", [tensor(())], lambda b, x: b.call("exp", x)),
    "sum of rows": case("reduction", [tensor((3, 4, 5, 60))], lambda b, x: b.call("reduce", x, kind="sum", axes=(1, 3)), configs=2),
    "long mean": case("reduction", [tensor((2, 5000))], lambda b, x: b.call("reduce", x, kind="mean", axes=(1,))),
    "mean of images": case(
        "reduction",
        [tensor((2, 70, 7, 7), order=NHWC)],
        lambda b, x: b.call("relu", b.call("reduce", x, kind="mean", axes=(2, 3), keepdims=True)),
        [NHWC],
        configs=2,
    ),
    "first largest": case("reduction", [tensor((3, 41, 20))], lambda b, x: b.call("reduce", x, kind="argmax", axes=(1,)), inputs=ROUNDED),
    "any": case("reduction", [tensor((6, 30), B1)], lambda b, x: b.call("reduce", x, kind="any", axes=(0, 1))),
    "largest byte": case("reduction", [tensor((6, 30), U8)], lambda b, x: b.call("reduce", x, kind="max", axes=(1,))),
    "softmax": case("rowwise", [tensor((6, 133))], lambda b, x: b.call("softmax", b.call("mul", x, x), axis=1)),
    "softmax across": case("rowwise", [tensor((3, 40, 5))], lambda b, x: b.call("softmax", x, axis=1)),
    "long log_softmax": case("rowwise", [tensor((2, 9000))], lambda b, x: b.call("log_softmax", x, axis=1)),
    "layer_norm": case("rowwise", [tensor((5, 7, 96)), tensor((5, 7, 96)), tensor((96,)), tensor((96,))], normalised),
    "rms_norm": case("rowwise", [tensor((5, 200)), tensor((200,))], lambda b, x, w: b.call("rms_norm", x, w, eps=1e-5)),
    "group_norm": case(
        "rowwise",
        [tensor((2, 12, 5, 5), order=NHWC), tensor((12,)), tensor((12,))],
        lambda b, x, w, c: b.call("group_norm", x, w, c, groups=3, eps=1e-5),
        [NHWC],
    ),
    "linear": case(
        "gemm",
        [tensor((33, 70)), tensor((50, 70)), tensor((50,)), tensor((33, 50))],
        lambda b, x, w, c, y: b.call("add", b.call("gelu", b.call("linear", x, w, c)), y),
        constants=frozenset({1, 2}),
        configs=2,
    ),
    "few rows": case(
        "matvec",
        [tensor((3, 200)), tensor((19, 200)), tensor((19,))],
        lambda b, *x: b.call("gelu", b.call("linear", *x)),
        constants=frozenset({1}),
        configs=2,
    ),
    "batched matmul": case("gemm", [tensor((3, 2, 20, 17)), tensor((2, 17, 24))], lambda b, x, y: b.call("matmul", b.call("relu", x), y)),
    "vector": case("gemm", [tensor((20,)), tensor((4, 20))], lambda b, x, w: b.call("linear", x, w)),
    "matmul fp64": case("gemm", [tensor((7, 20), F64), tensor((20, 4), F64)], lambda b, x, y: b.call("matmul", x, y)),
    "linear bf16": case("gemm", [tensor((9, 40), BF16), tensor((6, 40), BF16)], lambda b, *x: b.call("linear", *x), tolerance=1e-2),
    "matmul of integers": case("gemm", [tensor((7, 20), I32), tensor((20, 4), I32)], lambda b, x, y: b.call("matmul", x, y)),
    "conv in groups": case(
        "gemm",
        [tensor((2, 6, 9, 10), order=NHWC), tensor((16, 3, 3, 3)), tensor((16,))],
        lambda b, *x: b.call("relu", b.call("conv", *x, **conv(stride=(2, 1), padding=((1, 1), (0, 2)), dilation=(1, 2), groups=2))),
        [NHWC],
        constants=frozenset({1}),
        configs=2,
    ),
    "conv 1d": case(
        "gemm",
        [tensor((2, 4, 11)), tensor((6, 4, 3))],
        lambda b, *x: b.call("conv", *x, stride=(2,), padding=((1, 1),), dilation=(1,), groups=1),
    ),
    "conv_transpose": case(
        "gemm",
        [tensor((2, 4, 5, 6)), tensor((4, 3, 3, 2))],
        lambda b, *x: b.call("conv_transpose", *x, **conv(stride=(2, 3), padding=((1, 1), (0, 0)), output_padding=(1, 0))),
        constants=frozenset({1}),
    ),
    "depthwise": case(
        "direct_conv",
        [tensor((2, 12, 9, 10), order=NHWC), tensor((12, 1, 3, 3)), tensor((12,))],
        lambda b, *x: b.call("relu", b.call("conv", *x, **conv(stride=(2, 1), groups=12))),
        [NHWC],
        constants=frozenset({1}),
    ),
    "max pool": case(
        "pooling",
        [tensor((2, 6, 9, 10), order=NHWC)],
        lambda b, x: b.call("window_reduce", x, kind="max", window=(3, 2), stride=(2, 2), padding=((1, 1), (0, 1)), dilation=(1, 1)),
        [NHWC],
    ),
    "cumsum": case("scan", [tensor((3, 20, 7), I64)], lambda b, x: b.call("scan", x, kind="sum", axis=1)),
    "running largest": case("scan", [tensor((3, 20))], lambda b, x: b.call("scan", x, kind="max", axis=1)),
    "top of a row": case(
        "sort", [tensor((3, 20, 7))], lambda b, x: list(b.add("sort", x, attributes={"axis": 1, "descending": True}).outputs)
    ),
    "scatter": case(
        "scatter",
        [tensor((5, 6)), tensor((4, 3), I64), tensor((4, 3))],
        lambda b, x, i, u: b.call("scatter_along", x, i, u, axis=1, reduction="add"),
    ),
    "scatter of slices": case(
        "scatter", [tensor((5, 6)), tensor((4, 1), I64), tensor((4, 6))], lambda b, *x: b.call("scatter_nd", *x, reduction="assign")
    ),
    "put": case("put", [tensor((2, 9, 4)), tensor((2, 3, 4)), tensor((3,), I64)], lambda b, *x: b.call("put", *x, axes=(1,)), inputs=PUT),
    "attention": case("attention", [tensor((2, 4, 20, 16)), tensor((2, 2, 37, 16)), tensor((2, 2, 37, 16))], attention(False), configs=2),
    "causal attention": case("attention", [tensor((1, 1, 70, 64)) for _ in range(3)], attention(True)),
    "masked attention": case(
        "attention",
        [tensor((1, 2, 9, 8)), tensor((1, 1, 33, 8)), tensor((1, 1, 33, 12)), tensor((1, 1, 9, 33), B1)],
        attention(False),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_kernels_compute_what_the_interpreter_does(name: str) -> None:
    tested = CASES[name]
    template = template_for(tested.graph, GPU.kind)
    assert template is not None and template.name == tested.template
    check(template, tested.graph, inputs=tested.inputs, configs=tested.configs, constants=tested.constants, tolerance=tested.tolerance)


def test_spaces_are_small_and_hold_their_default() -> None:
    for name, tested in CASES.items():
        template = template_for(tested.graph, GPU.kind)
        assert template is not None
        space = template.space(Task(tested.graph, tested.constants, GPU, GPU.threads))
        assert space.default in space, name
        assert len(space) <= 64, name


def test_nvcc_compiles_every_kernel_for_two_architectures() -> None:
    sources = []
    # PoCL knows no fp16 numbers, so that these are compiled only.
    half = case("gemm", [tensor((9, 40), F16), tensor((6, 40), F16)], lambda b, *x: b.call("linear", *x))
    tests = [*CASES.values(), half]
    for number, tested in enumerate(tests):
        template = template_for(tested.graph, GPU.kind)
        assert template is not None
        task = Task(tested.graph, tested.constants, GPU, GPU.threads)
        sources.append(cuda_source(template.lower(task, template.space(task).default).function, f"kernel{number}"))
    image = compile_image("\n".join(sources), ("sm_80", "sm_90"))
    # Each kernel's name stands in the image of both architectures.
    for number in range(len(tests)):
        assert len(re.findall(rb"kernel%d\b" % number, image)) >= 2
