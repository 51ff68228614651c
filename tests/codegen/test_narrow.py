"""Products and convolutions of narrow numbers: integers equal the NumPy reference exactly, halves within the rounding of fp32 sums."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, tensor

from mlc.codegen.constant_layout import constant_layouts_document, constant_layouts_of
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.codegen.templates.conv import NarrowConv
from mlc.codegen.templates.matmul import NarrowMatmul
from mlc.ir import DType, Graph, GraphBuilder, Layout, Value

NHWC = (0, 2, 3, 1)
U8, I8, I32, F32, BF16, F16 = DType.UINT8, DType.INT8, DType.INT32, DType.FLOAT32, DType.BFLOAT16, DType.FLOAT16
CONSTANT = frozenset({1, 2, 3})


def requantised(builder: GraphBuilder, sums: Value, per_output: tuple[int, ...]) -> Value:
    """Sums turned into floats, activated, and into bytes again, some of them beyond the range."""
    scale = builder.input(tensor(per_output))
    y = builder.call("relu", builder.call("mul", builder.call("cast", sums, dtype=F32), scale))
    rate = builder.call("full", shape=(), value=0.9, dtype=F32)
    return builder.call("quantise", y, rate, zero_point=3, dtype=U8)


def linear(rows: tuple[int, ...], depth: int, columns: int, x: DType, weight: DType, *, back: bool = True) -> Graph:
    builder = GraphBuilder()
    sums = F32 if x in (BF16, F16) else I32
    operands = [
        builder.input(tensor((*rows, depth), x)),
        builder.input(tensor((columns, depth), weight)),
        builder.input(tensor((columns,), sums)),
    ]
    y = builder.call("linear", *operands, dtype=sums)
    return builder.finish([requantised(builder, y, (columns,)) if back and sums is I32 else y])


def conv(
    channels: int, outputs: int, window: int, stride: int, pad: int, x: DType, *, groups: int = 1, filling: int = 0, weight: DType = I8
) -> Graph:
    builder = GraphBuilder()
    sums = F32 if x in (BF16, F16) else I32
    operands = [
        builder.input(tensor((2, channels, 7, 6), x, NHWC)),
        builder.input(tensor((outputs, channels // groups, window, window), weight)),
    ]
    operands.append(builder.input(tensor((outputs,), sums)))
    attributes = {"stride": (stride, stride), "padding": ((pad, pad), (pad, 0)), "dilation": (1, 1), "groups": groups, "filling": filling}
    y = builder.add("conv", *operands, attributes={**attributes, "dtype": sums}).output
    y.type = y.tensor.with_layout(Layout(NHWC))
    return builder.finish([requantised(builder, y, (outputs, 1, 1)) if sums is I32 else y])


def inputs_of(graph: Graph) -> list[np.ndarray]:
    """Bytes of the whole range; scales that bring sums of products to the size of bytes."""
    generator = np.random.default_rng(0)
    arrays = []
    for value in graph.inputs:
        type = value.tensor
        if type.dtype.is_integer:
            limits = np.iinfo(type.dtype.numpy if type.dtype.nbytes == 1 else np.int16)
            arrays.append(generator.integers(limits.min, limits.max, type.static_shape, endpoint=True).astype(type.dtype.numpy))
        else:
            arrays.append((generator.random(type.static_shape) * (0.004 if type.dtype is F32 else 1.0)).astype(type.dtype.numpy))
    return arrays


@pytest.mark.parametrize("constants", [CONSTANT, frozenset()], ids=["packed", "staged"])
@pytest.mark.parametrize(("x", "weight"), [(U8, I8), (I8, I8), (U8, U8)])
@pytest.mark.parametrize(("rows", "depth", "columns"), [((1,), 64, 100), ((2, 3), 33, 17), ((37,), 50, 131)])
def test_products_of_bytes_are_exact(
    rows: tuple[int, ...], depth: int, columns: int, x: DType, weight: DType, constants: frozenset[int]
) -> None:
    graph = linear(rows, depth, columns, x, weight)
    assert isinstance(template_for(graph), NarrowMatmul)
    check(NarrowMatmul(), graph, inputs=inputs_of(graph), constants=constants, threads=2)


def test_largest_sums_do_not_saturate() -> None:
    graph = linear((7,), 96, 24, U8, I8, back=False)
    x, weight, bias = np.full((7, 96), 255, np.uint8), np.full((24, 96), -128, np.int8), np.zeros(24, np.int32)
    weight[::2] = 127
    check(NarrowMatmul(), graph, inputs=[x, weight, bias], constants=frozenset({1, 2}))


def test_every_config_multiplies_bytes_right() -> None:
    graph = linear((130,), 257, 96, U8, I8)
    check(NarrowMatmul(), graph, inputs=inputs_of(graph), constants=CONSTANT, all_configs=True, threads=2)


def test_batched_products_of_bytes() -> None:
    builder = GraphBuilder()
    a, b = builder.input(tensor((3, 9, 21), U8)), builder.input(tensor((3, 21, 20), I8))
    graph = builder.finish([builder.call("matmul", a, b, dtype=I32)])
    check(NarrowMatmul(), graph, inputs=inputs_of(graph))
    check(NarrowMatmul(), graph, inputs=inputs_of(graph), constants=frozenset({1}))


def test_processors_without_instructions_for_pairs() -> None:
    graph = linear((5,), 33, 17, U8, I8)
    check(NarrowMatmul(), graph, inputs=inputs_of(graph), constants=CONSTANT, target=Target.parse("cpu -mcpu=x86-64-v2"))


@pytest.mark.parametrize("half", [BF16, F16])
@pytest.mark.parametrize("constants", [CONSTANT, frozenset()], ids=["packed", "staged"])
def test_products_of_halves(half: DType, constants: frozenset[int]) -> None:
    for rows, depth, columns in (((1,), 64, 100), ((5,), 33, 17)):
        check(NarrowMatmul(), linear(rows, depth, columns, half, half), constants=constants)


@pytest.mark.parametrize("half", [BF16, F16])
def test_weights_stored_as_halves(half: DType) -> None:
    builder = GraphBuilder()
    x, weight = builder.input(tensor((3, 40))), builder.input(tensor((50, 40), half))
    graph = builder.finish([builder.call("linear", x, builder.call("cast", weight, dtype=F32))])
    assert isinstance(template_for(graph), NarrowMatmul)
    check(NarrowMatmul(), graph, constants=frozenset({1}))
    kernel = NarrowMatmul().lower(task := Task(graph, frozenset({1}), Target.parse("cpu"), 1), NarrowMatmul().space(task).default)
    assert not kernel.workspace_bytes, "the weight is read as it is stored"


@pytest.mark.parametrize("constants", [CONSTANT, frozenset()], ids=["packed", "staged"])
@pytest.mark.parametrize(
    "graph",
    [
        conv(16, 24, 1, 1, 0, U8),
        conv(16, 24, 3, 1, 1, U8, filling=7),
        conv(6, 17, 3, 2, 1, I8, filling=-5),
        conv(3, 20, 3, 2, 1, U8, filling=128),
        conv(16, 40, 3, 1, 1, U8, groups=4, filling=3),
        conv(16, 40, 1, 2, 0, U8, groups=4),
    ],
    ids=["pointwise", "padded with a zero point", "signed", "few channels", "grouped", "grouped pointwise"],
)
def test_convolutions_of_bytes_are_exact(graph: Graph, constants: frozenset[int]) -> None:
    assert isinstance(template_for(graph), NarrowConv)
    check(NarrowConv(), graph, inputs=inputs_of(graph), constants=constants, threads=2)


@pytest.mark.parametrize(("window", "stride", "size"), [(1, 1, 9), (1, 2, 19), (3, 1, 6)], ids=["in a row", "apart", "within a window"])
def test_every_config_convolves_bytes_right(window: int, stride: int, size: int) -> None:
    """Among them those that store a tile while they sum up the next: tiles of two sizes, in rows and across them, shared by threads."""
    builder = GraphBuilder()
    x, weight = builder.input(tensor((2, 72, size, size), U8, NHWC)), builder.input(tensor((88, 72, window, window), I8))
    padding = ((window // 2, window // 2),) * 2
    attributes = {"stride": (stride, stride), "padding": padding, "dilation": (1, 1), "dtype": I32}
    y = builder.add("conv", x, weight, builder.input(tensor((88,), I32)), attributes=attributes).output
    y.type = y.tensor.with_layout(Layout(NHWC))
    graph = builder.finish([requantised(builder, y, (88, 1, 1))])
    check(NarrowConv(), graph, inputs=inputs_of(graph), constants=CONSTANT, threads=2, all_configs=True)


@pytest.mark.parametrize("processor", ["cpu", "cpu -mcpu=x86-64-v3", "cpu -mcpu=x86-64-v2"])
@pytest.mark.parametrize(("dtype", "zero_point"), [(U8, 0), (U8, 3), (U8, 255), (I8, 0), (I8, -128)])
def test_codes_of_any_float(dtype: DType, zero_point: int, processor: str) -> None:
    """In whole vectors and in what is left of them: ties, limits, and what no integer holds."""
    specials = [np.nan, np.inf, -np.inf, 3e9, -3e9, 2.0**31, -(2.0**31), 2147483520.0, 1e38, -0.0, 1e-40, 254.5, 255.5, -0.5, 0.5, 1.5]
    numbers = np.concatenate([specials, np.arange(-600, 600) / 2.0]).astype(np.float32)
    for count in (1, 7, 16, 33, len(numbers)):
        builder = GraphBuilder()
        x, rate = builder.input(tensor((3, count))), builder.call("full", shape=(), value=1.0, dtype=F32)
        graph = builder.finish([builder.call("quantise", x, rate, zero_point=zero_point, dtype=dtype)])
        template = template_for(graph)
        assert template is not None
        rows = np.stack([np.roll(numbers, shift)[:count] for shift in (0, 5, 11)])
        check(template, graph, inputs=[rows], target=Target.parse(processor))


@pytest.mark.parametrize("layout", [NHWC, None])
@pytest.mark.parametrize(("channels", "window", "stride"), [(3, 7, 2), (4, 3, 1), (1, 2, 1)])
def test_images_whose_pixels_are_words(channels: int, window: int, stride: int, layout: tuple[int, ...] | None) -> None:
    builder = GraphBuilder()
    x = builder.input(tensor((2, channels, 9, 45), U8, *([layout] if layout else [])))
    weight = builder.input(tensor((40, channels, window, window), I8))
    pad = window // 2
    attributes = {"stride": (stride, stride), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "groups": 1, "filling": 5}
    y = builder.add("conv", x, weight, attributes={**attributes, "dtype": I32}).output
    y.type = y.tensor.with_layout(Layout(NHWC))
    graph = builder.finish([requantised(builder, y, (40, 1, 1))])
    assert isinstance(template_for(graph), NarrowConv)
    for constants in (CONSTANT, frozenset[int]()):
        check(NarrowConv(), graph, inputs=inputs_of(graph), constants=constants, threads=2, all_configs=channels == 3)
    check(NarrowConv(), graph, inputs=inputs_of(graph), constants=CONSTANT, target=Target.parse("cpu -mcpu=x86-64-v3"))


def test_convolutions_of_halves() -> None:
    check(NarrowConv(), conv(6, 24, 3, 1, 1, BF16, weight=BF16), constants=CONSTANT)


def test_depthwise_convolutions_of_bytes_have_plain_loops() -> None:
    graph = conv(6, 6, 3, 1, 1, U8, groups=6, filling=9)
    template = template_for(graph)
    assert template is not None and template.name == "contraction"
    check(template, graph, inputs=inputs_of(graph), constants=CONSTANT)


def test_packed_bytes_are_read_back_from_files() -> None:
    template, graph = NarrowMatmul(), linear((37,), 64, 48, U8, I8)
    task = Task(graph, CONSTANT, Target.parse("cpu -mcpu=x86-64-v3"), 1)
    layouts = template.lower(task, template.space(task).default).constant_layouts
    assert constant_layouts_of(constant_layouts_document(layouts)) == layouts
    array = np.arange(-128, 128, dtype=np.int8).repeat(12).reshape(48, 64)
    (layout,) = layouts.values()
    widened = layout.pack(array)
    assert widened.shape == layout.physical_shape(array.shape)
    np.testing.assert_array_equal(np.sort(widened.reshape(-1).view(np.int16)), np.sort(array.reshape(-1).astype(np.int16)))
