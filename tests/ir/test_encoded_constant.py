"""Encoded constants: constants whose numbers are what their parts decode to, through text, side file, verifier and interpreter."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mlc.errors import EncodingError, TextFormError, TypeInferenceError
from mlc.ir import (
    ArrayConstant,
    Constant,
    DType,
    EncodedConstant,
    Encoding,
    GraphBuilder,
    TensorType,
    constant_of,
    encode,
    encoded_from_parts,
    interpret,
    load_text,
    parse,
    print_graph,
    save_text,
    verify,
)
from mlc.ir.encodings import Affine, BlockScaled, Codebook, Grouped, Scheme, Ternary

SCHEMES = [
    Affine("u8", 0, zero_point="stored"),
    Grouped("u3", 64, 1, "bf16", True),
    BlockScaled("e2m3", 1),
    Codebook(4, 32, 1, "f16"),
    Ternary(0),
]


def weight(*shape: int, dtype: DType = DType.FLOAT32, seed: int = 0) -> ArrayConstant:
    return ArrayConstant(np.random.default_rng(seed).standard_normal(shape).astype(dtype.numpy))


def layer(constant: Constant) -> GraphBuilder:
    builder = GraphBuilder()
    builder.call("linear", builder.input(TensorType(DType.FLOAT32, (3, constant.type.static_shape[1])), "x"), builder.constant(constant))
    return builder


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_graphs_compute_with_the_decoded_numbers(scheme: Scheme) -> None:
    encoded = encode(weight(10, 70), scheme.encoding)
    assert encoded.type == TensorType(DType.FLOAT32, (10, 70), encoding=scheme.encoding)
    np.testing.assert_array_equal(encoded.array(), scheme.decode(scheme.quantise(weight(10, 70).array())))
    builder = layer(encoded)
    graph = builder.finish([builder._nodes[-1].output])
    verify(graph)
    assert graph.outputs[0].tensor.encoding.is_dense
    x = np.random.default_rng(1).standard_normal((3, 70)).astype(np.float32)
    np.testing.assert_allclose(interpret(graph, [x])[0], x @ encoded.array().T, atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_text_and_side_file_keep_the_parts(scheme: Scheme, tmp_path: Path) -> None:
    encoded = encode(weight(4, 40), scheme.encoding)
    builder = layer(encoded)
    graph = builder.finish([builder._nodes[-1].output])
    text = print_graph(graph)
    assert f"const f32[4,40] as {scheme.encoding} #{encoded.digest}" in text
    save_text(graph, tmp_path / "graph.txt")
    again = load_text(tmp_path / "graph.txt")
    assert print_graph(again) == text
    (constant,) = [value.constant for value in again.values() if value.constant is not None]
    assert isinstance(constant, EncodedConstant)
    assert constant == encoded
    for name, part in encoded.parts.items():
        assert constant.parts[name].dtype == part.dtype
        np.testing.assert_array_equal(constant.parts[name].view(np.uint8), part.view(np.uint8))
    np.testing.assert_array_equal(constant.array(), encoded.array())


def test_small_encoded_constants_are_named_by_digest_too() -> None:
    encoded = encode(weight(2, 2), Ternary().encoding)
    builder = layer(encoded)
    text = print_graph(builder.finish([builder._nodes[-1].output]))
    assert print_graph(parse(text, {encoded.digest: encoded})) == text
    with pytest.raises(TextFormError, match=re.escape("is f32[2,2], the text says f32[2,2] as ternary(scale=f32)")):
        parse(text, {encoded.digest: weight(2, 2)})
    with pytest.raises(TextFormError, match="an encoded constant is named by its #digest, found '\\['"):
        parse(re.sub("#[0-9a-f]+", "[1, 2, 3, 4]", text))


def test_digests_tell_sources_and_encodings_apart() -> None:
    first = encode(weight(4, 64), Grouped("i4", 32, 1).encoding)
    assert first == encode(weight(4, 64), Grouped("i4", 32, 1).encoding)
    others = [
        encode(weight(4, 64, seed=1), Grouped("i4", 32, 1).encoding),
        encode(weight(4, 64), Grouped("i4", 64, 1).encoding),
        weight(4, 64),
        encoded_from_parts(first.type, dict(first.parts)),
    ]
    assert len({first, *others}) == 5
    assert encoded_from_parts(first.type, dict(first.parts)) == others[-1]
    np.testing.assert_array_equal(others[-1].array(), first.array())


def test_data_is_encoded_when_it_is_asked_for() -> None:
    source = weight(4, 64)
    broken = ArrayConstant(np.where(source.array() > 2, np.float32("inf"), source.array()))
    encoded = encode(broken, Affine("i8", 0).encoding)
    assert encoded.encoded_bytes == 4 * 64 + 4 * 4
    with pytest.raises(EncodingError, match="leave this tensor dense"):
        encoded.array()
    fine = encode(source, Affine("i8", 0).encoding)
    assert fine.parts is fine.parts and fine.array() is fine.array()
    assert not fine.codes.flags.writeable and not fine.array().flags.writeable


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16, DType.FLOAT64])
def test_other_floats_are_rounded_once_more_to_their_own_dtype(dtype: DType) -> None:
    encoded = encode(weight(4, 64, dtype=dtype), Grouped("i8", 32, 1).encoding)
    assert encoded.type.dtype is dtype and encoded.array().dtype == dtype.numpy
    exact = encoded.scheme.decode(encoded.parts)
    np.testing.assert_array_equal(encoded.array(), exact.astype(dtype.numpy))


def test_constants_of_a_type_are_encoded_where_that_is_one_of_codes() -> None:
    array = weight(4, 64).array()
    dense = TensorType(DType.FLOAT32, (4, 64))
    sparse = dense.with_encoding(Encoding("nm_sparse", (("n", 2), ("m", 4), ("axis", 1))))
    np.testing.assert_array_equal(constant_of(array, dense).array(), array)
    kept = constant_of(array, sparse).array()
    assert (np.count_nonzero(kept.reshape(4, 16, 4), axis=2) <= 2).all() and (kept[kept != 0] == array[kept != 0]).all()
    rounded = constant_of(array, dense.with_encoding(Ternary().encoding))
    assert isinstance(rounded, EncodedConstant) and len(np.unique(rounded.array())) == 3


def test_encodings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TypeInferenceError, match="axis 2 of encoding grouped is out of range"):
        encode(weight(4, 64), Grouped("i4", 32, 2).encoding)
    with pytest.raises(EncodingError, match="given are codes"):
        encoded_from_parts(TensorType(DType.FLOAT32, (4,), encoding=Ternary().encoding), {"codes": np.zeros(4, np.int8)})


def test_computing_with_an_encoded_constant_counts_its_packed_bytes() -> None:
    from mlc.ir import node_cost

    dense, encoded = (layer(constant)._nodes[-1] for constant in (weight(64, 64), encode(weight(64, 64), Grouped("i4", 64, 1).encoding)))
    assert node_cost(dense).flops == node_cost(encoded).flops
    assert node_cost(dense).bytes_read - node_cost(encoded).bytes_read == 64 * 64 * 4 - (64 * 32 + 64 * 4)
