"""Layers over narrow operands: which layers, what they then compute, and how ranges of activations are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from golden import CONTEXT

from mlc.codegen.precision import Precision
from mlc.codegen.target import Target
from mlc.ir import DENSE, ArrayConstant, DType, Graph, GraphBuilder, Location, TensorType, Value, interpret, scheme_of, verify
from mlc.ir.encodings import Affine
from mlc.ir.short_sums import has_short_sums, short_sums
from mlc.passes import NarrowOperands, Pipeline
from mlc.passes.calibration import best_range, observe
from mlc.passes.weight_codes import weight_codes

AVX2 = replace(CONTEXT, target=Target.parse("cpu -mcpu=x86-64-v3 -threads=1"), evaluator=interpret)
ZEN4 = replace(AVX2, target=Target.parse("cpu -mcpu=znver4 -threads=1"))
CONV = {"stride": (1, 1), "padding": ((1, 1), (1, 0)), "dilation": (1, 1)}


def f32(*shape: int) -> TensorType:
    return TensorType(DType.FLOAT32, shape)


def weight(*shape: int, seed: int = 0) -> ArrayConstant:
    return ArrayConstant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def linear(rows: int = 7, depth: int = 32, columns: int = 12, data: np.ndarray | None = None) -> Graph:
    builder = GraphBuilder()
    builder.location = Location(module="layer")
    constant = weight(columns, depth) if data is None else ArrayConstant(data)
    return builder.finish(
        [builder.call("linear", builder.input(f32(rows, depth)), builder.constant(constant), builder.constant(weight(columns)))]
    )


def conv(channels: int = 16, outputs: int = 12, window: int = 3, *, groups: int = 1, size: int = 0) -> Graph:
    builder = GraphBuilder()
    operands = [
        builder.input(f32(1, channels, size, size) if size else f32(2, channels, 6, 5)),
        builder.constant(weight(outputs, channels // groups, window, window)),
        builder.constant(weight(outputs)),
    ]
    return builder.finish([builder.call("conv", *operands, **CONV, groups=groups)])


def narrowed(graph: Graph, mode: str, ctx: object = AVX2, samples: Sequence[np.ndarray] = ()) -> Graph:
    context = replace(ctx, precision=Precision.of(mode), calibration=[[sample] for sample in samples])  # type: ignore[type-var]
    result = NarrowOperands().apply(graph, context)
    verify(result)
    return result


def anchor(graph: Graph) -> Value:
    return next(node.output for node in graph.nodes if node.op in ("linear", "conv"))


def is_narrow(graph: Graph, mode: str, ctx: object = AVX2) -> bool:
    return anchor(narrowed(graph, mode, ctx)).node.attributes["dtype"] is not None  # type: ignore[union-attr]


def decoded(graph: Graph, x: np.ndarray, low: float, high: float) -> np.ndarray:
    """What ``graph`` computes in float64 for what the codes of ``x`` in a range, and those of its weight, stand for."""
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(x / scale) + zero, 0, 255)
    builder = GraphBuilder()
    node = anchor(graph).node
    assert node is not None
    inputs = [builder.input(value.tensor) for value in node.inputs]
    alone = builder.finish([builder.call(node.op, *inputs, **node.attributes)])
    scheme = scheme_of(Affine("i8", 0).encoding)
    arrays = [value.constant.array() for value in node.inputs[1:] if value.constant is not None]
    stands_for = scheme.decode(scheme.quantise(arrays[0]))
    return interpret(alone, [(codes - zero) * scale, stands_for.astype(np.float64), *arrays[1:]], wide=True)[0]


@pytest.mark.parametrize("graph", [linear(), conv(), conv(32, 24, 1, groups=2)], ids=["linear", "conv", "groups"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-1.0, 3.0), (-2.0, 2.0), (1.0, 3.0)])
def test_integers_compute_what_their_codes_stand_for(graph: Graph, low: float, high: float) -> None:
    x = np.random.default_rng(1).uniform(low, high, graph.inputs[0].tensor.static_shape).astype(np.float32)
    x.reshape(-1)[:2] = low, high
    result = narrowed(graph, "int8", ZEN4, [x])
    (got,) = interpret(result, [x])
    wanted = decoded(graph, x, min(low, 0.0), max(high, 0.0))
    exact = interpret(graph, [x], wide=True)[0]
    # Biases make up for what rounding takes of each output on average; a number halfway between codes may be rounded either way.
    shift = (got - wanted).mean(axis=tuple(axis for axis in range(got.ndim) if axis != 1), keepdims=True)
    assert np.linalg.norm(got - wanted - shift) < 1e-3 * np.linalg.norm(wanted)
    assert 1e-4 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < 0.02


def test_biases_make_up_for_what_rounding_takes_on_average() -> None:
    """Where inputs have a mean, what each output loses is the same for all rows."""
    graph = linear(rows=64, depth=128, columns=48)
    x = np.random.default_rng(0).uniform(0.9, 1.1, (64, 128)).astype(np.float32)
    (got,), (exact,) = interpret(narrowed(graph, "int8", AVX2, [x]), [x]), interpret(graph, [x], wide=True)
    lost = np.linalg.norm(got - exact)
    assert abs((got - exact).mean(axis=0)).max() < 0.02
    assert lost < 0.5 * np.linalg.norm(decoded(graph, x, 0.0, 1.1) - exact)


@pytest.mark.parametrize(
    ("graph", "words"),
    [(linear(), 2), (conv(window=1), 2), (conv(20, window=1), 1), (conv(32, 24, 1, groups=2), 0)],
    ids=["linear", "conv", "odd words", "groups"],
)
def test_weights_fit_sums_in_16_bits_where_bytes_are_summed_so(graph: Graph, words: int) -> None:
    node = anchor(narrowed(graph, "int8", AVX2)).node
    assert node is not None
    weight = node.inputs[1]
    assert weight.constant is not None
    if words:
        assert weight.tensor.encoding == short_sums(words)
        assert has_short_sums(weight.constant.array(), weight.tensor.encoding)
    else:
        assert weight.tensor.encoding.is_dense
    for processor in ("znver4", "alderlake", "x86-64-v2"):
        other = replace(AVX2, target=Target.parse(f"cpu -mcpu={processor} -threads=1"))
        assert anchor(narrowed(graph, "int8", other)).node.inputs[1].tensor.encoding.is_dense  # type: ignore[union-attr]


def test_codes_that_sums_limit_are_little_worse_than_others() -> None:
    array = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    array[0], array[1, 0] = 0, 30

    def error(words: int) -> float:
        codes = weight_codes(array, short_sums(words) if words else DENSE)
        assert not words or has_short_sums(codes.codes, codes.encoding)
        assert codes.scales.dtype == np.float32 and (codes.scales > 0).all() and not codes.numbers[0].any()
        return float(np.linalg.norm(codes.numbers - array) / np.linalg.norm(array))

    dense, one, two = error(0), error(1), error(2)
    assert dense < one < 1.5 * dense and one < two < 2 * dense, "seven bits would err twice as much"


def test_zero_points_are_folded_into_sums_and_padding() -> None:
    x = np.random.default_rng(0).uniform(-1, 3, (2, 16, 6, 5)).astype(np.float32)
    x[0, 0, 0, :2] = -1, 3
    node = anchor(narrowed(conv(), "int8", ZEN4, [x])).node
    assert node is not None
    (quantise,) = (value.node for value in node.inputs[:1])
    assert quantise is not None and quantise.op == "quantise"
    zero = quantise.attributes["zero_point"]
    assert node.attributes["filling"] == zero == 64
    codes, sums = (value.constant.array() for value in node.inputs[1:] if value.constant is not None)
    whole = sums + 64 * codes.astype(np.int64).sum(axis=(1, 2, 3))
    rounded = weight_codes(weight(12, 16, 3, 3).array(), DENSE)
    scale = rounded.scales * (4 / 255)
    lost = np.einsum("oihw,i->o", weight(12, 16, 3, 3).array() - rounded.numbers, x.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(whole * scale, weight(12).array() + lost, atol=scale.max())


def test_rows_without_calibration_have_ranges_of_their_own() -> None:
    result = narrowed(linear(), "int8")
    x = np.random.default_rng(0).standard_normal((7, 32)).astype(np.float32)
    larger = x.copy()
    larger[3] *= 1000
    (one,), (other,) = interpret(result, [x]), interpret(result, [larger])
    others = [row for row in range(7) if row != 3]
    np.testing.assert_array_equal(one[others], other[others])
    wanted = interpret(linear(), [larger], wide=True)[0]
    assert np.linalg.norm(other[3] - wanted[3]) < 0.02 * np.linalg.norm(wanted[3])
    zeros = interpret(result, [np.zeros((7, 32), np.float32)])[0]
    np.testing.assert_allclose(zeros, np.broadcast_to(weight(12).array(), (7, 12)), rtol=1e-6)


def test_layers_that_are_left_alone() -> None:
    assert is_narrow(conv(), "int8", ZEN4)
    assert not is_narrow(large := conv(64, 64, size=28), "int8", AVX2), "minimal filtering is quicker than sums in 16 bits"
    assert is_narrow(large, "int8", ZEN4)
    assert is_narrow(conv(512, 512, size=7), "int8", AVX2), "but not where its weights take longest"
    assert not is_narrow(conv(), "int8", replace(AVX2, target=Target.parse("cpu -mcpu=x86-64-v2 -threads=1")))
    assert is_narrow(conv(window=1), "int8", AVX2)
    assert is_narrow(conv(channels=3), "int8", ZEN4), "three of four bytes are enough"
    assert not is_narrow(conv(channels=3), "int8", AVX2)
    assert not is_narrow(conv(channels=2), "int8", ZEN4)
    assert not is_narrow(conv(16, 16, groups=16), "int8", ZEN4)
    assert not is_narrow(linear(depth=8), "int8")
    broken = weight(12, 32).array().copy()
    broken[2, 3] = np.inf
    assert not is_narrow(linear(data=broken), "int8")
    assert not is_narrow(linear(), "w8") and not is_narrow(linear(), "fp32")


def test_operands_that_several_layers_read_are_quantised_once() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(7, 32))
    graph = builder.finish([builder.call("linear", x, builder.constant(weight(12, 32, seed=seed))) for seed in range(3)])
    sample = np.random.default_rng(0).standard_normal((7, 32)).astype(np.float32)
    result = narrowed(graph, "int8", samples=[sample])
    assert [node.op for node in result.nodes].count("quantise") == 1


def test_bfloat16_where_the_target_multiplies_it() -> None:
    result = narrowed(linear(rows=100), "bf16", ZEN4)
    node = anchor(result).node
    assert node is not None and node.attributes["dtype"] is DType.FLOAT32
    assert [value.tensor.dtype for value in node.inputs] == [DType.BFLOAT16, DType.BFLOAT16, DType.FLOAT32]
    assert is_narrow(conv(), "bf16", ZEN4)


@pytest.mark.parametrize(("mode", "half", "rounding"), [("bf16", DType.BFLOAT16, 2.0**-8), ("fp16", DType.FLOAT16, 2.0**-11)])
def test_weights_as_halves_where_rows_are_few(mode: str, half: DType, rounding: float) -> None:
    result = narrowed(linear(rows=2), mode)
    node = anchor(result).node
    assert node is not None and node.inputs[1].op == "cast"
    (stored,) = node.inputs[1].node.inputs  # type: ignore[union-attr]
    assert stored.tensor.dtype is half
    x = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    got, wanted = interpret(result, [x], wide=True)[0], interpret(linear(rows=2), [x], wide=True)[0]
    assert 0 < np.linalg.norm(got - wanted) / np.linalg.norm(wanted) < rounding
    assert anchor(narrowed(linear(rows=100), mode)).node.inputs[1].op == "constant"  # type: ignore[union-attr]


def test_the_text_form_takes_a_mode() -> None:
    pipeline = Pipeline.parse("narrow-operands{mode=int8}")
    assert str(pipeline) == "narrow-operands{mode=int8}"
    assert anchor(pipeline.run(linear(), AVX2)).node.attributes["dtype"] is DType.INT32  # type: ignore[union-attr]


def test_ranges_hold_zero_and_cut_outliers_off() -> None:
    generator = np.random.default_rng(0)
    positive = best_range(generator.uniform(2, 3, 1000))
    assert positive.low == 0 and positive.zero_point == 0 and 2.9 < positive.high <= 3
    assert best_range(np.array([])).scale > 0
    numbers = generator.standard_normal(100_000)
    usual = best_range(numbers)
    assert 3 < usual.high <= numbers.max()
    assert best_range(np.append(generator.standard_normal(100_000), 10.0)).high < 9
    assert best_range(np.array([np.nan, np.inf, -1.0, 1.0])).high == 1.0


def test_ranges_are_those_of_all_samples() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(4))
    y = builder.call("mul", x, x)
    graph = builder.finish([builder.call("neg", y)])
    samples = [[np.array([0, 1, 2, -1], np.float32)], [np.array([0, -3, 1, 2], np.float32)]]
    seen = observe(graph, [graph.inputs[0], y], samples, interpret)
    assert (seen[graph.inputs[0]].range.low, seen[graph.inputs[0]].range.high) == (-3, 2)
    assert (seen[y].range.low, seen[y].range.high) == (0, 9)
    np.testing.assert_allclose(seen[graph.inputs[0]].means[0], [0, -1, 1.5, 0.5])


def test_bfloat16_leaves_single_channels_and_the_products_of_depthwise_convolutions_alone() -> None:
    """One channel does not fill the words of narrow numbers; of what is multiplied lane by lane only the activations are narrower."""
    assert not is_narrow(conv(1), "bf16", ZEN4) and is_narrow(conv(3), "bf16", ZEN4) and is_narrow(conv(16), "bf16", ZEN4)
    assert not is_narrow(conv(8, 8, groups=2), "bf16", ZEN4) and is_narrow(conv(16, 16, groups=2), "bf16", ZEN4)
    depthwise = narrowed(conv(16, 16, groups=16), "bf16", ZEN4)
    x, weight = (value for value in anchor(depthwise).node.inputs[:2])  # type: ignore[union-attr]
    assert not is_narrow(conv(16, 16, groups=16), "bf16", ZEN4) and weight.op == "constant"
    assert x.tensor.dtype is DType.FLOAT32 and x.node is not None and x.node.inputs[0].tensor.dtype is DType.BFLOAT16
