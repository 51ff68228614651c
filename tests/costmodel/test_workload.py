"""What tasks have to do, and the bounds that follow."""

from __future__ import annotations

import numpy as np
import pytest

from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.costmodel import AnchorKind, Bound, CostOracle, Rates, estimate, lower_bound, roofline, workload
from mlc.costmodel.sampling import sample_tasks
from mlc.ir import ArrayConstant, DType, Encoding, Graph, GraphBuilder, TensorType, canonicalise, parse

TARGET = Target.parse("cpu -mcpu=znver4 -threads=2")


def f32(*shape: int) -> TensorType:
    return TensorType(DType.FLOAT32, shape)


def conv_graph(size: int, channels: int, window: int, stride: int, pad: int, groups: int = 1) -> Graph:
    builder = GraphBuilder()
    x, weight = builder.input(f32(1, channels, size, size)), builder.input(f32(channels, channels // groups, window, window))
    pads = ((pad, pad), (pad, pad))
    result = builder.call("conv", x, weight, stride=(stride, stride), padding=pads, dilation=(1, 1), groups=groups)
    return canonicalise(builder.finish([result]))


def test_taps_on_padding_are_not_counted() -> None:
    """By brute force: a tap counts when it reads a pixel."""
    size, window, pad = 7, 3, 1
    reads = sum(0 <= i + k - pad < size for i in range(size) for k in range(window)) ** 2
    assert workload(conv_graph(size, 4, window, 1, pad)).operations == pytest.approx(2 * reads * 4 * 4)


@pytest.mark.parametrize(("stride", "window", "pad"), [(1, 1, 0), (2, 3, 1), (3, 5, 2), (4, 3, 0)])
def test_a_convolution_is_a_product_of_pixels_and_channels(stride: int, window: int, pad: int) -> None:
    graph = conv_graph(12, 6, window, stride, pad)
    anchor = workload(graph).anchor
    pixels = graph.outputs[0].tensor.elements // 6
    assert (anchor.kind, anchor.rows, anchor.columns, anchor.depth, anchor.taps) == (AnchorKind.CONV, pixels, 6, 6 * window**2, window**2)


def test_depthwise_convolutions_are_a_family_of_their_own() -> None:
    anchor = workload(conv_graph(8, 16, 3, 1, 1, groups=16)).anchor
    assert (anchor.kind, anchor.columns, anchor.depth) == (AnchorKind.DEPTHWISE, 16, 9)


def test_a_strided_pointwise_convolution_reads_a_quarter_of_the_pixels() -> None:
    work = workload(conv_graph(16, 8, 1, 2, 0), frozenset({1}))
    assert work.activation_bytes == 4 * 8 * 16 * 16 // 4
    assert work.constant_bytes == 4 * 8 * 8


def test_an_embedding_reads_the_rows_it_takes() -> None:
    builder = GraphBuilder()
    table, indices = builder.input(f32(30000, 64)), builder.input(TensorType(DType.INT64, (5,)))
    work = workload(canonicalise(builder.finish([builder.call("take", table, indices, axis=0)])))
    assert work.activation_bytes == 5 * 64 * 4 + 5 * 8
    assert work.anchor.kind is AnchorKind.GATHER


@pytest.mark.parametrize(
    ("encoding", "share", "nbytes"),
    [
        ("dense", 1.0, 64 * 128 * 4),
        ("nm_sparse(n=1, m=4, axis=1)", 0.25, 64 * 128 * 4 // 4 + 64 * 128 // 8),
        ("bitmap(elements=800)", 800 / (64 * 128), 800 * 4 + 64 * 128 // 8),
        ("block_sparse(width=16, entries=100, axis=0)", 1600 / (64 * 128), 1600 * 4 + 100 * 2),
        ("block_sparse(width=16, entries=100, axis=0, values=affine(storage=i8, scale=stored, axis=0))", 1600 / (64 * 128), None),
        ("grouped(storage=i4, group=32, axis=1, scale=f16)", 1.0, 64 * 128 // 2 + 64 * 4 * 2),
    ],
)
def test_a_weight_counts_as_what_is_stored_of_it(encoding: str, share: float, nbytes: int | None) -> None:
    graph = parse(
        f"""graph @main(%x: f32[3,128], %w: f32[64,128]{"" if encoding == "dense" else f" as {encoding}"}) {{
  %y = linear(%x, %w) : f32[3,64]
  return %y
}}"""
    )
    work = workload(canonicalise(graph), frozenset({1}))
    assert work.operations == pytest.approx(2 * 3 * 64 * 128 * share)
    assert work.activation_bytes == 3 * 128 * 4
    if nbytes is None:  # a byte for each number, a share of the scales, and the places
        assert 1600 + 100 * 2 < work.constant_bytes < 1.1 * (1600 + 100 * 2)
    else:
        assert work.constant_bytes == nbytes


def test_an_estimate_counts_what_is_stored_of_constants() -> None:
    def constants(zeros: int) -> int:
        weight = np.ones((64, 128), np.float32)
        weight[:, :zeros] = 0
        builder = GraphBuilder()
        x, kept = builder.input(f32(3, 128)), int(np.count_nonzero(weight))
        type = f32(64, 128).with_encoding(Encoding("bitmap", (("elements", kept),)))
        product = builder.call("linear", x, builder.constant(ArrayConstant(weight), type))
        return estimate(builder.finish([product]), TARGET).constant_bytes

    assert constants(64) == 64 * 64 * 4 + 64 * 128 // 8
    assert constants(120) == 64 * 8 * 4 + 64 * 128 // 8


def test_the_anchor_is_the_heaviest_operation() -> None:
    builder = GraphBuilder()
    x, weight = builder.input(f32(8, 32)), builder.input(f32(16, 32))
    graph = builder.finish([builder.call("gelu", builder.call("linear", builder.call("relu", x), weight))])
    work = workload(canonicalise(graph))
    assert (work.anchor.kind, work.anchor.rows, work.anchor.columns, work.anchor.depth) == (AnchorKind.MATMUL, 8, 16, 32)
    assert work.transcendental == 8 * 16


def test_every_sampled_task_takes_longer_than_its_bound() -> None:
    for task in sample_tasks(40, 7, TARGET, 2):
        bound, roof = lower_bound(task), roofline(task)
        assert 0 < bound.seconds < roof.seconds
        assert bound.parts[bound.bound] == max(bound.parts.values())


def test_what_bounds_a_task_follows_its_intensity() -> None:
    def product(rows: int) -> Task:
        builder = GraphBuilder()
        graph = builder.finish([builder.call("linear", builder.input(f32(rows, 4096)), builder.input(f32(8192, 4096)))])
        return Task(canonicalise(graph), frozenset({1}), TARGET, 2)

    assert roofline(product(1)).bound is Bound.MEMORY  # 128 MiB of weights for a single row
    assert roofline(product(512)).bound is Bound.COMPUTE


def test_the_oracle_prefers_fusing_and_remembers() -> None:
    def chain(length: int) -> Graph:
        builder = GraphBuilder()
        value = builder.input(f32(2048, 2048))
        for _ in range(length):
            value = builder.call("relu", value)
        return builder.finish([value])

    oracle = CostOracle(TARGET, 2)
    assert oracle.region(chain(2)) < 2 * oracle.region(chain(1))
    assert oracle.region(chain(1)) == oracle.region(chain(1))


def test_an_estimate_sums_operations_and_counts_memory() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(32, 256))
    weight = builder.constant(ArrayConstant(np.zeros((512, 256), np.float32)))
    hidden = builder.call("relu", builder.call("linear", x, weight))
    graph = builder.finish([builder.call("softmax", hidden, axis=1)])
    report = estimate(graph, TARGET)
    assert [operation.name for operation in report.operations] == ["linear", "relu", "softmax"]
    assert report.seconds == pytest.approx(sum(operation.seconds for operation in report.operations))
    assert report.constant_bytes == 512 * 256 * 4
    assert report.io_bytes == 32 * 256 * 4 + 32 * 512 * 4
    assert report.activation_bytes == 2 * 32 * 512 * 4  # the product and its relu
    assert report.seconds < estimate(graph, TARGET, threads=1).seconds
    assert "linear" in str(report)
    assert '"bound": "compute"' in report.json()


def test_an_estimate_counts_the_rounds_of_loops() -> None:
    def loop(trips: int) -> Graph:
        return parse(
            f"""graph @main(%h: f32[64], %w: f32[64,64]) {{
  %r = loop(%h, %w) {{trips = {trips}, carried = 1}} : f32[64] {{
    graph @body(%h: f32[64], %w: f32[64,64]) {{
      %l = linear(%h, %w) : f32[64]
      return %l
    }}
  }}
  return %r
}}"""
        )

    once, often = estimate(loop(2), TARGET), estimate(loop(20), TARGET)
    assert often.seconds == pytest.approx(10 * once.seconds)
    assert often.operations[0].operations == 20 * 2 * 64 * 64 and often.operations[0].name == "20 x linear"


@pytest.mark.parametrize(("window", "stride", "least"), [(3, 1, 0.25), (3, 2, 1.0), (5, 1, 1.0)])
def test_a_bound_allows_for_minimal_filtering(window: int, stride: int, least: float) -> None:
    task = Task(canonicalise(conv_graph(64, 256, window, stride, 1)), frozenset({1}), TARGET, 2)
    direct = workload(task.graph).operations / Rates.peak(TARGET, 2).operations
    assert lower_bound(task).compute == pytest.approx(least * direct)
