"""Encoding weights: which operands of which layers, by mode and module path, and what stays dense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden import CONTEXT, check_same

from mlc.codegen.precision import MODES, Precision
from mlc.errors import OptionError, PassError
from mlc.ir import ArrayConstant, DType, EncodedConstant, Graph, GraphBuilder, Location, TensorType, Value, interpret, print_graph, verify
from mlc.ir.encodings import Affine, BlockScaled, Grouped, Ternary
from mlc.passes import Compare, EncodeWeights, Horizontal, Pipeline, default_pipeline

WEIGHTS = np.random.default_rng(0)


def f32(*shape: int) -> TensorType:
    return TensorType(DType.FLOAT32, shape)


def weight(builder: GraphBuilder, *shape: int, data: np.ndarray | None = None) -> Value:
    return builder.constant(ArrayConstant(WEIGHTS.standard_normal(shape).astype(np.float32) if data is None else data))


def encodings(graph: Graph) -> list[str]:
    """The encodings of all constants, in order."""
    return [str(value.tensor.encoding) for value in graph.values() if value.op == "constant"]


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes if node.op != "constant"]


def layer(op: str, x: tuple[int, ...], *shape: int, **attributes: object) -> Graph:
    builder = GraphBuilder()
    return builder.finish([builder.call(op, builder.input(f32(*x), "x"), weight(builder, *shape), **attributes)])  # type: ignore[arg-type]


CONV = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}


@pytest.mark.parametrize(
    ("graph", "output", "reduced"),
    [
        (layer("linear", (3, 70), 20, 70), 0, 1),
        (layer("matmul", (3, 70), 70, 20), 1, 0),
        (layer("matmul", (2, 3, 70), 2, 70, 20), 2, 1),
        (layer("conv", (1, 70, 5, 5), 20, 70, 3, 3, **CONV), 0, 1),
        (layer("conv_transpose", (1, 70, 5, 5), 70, 20, 3, 3, **CONV, output_padding=(0, 0)), 1, 0),
    ],
    ids=["linear", "matmul", "batched matmul", "conv", "conv_transpose"],
)
def test_scales_lie_along_outputs_and_groups_along_what_is_summed(graph: Graph, output: int, reduced: int) -> None:
    assert encodings(EncodeWeights("w8").apply(graph, CONTEXT)) == [str(Affine("i8", output).encoding)]
    assert encodings(EncodeWeights("w4").apply(graph, CONTEXT)) == [str(Grouped("i4", 64, reduced, "f16").encoding)]
    assert encodings(EncodeWeights("mxfp4").apply(graph, CONTEXT)) == [str(BlockScaled("e2m1", reduced).encoding)]
    assert encodings(EncodeWeights("ternary").apply(graph, CONTEXT)) == [str(Ternary(output).encoding)]


@pytest.mark.parametrize("mode", [name for name, mode in MODES.items() if mode.weights is not None])
def test_the_graph_computes_with_the_decoded_weights(mode: str) -> None:
    graph = layer("linear", (3, 96), 20, 96)
    result = Pipeline.parse(f"encode-weights{{mode={mode}}}").run(graph, CONTEXT)
    verify(result)
    (constant,) = [value.constant for value in result.values() if value.constant is not None]
    assert isinstance(constant, EncodedConstant)
    builder = GraphBuilder()
    dense = builder.finish([builder.call("linear", builder.input(f32(3, 96), "x"), builder.constant(ArrayConstant(constant.array())))])
    check_same(dense, result, tolerance=0)
    x = WEIGHTS.standard_normal((3, 96)).astype(np.float32)
    assert not np.array_equal(interpret(graph, [x])[0], interpret(result, [x])[0])


def test_modes_go_by_module() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(3, 64), "x")
    for module in ("layers.0.mlp", "layers.1.mlp", "layers.1.norm", "head"):
        x = builder.call("linear", x, weight(builder, 64, 64), location=Location(module))
    graph = builder.finish([x])
    precision = {"layers": "w8", "layers.1.mlp": "w4", "*norm": "fp32"}
    result = EncodeWeights().apply(graph, replace(CONTEXT, precision=Precision.of(precision)))
    assert [text.partition("(")[0] for text in encodings(result)] == ["affine", "grouped", "affine", "dense"]
    precision["layers.?.norm"] = "fp32"
    result = EncodeWeights().apply(graph, replace(CONTEXT, precision=Precision.of(precision)))
    assert [text.partition("(")[0] for text in encodings(result)] == ["affine", "grouped", "dense", "dense"]


def test_what_does_not_become_smaller_or_is_not_finite_stays() -> None:
    depthwise = layer("conv", (1, 32, 5, 5), 32, 1, 3, 3, **{**CONV, "groups": 32})
    assert encodings(EncodeWeights("w4").apply(depthwise, CONTEXT)) == ["dense"]
    assert encodings(EncodeWeights("w8").apply(depthwise, CONTEXT)) == [str(Affine("i8", 0).encoding)]
    for number, dtype in ((np.inf, DType.FLOAT32), (np.nan, DType.FLOAT32), (1e300, DType.FLOAT64)):
        builder = GraphBuilder()
        large = weight(builder, data=np.full((4, 64), number, dtype.numpy))
        graph = builder.finish([builder.call("linear", builder.input(TensorType(dtype, (2, 64))), large)])
        assert encodings(EncodeWeights("w8").apply(graph, CONTEXT)) == ["dense"]


def test_other_operands_and_other_readers_keep_their_numbers() -> None:
    builder = GraphBuilder()
    x, shared = builder.input(f32(3, 64), "x"), weight(builder, 64, 64)
    bias = weight(builder, 64)
    product = builder.call("linear", x, shared, bias)
    graph = builder.finish([product, builder.call("add", x, builder.call("slice", shared, axis=0, start=0, stop=3))])
    result = EncodeWeights("w4").apply(graph, CONTEXT)
    assert sorted(text.partition("(")[0] for text in encodings(result)) == ["dense", "dense", "grouped"]
    given = WEIGHTS.standard_normal((3, 64)).astype(np.float32)
    np.testing.assert_array_equal(interpret(result, [given])[1], interpret(graph, [given])[1])


def test_without_a_precision_nothing_happens() -> None:
    graph = layer("linear", (3, 96), 20, 96)
    assert EncodeWeights().apply(graph, CONTEXT) is graph


def test_only_layers_of_one_mode_are_merged() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(1, 4, 64), "x")
    heads = []
    for name in "qkv":
        product = builder.call("linear", x, weight(builder, 64, 64), location=Location(f"attention.{name}"))
        heads.append(builder.call("permute", builder.call("reshape", product, shape=(1, 4, 2, 32)), order=(0, 2, 1, 3)))
    graph = builder.finish([builder.call("attention", *heads, scale=0.2)])
    for precision, linears in (("w4", 1), ({"attention": "w4", "attention.v": "w8"}, 2)):
        context = replace(CONTEXT, precision=Precision.of(precision))
        merged = Horizontal().apply(graph, context)
        assert ops(merged).count("linear") == linears
        assert len([text for text in encodings(EncodeWeights().apply(merged, context)) if text != "dense"]) == linears


def test_the_default_pipeline_encodes_weights_before_it_fuses() -> None:
    context = replace(CONTEXT, precision=Precision.of("w8"))
    result = default_pipeline(CONTEXT.target).run(layer("conv", (1, 16, 6, 6), 16, 16, 3, 3, **CONV), context)
    verify(result)
    text = print_graph(result)
    assert "as affine(storage=i8, scale=stored, axis=0)" in text and "fusion" in text
    (fusion,) = [node for node in result.nodes if node.op == "fusion" and node.regions[0].inputs[1:]]
    assert not fusion.regions[0].inputs[1].tensor.encoding.is_dense


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.BFLOAT16])
def test_embeddings_are_looked_up_in_8_bits(dtype: DType) -> None:
    table = WEIGHTS.standard_normal((1100, 64)).astype(dtype.numpy)
    builder = GraphBuilder()
    graph = builder.finish([builder.call("take", weight(builder, data=table), builder.input(TensorType(DType.INT64, (2, 3)), "i"))])
    result = EncodeWeights("w2").apply(graph, CONTEXT)
    verify(result)
    assert ops(result) == ["take", "cast", "take", "mul"] + ["cast"] * (dtype is DType.BFLOAT16)
    stored = [value.tensor for value in result.values() if value.op == "constant"]
    assert stored == [TensorType(DType.INT8, (1100, 64)), f32(1100, 1)]
    indices = np.array([[0, -1, 7], [1099, 3, 3]])
    scheme = Affine("i8", 0)
    wanted = scheme.decode(scheme.quantise(table))[indices].astype(dtype.numpy)
    np.testing.assert_array_equal(interpret(result, [indices])[0], wanted)
    builder = GraphBuilder()
    small = builder.finish([builder.call("take", weight(builder, 100, 64), builder.input(TensorType(DType.INT64, (2, 3)), "i"))])
    assert ops(EncodeWeights("w2").apply(small, CONTEXT)) == ["take"]


def test_comparing_passes_begins_anew_with_rounded_weights() -> None:
    graph = layer("linear", (3, 96), 20, 96)
    Pipeline.parse("simplify,encode-weights{mode=w2},fuse").run(graph, CONTEXT, [Compare()])

    class Broken(EncodeWeights):
        rounds = False

    with pytest.raises(PassError, match="changed output 0"):
        Pipeline((Broken("w2"),)).run(graph, CONTEXT, [Compare()])


# Which module gets which mode.


@pytest.mark.parametrize(
    ("module", "mode"),
    [
        ("", "w8"),
        ("head", "w2"),
        ("header", "w8"),
        ("decoder.layers.3.mlp.up", "w4"),
        ("decoder.layers.3.norm", "fp32"),
        ("decoder.layers.10.mlp", "mxfp4"),
        ("encoder.layers.10.mlp", "w8"),
    ],
)
def test_the_longest_pattern_wins(module: str, mode: str) -> None:
    precision = Precision.of(
        {"": "w8", "head": "w2", "decoder": "fp32", "decoder.layers.*.mlp": "w4", "decoder.layers.10.mlp": "mxfp4", "head*.x": "w3"}
    )
    assert precision.mode(module).name == mode
    assert Precision.of(str(precision)) == precision


def test_precisions_that_make_no_sense() -> None:
    for given, message in [
        ("w5", "'w5' is unknown; use one of 'fp32', 'bf16'"),
        ("auto", "'auto' decides for a whole model: give it alone, to mlc.compile"),
        ({"head": "w5"}, "'w5' is unknown"),
        ({"head": 4}, "4 is unknown"),
        ({3: "w4"}, "3 is no module path"),
        (4, "is a int; give one of"),
    ]:
        with pytest.raises(OptionError, match=message):
            Precision.of(given)
    with pytest.raises(OptionError, match=r"'layer\.0' is no module of this model that computes; some are layers\.0"):
        Precision.of({"layer.0": "w4"}).check_modules(["layers.0", "head"])
    with pytest.raises(OptionError, match="it has none with a name"):
        Precision.of({"head": "w4"}).check_modules([""])
    Precision.of({"": "w4", "layers": "w8", "l*s": "w8"}).check_modules(["layers.0"])
