"""Sums of 16-bit floats are made in fp32; what moves or maps single elements stays as it is."""

from __future__ import annotations

from golden import check


def test_sums_widen_and_elementwise_operations_stay() -> None:
    check(
        """
        graph @main(%x: bf16[4,8], %w: bf16[3,8]) {
          %y = linear(%x, %w) : bf16[4,3]
          %z = add(%y, %y) : bf16[4,3]
          %s = reduce(%z) {kind="sum", axes=[1]} : bf16[4]
          return %z, %s
        }""",
        "widen-halves",
        """
        graph @main(%x: bf16[4,8], %w: bf16[3,8]) {
          %a = cast(%x) {dtype=f32} : f32[4,8]
          %b = cast(%w) {dtype=f32} : f32[3,8]
          %c = linear(%a, %b) : f32[4,3]
          %d = cast(%c) {dtype=bf16} : bf16[4,3]
          %z = add(%d, %d) : bf16[4,3]
          %e = cast(%z) {dtype=f32} : f32[4,3]
          %f = reduce(%e) {kind="sum", axes=[1]} : f32[4]
          %s = cast(%f) {dtype=bf16} : bf16[4]
          return %z, %s
        }""",
        tolerance=1e-2,
    )
