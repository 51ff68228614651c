"""Runs graphs with the NumPy references: slow, and the definition of what every kernel must compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import SignatureError, TypeInferenceError
from .graph import Attribute, Graph, Node, Value
from .ops import Attributes, lookup
from .ops.attributes import is_expression
from .types import Dim, DType, Kind, TensorType, TokenType, symbol


def interpret(graph: Graph, inputs: Sequence[np.ndarray], *, wide: bool = False) -> tuple[np.ndarray, ...]:
    """The outputs of ``graph`` for ``inputs`` (arrays in logical order; for a state token what its buffer holds, before and after).

    Every operation computes floats in float64. Its results are rounded to the value's dtype, or kept in float64 if ``wide``: the
    reference against which errors are measured. Encoded constants are the numbers that they decode to, and so are inputs, of a region,
    that have an encoding. SignatureError when the inputs do not fit; TypeInferenceError when any other value has an encoding. What NumPy
    raises where an operation is undefined (an index out of range) names the node in a note.
    """
    return Interpreter(graph, wide=wide).run(_checked_inputs(graph, inputs, wide))


class Interpreter:
    """Evaluates a graph node by node. Subclasses override :meth:`node` to watch or replace single steps."""

    def __init__(self, graph: Graph, *, wide: bool = False) -> None:
        self.graph = graph
        self.wide = wide

    def run(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        values: dict[Value, np.ndarray] = dict(zip(self.graph.inputs, inputs, strict=True))
        for node in self.graph.nodes:
            if node.op != "constant":
                _require_dense(node)
        self.symbols = bind_symbols(self.graph, inputs)
        last_use = _last_uses(self.graph)
        for position, node in enumerate(self.graph.nodes):
            try:
                results = self.node(node, [values[value] for value in node.inputs])
            except Exception as error:
                error.add_note(f"while interpreting {node!r} ({node.location}) of graph @{self.graph.name}")
                raise
            values.update(zip(node.outputs, results, strict=True))
            for value in {*node.inputs, *node.outputs}:
                if last_use.get(value, position) <= position and value not in self.graph.output_set:
                    values.pop(value, None)
        return tuple(values[value] for value in self.graph.outputs)

    def node(self, node: Node, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The results of one node, rounded to their types."""
        match node.op:
            case "fusion":
                return self.region(node.regions[0], inputs)
            case "cond":
                predicate, *operands = inputs
                return self.region(node.regions[0 if predicate else 1], operands)
            case "while":
                condition, body = node.regions
                while self.region(condition, inputs)[0]:
                    inputs = self.region(body, inputs)
                return inputs
            case "loop":
                return self.loop(node, inputs)
        results = lookup(node.op).evaluate(inputs, self.attributes(node))
        return [self.round(result, value) for result, value in zip(results, node.outputs, strict=True)]

    def loop(self, node: Node, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The results of a counted loop."""
        (body,) = node.regions
        attributes = self.attributes(node)
        trips, count, sliced = (int(attributes[name]) for name in ("trips", "carried", "sliced"))
        carried, sequences, invariants = inputs[:count], inputs[count : count + sliced], inputs[count + sliced :]
        rounds = range(trips)[::-1] if attributes["reverse"] else range(trips)
        stacked: list[np.ndarray] = []
        for value in node.outputs[count:]:
            shape = _substitute(value.tensor.shape, self.symbols)
            wide = self.wide and value.tensor.dtype.is_float
            stacked.append(np.zeros(shape, np.float64 if wide else value.tensor.dtype.numpy))  # type: ignore[arg-type]
        for index in rounds:
            results = self.region(body, [*carried, *(sequence[index] for sequence in sequences), *invariants])
            carried = results[:count]
            for whole, piece in zip(stacked, results[count:], strict=True):
                whole[index] = piece
        return [*carried, *stacked]

    def region(self, region: Graph, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The outputs of a nested graph."""
        return type(self)(region, wide=self.wide).run(inputs)

    def attributes(self, node: Node) -> Attributes:
        """The attributes of ``node`` with every symbol replaced by its extent in this run."""
        if not self.graph.symbols:
            return node.attributes
        return {name: _substitute(value, self.symbols) for name, value in node.attributes.items()}

    def round(self, array: np.ndarray, value: Value) -> np.ndarray:
        tensor = value.type.buffer if isinstance(value.type, TokenType) else value.type
        if tensor is None:
            return array
        if tensor.dtype.is_float and self.wide:
            return np.asarray(array, dtype=np.float64)
        with np.errstate(all="ignore"):
            return tensor.dtype.rounded(np.asarray(array))


def bind_symbols(graph: Graph, inputs: Sequence[np.ndarray]) -> dict[str, int]:
    """The extents of the graph's symbols in arrays for its inputs; SignatureError when a shape does not fit.

    A symbol is bound by an input dimension that is just this symbol; other expressions are then compared.
    """
    bound: dict[str, int] = {}
    for value, array in zip(graph.inputs, inputs, strict=True):
        for dim, extent in zip(_shape(value), np.shape(array), strict=False):
            if not isinstance(dim, int) and dim.is_Symbol:
                bound.setdefault(str(dim), extent)
    for value, array in zip(graph.inputs, inputs, strict=True):
        shape = tuple(_substitute(dim, bound) for dim in _shape(value))
        fits = len(shape) == np.ndim(array) and all(
            dim == extent or is_expression(dim) for dim, extent in zip(shape, np.shape(array), strict=True)
        )
        if not fits and not _is_bare_token(value):
            raise SignatureError(
                f"input %{value.name} of graph @{graph.name} is {value.type}, got an array of shape {list(np.shape(array))}"
                + (f" (where {', '.join(f'{name} is {extent}' for name, extent in bound.items())})" if bound else "")
            )
    for name, extent in bound.items():
        limits = graph.symbols.get(name)
        if limits is not None and not (limits.lower <= extent and (limits.upper is None or extent <= limits.upper)):
            upper = "" if limits.upper is None else limits.upper
            raise SignatureError(f"{name} is {extent} in the inputs of graph @{graph.name}, it must be in {limits.lower}..{upper}")
    return bound


def _checked_inputs(graph: Graph, inputs: Sequence[np.ndarray], wide: bool) -> list[np.ndarray]:
    """The inputs with the dtypes of their types; SignatureError when their number or kind (integer, float) differ."""
    if len(inputs) != len(graph.inputs):
        raise SignatureError(f"graph @{graph.name} takes {len(graph.inputs)} inputs, got {len(inputs)}")
    checked = []
    for value, given in zip(graph.inputs, inputs, strict=True):
        array = np.asarray(given)
        tensor = value.type.buffer if isinstance(value.type, TokenType) else value.type
        if tensor is None:
            checked.append(array)
            continue
        kind = DType.from_numpy(array.dtype).kind
        if kind is not tensor.dtype.kind or (kind is Kind.INTEGER and array.dtype != tensor.dtype.numpy):
            raise SignatureError(f"input %{value.name} of graph @{graph.name} is {value.type}, got an array of {array.dtype}")
        with np.errstate(all="ignore"):
            checked.append(array if wide and kind is Kind.FLOAT else array.astype(tensor.dtype.numpy, copy=False))
    return checked


def _shape(value: Value) -> tuple[Dim, ...]:
    tensor = value.type.buffer if isinstance(value.type, TokenType) else value.type
    return tensor.shape if tensor is not None else ()


def _is_bare_token(value: Value) -> bool:
    return isinstance(value.type, TokenType) and value.type.buffer is None


def _substitute(value: Attribute, bound: Mapping[str, int]) -> Attribute:
    if isinstance(value, tuple):
        return tuple(_substitute(item, bound) for item in value)
    if is_expression(value):
        replaced = value.subs({symbol(name): extent for name, extent in bound.items()})  # type: ignore[union-attr]
        return int(replaced) if replaced.is_Integer else replaced
    return value


def _require_dense(node: Node) -> None:
    for value in node.outputs:
        if isinstance(value.type, TensorType) and not value.type.encoding.is_dense:
            raise TypeInferenceError(f"%{value.name} is {value.type}: only constants are held encoded, {node.op} computes dense values")


def _last_uses(graph: Graph) -> Mapping[Value, int]:
    return {value: position for position, node in enumerate(graph.nodes) for value in node.inputs}
