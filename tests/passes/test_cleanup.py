"""Dead code, common subexpressions, constant folding."""

from __future__ import annotations

import numpy as np
from golden import CONTEXT, check, transformed

from mlc.ir import ArrayConstant, DType, GraphBuilder, TensorType
from mlc.passes import CommonSubexpressions, FoldConstants


def test_dead_code_is_removed_and_inputs_stay() -> None:
    check(
        """
        graph @main(%x: f32[2], %unused: f32[2]) {
          %a = exp(%x) : f32[2]
          %b = neg(%a) : f32[2]
          %c = neg(%x) : f32[2]
          return %c
        }""",
        "dead-code",
        """
        graph @main(%x: f32[2], %unused: f32[2]) {
          %c = neg(%x) : f32[2]
          return %c
        }""",
    )


def test_common_subexpressions_compare_attributes_and_types_of_numbers() -> None:
    check(
        """
        graph @main(%x: f32[4]) {
          %a = slice(%x) {axis=0, stop=2} : f32[2]
          %b = slice(%x) {axis=0, stop=2} : f32[2]
          %c = slice(%x) {axis=0, start=2, stop=4} : f32[2]
          %z = full() {shape=[], value=0.0, dtype=f32} : f32[]
          %m = full() {shape=[], value=-0.0, dtype=f32} : f32[]
          %d = add(%a, %b) : f32[2]
          %e = add(%d, %c) : f32[2]
          %f = add(%e, %z) : f32[2]
          %g = add(%f, %m) : f32[2]
          return %g
        }""",
        "common-subexpressions",
        """
        graph @main(%x: f32[4]) {
          %a = slice(%x) {axis=0, stop=2} : f32[2]
          %c = slice(%x) {axis=0, start=2, stop=4} : f32[2]
          %z = full() {shape=[], value=0.0, dtype=f32} : f32[]
          %m = full() {shape=[], value=-0.0, dtype=f32} : f32[]
          %d = add(%a, %a) : f32[2]
          %e = add(%d, %c) : f32[2]
          %f = add(%e, %z) : f32[2]
          %g = add(%f, %m) : f32[2]
          return %g
        }""",
    )


def test_equal_regions_become_one() -> None:
    region = "fusion(%x) : f32[4] {{ graph @f(%p: f32[4]) {{ %v = {op}(%p) : f32[4]\n return %v }} }}"
    text = transformed(
        f"graph @main(%x: f32[4]) {{ %a = {region.format(op='exp')}\n %b = {region.format(op='exp')}\n %c = {region.format(op='neg')}\n"
        " %d = add(%a, %b) : f32[4]\n %e = add(%d, %c) : f32[4]\n return %e }",
        "common-subexpressions",
    )
    assert text.count("fusion(") == 2


def test_equal_constants_are_one() -> None:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (3,)))
    a = builder.constant(ArrayConstant(np.arange(3, dtype=np.float32)))
    b = builder.constant(ArrayConstant(np.arange(3, dtype=np.float32).copy()))
    graph = builder.finish([builder.call("add", builder.call("mul", x, a), b)])
    result = CommonSubexpressions().apply(graph, CONTEXT)
    assert sum(node.op == "constant" for node in result.nodes) == 1


def test_masks_from_generators_fold_to_a_constant() -> None:
    check(
        """
        graph @main(%x: f32[3,3]) {
          %i = iota() {size=3} : i64[3]
          %r = reshape(%i) {shape=[3,1]} : i64[3,1]
          %m = le(%i, %r) : b1[3,3]
          %z = full() {shape=[], value=0.0, dtype=f32} : f32[]
          %y = where(%m, %x, %z) : f32[3,3]
          return %y
        }""",
        "fold-constants",
        """
        graph @main(%x: f32[3,3]) {
          %m = constant() {value=const b1[3,3] [1,0,0,1,1,0,1,1,1]} : b1[3,3]
          %z = full() {shape=[], value=0.0, dtype=f32} : f32[]
          %y = where(%m, %x, %z) : f32[3,3]
          return %y
        }""",
    )


def test_a_folded_constant_of_one_number_becomes_full() -> None:
    check(
        """
        graph @main(%x: f32[4]) {
          %i = iota() {size=4} : i64[4]
          %z = full() {shape=[], value=0, dtype=i64} : i64[]
          %m = ge(%i, %z) : b1[4]
          %n = neg(%x) : f32[4]
          %y = where(%m, %x, %n) : f32[4]
          return %y
        }""",
        "fold-constants",
        """
        graph @main(%x: f32[4]) {
          %m = full() {shape=[4], value=true, dtype=b1} : b1[4]
          %n = neg(%x) : f32[4]
          %y = where(%m, %x, %n) : f32[4]
          return %y
        }""",
    )


def test_large_results_are_not_stored() -> None:
    text = """
        graph @main(%x: f32[8,8]) {
          %i = iota() {size=8, dtype=f32} : f32[8]
          %r = reshape(%i) {shape=[8,1]} : f32[8,1]
          %m = mul(%i, %r) : f32[8,8]
          %y = add(%m, %x) : f32[8,8]
          return %y
        }"""
    assert "mul" not in transformed(text, "fold-constants")
    assert "mul" in transformed(text, "fold-constants{max_elements=32}")


def test_weights_fold_whatever_their_size_without_being_evaluated() -> None:
    class Untouched(ArrayConstant):
        digest = "00"

        def array(self) -> np.ndarray:
            raise AssertionError("the weight was evaluated during the pass")

    builder = GraphBuilder()
    weight = builder.constant(Untouched(np.zeros((20, 30), np.float32)))
    x = builder.input(TensorType(DType.FLOAT32, (2, 30)))
    graph = builder.finish([builder.call("matmul", x, builder.call("permute", weight, order=(1, 0)))])
    result = FoldConstants(max_elements=10).apply(graph, CONTEXT)
    assert [node.op for node in result.nodes] == ["constant", "matmul"]
    assert result.nodes[0].output.tensor.shape == (30, 20)


def test_broadcasts_of_constants_are_redone_not_stored() -> None:
    text = transformed(
        """
        graph @main() {
          %c = constant() {value=const f32[2] [1.0, 2.0]} : f32[2]
          %e = exp(%c) : f32[2]
          %b = broadcast_to(%e) {shape=[5,2]} : f32[5,2]
          return %b
        }""",
        "fold-constants",
    )
    assert "exp" not in text and "broadcast_to" in text
