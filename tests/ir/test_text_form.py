"""print and parse are inverse, and malformed text is an error with a place, never a crash."""

from __future__ import annotations

import contextlib
import pathlib
import re

import numpy as np
import pytest
from graph_strategies import TYPES, expressions, graphs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc.errors import TextFormError, VerificationError
from mlc.ir import (
    ArrayConstant,
    Constant,
    DerivedConstant,
    DType,
    Graph,
    GraphBuilder,
    TensorType,
    canonicalise,
    load_text,
    parse,
    parse_type,
    print_graph,
    save_text,
    verify,
)
from mlc.ir.expression import parse_expression

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def constants_of(graph: Graph) -> dict[str, Constant]:
    values = [node.attributes.get("value") for node in graph.walk()]
    return {value.digest: value for value in values if isinstance(value, Constant)}


def structure(graph: Graph) -> object:
    """Everything a graph says, comparable; independent of how it prints."""
    number = {value: index for index, value in enumerate(graph.values())}
    return (
        graph.name,
        dict(graph.symbols),
        [(value.name, value.type) for value in graph.values()],
        [number[value] for value in graph.outputs],
        [
            (
                node.op,
                [number[value] for value in node.inputs],
                [
                    (name, repr(value) if not isinstance(value, Constant) else value.array().tobytes())
                    for name, value in node.attributes.items()
                ],
                node.location,
                [structure(region) for region in node.regions],
            )
            for node in graph.nodes
        ],
    )


@given(graphs())
@settings(RELAXED, max_examples=150)
def test_print_and_parse_are_inverse(graph: Graph) -> None:
    verify(graph)
    text = print_graph(graph)
    again = parse(text, constants_of(graph))
    assert structure(again) == structure(graph)
    assert print_graph(again) == text


@given(graphs())
@settings(RELAXED, max_examples=50)
def test_canonical_form_is_valid_and_does_not_depend_on_names(graph: Graph) -> None:
    canonical = canonicalise(graph)
    verify(canonical)
    text = print_graph(canonical)
    renamed = re.sub(r"%([\w.$-]+)", r"%other_\1", print_graph(graph, locations=False))
    renamed = re.sub(r"\b(n|k|batch_size)\b(?!=)", r"another_\1", renamed)
    assert print_graph(canonicalise(parse(renamed, constants_of(graph)))) == text
    assert print_graph(canonicalise(canonical)) == text


@given(TYPES)
@settings(RELAXED)
def test_types_round_trip(type: object) -> None:
    assert parse_type(str(type)) == type


@given(expressions())
@settings(RELAXED)
def test_expressions_round_trip(expression: object) -> None:
    assert parse_expression(str(expression), TextFormError) == expression


SAMPLE = """graph @main(%x: f32[n,4]{1,0}, %s: token(f32[2])) where n in 1..8 {
  %c = constant() {value = const f32[2] [1.5, -0.0]} : f32[2]
  %v, %t = state_read(%s) : f32[2], token(f32[2])
  %w = add(%v, %c) : f32[2] at ("layers.0", "model.py:12", "aten.add.Tensor")
  %u = state_write(%t, %w) : token(f32[2])
  %y = softmax(%x) {axis = 1} : f32[n,4]{1,0:0x8:0} as nm_sparse(n=2, m=4, axis=1)
  %z = reshape(%y) {shape = [`2*n`, 2]} : f32[2*n,2]
  %p = full() {shape = [], value = true, dtype = b1} : b1[]
  %q = cond(%p, %z) : f32[2*n,2] {
    graph @then(%a: f32[2*n,2]) where n in 1..8 {
      return %a
    }
  } {
    graph @else(%a: f32[2*n,2]) where n in 1..8 {
      %0 = neg(%a) : f32[2*n,2]
      return %0
    }
  }
  return %q, %u
}
"""


def test_the_sample_parses() -> None:
    assert print_graph(parse(SAMPLE)) == SAMPLE


PIECES = ["", "-1", "0", "nan", "9" * 30, "1e999", "n", "%x", "{", "[", "(", "`", '"', "none", ",", "x", "\u00b2", "\x00", "\n", "f32"]
PIECES += ["token", "**", "/0", "true"]


