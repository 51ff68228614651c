"""Each rule of the verifier, broken once."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from mlc.errors import VerificationError
from mlc.ir import (
    ArrayConstant,
    DType,
    Graph,
    GraphBuilder,
    Layout,
    Location,
    Node,
    SymbolRange,
    TensorType,
    TokenType,
    Value,
    parse,
    symbol,
    verify,
)

F2 = TensorType(DType.FLOAT32, (2,))


def relu(x: Value, name: str, type: TensorType = F2) -> Node:
    node = Node("relu", [x], {}, [type], (), Location("layers.0", "model.py:12", "aten.relu"))
    node.output.name = name
    return node


def unary(change: Callable[[Value, Node], Graph]) -> Graph:
    """What ``change`` makes of an input and a relu of it."""
    x = Value(F2, "x")
    return change(x, relu(x, "y"))


def named(node: Node, *names: str) -> Node:
    for value, name in zip(node.outputs, names, strict=True):
        value.name = name
    return node


def undefined_operand() -> Graph:
    stranger = Value(F2, "stranger")
    return unary(lambda x, y: Graph((x,), (relu(stranger, "y"),), ()))


def use_before_definition() -> Graph:
    return unary(lambda x, y: Graph((x,), (relu(y.output, "z"), y), ()))


def region_that_reads_outside() -> Graph:
    x = Value(F2, "x")
    body = Graph((Value(F2, "a"),), (relu(x, "b"),), ())
    return Graph((x,), (Node("fusion", [x], {}, [], [body]),), ())


def fusion_with_another_layout() -> Graph:
    type = TensorType(DType.FLOAT32, (2, 3))
    x, a = Value(type, "x"), Value(type, "a")
    fusion = Node("fusion", [x], {}, [type.with_layout(Layout((1, 0)))], [Graph((a,), (), (a,), "body")])
    return Graph((x,), (named(fusion, "y"),), fusion.outputs)


def token_consumed_twice(as_output: bool) -> Graph:
    state, x = Value(TokenType(F2), "s"), Value(F2, "x", None, 1)
    first = named(Node("state_write", [state, x], {}, [TokenType(F2)]), "t")
    second = named(Node("state_write", [state, x], {}, [TokenType(F2)]), "u")
    return Graph((state, x), (first,), (state,)) if as_output else Graph((state, x), (first, second), ())


def wrong_back_pointer() -> Graph:
    def change(x: Value, y: Node) -> Graph:
        y.output.index = 1
        return Graph((x,), (y,), ())

    return unary(change)


def with_attributes(**attributes: object) -> Graph:
    x = Value(F2, "x")
    return Graph((x,), (named(Node("softmax", [x], attributes, [F2]), "y"),), ())  # type: ignore[arg-type]


def symbolic(shape: tuple[object, ...], symbols: dict[str, SymbolRange]) -> Graph:
    return Graph((Value(TensorType(DType.FLOAT32, shape), "x"),), (), (), symbols=symbols)  # type: ignore[arg-type]


def symbol_in_attribute() -> Graph:
    node = Node("iota", [], {"size": symbol("n"), "start": 0, "step": 1, "dtype": DType.INT64}, [TensorType(DType.INT64, (3,))])
    return Graph((), (named(node, "y"),), ())


def foreign_symbol() -> Graph:
    import sympy

    return symbolic((sympy.Symbol("n"),), {"n": SymbolRange()})


def constant_of_another_type() -> Graph:
    node = Node("constant", [], {"value": ArrayConstant(np.zeros(3, np.float32))}, [F2])
    return Graph((), (named(node, "c"),), ())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            undefined_operand,
            "%y = relu(%stranger) (aten.relu, in module 'layers.0', model.py:12) uses %stranger, which is not defined before",
        ),
        (use_before_definition, "uses %y, which is not defined before it"),
        (region_that_reads_outside, "region @main of  = fusion(%x): %b = relu(%x) (aten.relu"),
        (lambda: unary(lambda x, y: Graph((x,), (y,), (Value(F2, "z"),))), "output 0 is %z, which is not defined"),
        (lambda: unary(lambda x, y: Graph((x,), (y, y), ())), "%y is defined twice, the second time by %y = relu(%x)"),
        (lambda: unary(lambda x, y: Graph((x, x), (y,), ())), "input 1 (%x) says it is number 0"),
        (lambda: unary(lambda x, y: Graph((y.output,), (), ())), "input 0 (%y) is the result of"),
        (lambda: unary(lambda x, y: Graph((x,), (relu(x, "x"),), ())), "defines a value with the taken name %x"),
        (lambda: unary(lambda x, y: Graph((x,), (relu(x, ""),), ())), "defines a value with no name"),
        (lambda: unary(lambda x, y: Graph((x,), (relu(x, "a b"),), ())), "with the name 'a b', which must match"),
        (lambda: unary(lambda x, y: Graph((x,), (y,), (), "my graph")), "the name 'my graph' must match"),
        (wrong_back_pointer, "result 0 of %y = relu(%x) does not point back to it"),
        (
            lambda: unary(lambda x, y: Graph((x,), (relu(x, "z", TensorType(DType.FLOAT32, (3,))),), ())),
            "%z of %z = relu(%x) is f32[3], relu yields f32[2]",
        ),
        (lambda: unary(lambda x, y: Graph((x,), (relu(x, "z", TensorType(DType.FLOAT64, (2,))),), ())), "is f64[2], relu yields f32[2]"),
        (lambda: unary(lambda x, y: Graph((x,), (named(Node("relu", [x], {}, [F2, F2]), "a", "b"),), ())), "has 2 results, relu yields 1"),
        (lambda: unary(lambda x, y: Graph((x,), (named(Node("relu", [x, x], {}, [F2]), "a"),), ())), "relu(x) got 2 operands"),
        (lambda: unary(lambda x, y: Graph((x,), (named(Node("rleu", [x], {}, [F2]), "a"),), ())), "there is no operation 'rleu'"),
        (
            lambda: unary(lambda x, y: Graph((x,), (named(Node("relu", [x], {}, [F2], [Graph((), (), ())]), "a"),), ())),
            "relu takes no regions",
        ),
        (lambda: with_attributes(), "softmax needs the attribute 'axis'"),
        (lambda: with_attributes(axis=0, eps=1.0), "softmax has no attribute 'eps'"),
        (lambda: with_attributes(axis=-1), "'axis' is -1, it must be an axis, counted from the front"),
        (lambda: with_attributes(axis=[0]), "'axis' is [0]"),
        (lambda: with_attributes(axis=np.int64(0)), "'axis' is"),
        (fusion_with_another_layout, "is f32[2,3]{1,0}, fusion yields f32[2,3]"),
        (lambda: token_consumed_twice(False), "uses %s, a token that is consumed before"),
        (lambda: token_consumed_twice(True), "output 0 is %s, a token that is consumed before"),
        (lambda: symbolic((symbol("n"),), {}), "%x has type f32[n], but the symbol n is not declared"),
        (lambda: symbolic((), {"a b": SymbolRange()}), "the symbol 'a b' must match"),
        (foreign_symbol, "has other assumptions than those of mlc.ir.types.symbol"),
        (symbol_in_attribute, "iota yields i64[n]"),
        (constant_of_another_type, "is f32[2], constant yields f32[3]"),
    ],
)
def test_broken_rule(make: Callable[[], Graph], message: str) -> None:
    with pytest.raises(VerificationError, match=re.escape(message)):
        verify(make())


def test_a_symbol_of_an_attribute_must_be_declared() -> None:
    builder = GraphBuilder(symbols={"n": SymbolRange()})
    graph = builder.finish([builder.call("reduce", builder.call("iota", size=symbol("n")), kind="sum", axes=(0,))])
    verify(graph)
    with pytest.raises(VerificationError, match=r"symbol n is not declared"):
        verify(Graph(graph.inputs, graph.nodes, graph.outputs))


def test_layout_and_encoding_of_results_are_free() -> None:
    verify(parse("graph @g(%x: f32[2,8]) {\n  %y = relu(%x) : f32[2,8]{1,0:1x4} as nm_sparse(n=2, m=4, axis=1)\n  return %y\n}"))


def test_inner_regions_are_verified() -> None:
    inner = Value(F2, "a")
    bad = Graph((inner,), (relu(inner, "a"),), (), "body")
    x = Value(F2, "x")
    graph = Graph((x,), (Node("fusion", [x], {}, [], [bad]),), ())
    with pytest.raises(VerificationError, match=r"region @body of .* taken name %a"):
        verify(graph)
