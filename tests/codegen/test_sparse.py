"""Sparse products: each kernel against the dense result, over densities from nothing to everything, ragged sizes and what is fused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from check import check, region
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc.codegen.build import build_module
from mlc.codegen.constant_layout import ConstantForm, constant_layouts_document, constant_layouts_of
from mlc.codegen.selected_weight import SelectedWeight
from mlc.codegen.sparse_weight import BitmapWeight, PanelWeight, StoredValues, equal_shares
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.template import Template
from mlc.codegen.templates import template_for
from mlc.codegen.templates.sparse_conv import SparseConv
from mlc.codegen.templates.sparse_gather import SparseGather
from mlc.codegen.templates.sparse_matvec import SparseMatvec
from mlc.codegen.templates.sparse_panels import SparsePanels
from mlc.codegen.templates.sparse_rows import SparseRows
from mlc.codegen.templates.sparse_select import SparseSelect
from mlc.errors import LoweringError
from mlc.ir import ArrayConstant, DType, Encoding, Graph, GraphBuilder, Layout, TensorType, Value, constant_of, encode
from mlc.ir.encodings import Affine, Grouped
from mlc.ir.sparse import fitted, panel_entries

NHWC = Layout((0, 2, 3, 1))
AVX2 = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")
GATHER, ROWS, PANELS, BITMAP, SELECT, CONV = SparseGather(), SparseRows(), SparsePanels(), SparseMatvec(), SparseSelect(), SparseConv()
Build = Callable[[GraphBuilder, Value, Value, Value], Value]


def tensor(*shape: int, layout: Layout | None = None, encoding: Encoding | None = None) -> TensorType:
    type = TensorType(DType.FLOAT32, shape, layout)  # type: ignore[arg-type]
    return type.with_encoding(encoding) if encoding is not None else type


def blocks(shape: tuple[int, ...], width: int, density: float, seed: int = 0, axis: int = 0) -> np.ndarray:
    """A weight in which panels of ``width`` outputs have an input or have it not."""
    generator = np.random.default_rng(seed)
    outputs, inputs = (shape[1], shape[0]) if axis else (shape[0], int(np.prod(shape[1:])))
    kept = np.repeat(generator.random((-(-outputs // width), inputs)) < density, width, 0)[:outputs]
    matrix = np.where(kept, generator.standard_normal((outputs, inputs)), 0).astype(np.float32)
    return np.ascontiguousarray(matrix.T) if axis else matrix.reshape(shape)


def block_sparse(weight: np.ndarray, width: int, axis: int = 0) -> Encoding:
    matrix = weight.reshape(weight.shape[0], -1)
    entries = max(panel_entries(matrix.T if axis else matrix, width), 1)
    return Encoding("block_sparse", (("width", width), ("entries", entries), ("axis", axis)))


def bitmap(weight: np.ndarray) -> Encoding:
    return Encoding("bitmap", (("elements", max(int(np.count_nonzero(weight)), 1)),))


def linear(x: tuple[int, ...], weight: np.ndarray, encoding: Encoding, finish: Build | None = None) -> Graph:
    types = [tensor(*x), tensor(*weight.shape, encoding=encoding), tensor(weight.shape[0])]
    return region(types, finish or (lambda b, x, w, bias: b.call("linear", x, w, bias)))


def check_sparse(template: Template, graph: Graph, weight: np.ndarray, *, threads: int = 1, all_configs: bool = False) -> None:
    generator = np.random.default_rng(1)
    inputs = [generator.standard_normal(value.tensor.static_shape).astype(np.float32) for value in graph.inputs]
    inputs[1] = weight
    assert template_for(graph) is template or isinstance(template_for(graph), type(template))
    constants = frozenset(range(1, len(graph.inputs)))
    check(template, graph, inputs=inputs, constants=constants, threads=threads, all_configs=all_configs, target=AVX2)


def check_coded(template: Template, graph: Graph, weight: np.ndarray, *, threads: int = 1, all_configs: bool = False) -> None:
    """Checks against what the codes decode to, which has zeros where the weight has."""
    decoded = constant_of(weight, graph.inputs[1].tensor).array()
    assert np.all(decoded[weight == 0] == 0)
    assert 0 < np.abs(decoded - weight).max() < 0.5
    np.testing.assert_allclose(constant_of(decoded, graph.inputs[1].tensor).array(), decoded, rtol=1e-6)
    check_sparse(template, graph, decoded, threads=threads, all_configs=all_configs)


KERNELS = [
    pytest.param(GATHER, 1, 1, id="gather"),
    pytest.param(GATHER, 3, 1, id="gather of 3 rows"),
    pytest.param(ROWS, 5, 1, id="fewer rows than lanes"),
    pytest.param(ROWS, 49, 1, id="rows"),
    pytest.param(ROWS, 33, 2, id="rows of 2 outputs"),
    pytest.param(ROWS, 70, 4, id="rows of 4 outputs"),
    pytest.param(PANELS, 1, 16, id="panels of one row"),
    pytest.param(PANELS, 23, 8, id="panels of 8"),
    pytest.param(PANELS, 23, 16, id="panels of 16"),
    pytest.param(PANELS, 9, 32, id="panels of 32"),
    pytest.param(BITMAP, 1, 0, id="bitmap"),
    pytest.param(BITMAP, 4, 0, id="bitmap of 4 rows"),
]


@pytest.mark.parametrize(("template", "rows", "width"), KERNELS)
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_every_density(template: Template, rows: int, width: int, density: float) -> None:
    weight = blocks((53, 45), max(width, 1), density)
    encoding = block_sparse(weight, width) if width else bitmap(weight)
    check_sparse(template, linear((rows, 45), weight, encoding), weight)


@pytest.mark.parametrize(("template", "rows", "width"), KERNELS)
def test_outputs_and_inputs_without_numbers(template: Template, rows: int, width: int) -> None:
    weight = blocks((96, 64), 1, 0.5)
    weight[32:64] = 0
    weight[:, 5:40] = 0
    encoding = block_sparse(weight, width) if width else bitmap(weight)
    check_sparse(template, linear((rows, 64), weight, encoding), weight, threads=2)


@settings(max_examples=16, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    rows=st.integers(1, 60),
    depth=st.integers(1, 70),
    columns=st.integers(1, 90),
    width=st.sampled_from([1, 2, 4, 8, 16]),
    density=st.sampled_from([0.02, 0.3]),
    threads=st.sampled_from([1, 2]),
)
def test_any_size(rows: int, depth: int, columns: int, width: int, density: float, threads: int) -> None:
    weight = blocks((columns, depth), width, density, seed=rows)
    template = PANELS if width >= 8 else ROWS if width > 1 or rows > 4 else GATHER
    graph = linear((rows, depth), weight, block_sparse(weight, width))
    if not template.takes(graph):  # two outputs of a few rows: left to the dense kernel
        assert 1 < width < 8
        assert rows <= 4
        return
    check_sparse(template, graph, weight, threads=threads)


@pytest.mark.parametrize(("template", "rows", "width"), [(ROWS, 400, 1), (PANELS, 400, 16), (BITMAP, 2, 0)])
def test_every_config_with_threads(template: Template, rows: int, width: int) -> None:
    weight = blocks((200, 256), max(width, 1), 0.3)
    encoding = block_sparse(weight, width) if width else bitmap(weight)
    check_sparse(template, linear((rows, 256), weight, encoding), weight, threads=2, all_configs=True)


@pytest.mark.parametrize(("template", "rows", "width"), KERNELS)
def test_codes_of_8_bits_with_a_scale_for_each_output(template: Template, rows: int, width: int) -> None:
    weight = blocks((53, 48), max(width, 1), 0.4)
    encoding = (block_sparse(weight, width) if width else bitmap(weight)).with_values(Affine("i8", 0).encoding)
    check_coded(template, linear((rows, 48), weight, encoding), weight, threads=2)


@pytest.mark.parametrize("values", [Affine("i8", 0), Grouped("i4", 64, 1, "f16")], ids=["w8", "w4"])
@pytest.mark.parametrize(("n", "rows", "depth", "outputs"), [(2, 1, 128, 64), (1, 4, 128, 40), (2, 3, 72, 19), (3, 2, 64, 32)])
def test_codes_of_n_of_4_inputs(values: Affine | Grouped, n: int, rows: int, depth: int, outputs: int) -> None:
    encoding = Encoding("nm_sparse", (("n", n), ("m", 4), ("axis", 1))).with_values(values.encoding)
    weight = fitted(blocks((outputs, depth), 1, 0.9), encoding)
    weight[3] = 0
    check_coded(SELECT, linear((rows, depth), weight, encoding), weight, threads=2, all_configs=True)


@pytest.mark.parametrize("values", [Affine("i8", 1), Grouped("i4", 64, 0, "f16")], ids=["w8", "w4"])
def test_codes_of_matrix_products_with_the_outputs_last(values: Affine | Grouped) -> None:
    encoding = Encoding("nm_sparse", (("n", 2), ("m", 4), ("axis", 0))).with_values(values.encoding)
    weight = fitted(blocks((128, 48), 1, 0.9, axis=1), encoding)
    check_coded(SELECT, region([tensor(2, 128), tensor(128, 48, encoding=encoding)], lambda b, x, w: b.call("matmul", x, w)), weight)


def test_weights_that_no_cache_near_holds() -> None:
    weight = blocks((300, 900), 1, 0.3)
    check_sparse(GATHER, linear((2, 900), weight, block_sparse(weight, 1)), weight, threads=2)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
@pytest.mark.parametrize("depth", [64, 72])
def test_n_of_m_inputs(n: int, m: int, depth: int) -> None:
    encoding = Encoding("nm_sparse", (("n", n), ("m", m), ("axis", 1)))
    weight = fitted(blocks((37, depth), 1, 0.9), encoding)
    weight[3] = 0
    check_sparse(BITMAP, linear((2, depth), weight, encoding), weight)


@pytest.mark.parametrize(("template", "rows", "width"), [(GATHER, 2, 1), (ROWS, 20, 1), (PANELS, 20, 16), (BITMAP, 2, 0)])
def test_matrix_products_with_the_outputs_last(template: Template, rows: int, width: int) -> None:
    weight = blocks((40, 48), max(width, 1), 0.3, axis=1)
    encoding = block_sparse(weight, width, 1) if width else bitmap(weight)
    types = [tensor(rows, 40), tensor(40, 48, encoding=encoding)]
    check_sparse(template, region(types, lambda b, x, w: b.call("matmul", x, w)), weight)


@pytest.mark.parametrize(("template", "rows", "width"), [(GATHER, 2, 1), (ROWS, 20, 1), (PANELS, 20, 16), (BITMAP, 2, 0)])
def test_what_is_fused_before_and_after(template: Template, rows: int, width: int) -> None:
    weight = blocks((50, 24), max(width, 1), 0.3)
    encoding = block_sparse(weight, width) if width else bitmap(weight)

    def build(b: GraphBuilder, x: Value, w: Value, bias: Value) -> Value:
        read = b.call("relu", b.call("permute", x, order=(1, 0)))
        return b.call("permute", b.call("gelu", b.call("linear", read, w, bias)), order=(1, 0))

    types = [tensor(24, rows), tensor(50, 24, encoding=encoding), tensor(50)]
    check_sparse(template, region(types, build), weight)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("template", "width"), [(ROWS, 1), (ROWS, 4), (PANELS, 16)])
@pytest.mark.parametrize("layout", [NHWC, None])
def test_pointwise_convolutions(template: Template, width: int, batch: int, layout: Layout | None) -> None:
    weight = blocks((40, 24, 1, 1), width, 0.2)
    types = [tensor(batch, 24, 7, 5, layout=layout), tensor(40, 24, 1, 1, encoding=block_sparse(weight, width)), tensor(40)]

    def build(b: GraphBuilder, x: Value, w: Value, bias: Value) -> Value:
        return b.call("silu", b.call("conv", x, w, bias, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1))

    check_sparse(template, region(types, build, [NHWC.order]), weight, threads=2)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("template", "width"), [(ROWS, 1), (PANELS, 16), (PANELS, 8)])
@pytest.mark.parametrize("first", [True, False])
def test_pointwise_convolutions_of_scaled_channels(template: Template, width: int, batch: int, first: bool) -> None:
    weight = blocks((40, 24, 1, 1), width, 0.3)
    image = tensor(batch, 24, 7, 5, layout=NHWC)
    types = [image, tensor(40, 24, 1, 1, encoding=block_sparse(weight, width)), tensor(40), tensor(1, 24, 1, 1)]

    def build(b: GraphBuilder, x: Value, w: Value, bias: Value, factors: Value) -> Value:
        scaled = b.call("mul", factors, x) if first else b.call("mul", x, factors)
        return b.call("conv", scaled, w, bias, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)

    graph = region(types, build, [NHWC.order])
    assert template.pulls_operand(graph)
    check_sparse(template, graph, weight, threads=2)


def test_linear_layers_of_scaled_inputs() -> None:
    weight = blocks((48, 24), 16, 0.3)
    types = [tensor(9, 24), tensor(48, 24, encoding=block_sparse(weight, 16)), tensor(24)]
    graph = region(types, lambda b, x, w, factors: b.call("linear", b.call("mul", x, factors), w))
    assert PANELS.pulls_operand(graph)
    check_sparse(PANELS, graph, weight)


def test_panels_of_images_with_their_own_factors_are_no_better_than_the_product_before() -> None:
    weight = blocks((32, 24, 1, 1), 16, 0.3)
    types = [tensor(2, 24, 7, 5, layout=NHWC), tensor(32, 24, 1, 1, encoding=block_sparse(weight, 16)), tensor(2, 24, 1, 1)]

    def build(b: GraphBuilder, x: Value, w: Value, factors: Value) -> Value:
        scaled = b.call("mul", x, factors)
        return b.call("conv", scaled, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)

    graph = region(types, build, [NHWC.order])
    assert not PANELS.pulls_operand(graph)
    check_sparse(PANELS, graph, weight)


@pytest.mark.parametrize(
    ("channels", "size", "window", "stride", "padding", "dilation", "batch"),
    [
        (24, (9, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        (24, (14, 12), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 2),
        (16, (9, 9), (3, 3), (1, 1), ((0, 0), (0, 0)), (2, 2), 1),
        (3, (20, 20), (5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1), 1),
        (32, (10, 10), (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
        (16, (8, 11), (1, 7), (1, 1), ((0, 0), (3, 3)), (1, 1), 1),
    ],
)
@pytest.mark.parametrize(("outputs", "width"), [(48, 16), (20, 8)])
def test_convolutions_with_windows(
    channels: int,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    batch: int,
    outputs: int,
    width: int,
) -> None:
    weight = blocks((outputs, channels, *window), width, 0.2)
    weight[:width] = 0  # a panel without entries
    types = [
        tensor(batch, channels, *size, layout=NHWC),
        tensor(*weight.shape, encoding=block_sparse(weight, width)),
        tensor(outputs),
    ]

    def build(b: GraphBuilder, x: Value, w: Value, bias: Value) -> Value:
        return b.call("relu", b.call("conv", x, w, bias, stride=stride, padding=padding, dilation=dilation, groups=1))

    check_sparse(CONV, region(types, build, [NHWC.order]), weight, threads=2)


def test_convolutions_over_one_axis_and_codes() -> None:
    weight = blocks((32, 16, 5), 16, 0.3)
    attributes = {"stride": (2,), "padding": ((2, 2),), "dilation": (1,), "groups": 1}
    encoding = block_sparse(weight, 16).with_values(Affine("i8", 0).encoding)
    types = [tensor(2, 16, 40, layout=Layout((0, 2, 1))), tensor(32, 16, 5, encoding=encoding), tensor(32)]
    graph = region(types, lambda b, x, w, bias: b.call("conv", x, w, bias, **attributes), [(0, 2, 1)])
    check_coded(CONV, graph, weight, all_configs=True)


@pytest.mark.parametrize("stride", [1, 2])
def test_only_convolutions_that_are_products_are_taken(stride: int) -> None:
    weight = blocks((16, 8, 1, 1), 1, 0.2)
    types = [tensor(1, 8, 6, 6, layout=NHWC), tensor(16, 8, 1, 1, encoding=block_sparse(weight, 1))]

    def build(b: GraphBuilder, x: Value, w: Value) -> Value:
        return b.call("conv", x, w, stride=(stride, stride), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1)

    assert ROWS.takes(region(types, build)) == (stride == 1)


def test_a_weight_that_is_no_constant_is_refused() -> None:
    weight = blocks((16, 8), 1, 0.2)
    task = Task(linear((9, 8), weight, block_sparse(weight, 1)), frozenset(), AVX2, 1)
    with pytest.raises(LoweringError, match="constant"):
        ROWS.space(task)


def test_a_weight_with_more_numbers_than_its_type_says_is_refused() -> None:
    constant = ArrayConstant(blocks((16, 8), 1, 0.9))
    with pytest.raises(LoweringError, match="entries"):
        PanelWeight(1, 10).pack(constant)
    with pytest.raises(LoweringError, match="elements"):
        BitmapWeight(2, 8, 10).pack(constant)


def test_forms_survive_files_and_know_their_size() -> None:
    forms: dict[int, ConstantForm] = {
        1: PanelWeight(16, 100, 2, True),
        4: BitmapWeight(4, 8, 50, 2, (2, 4), False),
        5: BitmapWeight(4, 8, 5000),
    }
    forms |= {7: PanelWeight(8, 200, values=StoredValues.BYTES), 8: SelectedWeight(16, 2, 4), 9: SelectedWeight(8, 2, 8)}
    assert constant_layouts_of(constant_layouts_document(forms)) == forms
    constant = ArrayConstant(fitted(blocks((20, 32), 1, 0.9), Encoding("nm_sparse", (("n", 2), ("m", 4), ("axis", 1)))))
    for form in (PanelWeight(16, 100), *list(forms.values())[1:3]):
        assert form.pack(constant).nbytes == form.nbytes(constant)
    for form, values in ((forms[7], Affine("i8", 0)), (forms[8], Grouped("i4", 64, 1, "f16")), (forms[9], Affine("i8", 0))):
        coded = encode(constant, values.encoding)
        assert form.pack(coded).nbytes == form.nbytes(coded)
        with pytest.raises(LoweringError, match="codes"):
            form.pack(constant)


def test_shares_hold_about_as_many_entries() -> None:
    starts = np.concatenate([[0], np.cumsum([100] * 10 + [1] * 90)]).astype(np.int32)
    bounds = equal_shares(starts, 4)
    assert bounds[0] == 0
    assert bounds[-1] == 100
    assert np.all(np.diff(bounds) >= 0)
    assert np.diff(starts[bounds]).max() < 400


def test_avx512_expands_with_its_own_instruction() -> None:
    target = Target.parse("cpu -mcpu=znver4 -threads=1")
    weight = blocks((32, 64), 1, 0.3)
    task = Task(linear((1, 64), weight, bitmap(weight)), frozenset({1, 2}), target, 1)
    assembly = build_module(BITMAP.lower(task, BITMAP.space(task).default).function, "kernel", target).inspect_source("asm")
    assert "vexpandps" in assembly
