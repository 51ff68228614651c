"""Norms, activations, softmax and attention recognised in arithmetic, the ways models write them."""

from __future__ import annotations

import pytest
from golden import STRICT, check, transformed


def graph(inputs: str, lines: str, result: str) -> str:
    return f"graph @main({inputs}) {{\n{lines}\n  return {result}\n}}\n"


def scalar(name: str, value: float) -> str:
    return f"  %{name} = full() {{shape=[], value={value!r}, dtype=f32}} : f32[]\n"


X = "%x: f32[2,4]"

RMS = (
    scalar("eps", 1e-6)
    + """
  %two = full() {shape=[], value=2.0, dtype=f32} : f32[]
  %p = pow(%x, %two) : f32[2,4]
  %m = reduce(%p) {kind="mean", axes=[1], keepdims=true} : f32[2,1]
  %a = add(%m, %eps) : f32[2,1]
  %r = rsqrt(%a) : f32[2,1]
  %n = mul(%x, %r) : f32[2,4]
  %w = constant() {value=const f32[4] [1.0,2.0,3.0,4.0]} : f32[4]
  %y = mul(%w, %n) : f32[2,4]
"""
)

LAYER_NORM = (
    scalar("eps", 1e-5)
    + """
  %m = reduce(%x) {kind="mean", axes=[1], keepdims=true} : f32[2,1]
  %c = sub(%x, %m) : f32[2,4]
  %s = square(%c) : f32[2,4]
  %v = reduce(%s) {kind="mean", axes=[1], keepdims=true} : f32[2,1]
  %a = add(%v, %eps) : f32[2,1]
  %r = sqrt(%a) : f32[2,1]
  %n = div(%c, %r) : f32[2,4]
  %w = constant() {value=const f32[4] [1.0,2.0,3.0,4.0]} : f32[4]
  %b = constant() {value=const f32[4] [4.0,3.0,2.0,1.0]} : f32[4]
  %u = mul(%n, %w) : f32[2,4]
  %y = add(%u, %b) : f32[2,4]
"""
)

NEW_GELU = (
    scalar("half", 0.5)
    + scalar("three", 3.0)
    + scalar("c", 0.044715)
    + scalar("root", 0.7978845608028654)
    + scalar("one", 1.0)
    + """
  %h = mul(%x, %half) : f32[2,4]
  %p = pow(%x, %three) : f32[2,4]
  %q = mul(%p, %c) : f32[2,4]
  %i = add(%x, %q) : f32[2,4]
  %j = mul(%i, %root) : f32[2,4]
  %t = tanh(%j) : f32[2,4]
  %o = add(%t, %one) : f32[2,4]
  %y = mul(%h, %o) : f32[2,4]
"""
)

ERF_GELU = (
    scalar("half", 0.5)
    + scalar("root", 1.4142135623730951)
    + scalar("one", 1.0)
    + """
  %d = div(%x, %root) : f32[2,4]
  %e = erf(%d) : f32[2,4]
  %o = add(%e, %one) : f32[2,4]
  %g = mul(%x, %o) : f32[2,4]
  %y = mul(%g, %half) : f32[2,4]
"""
)

SOFTMAX = """
  %h = reduce(%x) {kind="max", axes=[1], keepdims=true} : f32[2,1]
  %s = sub(%x, %h) : f32[2,4]
  %e = exp(%s) : f32[2,4]
  %t = reduce(%e) {kind="sum", axes=[1], keepdims=true} : f32[2,1]
  %y = div(%e, %t) : f32[2,4]
"""

HARDSWISH = (
    scalar("three", 3.0)
    + scalar("six", 6.0)
    + """
  %a = add(%x, %three) : f32[2,4]
  %c = clamp(%a) {min=0.0, max=6.0} : f32[2,4]
  %m = mul(%x, %c) : f32[2,4]
  %y = div(%m, %six) : f32[2,4]
"""
)

W = "  %w = constant() {value=const f32[4] [1.0,2.0,3.0,4.0]} : f32[4]\n"
B = "  %b = constant() {value=const f32[4] [4.0,3.0,2.0,1.0]} : f32[4]\n"

