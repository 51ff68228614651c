"""Type inference refuses operands and attributes that do not fit, and says why; it works on symbolic shapes."""

from __future__ import annotations

import re

import pytest

from mlc.errors import TypeInferenceError
from mlc.ir import (
    DType,
    Encoding,
    GraphBuilder,
    Layout,
    SymbolRange,
    TensorType,
    TokenType,
    Trait,
    Value,
    lookup,
    parse_type,
    registry,
    symbol,
)

CONV = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
TRANSPOSED = CONV | {"output_padding": (0, 0)}
POOL = {"kind": "max", "window": (2,), "stride": (2,), "padding": ((0, 0),), "dilation": (1,)}


def build(op: str, types: str, attributes: dict[str, object]) -> tuple[Value, ...]:
    """The results of ``op`` on inputs of ``types``, written one after the other."""
    builder = GraphBuilder(symbols={"n": SymbolRange()})
    inputs = [builder.input(parse_type(text)) for text in types.split()]
    return builder.add(op, *inputs, attributes=attributes).outputs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "types", "attributes", "message"),
    [
        ("add", "f32[2] f64[2]", {}, "operands have dtypes f32 and f64; insert a cast"),
        ("add", "f32[2] f32[3]", {}, "shapes [2] and [3] do not broadcast"),
        ("add", "f32[2]", {}, "add(x, y) got 1 operands"),
        ("add", "f32[2] f32[2] f32[2]", {}, "got 3 operands"),
        ("add", "b1[2] b1[2]", {}, "does not take b1"),
        ("add", "token f32[2]", {}, "operand 'x' of add is a token, not a tensor"),
        ("exp", "i32[2]", {}, "does not take i32"),
        ("exp", "c64[2]", {}, "does not take c64"),
        ("bitwise_and", "f32[2] f32[2]", {}, "does not take f32"),
        ("where", "f32[2] f32[2] f32[2]", {}, "the condition is f32"),
        ("where", "b1[2] f32[2] i32[2]", {}, "branches have dtypes f32 and i32"),
        ("gelu", "f32[2]", {"approximate": "sigmoid"}, "must be one of 'none', 'tanh'"),
        ("clamp", "f32[2]", {"min": "0"}, "must be a number, or none"),
        ("cast", "f32[2]", {"dtype": "f16"}, "must be a dtype"),
        ("cast", "f32[2]", {}, "cast needs the attribute 'dtype'"),
        ("relu", "f32[2]", {"slope": 0.1}, "relu has no attribute 'slope' (it has: none)"),
        ("matmul", "f32[3] f32[3,4]", {}, "operands need rank 2"),
        ("matmul", "f32[2,3] f32[4,5]", {}, "inner extents of [2, 3] and [4, 5] differ"),
        ("matmul", "f32[2,2,3] f32[3,3,5]", {}, "do not broadcast"),
        ("matmul", "b1[2,3] b1[3,2]", {}, "does not take b1"),
        ("linear", "f32[2,3] f32[4,5]", {}, "does not fit a weight"),
        ("linear", "f32[2,3] f32[4,3] f32[3]", {}, "bias [3] does not fit"),
        ("linear", "u8[2,3] i8[4,3]", {}, "operands have dtypes u8 and i8"),
        ("linear", "u8[2,3] i32[4,3]", {"dtype": DType.INT32}, "sums in i32 take operands of 8-bit integers, not u8 and i32"),
        ("linear", "u8[2,3] i8[4,3] f32[4]", {"dtype": DType.INT32}, "the bias is f32, the sums are i32"),
        ("matmul", "bf16[2,3] f16[3,4]", {"dtype": DType.FLOAT32}, "operands of one 16-bit float dtype"),
        ("matmul", "u8[2,3] u8[3,4]", {"dtype": DType.INT16}, "cannot sum in i16"),
        ("conv", "u8[1,3,8,8] i8[4,3,3,3]", CONV | {"dtype": DType.INT32, "filling": -1}, "u8 cannot be filled with -1"),
        ("conv", "f32[1,3,8,8] f32[4,3,3,3]", CONV | {"filling": 1}, "only 8-bit integers have a zero point"),
        ("quantise", "f32[2,3] f32[2,3]", {"dtype": DType.INT32}, "gives i8 or u8, not i32"),
        ("quantise", "f32[2,3] f32[2,3]", {"dtype": DType.INT8, "zero_point": 128}, "the zero point 128 is no i8"),
        ("quantise", "f32[3] f32[2,3]", {"dtype": DType.INT8}, "rates [2, 3] do not broadcast to [3]"),
        ("quantise", "f32[3] f64[3]", {"dtype": DType.INT8}, "takes floats of one dtype"),
        ("conv", "f32[1,3,8,8] f32[4,2,3,3]", CONV, "3 channels do not fit"),
        ("conv", "f32[1,3,8,8] f32[4,3,9,3]", CONV, "the window [9, 3] exceeds the padded operand"),
        ("conv", "f32[1,4,8,8] f32[3,2,3,3]", CONV | {"groups": 2}, "3 outputs in 2 groups"),
        ("conv", "f32[1,4,8,8] f32[4,4,3,3]", CONV | {"groups": 0}, "'groups' is 0, it must be an integer of at least 1"),
        ("conv", "f32[1,4,8,8] f32[4,4,3,3]", CONV | {"stride": (0, 1)}, "'stride' is (0, 1)"),
        ("conv", "f32[1,4,8,8] f32[4,4,3,3]", CONV | {"stride": (1,)}, "stride (1,) needs 2 entries"),
        ("conv", "f32[1,4,8,8] f32[4,4,3,3]", CONV | {"padding": ((-1, 0), (0, 0))}, "pairs of integers of at least 0"),
        ("conv", "f32[1,4,8] f32[4,4,3,3]", CONV, "need the same rank"),
        ("conv", "f32[1,4,8,8] f32[4,4,3,3] f32[5]", CONV, "bias [5] does not fit 4 outputs"),
        ("conv_transpose", "f32[1,4,8,8] f32[3,4,3,3]", TRANSPOSED, "4 channels do not fit"),
        ("conv_transpose", "f32[1,4,8,8] f32[4,4,3,3]", TRANSPOSED | {"stride": (1,)}, "needs 2 entries"),
        ("conv_transpose", "f32[1,4,1,1] f32[4,4,1,1]", TRANSPOSED | {"padding": ((1, 1), (0, 0))}, "leaves nothing"),
        ("conv_transpose", "f32[1,4,8,8] f32[4,4,3,3]", TRANSPOSED | {"groups": 3}, "4 channels in 3 groups"),
        ("attention", "f32[1,4,3] f32[1,4,3] f32[1,4,3]", {"scale": 1.0}, "need rank 4"),
        ("attention", "f32[1,3,3,5] f32[1,2,3,5] f32[1,2,3,5]", {"scale": 1.0}, "3 query heads are not a multiple of 2"),
        ("attention", "f32[1,2,3,5] f32[1,2,4,5] f32[1,2,3,5]", {"scale": 1.0}, "differ in heads or length"),
        ("attention", "f32[1,2,3,5] f32[1,2,4,5] f32[1,2,4,5] f32[3,5]", {"scale": 1.0}, "do not broadcast"),
        ("attention", "f32[1,2,3,5] f32[1,2,4,5] f32[1,2,4,5] i32[3,4]", {"scale": 1.0}, "the mask is i32"),
        ("reshape", "f32[2,3]", {"shape": (4, 2)}, "[2, 3] has 6 elements, [4, 2] has 8"),
        ("reshape", "f32[2,3]", {"shape": (-1, 2)}, "must be a tuple of dimensions"),
        ("permute", "f32[2,3]", {"order": (0, 0)}, "is not a permutation"),
        ("permute", "f32[2,3]", {"order": (0,)}, "is not a permutation"),
        ("broadcast_to", "f32[2,3]", {"shape": (2, 6)}, "do not broadcast"),
        ("broadcast_to", "f32[2,3]", {"shape": (3,)}, "does not broadcast to [3]"),
        ("slice", "f32[4]", {"axis": 0, "start": 2, "stop": 5}, "[2:5] does not lie within extent 4"),
        ("slice", "f32[4]", {"axis": 0, "start": 3, "stop": 2}, "does not lie within"),
        ("slice", "f32[4]", {"axis": 0, "stop": 2, "step": 0}, "'step' is 0"),
        ("slice", "f32[4]", {"axis": 1, "stop": 2}, "axis 1 is out of range for rank 1"),
        ("slice", "f32[]", {"axis": 0, "stop": 0}, "axis 0 is out of range for rank 0"),
        ("flip", "f32[4]", {"axes": (0, -1)}, "repeat"),
        ("concat", "", {"axis": 0}, "needs at least one operand"),
        ("concat", "f32[2] i32[2]", {"axis": 0}, "insert a cast"),
        ("concat", "f32[2,3] f32[2,4]", {"axis": 0}, "differ outside axis 0"),
        ("pad", "f32[2]", {"pads": ((0, 0), (0, 0))}, "2 pairs of pads for rank 1"),
        ("pad", "f32[2]", {"pads": ((-1, 0),)}, "pairs of integers of at least 0"),
        ("pad", "i8[2]", {"pads": ((1, 0),), "value": 300}, "300 is not a number that i8 can hold"),
        ("pad", "i8[2]", {"pads": ((1, 0),), "value": float("nan")}, "nan is not a number that i8 can hold"),
        ("full", "", {"shape": (2,), "value": 1.5, "dtype": DType.INT32}, "1.5 is not a number that i32 can hold"),
        ("full", "", {"shape": (-2,), "value": 1.5, "dtype": DType.FLOAT32}, "a tuple of dimensions"),
        ("iota", "", {"size": 3, "dtype": DType.BOOL}, "does not make b1"),
        ("take", "f32[4] f32[2]", {}, "indices are f32"),
        ("take", "f32[] i64[2]", {}, "axis 0 is out of range"),
        ("take_along", "f32[4,4] i64[2]", {"axis": 0}, "need the same rank"),
        ("take_along", "f32[4,4] i64[2,5]", {"axis": 0}, "exceed the operand [4, 4] on axis 1"),
        ("take_nd", "f32[4] i64[3,2]", {}, "index vectors of length 2 do not fit rank 1"),
        ("take_nd", "f32[4] i64[3,n]", {}, "must be a number"),
        ("sort", "f32[4]", {"axis": 0, "count": 5}, "count 5 exceeds extent 4"),
        ("reduce", "f32[4]", {"kind": "median", "axes": (0,)}, "must be one of 'sum'"),
        ("reduce", "f32[4]", {"kind": "sum", "axes": (1,)}, "axis 1 is out of range"),
        ("reduce", "f32[4]", {"kind": "sum", "axes": (0, -1)}, "repeat"),
        ("reduce", "f32[4,4]", {"kind": "argmax", "axes": (0, 1)}, "argmax reduces one axis"),
        ("reduce", "i32[4]", {"kind": "mean", "axes": (0,)}, "mean of i32 is not defined"),
        ("reduce", "b1[4]", {"kind": "sum", "axes": (0,)}, "sum of b1 is not defined; insert a cast"),
        ("reduce", "f32[0,2]", {"kind": "max", "axes": (0,)}, "max over no elements"),
        ("scan", "b1[4]", {"axis": 0}, "does not take b1"),
        ("scan", "i32[4]", {"axis": 0, "kind": "logsumexp"}, "logsumexp does not take i32"),
        ("nextafter", "i32[4] i32[4]", {"dtype": DType.INT32}, "does not take i32"),
        ("softmax", "i32[4]", {"axis": 0}, "takes floats, got i32"),
        ("layer_norm", "f32[4,5] f32[4]", {}, "parameter shape [4] is not [5]"),
        ("layer_norm", "f32[4,5]", {"axes": 3}, "normalises 3 trailing axes of rank 2"),
        ("layer_norm", "f32[4,5]", {"eps": -1.0}, "a finite float of at least 0"),
        ("rms_norm", "f32[]", {}, "needs a last axis"),
        ("group_norm", "f32[2,6,5]", {"groups": 4}, "6 channels do not divide into 4 groups"),
        ("batch_norm", "f32[2,6,5] f32[6] f32[5]", {}, "parameter shape [5] is not [6]"),
        ("batch_norm", "f32[6] f32[6] f32[6]", {}, "needs a channel axis"),
        ("batch_norm", "f32[2,6] f32[6]", {}, "got 2 operands"),
        ("window_reduce", "f32[1,2,3,3]", POOL, "a window of 1 axes needs rank 3"),
        ("window_reduce", "f32[1,2,1]", POOL, "exceeds the padded operand"),
        ("window_reduce", "i32[1,2,4]", POOL | {"kind": "mean"}, "mean does not take i32"),
        ("window_reduce", "f32[1,2,4]", POOL | {"uncounted": (1,)}, "no more than the high padding"),
        ("window_reduce", "f32[1,2,4]", POOL | {"divisor": 0}, "other than 0"),
        ("resample", "f32[1,2,4]", {"kind": "cubic", "size": (8,)}, "must be one of 'nearest', 'linear'"),
        ("resample", "f32[1,2,4]", {"kind": "linear", "size": (8, 8)}, "needs rank 4"),
        ("resample", "f32[1,2,0]", {"kind": "linear", "size": (8,)}, "no spatial elements"),
        ("resample", "f32[1,2,4]", {"kind": "linear", "size": (8,), "scales": (2.0, 2.0)}, "need 1 entries"),
        ("fusion", "f32[2]", {}, "has one region, got 0"),
        ("cond", "b1[]", {}, "has two regions"),
        ("while", "f32[2]", {}, "has two regions"),
        ("loop", "f32[2]", {"trips": 2, "carried": 1}, "has one region"),
        ("state_read", "f32[2]", {}, "a token is needed"),
        ("state_read", "token", {}, "the token has no buffer"),
        ("state_write", "token(f32[2]) f32[3]", {}, "a f32[3] does not fit the buffer f32[2]"),
        ("put", "f32[4,3] f32[2,3] i64[2]", {"axes": (0, 1)}, "1 tensors of indices for the axes [0, 1]"),
        ("put", "f32[4,3] f32[2,3] f32[2]", {"axes": (0,)}, "indices must be integers of rank 1"),
        ("put", "f32[4,3] f32[2,4] i64[2]", {"axes": (0,)}, "do not fill [2, 3]"),
        ("put", "f32[4,3] i64[2,3] i64[2]", {"axes": (0,)}, "cast them first"),
        ("scatter_along", "f32[4,4] f32[2,2] f32[2,2]", {"axis": 0}, "indices are f32, integers are needed"),
        ("scatter_along", "f32[4,4] i64[2,2] f32[2,3]", {"axis": 0}, "need one shape, of the rank of the operand"),
        ("scatter_along", "f32[4,4] i64[2,5] f32[2,5]", {"axis": 0}, "exceed the operand [4, 4] on axis 1"),
        ("scatter_along", "f32[4] i64[2] f64[2]", {"axis": 0}, "have different dtypes; insert a cast"),
        ("scatter_nd", "f32[4] i64[3,2] f32[3]", {}, "index vectors of length 2 do not fit rank 1"),
        ("scatter_nd", "f32[4,5] i64[3,1] f32[3,4]", {}, "should have the shape [3, 5]"),
        ("grouped_matmul", "f32[6,3] f32[2,4,5] i64[2]", {}, "inner extents of [6, 3] and [2, 4, 5] differ"),
        ("grouped_matmul", "f32[6,4] f32[2,4,5] i64[3]", {}, "needs an integer for each of the 2 groups"),
        ("monarch", "f32[6,8] f32[2,4,1,3] f32[2,1,5,4]", {}, "differ in blocks, rank or groups"),
        ("monarch", "f32[6,9] f32[2,4,1,3] f32[2,1,5,3]", {}, "does not fit 2 blocks of 4"),
        ("bitcast", "f32[4]", {"source": DType.INT32, "dtype": DType.FLOAT32}, "the operand is f32, not i32"),
        ("bitcast", "f32[4]", {"source": DType.FLOAT32, "dtype": DType.INT16}, "not numbers of as many bits"),
        ("rleu", "f32[2]", {}, "there is no operation 'rleu'"),
    ],
)
def test_what_does_not_fit_is_refused(op: str, types: str, attributes: dict[str, object], message: str) -> None:
    with pytest.raises(TypeInferenceError, match=re.escape(message)):
        build(op, types, attributes)