@given(st.data())
@settings(RELAXED, max_examples=400)
def test_damaged_text_is_an_error_of_the_package(data: st.DataObject) -> None:
    text = SAMPLE
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(len(text), start + data.draw(st.sampled_from([0, 1, 1, 2, 7, 10_000])))
        piece = data.draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=2), st.just(text[stop : stop + 9])))
        text = text[:start] + piece + text[stop:]
    try:
        graph = parse(text)
    except TextFormError as error:
        assert re.match(r"line \d+, column \d+: ", str(error))
    except VerificationError:
        pass
    else:
        assert print_graph(parse(print_graph(graph))) == print_graph(graph)


@given(graphs(), st.data())
@settings(RELAXED, max_examples=100)
def test_damaged_text_of_any_graph(graph: Graph, data: st.DataObject) -> None:
    text = print_graph(graph)
    words = re.findall(r"[\w.#%-]+|\S", text)
    position = data.draw(st.integers(0, len(text) - 1))
    stop = position + data.draw(st.integers(0, 5))
    text = text[:position] + data.draw(st.sampled_from(words)) + text[stop:]
    with contextlib.suppress(TextFormError, VerificationError):
        parse(text, constants_of(graph))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected 'graph', found the end of the text"),
        ("graph main() {}", "line 1, column 7: expected the graph's name"),
        ("graph @g(%x: f33[2]) {\n  return %x\n}", "line 1, column 14: expected a type"),
        ("graph @g(%x: f32[2], %x: f32[2]) {\n  return %x\n}", "line 1, column 22: %x is defined twice"),
        ("graph @g(%x: f32[2]) {\n  %y = rleu(%x) : f32[2]\n  return %y\n}", "line 2, column 8: there is no operation 'rleu'"),
        ("graph @g(%x: f32[2]) {\n  %y = relu(%z) : f32[2]\n  return %y\n}", "line 2, column 13: %z is not defined"),
        ("graph @g(%x: f32[2]) {\n  %y = relu(%x) {axis = 1} : f32[2]\n  return %y\n}", "line 2, column 8: relu has no attribute 'axis'"),
        ("graph @g(%x: f32[2]) {\n  %y = softmax(%x) : f32[2]\n  return %y\n}", "line 2, column 8: softmax needs the attribute 'axis'"),
        ("graph @g(%x: f32[2]) {\n  %y = softmax(%x) {axis = 3} : f32[2]\n  return %y\n}", "axis 3 is out of range"),
        (
            "graph @g(%x: f32[2]) {\n  %y = softmax(%x) {axis = 0, axis = 0} : f32[2]\n  return %y\n}",
            "column 31: the attribute 'axis' is given twice",
        ),
        ("graph @g(%x: f32[2]) {\n  return %x\n}\nx", "line 4, column 1: expected the end of the text"),
        ("graph @g(%x: f32[2]) {\n  return ?\n}", "line 2, column 10: unexpected character '?'"),
        ("graph @g(%x: f32[2]{0,1}) {\n  return %x\n}", "line 1, column 17: layout {0,1} has rank 2"),
        ("graph @g(%x: f32[1-2]) {\n  return %x\n}", "line 1, column 17: a dimension cannot be -1"),
        ("graph @g(%x: f32[9**99]) {\n  return %x\n}", "exponents are integers from 0 to 16"),
        ("graph @g(%x: f32[n/0]) {\n  return %x\n}", "division by zero"),
        ("graph @g(%x: f32[1/2]) {\n  return %x\n}", "is no integer"),
        ("graph @g(%x: f32[" + "n+" * 400 + "n]) {\n  return %x\n}", "too long"),
        ("graph @g(%x: f32[" + "(" * 100 + "n" + ")" * 100 + "]) {\n  return %x\n}", "nested brackets"),
        ("graph @g() {\n  %x = full() {shape = " + "[" * 900 + "} : f32[]\n  return %x\n}", "levels of nesting"),
        (
            "graph @g() {\n  %x = full() {shape = [], value = " + "1" * 5000 + ", dtype = f32} : f32[]\n  return %x\n}",
            "a number of 5000 digits",
        ),
        ("graph @g(%x: f32[2] as zip(level=9)) {\n  return %x\n}", "there is no encoding 'zip'"),
        ("graph @g(%x: f32[2]) where n in 5..3 {\n  return %x\n}", "line 1, column 28: the range 5..3"),
        ("graph @g() {\n  %c = constant() {value = const i8[1] [300]} : i8[1]\n  return %c\n}", "i8 cannot hold 300"),
        ("graph @g() {\n  %c = constant() {value = const i8[1] [1.5]} : i8[1]\n  return %c\n}", "i8 cannot hold 1.5"),
        ("graph @g() {\n  %c = constant() {value = const f16[1] [1e9]} : f16[1]\n  return %c\n}", "f16 cannot hold"),
        ("graph @g() {\n  %c = constant() {value = const i8[2] [3]} : i8[2]\n  return %c\n}", "needs 2 numbers, found 1"),
        (
            "graph @g() {\n  %c = constant() {value = const i8[99] #abc} : i8[99]\n  return %c\n}",
            "is not in this text; pass it in `constants`",
        ),
        ('graph @g(%x: f32[]) {\n  %y = relu(%x) : f32[] at ("a", "b")\n  return %y\n}', "a location has 3 parts"),
        ('graph @g(%x: f32[]) {\n  %y = relu(%x) : f32[] at ("\\x", "b", "")\n  return %y\n}', "malformed string"),
    ],
)
def test_messages_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(TextFormError, match=re.escape(message)):
        parse(text)


