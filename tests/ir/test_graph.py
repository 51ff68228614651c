"""Building, rewriting and viewing graphs."""

from __future__ import annotations

import re

import networkx
import numpy as np
import pytest
from graph_strategies import graphs
from hypothesis import HealthCheck, given, settings

from mlc.errors import TypeInferenceError
from mlc.ir import (
    ArrayConstant,
    DType,
    Graph,
    GraphBuilder,
    Layout,
    Location,
    Node,
    Rewriter,
    TensorType,
    TokenType,
    Value,
    canonicalise,
    parse,
    print_graph,
    to_networkx,
    verify,
)

F23 = TensorType(DType.FLOAT32, (2, 3))


def test_names_are_made_unique_and_legal() -> None:
    builder = GraphBuilder("my net")
    values = [builder.input(F23, name) for name in ("x", "x", "a b", "1", "naïve")]
    values.append(builder.call("relu", values[0]))
    graph = builder.finish([values[-1]])
    verify(graph)
    assert graph.name == "my_net"
    assert [value.name for value in graph.values()] == ["x", "0", "a_b", "1", "na_ve", "2"]
    assert print_graph(parse(print_graph(graph))) == print_graph(graph)


def test_a_constant_is_added_once_per_layout() -> None:
    builder = GraphBuilder()
    constant = ArrayConstant(np.ones((2, 3), np.float32))
    transposed = F23.with_layout(Layout((1, 0)))
    first, again, other = builder.constant(constant), builder.constant(constant), builder.constant(constant, transposed)
    assert first is again
    assert other is not first and other.type == transposed
    assert first.constant is constant and first.op == "constant"
    with pytest.raises(TypeInferenceError, match="cannot be used as"):
        builder.constant(constant, TensorType(DType.FLOAT32, (3, 2)))


def test_tokens_are_no_tensors_and_several_results_no_output() -> None:
    with pytest.raises(TypeInferenceError, match="a tensor is needed here"):
        _ = Value(TokenType(), "t").tensor
    builder = GraphBuilder()
    node = builder.add("sort", builder.input(F23), attributes={"axis": 0})
    with pytest.raises(TypeInferenceError, match="sort has 2 results"):
        _ = node.output


def test_users_and_walk() -> None:
    graph = parse("""graph @main(%x: f32[2,3]) {
  %y = mul(%x, %x) : f32[2,3]
  %z = fusion(%y) : f32[2,3] {
    graph @body(%a: f32[2,3]) {
      %b = neg(%a) : f32[2,3]
      return %b
    }
  }
  return %y, %z
}""")
    (x,), (multiply, fusion) = graph.inputs, graph.nodes
    assert graph.users[x] == (multiply, multiply)
    assert graph.users[multiply.output] == (fusion,)
    assert [node.op for node in graph.walk()] == ["mul", "fusion", "neg"]
    assert graph.output_set == {multiply.output, fusion.output}


def two_relus() -> Graph:
    return parse("""graph @main(%x: f32[2]) {
  %scale = constant() {value = const f32[2] [1.0, 2.0]} : f32[2] at ("m", "", "get_attr")
  %a = relu(%x) : f32[2] at ("m.act", "model.py:7", "aten.relu")
  %b = mul(%a, %scale) : f32[2]
  %c = relu(%b) : f32[2]
  return %c, %x
}
""")


def test_a_rewriter_without_rules_copies() -> None:
    graph = two_relus()
    copy = Rewriter(graph).run({})
    assert print_graph(copy) == print_graph(graph)
    assert not set(copy.values()) & set(graph.values())


def test_rules_replace_nodes_where_they_apply() -> None:
    def first_only(rewriter: Rewriter, node: Node) -> list[Value] | None:
        if node.inputs[0].node is not None:
            return None
        return [rewriter.builder.call("abs", rewriter[node.inputs[0]])]

    graph = Rewriter(two_relus()).run({"relu": first_only})
    verify(graph)
    assert (
        print_graph(graph)
        == """graph @main(%x: f32[2]) {
  %scale = constant() {value = const f32[2] [1.0, 2.0]} : f32[2] at ("m", "", "get_attr")
  %0 = abs(%x) : f32[2] at ("m.act", "model.py:7", "aten.relu")
  %b = mul(%0, %scale) : f32[2]
  %c = relu(%b) : f32[2]
  return %c, %x
}
"""
    )


def test_a_rule_may_remove_a_node_and_replace_a_constant() -> None:
    def forward(rewriter: Rewriter, node: Node) -> list[Value]:
        return [rewriter[node.inputs[0]]]

    def ones(rewriter: Rewriter, node: Node) -> list[Value]:
        return [rewriter.builder.constant(ArrayConstant(np.ones(2, np.float32)))]

    graph = Rewriter(two_relus()).run({"relu": forward, "constant": ones})
    verify(graph)
    assert [node.op for node in graph.nodes] == ["constant", "mul"]
    assert graph.outputs[1] is graph.inputs[0]
    assert np.array_equal(graph.nodes[0].attributes["value"].array(), [1, 1])  # type: ignore[union-attr]


def test_copy_returns_the_new_node_of_a_constant() -> None:
    graph = two_relus()
    rewriter = Rewriter(graph)
    copied = rewriter.copy(graph.nodes[0])
    assert copied is not graph.nodes[0]
    assert copied.location == Location("m", "", "get_attr")
    assert rewriter[graph.nodes[0].output] is copied.output


def test_networkx_view() -> None:
    graph = two_relus()
    view = to_networkx(graph)
    scale, first, multiply, second = graph.nodes
    assert set(view.nodes) == {graph.inputs[0], *graph.nodes}
    assert set(view.edges()) == {(graph.inputs[0], first), (first, multiply), (scale, multiply), (multiply, second)}
    assert view.edges[scale, multiply, 0] == {"value": scale.output, "operand": 1}
    assert view.graph["outputs"] == graph.outputs
    assert networkx.is_directed_acyclic_graph(view)


@given(graphs())
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
def test_networkx_view_of_any_graph(graph: Graph) -> None:
    view = to_networkx(graph)
    assert view.number_of_edges() == sum(len(node.inputs) for node in graph.nodes)
    position = {node: index for index, node in enumerate(graph.nodes)}
    assert all(position.get(source, -1) < position[target] for source, target in view.edges())


def test_canonical_text() -> None:
    text = print_graph(canonicalise(two_relus()))
    assert (
        text
        == """graph @task(%p0: f32[2]) {
  %0 = constant() {value = const f32[2] [1.0, 2.0]} : f32[2]
  %1 = relu(%p0) : f32[2]
  %2 = mul(%1, %0) : f32[2]
  %3 = relu(%2) : f32[2]
  return %3, %p0
}
"""
    )
    other = parse(re.sub(r"@main", "@forward", re.sub(r"%(\w)", r"%renamed.\1", print_graph(two_relus()))))
    assert print_graph(canonicalise(other)) == text
    assert print_graph(canonicalise(parse(print_graph(two_relus()).replace("2.0", "3.0")))) != text
    # The original is as it was.
    assert [value.name for value in two_relus().values()] == ["x", "scale", "a", "b", "c"]