def test_every_operation_refuses_something() -> None:
    marks = next(mark for mark in test_what_does_not_fit_is_refused.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    refused = {row[0] for row in marks.args[1]}
    # Elementwise operations without attributes share their inference; so do some others with one that is listed.
    shared = {"elu", "leaky_relu", "log_softmax", "constant", "relayout"}
    assert {op.name for op in registry().values() if op.attributes or not op.has(Trait.ELEMENTWISE)} <= refused | shared


@pytest.mark.parametrize("op", sorted(registry()))
def test_every_attribute_is_declared_and_checked(op: str) -> None:
    definition = lookup(op)
    for name in definition.attributes:
        kind = definition.kind_of(name)
        assert kind is not None and kind.description
        assert not kind.accept(object())


@pytest.mark.parametrize(
    ("op", "types", "attributes", "result"),
    [
        ("add", "f32[n,4] f32[4]", {}, "f32[n,4]"),
        ("add", "f32[n,1] f32[1,2*n]", {}, "f32[n,2*n]"),
        ("matmul", "f32[n,2,3] f32[3,n]", {}, "f32[n,2,n]"),
        ("concat", "f32[n,3] f32[2,3] f32[n,3]", {"axis": 0}, "f32[2*n+2,3]"),
        ("pad", "f32[n]", {"pads": ((1, 2),)}, "f32[n+3]"),
        ("conv", "f32[n,3,8,n] f32[4,3,3,3]", CONV, "f32[n,4,6,n-2]"),
        ("window_reduce", "f32[2,2,n]", POOL, "f32[2,2,floor(n/2)]"),
        ("reshape", "f32[n,4]", {"shape": (symbol("n") * 4,)}, "f32[4*n]"),
        ("slice", "f32[n,4]", {"axis": 0, "start": 1, "stop": symbol("n")}, "f32[n-1,4]"),
        ("slice", "f32[n,4]", {"axis": 0, "stop": symbol("n"), "step": 2}, "f32[floor(n/2+1/2),4]"),
        ("take", "f32[30,8] i64[n,5]", {}, "f32[n,5,8]"),
        ("take_nd", "f32[30,8] i64[n,2]", {}, "f32[n]"),
        ("reduce", "f32[n,4]", {"kind": "mean", "axes": (1,), "keepdims": True}, "f32[n,1]"),
        ("layer_norm", "f32[n,4] f32[4]", {}, "f32[n,4]"),
        ("batch_norm", "f32[n,4,n] f32[4] f32[4]", {}, "f32[n,4,n]"),
        ("attention", "f32[n,4,2*n,8] f32[n,2,n,8] f32[n,2,n,6]", {"scale": 1.0}, "f32[n,4,2*n,6]"),
        ("iota", "", {"size": symbol("n")}, "i64[n]"),
        ("full", "", {"shape": (symbol("n"),), "value": 0, "dtype": DType.FLOAT32}, "f32[n]"),
    ],
)
def test_symbolic_shapes(op: str, types: str, attributes: dict[str, object], result: str) -> None:
    assert build(op, types, attributes)[0].type == parse_type(result)


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm", "batch_norm", "attention", "linear"])
def test_decompositions_take_symbolic_batches(op: str) -> None:
    types = {
        "batch_norm": "f32[n,4,n] f32[4] f32[4] f32[4]",
        "attention": "f32[n,4,3,8] f32[n,2,n,8] f32[n,2,n,6] b1[3,n]",
        "linear": "f32[n,4] f32[2,4] f32[2]",
    }.get(op, "f32[n,4,3]")
    attributes = {"softmax": {"axis": 0}, "log_softmax": {"axis": 0}, "group_norm": {"groups": 2}, "attention": {"scale": 1.0}}.get(op, {})
    builder = GraphBuilder(symbols={"n": SymbolRange()})
    inputs = [builder.input(parse_type(text)) for text in types.split()]
    whole = builder.call(op, *inputs, **attributes)  # type: ignore[arg-type]
    definition = lookup(op)
    assert definition.decompose is not None
    assert definition.decompose(builder, inputs, definition.complete_attributes(attributes)).type == whole.type


def test_layout_of_the_first_operand_with_the_results_shape_is_kept() -> None:
    builder = GraphBuilder()
    channels_last = builder.input(TensorType(DType.FLOAT32, (1, 3, 4, 4), Layout((0, 2, 3, 1))))
    bias = builder.input(TensorType(DType.FLOAT32, (3, 1, 1)))
    assert builder.call("add", bias, channels_last).tensor.layout == Layout((0, 2, 3, 1))
    assert builder.call("isnan", channels_last).tensor.layout == Layout((0, 2, 3, 1))


def test_attributes_are_normalised() -> None:
    import numpy as np

    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (2, 3)))
    assert builder.call("reduce", x, kind="sum", axes=[-1, 0]).node.attributes["axes"] == (1, 0)  # type: ignore[union-attr, arg-type]
    assert type(builder.call("softmax", x, axis=np.int64(-1)).node.attributes["axis"]) is int  # type: ignore[union-attr, arg-type]
    assert type(builder.call("layer_norm", x, eps=0).node.attributes["eps"]) is float  # type: ignore[union-attr]


