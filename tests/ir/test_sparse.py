"""Sparse storage in NumPy: bit-exact round trips, counts, and data that fits a type."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.errors import TypeInferenceError
from mlc.ir import (
    DType,
    EncodedConstant,
    Encoding,
    GraphBuilder,
    TensorType,
    constant_of,
    load_text,
    parse_type,
    print_graph,
    save_text,
)
from mlc.ir.encodings import Affine, Grouped
from mlc.ir.sparse import (
    fitted,
    is_nm_sparse,
    kept_of_groups,
    pack_bitmap,
    pack_panels,
    panel_entries,
    unpack_bitmap,
    unpack_panels,
)


def matrix(rows: int, columns: int, density: float, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.where(generator.random((rows, columns)) < density, generator.standard_normal((rows, columns)), 0).astype(np.float32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]),
    width=st.sampled_from([1, 2, 4, 8, 16, 32]),
    seed=st.integers(0, 50),
)
def test_both_forms_give_back_every_bit(rows: int, columns: int, density: float, width: int, seed: int) -> None:
    array = matrix(rows, columns, density, seed)
    panels = pack_panels(array, width)
    assert len(panels.columns) == panel_entries(array, width) == panels.starts[-1]
    np.testing.assert_array_equal(unpack_panels(panels, array.shape).view(np.int32), array.view(np.int32))
    bitmap = pack_bitmap(array)
    assert len(bitmap.values) == np.count_nonzero(array)
    np.testing.assert_array_equal(unpack_bitmap(bitmap, array.shape).view(np.int32), array.view(np.int32))


def test_nan_and_infinity_are_kept_and_negative_zero_is_a_zero() -> None:
    array = np.array([[np.nan, 0, -0.0, np.inf], [0, 0, -np.inf, 0]], np.float32)
    assert list(pack_panels(array, 1).columns) == [0, 3, 2]
    np.testing.assert_array_equal(unpack_panels(pack_panels(array, 2), array.shape), array)
    np.testing.assert_array_equal(unpack_bitmap(pack_bitmap(array), array.shape), array)


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (4, 8)])
def test_groups_are_filled_up_with_zeros(n: int, m: int) -> None:
    array = matrix(6, 32, 0.6)
    encoding = Encoding("nm_sparse", (("n", n), ("m", m), ("axis", 1)))
    pruned = fitted(array, encoding)
    assert not is_nm_sparse(array, n, m)
    assert is_nm_sparse(pruned, n, m)
    kept = kept_of_groups(pruned, n, m)
    assert np.all(kept.reshape(6, -1, m).sum(-1) == n)
    assert np.all(kept[pruned != 0])
    with pytest.raises(TypeInferenceError, match=f"{n}:{m}"):
        kept_of_groups(array, n, m)


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding("block_sparse", (("width", 1), ("entries", 50), ("axis", 0))),
        Encoding("block_sparse", (("width", 8), ("entries", 20), ("axis", 0))),
        Encoding("block_sparse", (("width", 4), ("entries", 30), ("axis", 1))),
        Encoding("bitmap", (("elements", 99),)),
    ],
    ids=str,
)
def test_data_is_made_to_fit_a_type(encoding: Encoding) -> None:
    array = matrix(20, 24, 0.9)
    result = fitted(array, encoding)
    given = dict(encoding.parameters)
    own = result.T if given.get("axis") else result
    entries = panel_entries(own, int(given.get("width", 1)))
    assert entries == given.get("entries", given.get("elements"))
    assert np.all((result == 0) | (result == array))
    assert fitted(result, encoding) is result


@pytest.mark.parametrize(
    "text",
    [
        "f32[64,32] as block_sparse(width=16, entries=40, axis=0)",
        "f32[64,32,1,1] as bitmap(elements=7)",
        "f32[64,32] as bitmap(elements=7, values=affine(storage=i8, scale=stored, axis=0))",
        "f32[64,64] as nm_sparse(n=2, m=4, axis=1, values=grouped(storage=i4, group=64, axis=1, scale=f16))",
    ],
)
def test_types_have_a_text_form(text: str) -> None:
    assert str(parse_type(text)) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("f32[64] as bitmap(elements=7)", "rank 1"),
        ("f32[64,32] as block_sparse(width=16, entries=40, axis=2)", "out of range"),
        ("f32[64,32] as block_sparse(width=0, entries=40, axis=0)", "width"),
        ("f32[64,32] as bitmap(elements=7, values=bitmap(elements=7))", "values"),
        ("f32[64,32] as bitmap(elements=7, values=affine(storage=i8, scale=stored, axis=2))", "out of range"),
    ],
)
def test_types_that_make_no_sense(text: str, word: str) -> None:
    with pytest.raises(Exception, match=word):
        parse_type(text)


@pytest.mark.parametrize("values", [Affine("i8", 0), Grouped("i4", 64, 1, "f16"), Grouped("i8", 64, 1, "f32")], ids=str)
def test_zeros_are_zeros_of_codes(values: Affine | Grouped) -> None:
    encoding = Encoding("nm_sparse", (("n", 2), ("m", 4), ("axis", 1))).with_values(values.encoding)
    assert encoding.values == values.encoding
    constant = constant_of(matrix(8, 128, 1.0), TensorType(DType.FLOAT32, (8, 128), encoding=encoding))
    assert isinstance(constant, EncodedConstant)
    assert is_nm_sparse(constant.codes, 2, 4)
    np.testing.assert_array_equal(constant.codes == 0, constant.array() == 0)
    np.testing.assert_array_equal(constant.array(), values.decode(constant.parts))


def test_a_sparse_weight_of_codes_survives_a_file(tmp_path: pathlib.Path) -> None:
    encoding = Encoding("bitmap", (("elements", 200),)).with_values(Affine("i8", 0).encoding)
    type = TensorType(DType.FLOAT32, (16, 32), encoding=encoding)
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (3, 32)))
    weight = constant_of(matrix(16, 32, 0.3), type)
    graph = builder.finish([builder.call("linear", x, builder.constant(weight, type))])
    save_text(graph, tmp_path / "graph.txt")
    again = load_text(tmp_path / "graph.txt")
    assert print_graph(again) == print_graph(graph)
    (constant,) = [node.output for node in again.nodes if node.op == "constant"]
    assert constant.tensor == type
    assert constant.constant is not None
    np.testing.assert_array_equal(constant.constant.array(), weight.array())
