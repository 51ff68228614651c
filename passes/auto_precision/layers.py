"""The layers of a graph that a precision mode can lower, and which of them are decided together."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from ...ir import Constant, DType, Graph, Node
from ..encode_weights import WEIGHTS


@dataclass(frozen=True)
class Layer:
    """What gets one mode: nodes with constant weights, and the modules that they belong to.

    Those of one module are decided together, since modes go by module, and so are linear layers over the same value (queries, keys and
    values), which with one mode can become one layer.
    """

    nodes: tuple[Node, ...]
    modules: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Elements of the weights."""
        return sum(weight_of(node).type.elements for node in self.nodes)


def weight_position(node: Node) -> int:
    """Which operand of a layer's node is its weight."""
    return WEIGHTS[node.op][0]


def weight_of(node: Node) -> Constant:
    """The constant weight of a layer's node."""
    constant = node.inputs[weight_position(node)].constant
    assert constant is not None
    return constant


def layers_of(graph: Graph) -> tuple[Layer, ...]:
    """The layers of ``graph`` in order. Those within control flow are left out, and so keep fp32."""
    nodes = [node for node in graph.nodes if _is_layer(node)]
    together: nx.Graph[object] = nx.Graph()
    for node in nodes:
        together.add_edge(node, ("module", node.location.module))
        if node.op == "linear":
            together.add_edge(node, ("operand", node.inputs[0]))
    order = {node: position for position, node in enumerate(nodes)}
    parts = ([item for item in part if isinstance(item, Node)] for part in nx.connected_components(together))
    groups = [sorted(part, key=order.__getitem__) for part in parts]
    groups.sort(key=lambda group: order[group[0]])
    return tuple(Layer(tuple(group), tuple(dict.fromkeys(node.location.module for node in group))) for group in groups)


def _is_layer(node: Node) -> bool:
    if node.op not in WEIGHTS:
        return False
    weight = node.inputs[weight_position(node)]
    known = weight.constant is not None and weight.tensor.dtype is DType.FLOAT32 and weight.tensor.encoding.is_dense
    return known and node.inputs[0].constant is None and node.inputs[0].tensor.dtype is DType.FLOAT32
