"""Runs graphs with the NumPy references: slow, and the definition of what every kernel must compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import SignatureError
from .graph import Graph, Node, Value
from .ops import lookup


def interpret(graph: Graph, inputs: Sequence[np.ndarray], *, wide: bool = False) -> tuple[np.ndarray, ...]:
    """The outputs of ``graph`` for ``inputs`` (arrays in logical order).

    Every operation computes floats in float64. Its results are rounded to the value's dtype, or kept in float64 if ``wide``: the
    reference against which errors are measured. SignatureError when the inputs do not fit.
    """
    _check_inputs(graph, inputs)
    interpreter = Interpreter(graph, wide=wide)
    return interpreter.run([np.asarray(array) for array in inputs])


class Interpreter:
    """Evaluates a graph node by node. Subclasses override :meth:`node` to watch or replace single steps."""

    def __init__(self, graph: Graph, *, wide: bool = False) -> None:
        self.graph = graph
        self.wide = wide

    def run(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        values: dict[Value, np.ndarray] = dict(zip(self.graph.inputs, inputs, strict=True))
        last_use = _last_uses(self.graph)
        for position, node in enumerate(self.graph.nodes):
            results = self.node(node, [values[value] for value in node.inputs])
            values.update(zip(node.outputs, results, strict=True))
            for value in {*node.inputs, *node.outputs}:
                if last_use.get(value, position) <= position and value not in self.graph.output_set:
                    values.pop(value, None)
        return tuple(values[value] for value in self.graph.outputs)

    def node(self, node: Node, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The results of one node, rounded to their types."""
        if node.op == "fusion":
            return type(self)(node.regions[0], wide=self.wide).run(inputs)
        results = lookup(node.op).evaluate(inputs, node.attributes)
        return [self.round(result, value) for result, value in zip(results, node.outputs, strict=True)]

    def round(self, array: np.ndarray, value: Value) -> np.ndarray:
        dtype = value.tensor.dtype
        if dtype.is_float and self.wide:
            return np.asarray(array, dtype=np.float64)
        with np.errstate(all="ignore"):
            return np.asarray(array).astype(dtype.numpy)


def _last_uses(graph: Graph) -> Mapping[Value, int]:
    return {value: position for position, node in enumerate(graph.nodes) for value in node.inputs}


def _check_inputs(graph: Graph, inputs: Sequence[np.ndarray]) -> None:
    if len(inputs) != len(graph.inputs):
        raise SignatureError(f"graph @{graph.name} takes {len(graph.inputs)} inputs, got {len(inputs)}")
    bound: dict[str, int] = {}
    for value, array in zip(graph.inputs, inputs, strict=True):
        array = np.asarray(array)
        type = value.tensor
        fits = array.ndim == type.rank
        for dim, extent in zip(type.shape, array.shape, strict=False):
            if isinstance(dim, int):
                fits = fits and dim == extent
            elif dim.is_symbol:
                fits = fits and bound.setdefault(str(dim), extent) == extent
        if not fits:
            raise SignatureError(f"input %{value.name} of graph @{graph.name} is {type}, got an array of shape {list(array.shape)}")