@pytest.mark.parametrize("dim", [-1, 1.5, "n", None, symbol("n") / symbol("n") / 2])
def test_dimensions_are_integers(dim: object) -> None:
    with pytest.raises(TypeInferenceError, match="a dimension cannot be"):
        TensorType(DType.FLOAT32, (dim,))  # type: ignore[arg-type]


def test_dimensions_are_normalised() -> None:
    import numpy as np
    import sympy

    assert TensorType(DType.FLOAT32, [np.int64(2), sympy.Integer(3)]) == TensorType(DType.FLOAT32, (2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f32[8] as affine(storage=i8)", "needs the parameter 'scale'"),
        ("f32[8] as affine(storage=f32, scale=0.5)", "'f32' does not fit the parameter 'storage'"),
        ("f32[8] as affine(storage=i8, scale=-0.5)", "does not fit the parameter 'scale'"),
        ("f32[8] as affine(storage=i8, scale=#ab)", "has an axis when its scale is a constant"),
        ("f32[8] as affine(storage=i8, scale=0.5, axis=0)", "has an axis when its scale is a constant"),
        ("f32[8] as affine(storage=i8, scale=0.5, zero_point=stored)", "are stored only where its scales are"),
        ("f32[8] as affine(storage=i8, scale=#ab, axis=1)", "axis 1 of encoding affine is out of range"),
        ("i32[8] as affine(storage=i8, scale=0.5)", "represents floats, the tensor holds i32"),
        ("f32[8] as affine(storage=i8, scale=0.5, scale=0.5)", "gives a parameter twice"),
        ("f32[8] as nm_sparse(n=4, m=2, axis=0)", "n must not exceed m"),
        ("f32[7] as nm_sparse(n=2, m=4, axis=0)", "needs a multiple of 4 elements along axis 0, the shape has 7"),
        ("f32[8] as nm_sparse(n=2, m=4, axis=0, k=1)", "has no parameter 'k'"),
        ("f32[8] as block_scaled(storage=i4, block=32, axis=0)", "'i4' does not fit the parameter 'storage'"),
        ("f32[8] as block_scaled(storage=e4m3, block=32, axis=1)", "axis 1 of encoding block_scaled is out of range"),
        ("f32[8] as grouped(storage=i5, group=32, axis=0, scale=f32)", "'i5' does not fit the parameter 'storage'"),
        ("f32[8] as grouped(storage=i4, group=48, axis=0, scale=f32)", "'48' does not fit the parameter 'group'"),
        ("f32[8] as codebook(bits=4.0, group=32, axis=0, scale=f32)", "'4.0' does not fit the parameter 'bits'"),
        ("i32[8] as ternary(scale=f32)", "represents floats, the tensor holds i32"),
        (
            "f32[8] as csr",
            "there is no encoding 'csr' (known: dense, affine, nm_sparse, block_sparse, bitmap, short_sums, grouped, block_scaled, "
            "codebook, ternary)",
        ),
    ],
)
def test_encodings_are_checked(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_type(text)


def test_inference_yields_dense_results_of_encoded_operands() -> None:
    builder = GraphBuilder()
    weight = builder.input(parse_type("f32[4,8] as nm_sparse(n=2, m=4, axis=1)"))
    assert builder.call("relu", weight).tensor.encoding.is_dense
    encoded = weight.tensor
    assert builder.add("relu", weight, types=[encoded]).output.type == encoded
    assert encoded.nbytes == 4 * 8 * 4


def test_an_encoding_object_equals_what_its_text_says() -> None:
    encoding = Encoding("affine", (("storage", "i8"), ("scale", 0.5)))
    assert parse_type("f32[8] as affine(storage=i8, scale=0.5)") == TensorType(DType.FLOAT32, (8,), encoding=encoding)


def test_given_result_types_must_be_the_inferred_logical_types() -> None:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (2, 3)))
    for wrong in (TensorType(DType.FLOAT32, (3, 2)), TensorType(DType.FLOAT64, (2, 3)), TokenType()):
        with pytest.raises(TypeInferenceError, match=re.escape("relu yields f32[2,3], not")):
            builder.add("relu", x, types=[wrong])
    with pytest.raises(TypeInferenceError, match="yields 1 results, 0 types"):
        builder.add("relu", x, types=[])
