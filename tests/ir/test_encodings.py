"""What encodings mean: rounding, saturation, scales, zero groups, short groups, NaN; and codes packed to bits."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.errors import EncodingError
from mlc.ir import Encoding, scheme_of
from mlc.ir.encodings import (
    SCHEMES,
    Affine,
    BlockScaled,
    Codebook,
    Grouped,
    Scheme,
    Ternary,
    pack_codes,
    packed_bytes,
    unpack_codes,
)

QUICK = settings(deadline=None, max_examples=60)
ELEMENTS = {"e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2", "e2m3": "float6_e2m3fn", "e3m2": "float6_e3m2fn", "e2m1": "float4_e2m1fn"}
STORED = "stored"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@st.composite
def schemes(draw: st.DrawFn, rank: int) -> Scheme:
    axis = draw(st.integers(0, rank - 1))
    scale = draw(st.sampled_from(["f32", "f16", "bf16"]))
    group = draw(st.sampled_from([32, 64, 128]))
    some_axis = draw(st.sampled_from([None, axis]))
    return draw(
        st.sampled_from(
            [
                Affine("i8", some_axis),
                Affine("u8", some_axis),
                Affine("u8", some_axis, zero_point=STORED),
                Affine("i8", some_axis, zero_point=STORED),
                Affine("i8", None, 0.03, -3),
                Affine("u8", some_axis, zero_point=7),
                *(Grouped(f"{sign}{bits}", group, axis, scale, zero) for sign in "iu" for bits in (2, 3, 4, 8) for zero in (True, False)),
                *(BlockScaled(storage, axis) for storage in [*ELEMENTS, "i8"]),
                *(Codebook(bits, group, axis, scale) for bits in (3, 4)),
                Ternary(some_axis, scale),
            ]
        )
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Scheme, np.ndarray]:
    """A scheme and finite numbers of many sizes, with zeros and whole groups of them."""
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 5, 33, 64]), min_size=1, max_size=3)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = generator.standard_normal(shape) * 10.0 ** draw(st.sampled_from([-40, -6, 0, 4, 30]))
    array[generator.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 0
    return draw(schemes(len(shape))), array.astype(np.float32)


@given(cases())
@QUICK
def test_parts_are_those_of_the_type_and_decode_to_finite_numbers(case: tuple[Scheme, np.ndarray]) -> None:
    scheme, array = case
    parts = scheme.quantise(array)
    scheme.check(parts, array.shape)
    decoded = scheme.decode(parts)
    assert decoded.dtype == np.float32 and decoded.shape == array.shape
    assert np.isfinite(decoded).all()
    assert scheme_of(scheme.encoding) == scheme


@given(cases())
@QUICK
def test_zeros_stay_zero_wherever_zero_has_a_code(case: tuple[Scheme, np.ndarray]) -> None:
    scheme, array = case
    decoded = scheme.decode(scheme.quantise(array))
    if not isinstance(scheme, Codebook) and scheme != Affine("i8", None, 0.03, -3):
        assert (decoded[array == 0] == 0).all()


@given(cases())
@QUICK
def test_packed_codes_read_back_bit_by_bit(case: tuple[Scheme, np.ndarray]) -> None:
    scheme, array = case
    codes = scheme.quantise(array)["codes"]
    packed = pack_codes(codes, scheme.code_bits)
    assert packed.dtype == np.uint8 and packed.nbytes == packed_bytes(codes.shape, scheme.code_bits)
    again = unpack_codes(packed, scheme.code_bits, codes.shape[-1], signed=scheme.signed)
    assert again.dtype == codes.dtype
    np.testing.assert_array_equal(again, codes)


@given(st.integers(1, 8), st.lists(st.integers(0, 255), min_size=1, max_size=40))
@QUICK
def test_packed_codes_are_a_stream_of_bits_from_the_least_significant(bits: int, numbers: list[int]) -> None:
    codes = np.array(numbers, np.uint8) & np.uint8((1 << bits) - 1)
    stream = sum(int(code) << (bits * position) for position, code in enumerate(codes))
    assert pack_codes(codes, bits).tobytes() == stream.to_bytes(-(-len(codes) * bits // 8), "little")


def test_rows_end_with_their_last_byte() -> None:
    packed = pack_codes(np.array([[1, 2, 3], [4, 5, 6]], np.uint8), 3)
    assert packed.tolist() == [[0b11_010_001, 0b0], [0b10_101_100, 0b1]]


@pytest.mark.parametrize("axis", [0, 1])
def test_integers_of_8_bits_are_off_by_half_a_step(axis: int) -> None:
    array = normal(40, 50)
    scheme = Affine("i8", axis)
    parts = scheme.quantise(array)
    largest = np.abs(array).max(axis=1 - axis)
    np.testing.assert_allclose(parts["scales"], largest / 127, rtol=1e-6)
    assert (np.abs(parts["codes"]).max(axis=1 - axis) == 127).all()
    error = np.abs(scheme.decode(parts) - array).max(axis=1 - axis)
    assert (error <= parts["scales"] * 0.501).all()


def test_codes_are_rounded_to_nearest_even_and_saturate() -> None:
    codes = Affine("i8", scale=0.5).quantise(np.array([0.25, 0.75, -0.25, -0.75, 1e9, -1e9, 0.3], np.float32))["codes"]
    assert codes.tolist() == [0, 2, 0, -2, 127, -128, 1]
    above = Affine("u8", scale=1.0, zero_point=10).quantise(np.array([-30.0, -10.0, 0.0, 300.0], np.float32))["codes"]
    assert above.tolist() == [0, 0, 10, 255]


def test_a_zero_point_covers_a_range_to_one_side() -> None:
    array = np.linspace(3, 5, 64, dtype=np.float32)
    apart = Grouped("u4", 64, 0, "f32", True)
    parts = apart.quantise(array)
    assert parts["zero_points"].shape == (1,) and parts["zero_points"].dtype == np.uint8
    decoded = apart.decode(parts)
    np.testing.assert_array_equal(decoded, (parts["codes"].astype(np.float32) - parts["zero_points"]) * parts["scales"])
    assert np.abs(decoded - array).max() <= parts["scales"][0]


@pytest.mark.parametrize(("extent", "groups"), [(1, 1), (31, 1), (32, 1), (33, 2), (100, 4)])
def test_the_last_group_may_be_shorter(extent: int, groups: int) -> None:
    array = normal(3, extent, 2, seed=extent)
    scheme = Grouped("i4", 32, 1, "f32")
    parts = scheme.quantise(array)
    assert parts["scales"].shape == (3, groups, 2) and parts["codes"].shape == array.shape
    last = scheme.quantise(array[:, (groups - 1) * 32 :])
    np.testing.assert_array_equal(parts["codes"][:, (groups - 1) * 32 :], last["codes"])
    np.testing.assert_array_equal(parts["scales"][:, -1:], last["scales"])


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_scales_of_few_bits_are_no_worse_than_that_of_the_largest_magnitude(bits: int) -> None:
    array = normal(64, 128, seed=bits)
    scheme = Grouped(f"i{bits}", 128, 1, "f32")
    high = (1 << (bits - 1)) - 1
    scale = np.abs(array).max(axis=1, keepdims=True) / high
    plain = np.clip(np.rint(array / scale), -high - 1, high) * scale
    ours = scheme.decode(scheme.quantise(array))
    assert (np.square(ours - array).sum(axis=1) <= np.square(plain - array).sum(axis=1) * 1.0001).all()


@pytest.mark.parametrize("scale", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("size", [1e-30, 1e-7, 1e5, 1e30])
def test_scales_out_of_the_range_of_their_dtype_are_its_nearest_number(scale: str, size: float) -> None:
    array = (np.linspace(-1, 1, 32) * size).astype(np.float32)
    parts = Grouped("i8", 32, 0, scale).quantise(array)
    wide = parts["scales"].astype(np.float64)
    assert np.isfinite(wide).all() and (wide > 0).all()
    if scale == "f16" and size == 1e30:
        assert wide[0] == 65504 and set(np.abs(parts["codes"].astype(int))) <= {127, 128}
    if scale == "f16" and size == 1e-30:
        assert wide[0] == 2.0**-24 and not parts["codes"].any()


def mx_values(storage: str) -> np.ndarray:
    """Every finite number of an element format, from ml_dtypes or the specification."""
    if storage == "i8":
        return np.arange(-127, 128) / 64
    dtype = np.dtype(getattr(ml_dtypes, ELEMENTS[storage]))
    bits = {"e4m3": 8, "e5m2": 8, "e2m3": 6, "e3m2": 6, "e2m1": 4}[storage]
    values = np.arange(1 << bits, dtype=np.uint8).view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


@pytest.mark.parametrize("storage", [*ELEMENTS, "i8"])
def test_microscaling_follows_the_specification(storage: str) -> None:
    array = normal(20, 64, seed=3) * np.exp2(np.arange(20) - 10).astype(np.float32)[:, None]
    scheme = BlockScaled(storage, 1)
    parts = scheme.quantise(array)
    blocks = array.reshape(20, 2, 32).astype(np.float64)
    values = mx_values(storage)
    # Section 6.3: the largest power of two of the block over that of the format.
    exponent = np.floor(np.log2(np.abs(blocks).max(axis=2))) - np.floor(np.log2(values.max()))
    scales = parts["scales"].view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    np.testing.assert_array_equal(scales, np.exp2(exponent))
    nearest = np.abs((blocks / scales[..., None])[..., None] - values).min(axis=-1)
    decoded = scheme.decode(parts).reshape(blocks.shape).astype(np.float64)
    assert np.isin(decoded / scales[..., None], values).all()
    np.testing.assert_array_equal(np.abs(decoded - blocks) / scales[..., None], nearest)


@pytest.mark.parametrize("storage", list(ELEMENTS))
def test_codes_of_microscaling_are_the_bits_of_ml_dtypes(storage: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, ELEMENTS[storage]))
    # A first element that makes the scale 1, and ties between neighbours behind it.
    values = mx_values(storage)
    ties = ((values[1:] + values[:-1]) / 2)[:31].astype(np.float32)
    top = np.float32(np.exp2(np.floor(np.log2(values.max()))))
    block = np.concatenate([[top], np.clip(ties, -top, top)]).astype(np.float32)
    parts = BlockScaled(storage, 0, len(block)).quantise(block)
    assert parts["scales"].tolist() == [127]
    np.testing.assert_array_equal(parts["codes"], block.astype(dtype).view(np.uint8))


def test_integers_of_microscaling_are_64ths() -> None:
    array = np.array([1.0, 0.5, -1.0, 127.5 / 64, 0.5 / 64, 1.5 / 64, -2.5 / 64], np.float32)
    parts = BlockScaled("i8", 0).quantise(array)
    assert parts["codes"].tolist() == [64, 32, -64, 127, 0, 2, -2] and parts["scales"].tolist() == [127]


def test_microscaling_of_zeros_subnormals_and_huge_numbers() -> None:
    array = np.array([[0.0] * 32, [1e-40] * 32, [3.4e38] * 32], np.float32)
    scheme = BlockScaled("e4m3", 1)
    parts = scheme.quantise(array)
    assert parts["scales"][0, 0] == 0 and not parts["codes"][0].any()
    decoded = scheme.decode(parts)
    np.testing.assert_allclose(decoded, array, rtol=1 / 8)


def test_nan_of_a_scale_or_an_element_is_nan() -> None:
    codes = np.array([[0x38] * 32, [0x7F] + [0x38] * 31], np.uint8)
    decoded = BlockScaled("e4m3", 1).decode({"codes": codes, "scales": np.array([[255], [127]], np.uint8)})
    assert np.isnan(decoded[0]).all()
    assert np.isnan(decoded[1, 0]) and (decoded[1, 1:] == 1).all()
    infinite = BlockScaled("e5m2", 0).decode({"codes": np.array([0x7C, 0xFC], np.uint8), "scales": np.array([127], np.uint8)})
    assert infinite.tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("scheme", [Affine(), Grouped("i4", 32, 0), BlockScaled("e2m1", 0), Codebook(4, 32, 0), Ternary()], ids=str)
def test_numbers_that_float32_has_not_are_refused(scheme: Scheme, number: float) -> None:
    with pytest.raises(EncodingError, match="leave this tensor dense"):
        scheme.quantise(np.array([1.0, number]))


@pytest.mark.parametrize("bits", [3, 4])
def test_codebooks_hold_what_the_tensor_holds(bits: int) -> None:
    entries = 1 << bits
    table = np.sort(np.concatenate([[-1.0], np.random.default_rng(5).uniform(-0.95, 0.95, entries - 2), [1.0]])).astype(np.float32)
    codes = np.random.default_rng(6).integers(0, entries, (16, 64))
    codes[:, 0] = 0
    array = table[codes] * np.float32(4)
    parts = Codebook(bits, 64, 1).quantise(array)
    assert (np.diff(parts["table"]) >= 0).all()
    np.testing.assert_allclose(Codebook(bits, 64, 1).decode(parts), array, atol=4e-3)


def test_a_codebook_beats_evenly_spaced_numbers_where_numbers_are_not() -> None:
    array = normal(64, 256, seed=8) ** 3
    error = {}
    for scheme in (Codebook(4, 64, 1), Grouped("i4", 64, 1)):
        error[scheme.name] = float(np.linalg.norm(scheme.decode(scheme.quantise(array)) - array))
    assert error["codebook"] < error["grouped"]


def test_ternary_numbers_follow_the_absmean_rule() -> None:
    array = normal(6, 50)
    for axis in (None, 0, 1):
        scheme = Ternary(axis)
        parts = scheme.quantise(array)
        mean = np.abs(array).mean() if axis is None else np.abs(array).mean(axis=1 - axis, keepdims=True)
        np.testing.assert_allclose(parts["scales"].reshape(np.shape(mean)), mean, rtol=1e-6)
        np.testing.assert_array_equal(parts["codes"], np.clip(np.rint(array / mean), -1, 1))
        assert scheme.code_range == (-1, 1)


def test_sizes_count_packed_codes_and_scales() -> None:
    assert Grouped("i4", 32, 1, "f16").nbytes((10, 100)) == 10 * 50 + 10 * 4 * 2
    assert Grouped("u3", 128, 1, "f32", True).nbytes((10, 100)) == 10 * 38 + 10 * (4 + 1)
    assert BlockScaled("e2m1", 1).nbytes((10, 100)) == 10 * 50 + 10 * 4
    assert Affine("i8", 0).nbytes((10, 100)) == 1000 + 40
    assert Codebook(4, 64, 1, "bf16").nbytes((10, 100)) == 500 + 40 + 64
    assert Ternary().nbytes((10, 100)) == 250 + 4


def test_parts_that_do_not_fit_are_refused() -> None:
    scheme = Grouped("i4", 32, 0)
    parts = scheme.quantise(normal(40))
    for broken, message in [
        ({"codes": parts["codes"]}, "has the parts codes, scales, given are codes"),
        (parts | {"scales": parts["scales"][:1]}, "part 'scales' of encoding"),
        (parts | {"codes": parts["codes"].astype(np.int16)}, "int8[40], given is int16[40]"),
        (parts | {"codes": parts["codes"] + np.int8(20)}, "outside of -8..7"),
    ]:
        with pytest.raises(EncodingError, match=re.escape(message)):
            scheme.check(broken, (40,))


def test_not_every_encoding_is_one_of_codes() -> None:
    assert set(SCHEMES) == {"affine", "grouped", "block_scaled", "codebook", "ternary"}
    with pytest.raises(EncodingError, match="not held as codes in the encoding nm_sparse"):
        scheme_of(Encoding("nm_sparse", (("n", 2), ("m", 4), ("axis", 0))))
    with pytest.raises(EncodingError, match="holds its own scales"):
        scheme_of(Encoding("affine", (("storage", "i8"), ("scale", "#ab"), ("axis", 0))))
