"""Makes failing graphs small, and keeps them failing in the same way (Zeller and Hildebrandt, "Simplifying and isolating
failure-inducing input", 2002, over graphs in the place of lists)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir import Graph, Interpreter, Node, Value
from .oracle import Failure, Settings, check_graph
from .rebuilding import rebuild

Check = Callable[[Graph, Sequence[np.ndarray]], Failure | None]
"""The failure of a graph on some inputs, if any; may raise for graphs that mean nothing."""


@dataclass(frozen=True)
class Reduced:
    """A smaller graph that fails like the original, with its inputs; ``steps`` reductions were made."""

    graph: Graph
    inputs: tuple[np.ndarray, ...]
    failure: Failure
    steps: int


def reduce_graph(
    graph: Graph, inputs: Sequence[np.ndarray], failure: Failure, settings: Settings, *, seconds: float = 30.0, check: Check | None = None
) -> Reduced:
    """Drops outputs, cuts values off their producers, replaces nodes by their operands, and shrinks extents, as long as the graph
    fails at the same stage in the same way, for at most ``seconds``."""
    fails = check or (lambda smaller, given: check_graph(smaller, given, settings).failure)
    deadline = time.monotonic() + seconds
    best = Reduced(graph, tuple(inputs), failure, 0)
    progress = True
    while progress:
        progress = False
        for smaller, given in _candidates(best.graph, best.inputs):
            if time.monotonic() > deadline:
                return best
            try:
                found = fails(smaller, given)
            except Exception:  # no meaning on these inputs, such as an index out of range
                continue
            if found is not None and failure.alike(found):
                best = Reduced(smaller, tuple(given), found, best.steps + 1)
                progress = True
                break
    return best


Candidate = tuple[Graph, list[np.ndarray]]


def _candidates(graph: Graph, inputs: Sequence[np.ndarray]) -> Iterator[Candidate]:
    """Smaller graphs with inputs, the much smaller first."""
    known = dict(zip(graph.inputs, inputs, strict=True))
    try:
        values = _values(graph, inputs)
    except Exception:
        values = known
    for attempt in (_single_outputs, _fewer_outputs, _cuts, _bypasses, _extents):
        for make in attempt(graph):
            try:
                smaller = make()
            except Exception:  # not well-typed
                continue
            if _size(smaller) < _size(graph):
                yield smaller, _inputs(graph, smaller, values)


def _size(graph: Graph) -> tuple[int, int, int]:
    elements = sum(value.tensor.elements for value in graph.values())
    return len(graph.nodes), len(graph.outputs) + len(graph.inputs), elements


Make = Callable[[], Graph]


def _single_outputs(graph: Graph) -> Iterator[Make]:
    if len(graph.outputs) > 1:
        yield from (lambda value=value: rebuild(graph, [value]) for value in graph.outputs)


def _fewer_outputs(graph: Graph) -> Iterator[Make]:
    for position in range(len(graph.outputs)):
        rest = [*graph.outputs[:position], *graph.outputs[position + 1 :]]
        if rest:
            yield lambda rest=rest: rebuild(graph, rest)  # type: ignore[misc]


def _cuts(graph: Graph) -> Iterator[Make]:
    """A value in the middle as an input: the later it is, the more goes."""
    for node in reversed(graph.nodes):
        if node.op != "constant":
            for value in node.outputs:
                if value not in graph.output_set:
                    yield lambda value=value: rebuild(graph, cut={value: None})  # type: ignore[misc]
    for node in graph.nodes:
        # An output that is a value before the end.
        if node.op != "constant":
            yield lambda node=node: rebuild(graph, [node.output])  # type: ignore[misc]


def _bypasses(graph: Graph) -> Iterator[Make]:
    """A node replaced by an operand, or another value made before, of the same type."""
    for node in reversed(graph.nodes):
        for value in node.outputs:
            for other in _replacements(graph, node, value):
                yield lambda value=value, other=other: rebuild(graph, cut={value: other})  # type: ignore[misc]


def _replacements(graph: Graph, node: Node, value: Value) -> list[Value]:
    return [other for other in dict.fromkeys([*node.inputs, *graph.inputs]) if other.type == value.type and other is not value]


def _extents(graph: Graph) -> Iterator[Make]:
    """Every dimension of one extent made smaller."""
    present = sorted({int(extent) for value in graph.values() for extent in value.tensor.static_shape}, reverse=True)
    for old in present:
        for new in dict.fromkeys((1, 2, old // 2, old - 1)):
            if 0 < new < old:
                yield lambda old=old, new=new: rebuild(graph, extent=lambda extent: new if extent == old else extent)  # type: ignore[misc]


def _inputs(graph: Graph, smaller: Graph, values: dict[Value, np.ndarray]) -> list[np.ndarray]:
    """Data for the inputs of ``smaller``: what the values of that name held, cut to size."""
    by_name = {value.name: array for value, array in values.items()}
    arrays = []
    for value in smaller.inputs:
        shape, dtype = value.tensor.static_shape, value.tensor.dtype.numpy
        array = by_name.get(value.name)
        if array is None or array.ndim != len(shape):
            array = np.ones(shape)
        array = array[tuple(slice(0, extent) for extent in shape)]
        if array.shape != shape:
            array = np.resize(array, shape)
        with np.errstate(all="ignore"):
            arrays.append(np.array(array, dtype, order="C"))
    return arrays


def _values(graph: Graph, inputs: Sequence[np.ndarray]) -> dict[Value, np.ndarray]:
    """Every value of the graph, as interpreted."""
    found = dict(zip(graph.inputs, inputs, strict=True))

    class Recorder(Interpreter):
        def node(self, node: Node, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
            results = super().node(node, inputs)
            if self.graph is graph:
                found.update(zip(node.outputs, results, strict=True))
            return results

        def region(self, region: Graph, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
            return Interpreter(region, wide=self.wide).run(inputs)

    Recorder(graph).run(inputs)
    return found