CASES = {
    "rms_norm": (RMS, W + "  %y = rms_norm(%x, %w) : f32[2,4]"),
    "layer_norm": (LAYER_NORM, W + B + "  %y = layer_norm(%x, %w, %b) : f32[2,4]"),
    "gelu_with_tanh": (NEW_GELU, '  %y = gelu(%x) {approximate="tanh"} : f32[2,4]'),
    "gelu_with_erf": (ERF_GELU, "  %y = gelu(%x) : f32[2,4]"),
    "silu": ("  %s = sigmoid(%x) : f32[2,4]\n  %y = mul(%s, %x) : f32[2,4]", "  %y = silu(%x) : f32[2,4]"),
    "softmax": (SOFTMAX, "  %y = softmax(%x) {axis=1} : f32[2,4]"),
    "hardswish": (HARDSWISH, "  %y = hardswish(%x) : f32[2,4]"),
}


@pytest.mark.parametrize("name", CASES)
def test_raising(name: str) -> None:
    before, after = CASES[name]
    check(graph(X, before, "%y"), "simplify,raise-composites", graph(X, after, "%y"))


def test_a_product_of_two_values_is_found_inside_gelu() -> None:
    lines = "  %x = mul(%a, %b) : f32[2,4]\n" + ERF_GELU
    assert "gelu(" in transformed(graph("%a: f32[2,4], %b: f32[2,4]", lines, "%y"), "simplify,raise-composites")


def test_other_coefficients_are_no_gelu() -> None:
    assert "gelu" not in transformed(graph(X, NEW_GELU.replace("0.044715", "0.0447"), "%y"), "simplify,raise-composites")


def test_a_mean_over_other_axes_is_no_norm() -> None:
    lines = LAYER_NORM.replace("axes=[1]", "axes=[0]").replace("f32[2,1]", "f32[1,4]")
    assert "layer_norm" not in transformed(graph(X, lines, "%y"), "simplify,raise-composites")


EAGER_ATTENTION = (
    scalar("scale", 0.5)
    + """
  %t = permute(%k) {order=[0,1,3,2]} : f32[1,2,4,3]
  %s = matmul(%q, %t) : f32[1,2,3,3]
  %f = mul(%s, %scale) : f32[1,2,3,3]
  %m = add(%f, %mask) : f32[1,2,3,3]
  %p = softmax(%m) {axis=-1} : f32[1,2,3,3]
  %y = matmul(%p, %v) : f32[1,2,3,4]
"""
)


def test_attention_as_hugging_face_writes_it() -> None:
    inputs = "%q: f32[1,2,3,4], %k: f32[1,2,3,4], %v: f32[1,2,3,4], %mask: f32[1,1,3,3]"
    check(
        graph(inputs, EAGER_ATTENTION, "%y"),
        "simplify,raise-composites",
        graph(inputs, "  %y = attention(%q, %k, %v, %mask) {scale=0.5} : f32[1,2,3,4]", "%y"),
    )


def test_attention_over_merged_heads() -> None:
    inputs = "%q: f32[2,3,4], %k: f32[2,5,4], %v: f32[2,5,4]"
    lines = """
      %t = permute(%k) {order=[0,2,1]} : f32[2,4,5]
      %s = matmul(%q, %t) : f32[2,3,5]
      %p = softmax(%s) {axis=2} : f32[2,3,5]
      %y = matmul(%p, %v) : f32[2,3,4]
    """
    text = transformed(graph(inputs, lines, "%y"), "raise-composites")
    assert "attention(" in text and "softmax" not in text


def test_softmax_without_its_maximum_is_raised_in_fast_numerics_only() -> None:
    lines = """
      %e = exp(%x) : f32[2,4]
      %t = reduce(%e) {kind="sum", axes=[1], keepdims=true} : f32[2,1]
      %y = div(%e, %t) : f32[2,4]
    """
    assert "softmax" in transformed(graph(X, lines, "%y"), "raise-composites")
    assert "softmax" not in transformed(graph(X, lines, "%y"), "raise-composites", STRICT)
