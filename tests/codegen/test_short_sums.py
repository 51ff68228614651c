"""Products of bytes that are summed in 16 bits (vpmaddubsw): exact at the extremes, and refused for weights that could saturate them."""

from __future__ import annotations

import numpy as np
import pytest
from check import check, run, tensor

from mlc.codegen.constant_layout import constant_layouts_document, constant_layouts_of
from mlc.codegen.short_bytes import ShortBytes
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.template import Template
from mlc.codegen.templates import template_for
from mlc.codegen.templates.arithmetic import PairsOfInt16, QuadsOfBytes, ShortSums
from mlc.codegen.templates.conv import ConvTemplate, NarrowConv
from mlc.codegen.templates.matmul import MatmulTemplate, NarrowMatmul
from mlc.errors import LoweringError
from mlc.ir import DType, Graph, GraphBuilder, Layout
from mlc.ir.short_sums import short_sums, with_short_sums

AVX2 = Target.parse("cpu -mcpu=x86-64-v3")
CONSTANT = frozenset({1})
NHWC = (0, 2, 3, 1)
U8, I8, I32 = DType.UINT8, DType.INT8, DType.INT32


def linear(rows: int, depth: int, columns: int, words: int) -> Graph:
    builder = GraphBuilder()
    x = builder.input(tensor((rows, depth), U8))
    weight = builder.input(tensor((columns, depth), I8).with_encoding(short_sums(words)))
    return builder.finish([builder.call("linear", x, weight, dtype=I32)])