def test_axes_may_count_from_the_end_in_text() -> None:
    graph = parse("graph @g(%x: f32[2,3]) {\n  %y = softmax(%x) {axis = -1} : f32[2,3]\n  return %y\n}")
    assert graph.nodes[0].attributes["axis"] == 1


def test_a_negative_zero_is_not_the_default_zero() -> None:
    builder = GraphBuilder()
    graph = builder.finish([builder.call("pad", builder.input(TensorType(DType.FLOAT32, (2,))), pads=((1, 1),), value=-0.0)])
    assert "value = -0.0" in print_graph(graph)


def with_constants() -> Graph:
    builder = GraphBuilder()
    large = builder.constant(ArrayConstant(np.arange(100, dtype=np.float32).astype(DType.BFLOAT16.numpy)))
    small_complex = builder.constant(ArrayConstant(np.array([1 + 2j], np.complex64)))
    derived = DerivedConstant("neg", (large.constant,), (), 0, large.tensor, lambda: -large.constant.array())  # type: ignore[arg-type, union-attr, operator]
    return builder.finish([large, small_complex, builder.constant(derived)])


def test_side_file_holds_what_the_text_leaves_out(tmp_path: pathlib.Path) -> None:
    graph = with_constants()
    save_text(graph, tmp_path / "model.mlir")
    loaded = load_text(tmp_path / "model.mlir")
    assert print_graph(loaded) == print_graph(graph)
    for one, other in zip(loaded.outputs, graph.outputs, strict=True):
        assert one.constant is not None and other.constant is not None
        assert one.constant == other.constant
        np.testing.assert_array_equal(one.constant.array(), other.constant.array())


def test_a_damaged_side_file_is_an_error(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.mlir"
    save_text(with_constants(), path)
    side = tmp_path / "model.mlir.npz"
    data = side.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"PK\x03\x04 nonsense", data[:200] + b"\x00\x01\x02" + data[203:]):
        side.write_bytes(damaged)
        with pytest.raises(TextFormError):
            load_text(path)
    side.unlink()
    with pytest.raises(TextFormError, match="reads it from the side file"):
        load_text(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TextFormError, match="no text"):
        load_text(path)


def test_an_elided_constant_must_have_the_type_the_text_says() -> None:
    constant = ArrayConstant(np.zeros(100, np.float32))
    text = f"graph @g() {{\n  %c = constant() {{value = const f32[10,10] #{constant.digest}}} : f32[10,10]\n  return %c\n}}"
    with pytest.raises(TextFormError, match=re.escape("is f32[100], the text says f32[10,10]")):
        parse(text, {constant.digest: constant})
