"""What each simplification does, text in, text out; every case is also run in the interpreter before and after."""

from __future__ import annotations

import pytest
from golden import STRICT, check, renamed, transformed

UNCHANGED = "unchanged"


def body(inputs: str, lines: str, result: str) -> str:
    return f"graph @main({inputs}) {{\n{lines}\n  return {result}\n}}\n"


X = "%x: f32[2,3]"

CASES = {
    "sum_of_nothing": (
        "%x: f32[0,3]",
        '%y = reduce(%x) {kind="sum", axes=[0]} : f32[3]',
        "%y",
        "%y = full() {shape=[3], value=0, dtype=f32} : f32[3]",
        "%y",
    ),
    "product_of_nothing": (
        "%a: f32[2,4,0], %b: f32[0,3]",
        "%y = matmul(%a, %b) : f32[2,4,3]",
        "%y",
        "%y = full() {shape=[2,4,3], value=0, dtype=f32} : f32[2,4,3]",
        "%y",
    ),
    "layer_of_nothing": (
        "%x: f32[4,0], %w: f32[3,0], %b: f32[3]",
        "%y = linear(%x, %w, %b) : f32[4,3]",
        "%y",
        "%y = broadcast_to(%b) {shape=[4,3]} : f32[4,3]",
        "%y",
    ),
    "add_zero": (X, "%c = full() {shape=[], value=0.0, dtype=f32} : f32[]\n %y = add(%c, %x) : f32[2,3]", "%y", "", "%x"),
    "multiply_by_one": (X, "%c = full() {shape=[2,3], value=1.0, dtype=f32} : f32[2,3]\n %y = mul(%x, %c) : f32[2,3]", "%y", "", "%x"),
    "subtract_zero": (X, "%c = full() {shape=[], value=0.0, dtype=f32} : f32[]\n %y = sub(%x, %c) : f32[2,3]", "%y", "", "%x"),
    "divide_by_power_of_two": (
        X,
        "%c = full() {shape=[], value=8.0, dtype=f32} : f32[]\n %y = div(%x, %c) : f32[2,3]",
        "%y",
        "%c = full() {shape=[], value=0.125, dtype=f32} : f32[]\n %y = mul(%x, %c) : f32[2,3]",
        "%y",
    ),
    "chain_of_factors": (
        X,
        "%a = full() {shape=[], value=3.0, dtype=f32} : f32[]\n %b = full() {shape=[], value=5.0, dtype=f32} : f32[]\n"
        " %y = mul(%x, %a) : f32[2,3]\n %z = mul(%b, %y) : f32[2,3]",
        "%z",
        "%c = full() {shape=[], value=15.0, dtype=f32} : f32[]\n %y = mul(%x, %c) : f32[2,3]",
        "%y",
    ),
    "square": (
        X,
        "%c = full() {shape=[], value=2.0, dtype=f32} : f32[]\n %y = pow(%x, %c) : f32[2,3]",
        "%y",
        "%y = square(%x) : f32[2,3]",
        "%y",
    ),
    "double_negation": (X, "%y = neg(%x) : f32[2,3]\n %z = neg(%y) : f32[2,3]", "%z", "", "%x"),
    "relu_of_maximum": (
        X,
        "%c = full() {shape=[], value=0.0, dtype=f32} : f32[]\n %y = maximum(%x, %c) : f32[2,3]\n"
        " %z = clamp(%y) {min=0.0, max=inf} : f32[2,3]",
        "%z",
        "%y = relu(%x) : f32[2,3]",
        "%y",
    ),
    "known_choice": (
        X,
        "%c = full() {shape=[3], value=true, dtype=b1} : b1[3]\n %n = neg(%x) : f32[2,3]\n %y = where(%c, %x, %n) : f32[2,3]",
        "%y",
        "",
        "%x",
    ),
    "choice_by_negation": (
        "%x: f32[2,3], %c: b1[2,3], %y: f32[2,3]",
        "%n = logical_not(%c) : b1[2,3]\n %z = where(%n, %x, %y) : f32[2,3]",
        "%z",
        "%z = where(%c, %y, %x) : f32[2,3]",
        "%z",
    ),
    "wide_cast_and_back": (X, "%w = cast(%x) {dtype=f64} : f64[2,3]\n %y = cast(%w) {dtype=f32} : f32[2,3]", "%y", "", "%x"),
    "broadcast_operand": (
        "%x: f32[2,3], %b: f32[3]",
        "%r = reshape(%b) {shape=[1,3]} : f32[1,3]\n %w = broadcast_to(%r) {shape=[2,3]} : f32[2,3]\n %y = add(%x, %w) : f32[2,3]",
        "%y",
        "%y = add(%x, %b) : f32[2,3]",
        "%y",
    ),
    "reshape_chain": (
        X,
        "%a = reshape(%x) {shape=[6]} : f32[6]\n %b = reshape(%a) {shape=[3,2]} : f32[3,2]\n %c = reshape(%b) {shape=[2,3]} : f32[2,3]",
        "%c",
        "",
        "%x",
    ),
    "permute_chain": (
        "%x: f32[2,3,4]",
        "%a = permute(%x) {order=[1,2,0]} : f32[3,4,2]\n %b = permute(%a) {order=[1,0,2]} : f32[4,3,2]",
        "%b",
        "%b = permute(%x) {order=[2,1,0]} : f32[4,3,2]",
        "%b",
    ),
    "permute_of_narrow_axes": (
        "%x: f32[1,3,1,4]",
        "%a = permute(%x) {order=[0,2,1,3]} : f32[1,1,3,4]",
        "%a",
        "%a = reshape(%x) {shape=[1,1,3,4]} : f32[1,1,3,4]",
        "%a",
    ),
    "slice_chain": (
        "%x: f32[20]",
        "%a = slice(%x) {axis=0, start=2, stop=18, step=2} : f32[8]\n %b = slice(%a) {axis=0, start=1, stop=6, step=2} : f32[3]",
        "%b",
        "%b = slice(%x) {axis=0, start=4, stop=13, step=4} : f32[3]",
        "%b",
    ),
    "slice_of_concat": (
        "%x: f32[2,3], %y: f32[2,4]",
        "%a = concat(%x, %y) {axis=1} : f32[2,7]\n %b = slice(%a) {axis=1, start=3, stop=7} : f32[2,4]",
        "%b",
        "",
        "%y",
    ),
    "take_of_range": (
        "%x: f32[5,2]",
        "%i = constant() {value=const i64[3] [1, 2, 3]} : i64[3]\n %y = take(%x, %i) : f32[3,2]",
        "%y",
        "%y = slice(%x) {axis=0, start=1, stop=4} : f32[3,2]",
        "%y",
    ),
    "select_one": (
        "%x: f32[5,2]",
        "%i = constant() {value=const i64[] [-1]} : i64[]\n %y = take(%x, %i) : f32[2]",
        "%y",
        "%s = slice(%x) {axis=0, start=4, stop=5} : f32[1,2]\n %y = reshape(%s) {shape=[2]} : f32[2]",
        "%y",
    ),
    "global_pooling": (
        "%x: f32[1,2,4,4]",
        '%y = window_reduce(%x) {kind="mean", window=[4,4], stride=[4,4], padding=[[0,0],[0,0]], dilation=[1,1]} : f32[1,2,1,1]',
        "%y",
        '%y = reduce(%x) {kind="mean", axes=[2,3], keepdims=true} : f32[1,2,1,1]',
        "%y",
    ),
    "pooling_with_a_window_larger_than_the_image": (
        "%x: f32[1,2,4,4]",
        '%y = window_reduce(%x) {kind="mean", window=[9,9], stride=[9,9], padding=[[0,5],[0,5]], dilation=[1,1], uncounted=[5,5]}'
        " : f32[1,2,1,1]",
        "%y",
        '%y = reduce(%x) {kind="mean", axes=[2,3], keepdims=true} : f32[1,2,1,1]',
        "%y",
    ),
    "matmul_of_transpose": (
        "%x: f32[2,3], %w: f32[4,3]",
        "%t = permute(%w) {order=[1,0]} : f32[3,4]\n %y = matmul(%x, %t) : f32[2,4]",
        "%y",
        "%y = linear(%x, %w) : f32[2,4]",
        "%y",
    ),
    "rows_merged_for_linear": (
        "%x: f32[2,5,3], %w: f32[4,3]",
        "%r = reshape(%x) {shape=[10,3]} : f32[10,3]\n %y = linear(%r, %w) : f32[10,4]\n %z = reshape(%y) {shape=[2,5,4]} : f32[2,5,4]",
        "%z",
        "%z = linear(%x, %w) : f32[2,5,4]",
        "%z",
    ),
    "padding_of_conv": (
        "%x: f32[1,1,3,3], %w: f32[1,1,2,2]",
        "%p = pad(%x) {pads=[[0,0],[0,0],[1,0],[0,2]]} : f32[1,1,4,5]\n"
        " %y = conv(%p, %w) {stride=[1,1], padding=[[0,0],[1,0]], dilation=[1,1]} : f32[1,1,3,5]",
        "%y",
        "%y = conv(%x, %w) {stride=[1,1], padding=[[1,0],[1,2]], dilation=[1,1]} : f32[1,1,3,5]",
        "%y",
    ),
    "pointwise_conv_of_larger_image": (
        "%x: f32[1,2,2,2], %w: f32[3,2,1,1]",
        '%u = resample(%x) {kind="nearest", size=[4,4]} : f32[1,2,4,4]\n'
        " %y = conv(%u, %w) {stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1]} : f32[1,3,4,4]",
        "%y",
        "%c = conv(%x, %w) {stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1]} : f32[1,3,2,2]\n"
        ' %y = resample(%c) {kind="nearest", size=[4,4]} : f32[1,3,4,4]',
        "%y",
    ),
    "mask_that_keeps_all": (
        "%q: f32[1,2,3,4]",
        "%m = full() {shape=[1,1,3,3], value=true, dtype=b1} : b1[1,1,3,3]\n %y = attention(%q, %q, %q, %m) {scale=0.5} : f32[1,2,3,4]",
        "%y",
        "%y = attention(%q, %q, %q) {scale=0.5} : f32[1,2,3,4]",
        "%y",
    ),
    "causal_mask": (
        "%q: f32[1,2,2,4]",
        "%m = constant() {value=const b1[1,1,2,2] [1,0,1,1]} : b1[1,1,2,2]\n %y = attention(%q, %q, %q, %m) {scale=0.5} : f32[1,2,2,4]",
        "%y",
        "%y = attention(%q, %q, %q) {scale=0.5, is_causal=true} : f32[1,2,2,4]",
        "%y",
    ),
    "causal_mask_of_numbers": (
        "%q: f32[1,2,2,4]",
        "%m = constant() {value=const f32[2,2] [0.0,-3.0e+38,0.0,0.0]} : f32[2,2]\n"
        " %y = attention(%q, %q, %q, %m) {scale=0.5} : f32[1,2,2,4]",
        "%y",
        "%y = attention(%q, %q, %q) {scale=0.5, is_causal=true} : f32[1,2,2,4]",
        "%y",
    ),
    "scaled_queries": (
        "%q: f32[1,3,2,4], %k: f32[1,2,3,4]",
        "%c = full() {shape=[], value=0.25, dtype=f32} : f32[]\n %s = mul(%q, %c) : f32[1,3,2,4]\n"
        " %p = permute(%s) {order=[0,2,1,3]} : f32[1,2,3,4]\n %y = attention(%p, %k, %k) {scale=1.0} : f32[1,2,3,4]",
        "%y",
        "%p = permute(%q) {order=[0,2,1,3]} : f32[1,2,3,4]\n %y = attention(%p, %k, %k) {scale=0.25} : f32[1,2,3,4]",
        "%y",
    ),
    "repeated_heads": (
        "%q: f32[1,4,3,4], %k: f32[1,2,3,4]",
        "%a = reshape(%k) {shape=[1,2,1,3,4]} : f32[1,2,1,3,4]\n %b = broadcast_to(%a) {shape=[1,2,2,3,4]} : f32[1,2,2,3,4]\n"
        " %r = reshape(%b) {shape=[1,4,3,4]} : f32[1,4,3,4]\n %y = attention(%q, %r, %r) {scale=0.5} : f32[1,4,3,4]",
        "%y",
        "%y = attention(%q, %k, %k) {scale=0.5} : f32[1,4,3,4]",
        "%y",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_simplify(name: str) -> None:
    inputs, lines, result, after_lines, after_result = CASES[name]
    check(body(inputs, lines, result), "simplify", body(inputs, after_lines, after_result))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("%c = full() {shape=[], value=0.0, dtype=f32} : f32[]\n %y = add(%x, %c) : f32[2,3]", "-0.0 + 0.0 is 0.0"),
        ("%c = full() {shape=[], value=0.0, dtype=f32} : f32[]\n %y = mul(%x, %c) : f32[2,3]", "infinity * 0 is NaN"),
        (
            "%a = full() {shape=[], value=3.0, dtype=f32} : f32[]\n %b = mul(%x, %a) : f32[2,3]\n"
            " %c = full() {shape=[], value=5.0, dtype=f32} : f32[]\n %y = mul(%b, %c) : f32[2,3]",
            "two roundings",
        ),
    ],
)
def test_strict_numerics_keep_what_is_not_exact(lines: str, why: str) -> None:
    text = body(X, lines, "%y")
    assert transformed(text, "simplify", STRICT) == transformed(text, "dead-code", STRICT), why
    assert transformed(text, "simplify") != transformed(text, "dead-code")