def conv(
    channels: int, outputs: int, window: int, words: int, *, stride: int = 1, pad: int = 0, filling: int = 0, groups: int = 1
) -> Graph:
    builder = GraphBuilder()
    x = builder.input(tensor((2, channels, 7, 6), U8, NHWC))
    weight = builder.input(tensor((outputs, channels // groups, window, window), I8).with_encoding(short_sums(words)))
    attributes = {"stride": (stride, stride), "padding": ((pad, pad), (pad, 0)), "dilation": (1, 1), "groups": groups, "filling": filling}
    y = builder.add("conv", x, weight, attributes={**attributes, "dtype": I32}).output
    y.type = y.tensor.with_layout(Layout(NHWC))
    return builder.finish([y])


def operands(graph: Graph) -> list[np.ndarray]:
    """Bytes of the whole range, rows and outputs of extreme ones among them."""
    generator = np.random.default_rng(0)
    x, weight = (value.tensor for value in graph.inputs)
    activations = generator.integers(0, 256, x.static_shape).astype(np.uint8)
    activations[0] = 255
    codes = generator.integers(-128, 128, weight.static_shape).astype(np.int8)
    codes[0], codes[1] = 127, -128
    codes[2] = generator.choice(np.array([127, 0, -128], np.int8), codes[2].shape)
    return [activations, with_short_sums(codes, weight.encoding)]


def arithmetic_of(graph: Graph, target: Target, constants: frozenset[int] = CONSTANT) -> object:
    template = template_for(graph)
    assert isinstance(template, MatmulTemplate | ConvTemplate)
    assert template.reads_encoded(graph)
    region = template.find(graph)
    assert region is not None
    return template.arithmetic(Task(graph, constants, target, 1), region)


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 64, 100), (6, 33, 17), (37, 50, 131), (9, 260, 24)])
def test_products_are_exact(rows: int, depth: int, columns: int, words: int) -> None:
    graph = linear(rows, depth, columns, words)
    assert isinstance(arithmetic_of(graph, AVX2), ShortSums)
    check(NarrowMatmul(), graph, inputs=operands(graph), constants=CONSTANT, target=AVX2, threads=2)


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sums_do_not_saturate(words: int, sign: int) -> None:
    graph = linear(7, 96, 24, words)
    weight = np.full((24, 96), sign * 64 // words, np.int8)
    (result,) = run(NarrowMatmul(), graph, [np.full((7, 96), 255, np.uint8), weight], target=AVX2, constants=CONSTANT)
    assert (result == sign * 64 // words * 255 * 96).all()


def test_every_config_is_exact() -> None:
    graph = linear(130, 257, 96, 2)
    check(NarrowMatmul(), graph, inputs=operands(graph), constants=CONSTANT, all_configs=True, target=AVX2)


@pytest.mark.parametrize(
    "graph",
    [
        conv(16, 24, 1, 2),
        conv(16, 24, 3, 2, pad=1, filling=7),
        conv(24, 17, 3, 2, stride=2, pad=1, filling=255),
        conv(12, 24, 3, 1, pad=1, filling=3),
        conv(6, 17, 3, 1, stride=2, pad=1, filling=128),
    ],
    ids=["pointwise", "padded", "strided", "odd words", "words filled up"],
)
def test_convolutions_are_exact(graph: Graph) -> None:
    assert isinstance(arithmetic_of(graph, AVX2), ShortSums)
    check(NarrowConv(), graph, inputs=operands(graph), constants=CONSTANT, target=AVX2, threads=2)


def test_words_of_two_pixels_are_not_summed_together() -> None:
    graph = conv(12, 24, 3, 2, pad=1)
    form = arithmetic_of(graph, AVX2)
    assert isinstance(form, ShortSums) and form.steps == 1
    check(NarrowConv(), graph, inputs=operands(graph), constants=CONSTANT, target=AVX2)


@pytest.mark.parametrize("template", [NarrowMatmul(), NarrowConv()], ids=["linear", "conv"])
def test_weights_that_could_saturate_are_refused(template: Template) -> None:
    graph = linear(7, 96, 24, 2) if isinstance(template, NarrowMatmul) else conv(16, 24, 1, 2)
    task = Task(graph, CONSTANT, AVX2, 1)
    (layout,) = template.lower(task, template.space(task).default).constant_layouts.values()
    assert isinstance(layout, ShortBytes)
    weight = operands(graph)[1]
    packed = layout.pack(weight)
    assert packed.nbytes >= weight.nbytes
    weight[3, :8] = 33
    with pytest.raises(LoweringError, match=r"not what its encoding short_sums\(words=2, axis=1\) says"):
        layout.pack(weight)


def test_layouts_are_read_back_from_files() -> None:
    layouts = {1: ShortBytes(Layout((0, 1), ((0, 16), (1, 4))), 2)}
    assert constant_layouts_of(constant_layouts_document(layouts)) == layouts


@pytest.mark.parametrize(
    ("target", "constants", "kind"),
    [
        (AVX2, CONSTANT, ShortSums),
        (Target.parse("cpu -mcpu=skylake-avx512"), CONSTANT, ShortSums),
        (Target.parse("cpu -mcpu=znver4"), CONSTANT, QuadsOfBytes),
        (Target.parse("cpu -mcpu=alderlake"), CONSTANT, QuadsOfBytes),
        (AVX2, frozenset(), PairsOfInt16),
    ],
    ids=["avx2", "avx512bw", "vnni", "avx-vnni", "not known when compiled"],
)
def test_who_relies_on_the_promise(target: Target, constants: frozenset[int], kind: type) -> None:
    assert isinstance(arithmetic_of(linear(7, 96, 24, 2), target, constants), kind)


def test_grouped_convolutions_do_not() -> None:
    graph = conv(16, 40, 3, 1, pad=1, groups=2)
    template = template_for(graph)
    assert isinstance(template, NarrowConv) and not template.reads_encoded(graph)


def test_a_task_says_what_its_weight_is() -> None:
    keys = {Task(linear(7, 96, 24, words), CONSTANT, AVX2, 1).key for words in (1, 2)}
    dense = GraphBuilder()
    operands = [dense.input(tensor((7, 96), U8)), dense.input(tensor((24, 96), I8))]
    keys.add(Task(dense.finish([dense.call("linear", *operands, dtype=I32)]), CONSTANT, AVX2, 1).key)
    assert len(keys) == 3
