"""Random well-typed graphs over the registry of operations.

A graph grows node by node: a step picks values made so far (the latest more often, so that chains and fan-out both arise) and adds an
operation with drawn attributes. What an operation does not take is drawn again. Values that would overflow or hit an undefined case (a
logarithm of a large number is fine, an integer division by zero is not) are limited before.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import Error
from ..ir import Graph, Value
from .rebuilding import rebuild
from .steps.contractions import ContractionSteps
from .steps.control import ControlSteps
from .steps.drawing import MAX_ELEMENTS, draw_array
from .steps.elementwise import ElementwiseSteps
from .steps.indexing import IndexingSteps
from .steps.movement import MovementSteps
from .steps.reductions import ReductionSteps

_ATTEMPTS = 60

_WEIGHTS = {
    "unary": 4,
    "unary_any": 2,
    "binary": 5,
    "binary_float": 2,
    "binary_integer": 1,
    "cast": 1.5,
    "where": 1,
    "constant": 1,
    "full": 1,
    "iota": 0.5,
    "reshape": 2,
    "permute": 2,
    "broadcast": 1,
    "concat": 1,
    "flip": 0.6,
    "pad": 0.8,
    "slice": 2,
    "relayout": 0.6,
    "reduce": 2.5,
    "scan": 0.6,
    "softmax": 1,
    "norm": 1.5,
    "linear": 1.5,
    "matmul": 1.5,
    "conv": 1.5,
    "conv_transpose": 0.5,
    "window": 1,
    "resample": 0.5,
    "attention": 0.5,
    "sort": 0.5,
    "take": 1,
    "scatter": 0.8,
    "grouped": 0.2,
    "monarch": 0.2,
    "quantise": 0.3,
    "cond": 0.2,
    "loop": 0.3,
}
"""How often each kind of step is tried."""


def random_graph(generator: np.random.Generator, nodes: int | None = None) -> Graph:
    """A valid graph of about ``nodes`` operations (default: up to 16) with one to four outputs."""
    maker = _Maker(generator)
    for _ in range(nodes or int(generator.integers(2, 16))):
        maker.step()
    return maker.finish()


def random_inputs(graph: Graph, generator: np.random.Generator) -> list[np.ndarray]:
    """Logical arrays for the inputs: floats of size 1 (some whole, some zero), small integers, either boolean."""
    arrays = []
    for value in graph.inputs:
        shape, dtype = value.tensor.static_shape, value.tensor.dtype
        arrays.append(draw_array(generator, shape, dtype))
    return arrays


class _Maker(ElementwiseSteps, MovementSteps, ReductionSteps, ContractionSteps, IndexingSteps, ControlSteps):
    """A graph that grows by the steps of ``_WEIGHTS``, which are methods of that name."""

    def step(self) -> None:
        names, weights = list(_WEIGHTS), np.array(list(_WEIGHTS.values()))
        chances = weights / weights.sum()
        for _ in range(_ATTEMPTS):
            make: Callable[[], Value | list[Value]] = getattr(self, names[int(self.generator.choice(len(names), p=chances))])
            before = len(self.builder._nodes), len(self.builder._inputs), dict(self.builder._constants)
            try:
                made = make()
                values = [made] if isinstance(made, Value) else made
                if any(not value.tensor.is_static or value.tensor.elements > MAX_ELEMENTS for value in values):
                    raise Error("too large")
            except Error:
                del self.builder._nodes[before[0] :], self.builder._inputs[before[1] :]
                self.builder._constants = before[2]
                continue
            self.pool += values
            return

    def finish(self) -> Graph:
        used = {value for node in self.builder._nodes for value in node.inputs}
        leaves = [value for value in self.pool if value not in used and value.node is not None]
        outputs = leaves[-4:] or [self.pool[-1]]
        if self.chance(0.3):
            outputs.append(self.choice(self.pool))
        outputs = [self.builder.call("relayout", value) if _strange(value) else value for value in outputs]
        return rebuild(self.builder.finish(outputs))


def _strange(value: Value) -> bool:
    return not value.tensor.layout.is_row_major