def test_negative_zero_may_be_dropped_in_strict_numerics() -> None:
    text = body(X, "%c = full() {shape=[], value=-0.0, dtype=f32} : f32[]\n %y = add(%x, %c) : f32[2,3]", "%y")
    check(text, "simplify", body(X, "", "%x"), STRICT)


def test_an_operand_that_gives_the_result_its_shape_stays_broadcast() -> None:
    text = body("%b: f32[3]", "%w = broadcast_to(%b) {shape=[2,3]} : f32[2,3]\n %y = exp(%w) : f32[2,3]", "%y")
    assert "broadcast_to" in transformed(text, "simplify")


def test_a_window_of_the_triangle_is_not_causal() -> None:
    text = body(
        "%q: f32[1,2,2,4], %k: f32[1,2,3,4]",
        "%m = constant() {value=const b1[2,3] [1,1,0,1,1,1]} : b1[2,3]\n %y = attention(%q, %k, %k, %m) {scale=0.5} : f32[1,2,2,4]",
        "%y",
    )
    assert renamed(transformed(text, "simplify")) == renamed(transformed(text, "dead-code"))


def test_bias_joins_the_layer() -> None:
    text = body(
        "%x: f32[2,2], %w: f32[3,2]",
        "%b = constant() {value=const f32[1,3] [1.0,2.0,3.0]} : f32[1,3]\n %l = linear(%x, %w) : f32[2,3]\n %y = add(%l, %b) : f32[2,3]",
        "%y",
    )
    check(
        text,
        "simplify",
        body(
            "%x: f32[2,2], %w: f32[3,2]",
            "%b = constant() {value=const f32[3] [1.0,2.0,3.0]} : f32[3]\n %y = linear(%x, %w, %b) : f32[2,3]",
            "%y",
        ),
    )
