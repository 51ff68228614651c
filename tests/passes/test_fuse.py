"""What becomes one kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from golden import CONTEXT, check, check_same, one_anchor, transformed

from mlc.ir import Graph, parse, verify
from mlc.passes import Fuse, Pipeline, kernel_count

CONTEXT_OF_ANYTHING = replace(CONTEXT, takes=lambda region: True)


def kernels(text: str, pipeline: str = "layout,fuse") -> list[list[str]]:
    """For each kernel, in order, the operations of its region."""
    graph = parse(text)
    result = Pipeline.parse(pipeline).run(graph, CONTEXT)
    verify(result)
    check_same(graph, result)
    allowed = {"fusion", "constant", "reshape", "permute", "relayout"}
    assert {node.op for node in result.nodes} <= allowed
    return [[inner.op for inner in node.regions[0].nodes] for node in result.nodes if node.op == "fusion"]


def test_text_of_a_layer_with_epilogue() -> None:
    check(
        """
        graph @main(%x: f32[2,3], %w: f32[4,3], %r: f32[2,4]) {
          %l = linear(%x, %w) : f32[2,4]
          %g = gelu(%l) : f32[2,4]
          %c = full() {shape=[], value=2.0, dtype=f32} : f32[]
          %s = mul(%g, %c) : f32[2,4]
          %y = add(%r, %s) : f32[2,4]
          return %y
        }""",
        "fuse",
        """
        graph @main(%x: f32[2,3], %w: f32[4,3], %r: f32[2,4]) {
          %y = fusion(%x, %w, %r) : f32[2,4] {
            graph @linear_gelu_mul_add(%x: f32[2,3], %w: f32[4,3], %r: f32[2,4]) {
              %l = linear(%x, %w) : f32[2,4]
              %g = gelu(%l) : f32[2,4]
              %c = full() {shape=[], value=2.0, dtype=f32} : f32[]
              %s = mul(%g, %c) : f32[2,4]
              %y = add(%r, %s) : f32[2,4]
              return %y
            }
          }
          return %y
        }""",
    )


def test_the_later_of_two_layers_adds() -> None:
    found = kernels(
        """
        graph @main(%x: f32[2,3], %w: f32[4,3], %v: f32[4,4]) {
          %a = linear(%x, %w) : f32[2,4]
          %b = linear(%a, %v) : f32[2,4]
          %c = add(%a, %b) : f32[2,4]
          %d = relu(%c) : f32[2,4]
          return %d
        }"""
    )
    assert found == [["linear"], ["linear", "add", "relu"]]


def test_a_sum_is_stored_by_the_norm_that_reads_it_too() -> None:
    found = kernels(
        """
        graph @main(%x: f32[2,4], %y: f32[2,4], %g: f32[4], %w: f32[4,4]) {
          %s = add(%x, %y) : f32[2,4]
          %n = layer_norm(%s, %g) : f32[2,4]
          %l = linear(%n, %w) : f32[2,4]
          %r = add(%l, %s) : f32[2,4]
          return %r
        }"""
    )
    assert found == [["add", "layer_norm"], ["linear", "add"]]


def test_a_diamond_joins_as_a_whole() -> None:
    found = kernels(
        """
        graph @main(%x: f32[2,3], %w: f32[4,3]) {
          %l = linear(%x, %w) : f32[2,4]
          %s = sigmoid(%l) : f32[2,4]
          %t = tanh(%l) : f32[2,4]
          %y = mul(%s, %t) : f32[2,4]
          return %y
        }"""
    )
    assert found == [["linear", "sigmoid", "tanh", "mul"]]


def test_a_path_through_another_kernel_is_no_diamond() -> None:
    found = kernels(
        """
        graph @main(%x: f32[4,4], %w: f32[4,4]) {
          %a = exp(%x) : f32[4,4]
          %b = linear(%a, %w) : f32[4,4]
          %c = softmax(%b) {axis=1} : f32[4,4]
          %d = mul(%a, %c) : f32[4,4]
          return %d
        }"""
    )
    assert found == [["exp"], ["linear"], ["softmax", "mul"]]


def test_slices_are_read_in_place_by_every_reader() -> None:
    found = kernels(
        """
        graph @main(%x: f32[2,8], %w: f32[8,8]) {
          %l = linear(%x, %w) : f32[2,8]
          %a = slice(%l) {axis=1, stop=4} : f32[2,4]
          %b = slice(%l) {axis=1, start=4, stop=8} : f32[2,4]
          %m = softmax(%a) {axis=1} : f32[2,4]
          %n = softmax(%b) {axis=0} : f32[2,4]
          %o = neg(%a) : f32[2,4]
          return %m, %n, %o
        }"""
    )
    assert found == [["linear"], ["slice", "softmax"], ["slice", "softmax"], ["slice", "neg"]]


def test_layers_do_not_recompute_arithmetic_of_their_operand() -> None:
    found = kernels(
        """
        graph @main(%x: f32[2,8], %w: f32[8,4]) {
          %e = exp(%x) : f32[2,8]
          %s = slice(%e) {axis=1, start=2, stop=6} : f32[2,4]
          %l = linear(%s, %w) : f32[2,8]
          return %l
        }"""
    )
    assert found == [["exp"], ["slice", "linear"]]


def test_an_embedding_is_read_by_the_norm() -> None:
    found = kernels(
        """
        graph @main(%i: i64[3], %t: f32[5,4], %p: f32[3,4], %g: f32[4]) {
          %e = take(%t, %i) : f32[3,4]
          %s = add(%e, %p) : f32[3,4]
          %n = layer_norm(%s, %g) : f32[3,4]
          return %n
        }"""
    )
    assert found == [["take", "add", "layer_norm"]]


def test_narrow_numbers_are_what_is_stored() -> None:
    """Widening them is for the kernel that reads them, unless several do."""
    text = """
        graph @main(%x: f32[2,3], %w: f32[4,3], %v: f32[5,4]) {{
          %l = linear(%x, %w) : f32[2,4]
          %h = cast(%l) {{dtype=bf16}} : bf16[2,4]
          %s = cast(%h) {{dtype=f32}} : f32[2,4]
          %y = linear(%s, %v) : f32[2,5]
          {more}
        }}"""
    assert kernels(text.format(more="return %y")) == [["linear", "cast"], ["cast", "linear"]]
    several = text.format(more="%z = softmax(%s) {axis=-1} : f32[2,4]\n          return %y, %z")
    assert kernels(several)[0] == ["linear", "cast", "cast"]


def test_aliases_stay_outside() -> None:
    check(
        """
        graph @main(%x: f32[2,6], %w: f32[6,6]) {
          %l = linear(%x, %w) : f32[2,6]
          %r = reshape(%l) {shape=[2,2,3]} : f32[2,2,3]
          %y = softmax(%r) {axis=2} : f32[2,2,3]
          return %y
        }""",
        "fuse",
        """
        graph @main(%x: f32[2,6], %w: f32[6,6]) {
          %l = fusion(%x, %w) : f32[2,6] {
            graph @linear(%x: f32[2,6], %w: f32[6,6]) {
              %l = linear(%x, %w) : f32[2,6]
              return %l
            }
          }
          %r = reshape(%l) {shape=[2,2,3]} : f32[2,2,3]
          %y = fusion(%r) : f32[2,2,3] {
            graph @softmax(%r: f32[2,2,3]) {
              %y = softmax(%r) {axis=2} : f32[2,2,3]
              return %y
            }
          }
          return %y
        }""",
    )


def test_the_last_layer_stores_in_the_order_of_the_output() -> None:
    found = kernels(
        """
        graph @main(%x: f32[1,3,4,4], %w: f32[2,3,1,1]) {
          %a = conv(%x, %w) {stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1]} : f32[1,2,4,4]
          return %a
        }"""
    )
    assert found == [["conv", "relayout"]]


def test_max_ops_limits_a_region() -> None:
    lines = "\n".join(f"%v{i + 1} = exp(%v{i}) : f32[4]" for i in range(7))
    text = f"graph @main(%v0: f32[4]) {{ {lines}\n return %v7 }}"
    assert [len(ops) for ops in kernels(text, "fuse{max_ops=3}")] == [3, 3, 1]


def test_what_no_template_takes_is_not_merged() -> None:
    def alone(region: Graph) -> bool:
        return len(region.nodes) == 1

    graph = parse("graph @main(%x: f32[4]) { %a = exp(%x) : f32[4]\n %b = neg(%a) : f32[4]\n return %b }")
    assert kernel_count(Fuse().apply(graph, replace(CONTEXT, takes=alone))) == 2
    assert kernel_count(Fuse().apply(graph, replace(CONTEXT, takes=one_anchor))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "graph @main(%x: f32[4]) { return %x }",
        "graph @main(%x: f32[4]) { %y = reshape(%x) {shape=[2,2]} : f32[2,2]\n return %y }",
        "graph @main() { %y = full() {shape=[2], value=1.0, dtype=f32} : f32[2]\n return %y }",
        "graph @main() { %y = constant() {value=const f32[2] [1.0,2.0]} : f32[2]\n return %y }",
        "graph @main(%x: f32[4]) { %a = exp(%x) : f32[4]\n return %a, %a }",
        "graph @main(%x: f32[4]) { %a = exp(%x) : f32[4]\n %b = reshape(%a) {shape=[2,2]} : f32[2,2]\n return %b, %a }",
    ],
)
def test_every_output_has_bytes_of_its_own(text: str) -> None:
    graph = parse(text)
    result = Fuse().apply(graph, CONTEXT)
    verify(result)
    check_same(graph, result)
    roots = []
    for value in result.outputs:
        while value.node is not None and value.node.op != "fusion":
            value = value.node.inputs[0]
        assert value.node is not None
        roots.append(value)
    assert len(set(roots)) == len(roots)


def test_equal_kernels_run_once() -> None:
    text = transformed(
        """
        graph @main(%x: f32[4,4], %v: f32[4,4], %w: f32[4,4]) {
          %a = exp(%x) : f32[4,4]
          %b = exp(%x) : f32[4,4]
          %c = softmax(%a) {axis=1} : f32[4,4]
          %d = softmax(%b) {axis=1} : f32[4,4]
          %e = linear(%c, %v) : f32[4,4]
          %f = linear(%d, %w) : f32[4,4]
          return %e, %f
        }""",
        "fuse",
    )
    assert text.count(" softmax(") == 1


def test_symbolic_dimensions_are_declared_in_regions() -> None:
    graph = parse(
        """
        graph @main(%x: f32[n,4], %w: f32[4,4]) where n in 2..8 {
          %a = linear(%x, %w) : f32[n,4]
          %b = gelu(%a) : f32[n,4]
          return %b
        }"""
    )
    result = Fuse().apply(graph, CONTEXT_OF_ANYTHING)
    verify(result)
    assert kernel_count(result) == 1


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("", [["mul"], ["linear", "relu"]]),
        (" as block_sparse(width=1, entries=8, axis=0)", [["mul", "linear", "relu"]]),
        (" as block_sparse(width=16, entries=4, axis=0)", [["mul", "linear", "relu"]]),
    ],
)
def test_sparse_products_scale_their_operand(encoding: str, expected: list[list[str]]) -> None:
    text = f"""
        graph @main(%x: f32[9,16], %w: f32[32,16]{encoding}, %s: f32[16]) {{
          %a = mul(%x, %s) : f32[9,16]
          %l = linear(%a, %w) : f32[9,32]
          %y = relu(%l) : f32[9,32]
          return %y
        }}"""
    fused = Pipeline.parse("fuse").run(parse(text), CONTEXT)
    assert [[inner.op for inner in node.regions[0].nodes] for node in fused.nodes if node.op == "fusion"] == expected


def test_sparse_products_leave_transcendental_functions_to_a_kernel_before() -> None:
    text = """
        graph @main(%x: f32[9,16], %w: f32[32,16] as block_sparse(width=1, entries=8, axis=0)) {
          %a = silu(%x) : f32[9,16]
          %y = linear(%a, %w) : f32[9,32]
          return %y
        }"""
    assert kernel_count(Pipeline.parse("fuse").run(parse(text), CONTEXT)) == 2
