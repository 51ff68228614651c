"""The interpreter: rounding, symbolic shapes, regions, control flow, state, and errors."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mlc.errors import SignatureError, TypeInferenceError, VerificationError
from mlc.ir import Graph, Interpreter, Node, interpret, node_cost, parse, print_graph


def graph(text: str) -> Graph:
    return parse(text)


SUM_OF_SMALL = """graph @main(%x: f32[]) {
  %one = full() {shape = [], value = 1.0, dtype = f32} : f32[]
  %y = add(%x, %one) : f32[]
  %z = sub(%y, %one) : f32[]
  return %z
}"""


def test_every_step_is_rounded_unless_wide() -> None:
    x = np.float32(1e-9)
    (rounded,) = interpret(graph(SUM_OF_SMALL), [x])
    (wide,) = interpret(graph(SUM_OF_SMALL), [x], wide=True)
    assert rounded.dtype == np.float32 and rounded == 0.0
    assert wide.dtype == np.float64 and abs(wide - 1e-9) < 1e-12


def test_casts_round_even_when_wide() -> None:
    cast = graph("graph @main(%x: f32[]) {\n  %y = cast(%x) {dtype = bf16} : bf16[]\n  return %y\n}")
    (wide,) = interpret(cast, [np.float32(1.001)], wide=True)
    assert wide == 1.0


def test_fusions_compute_what_their_nodes_compute() -> None:
    fused = graph("""graph @main(%x: f32[2,3], %b: f32[3]) {
  %y, %m = fusion(%x, %b) : f32[2,3], f32[2] {
    graph @body(%p: f32[2,3], %q: f32[3]) {
      %s = add(%p, %q) : f32[2,3]
      %r = relu(%s) : f32[2,3]
      %m = reduce(%r) {kind = "max", axes = [1]} : f32[2]
      return %r, %m
    }
  }
  return %m, %y
}""")
    x, b = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32), np.float32([1, -1, 0])
    m, y = interpret(fused, [x, b])
    np.testing.assert_array_equal(y, np.maximum(x + b, 0))
    np.testing.assert_array_equal(m, y.max(1))
    # One operation per element each for the add, the relu and the reduction; six and three floats in, six and two out.
    assert node_cost(fused.nodes[0]).flops == 18
    assert (node_cost(fused.nodes[0]).bytes_read, node_cost(fused.nodes[0]).bytes_written) == (36, 32)


SYMBOLIC = """graph @main(%x: f32[n,4], %y: f32[2*n]) where n in 1..8 {
  %a = reshape(%x) {shape = [`2*n`, 2]} : f32[2*n,2]
  %b = reshape(%y) {shape = [`2*n`, 1]} : f32[2*n,1]
  %c = add(%a, %b) : f32[2*n,2]
  %i = iota() {size = `n + 1`} : i64[n+1]
  return %c, %i
}"""


def test_symbols_are_bound_by_the_inputs() -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(6, dtype=np.float32)
    c, i = interpret(graph(SYMBOLIC), [x, y])
    np.testing.assert_array_equal(c, x.reshape(6, 2) + y[:, None])
    np.testing.assert_array_equal(i, np.arange(4))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 4), (5,)), "input %y of graph @main is f32[2*n], got an array of shape [5] (where n is 3)"),
        (((3, 5), (6,)), "input %x of graph @main is f32[n,4], got an array of shape [3, 5]"),
        (((9, 4), (18,)), "n is 9 in the inputs of graph @main, it must be in 1..8"),
        (((3, 4, 1), (6,)), "got an array of shape [3, 4, 1]"),
        (((3, 4),), "takes 2 inputs, got 1"),
    ],
)
def test_inputs_that_do_not_fit(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(SignatureError, match=re.escape(message)):
        interpret(graph(SYMBOLIC), [np.zeros(shape, np.float32) for shape in shapes])


@pytest.mark.parametrize(("dtype", "given"), [("f32", np.int64), ("i32", np.int64), ("i64", np.float32), ("b1", np.int8)])
def test_inputs_of_another_kind(dtype: str, given: type) -> None:
    with pytest.raises(SignatureError, match="got an array of"):
        interpret(graph(f"graph @main(%x: {dtype}[2]) {{\n  return %x\n}}"), [np.zeros(2, given)])


def test_float_inputs_are_rounded_to_the_type() -> None:
    identity = graph("graph @main(%x: f32[]) {\n  return %x\n}")
    assert interpret(identity, [np.float64(0.1)])[0] == np.float32(0.1)
    assert interpret(identity, [np.float64(0.1)], wide=True)[0] == np.float64(0.1)


COND = """graph @main(%p: b1[], %x: f32[2]) {
  %y = cond(%p, %x) : f32[2] {
    graph @then(%a: f32[2]) {
      %b = neg(%a) : f32[2]
      return %b
    }
  } {
    graph @else(%a: f32[2]) {
      return %a
    }
  }
  return %y
}
"""


def test_cond_takes_one_branch() -> None:
    x = np.float32([1, -2])
    np.testing.assert_array_equal(interpret(graph(COND), [np.bool_(True), x])[0], -x)
    np.testing.assert_array_equal(interpret(graph(COND), [np.bool_(False), x])[0], x)
    assert node_cost(graph(COND).nodes[0]).flops == 2
    assert print_graph(graph(COND)) == COND


WHILE = """graph @main(%i: i64[], %x: f32[2], %s: token(f32[2])) {
  %j, %y, %t = while(%i, %x, %s) : i64[], f32[2], token(f32[2]) {
    graph @condition(%i: i64[], %x: f32[2], %s: token(f32[2])) {
      %zero = full() {shape = [], value = 0, dtype = i64} : i64[]
      %p = gt(%i, %zero) : b1[]
      return %p
    }
  } {
    graph @body(%i: i64[], %x: f32[2], %s: token(f32[2])) {
      %one = full() {shape = [], value = 1, dtype = i64} : i64[]
      %j = sub(%i, %one) : i64[]
      %v, %t = state_read(%s) : f32[2], token(f32[2])
      %w = add(%v, %x) : f32[2]
      %u = state_write(%t, %w) : token(f32[2])
      return %j, %w, %u
    }
  }
  return %y, %t
}
"""


def test_while_loops_and_carries_state() -> None:
    # In each round x and the buffer both become their sum.
    y, state = interpret(graph(WHILE), [np.int64(3), np.float32([1, 10]), np.float32([0, 1])])
    np.testing.assert_array_equal(y, [4, 44])
    np.testing.assert_array_equal(state, [4, 44])
    y, state = interpret(graph(WHILE), [np.int64(0), np.float32([1, 10]), np.float32([0, 1])])
    np.testing.assert_array_equal(y, [1, 10])
    np.testing.assert_array_equal(state, [0, 1])
    assert node_cost(graph(WHILE).nodes[0]).flops == 1 + 1 + 2
    assert print_graph(graph(WHILE)) == WHILE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("%p: b1[]", "%p: f32[]", "the first operand is the predicate, a b1[]"),
        ("@then(%a: f32[2])", "@then(%a: f32[2], %c: f32[2])", "1 operands for the first region of 2 inputs"),
        ("return %b", "return %b, %a", "the regions yield different types"),
        ("%y = cond(%p, %x) : f32[2]", "%y = cond(%p, %x) : f32[2]{0:0x2}", "cond yields f32[2]"),
    ],
)
def test_malformed_cond(old: str, new: str, message: str) -> None:
    with pytest.raises(VerificationError, match=re.escape(message)):
        parse(COND.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return %p", "return %i", "the condition yields a b1[], not i64[]"),
        ("return %j, %w, %u", "return %j, %w", "the body yields i64[], f32[2], the operands are"),
        ("return %p", "%q = state_write(%s, %x) : token(f32[2])\n return %p", "the condition must not write state"),
        ("@body(%i: i64[]", "@body(%i: i32[]", "while: operand 0 is i64[], the body takes i32[]"),
    ],
)
def test_malformed_while(old: str, new: str, message: str) -> None:
    text = WHILE.replace(old, new)
    if "i32" in new:
        text = text.replace("%j = sub(%i, %one) : i64[]", "%j = cast(%i) {dtype = i64} : i64[]")
    with pytest.raises(VerificationError, match=re.escape(message)):
        parse(text)


def test_encoded_results_are_refused_with_a_clear_error() -> None:
    encoded = graph("graph @main(%x: f32[4]) {\n  %y = relu(%x) : f32[4] as nm_sparse(n=2, m=4, axis=0)\n  return %y\n}")
    with pytest.raises(TypeInferenceError, match=re.escape("only constants are held encoded, relu computes dense values")):
        interpret(encoded, [np.zeros(4, np.float32)])


def test_inputs_with_an_encoding_are_the_numbers_that_it_stands_for() -> None:
    encoded = graph("graph @main(%x: f32[4] as ternary(scale=f32)) {\n  %y = neg(%x) : f32[4]\n  return %y\n}")
    (negated,) = interpret(encoded, [np.arange(4, dtype=np.float32)])
    assert negated.tolist() == [0, -1, -2, -3]


def test_errors_of_numpy_name_the_node() -> None:
    take = graph('graph @main(%x: f32[4], %i: i64[]) {\n  %y = take(%x, %i) : f32[] at ("m", "model.py:3", "aten.select")\n  return %y\n}')
    with pytest.raises(IndexError) as error:
        interpret(take, [np.zeros(4, np.float32), np.int64(4)])
    assert "while interpreting %y = take(%x, %i) (aten.select, in module 'm', model.py:3)" in error.value.__notes__[0]


def test_subclasses_see_every_node_of_regions_too() -> None:
    seen = []

    class Watching(Interpreter):
        def node(self, node: Node, inputs: object) -> object:  # type: ignore[override]
            seen.append(node.op)
            return super().node(node, inputs)  # type: ignore[arg-type]

    Watching(graph(COND)).run([np.bool_(True), np.float32([1, 2])])
    assert seen == ["cond", "neg"]


def test_a_value_used_late_and_an_output_are_kept() -> None:
    late = graph("""graph @main(%x: f32[]) {
  %a = neg(%x) : f32[]
  %b = exp(%a) : f32[]
  %c = add(%a, %b) : f32[]
  %unused = neg(%c) : f32[]
  return %a, %c, %x, %a
}""")
    a, c, x, again = interpret(late, [np.float32(0)])
    assert (a, c, x, again) == (0, 1, 0, 0)


LOOP = """graph @main(%s: f32[2], %x: f32[3,2], %k: f32[2]) {
  %t, %y = loop(%s, %x, %k) {trips = 3, carried = 1, sliced = 1, reverse = true} : f32[2], f32[3,2] {
    graph @body(%s: f32[2], %x: f32[2], %k: f32[2]) {
      %m = mul(%s, %k) : f32[2]
      %t = add(%m, %x) : f32[2]
      return %t, %m
    }
  }
  return %t, %y
}
"""


@pytest.mark.parametrize("reverse", [True, False])
def test_loop_carries_slices_and_stacks(reverse: bool) -> None:
    text = LOOP if reverse else LOOP.replace(", reverse = true", "")
    s, x, k = np.float32([1, 2]), np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([2, -1])
    last, stacked = interpret(graph(text), [s, x, k])
    expected = np.zeros_like(x)
    for index in (2, 1, 0) if reverse else (0, 1, 2):
        expected[index] = s * k
        s = expected[index] + x[index]
    np.testing.assert_array_equal(last, s)
    np.testing.assert_array_equal(stacked, expected)
    assert node_cost(graph(text).nodes[0]).flops == 3 * 4
    assert print_graph(graph(text)) == text


def test_a_fusion_reads_of_a_table_what_it_takes() -> None:
    fused = graph("""graph @main(%t: f32[1000,8], %i: i64[3]) {
  %y = fusion(%t, %i) : f32[3,8] {
    graph @body(%p: f32[1000,8], %q: i64[3]) {
      %r = take(%p, %q) {axis = 0} : f32[3,8]
      %e = exp(%r) : f32[3,8]
      return %e
    }
  }
  return %y
}""")
    assert node_cost(fused.nodes[0]).bytes_read == 4 * 3 * 8 + 8 * 3
