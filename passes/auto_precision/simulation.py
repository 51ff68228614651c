"""The model with some layers lowered, without packing a weight anew: what lowering changes of a layer's result is added to it.

One graph is compiled, that in fp32 with one more input for each layer, added to its result, and with the layers' operands among its
outputs. A run with zeros records the operands. What a mode changes of a result is computed from them, for one layer at a time, and a run
with these changes tells what becomes of the model's results: exact for one layer, and for several to first order, since each change is that
for the operand in fp32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...codegen.precision import Mode, Precision
from ...ir import DType, Encoding, Graph, Node, Rewriter, Value, lookup, relative_error
from ..base import Context
from ..calibration import Observation, observations_of
from ..pipeline import Pipeline
from ..weight_codes import lost_by_rounding
from .layers import Layer, weight_of, weight_position
from .rounding import Operand, Rounding, rounded_operand, rounding_of

Arrays = Sequence[np.ndarray]
Changes = Sequence[Mapping[Node, np.ndarray]]
"""For each sample, what is added to the results of nodes."""


@dataclass(frozen=True)
class _Record:
    """A run in fp32: the inputs, the results, and the operands of layers."""

    inputs: Arrays
    results: Arrays
    operands: Mapping[Value, np.ndarray]


class Simulation:
    """Runs ``graph`` with any of ``layers`` in any mode, on samples of its inputs, with the context's evaluator.

    Weights have the very numbers that their mode decodes to; operands are rounded as kernels for narrow operands round them, those in bytes
    to the range that they take in the context's calibration, or without one to that of each row.
    """

    def __init__(self, graph: Graph, layers: Sequence[Layer], samples: Sequence[Arrays], ctx: Context) -> None:
        assert ctx.evaluator is not None
        self._ctx = ctx
        self._evaluate = ctx.evaluator
        self._nodes = [node for layer in layers for node in layer.nodes]
        operands = dict.fromkeys(value for node in self._nodes for value in _variables(node))
        self._observed = [value for value in operands if value.node is not None and value not in graph.output_set]
        self._results = len(graph.outputs)
        self._weights: dict[Node, tuple[Encoding | DType, np.ndarray]] = {}
        self._source = graph
        self._graph = _opened(graph, self._nodes, self._observed)
        self._zeros = {node: np.zeros(node.output.tensor.static_shape, np.float32) for node in self._nodes}
        self._records = [self._recorded(sample) for sample in samples]
        self._observations = self._observed_operands()

    def changes(self, layer: Layer, mode: Mode) -> Changes | None:
        """What ``mode`` changes of the results of the nodes of ``layer`` when it alone is lowered; None where it changes nothing."""
        self._weights = {node: kept for node, kept in self._weights.items() if node in layer.nodes}
        found: list[dict[Node, np.ndarray]] = [{} for _ in self._records]
        for node in layer.nodes:
            rounding = rounding_of(node, mode, self._ctx)
            if rounding is None:
                continue
            rounded = self._rounded_weight(node, rounding)
            difference = rounded - weight_of(node).array()
            for record, each in zip(self._records, found, strict=True):
                each[node] = self._change(node, rounding.operand, rounded, difference, record.operands)
        return found if found and found[0] else None

    def error(self, changes: Iterable[Changes], count: int | None = None) -> float:
        """The relative error of the model's results with all of ``changes``, the worst of the first ``count`` samples (None: of all)."""
        given = list(changes)
        worst = 0.0
        for number, record in enumerate(self._records[:count]):
            added = self._zeros | {node: change for each in given for node, change in each[number].items()}
            results = self._evaluate(self._graph, [*record.inputs, *(added[node] for node in self._nodes)])[: self._results]
            worst = max(worst, relative_error(results, record.results))
        return worst

    def _recorded(self, sample: Arrays) -> _Record:
        outputs = [np.array(array) for array in self._evaluate(self._graph, [*sample, *self._zeros.values()])]
        results, observed = outputs[: self._results], outputs[self._results :]
        operands = dict(zip(self._observed, observed, strict=True))
        operands |= dict(zip(self._source.outputs, results, strict=True)) | dict(zip(self._source.inputs, sample, strict=True))
        return _Record(sample, results, operands)

    def _observed_operands(self) -> Mapping[Value, Observation]:
        """What the layers' operands are like in the calibration, where there is one."""
        if not self._ctx.calibration:
            return {}
        known = {tuple(map(id, record.inputs)): record for record in self._records}
        records = (known.get(tuple(map(id, sample))) or self._recorded(sample) for sample in self._ctx.calibration)
        return observations_of((node.inputs[0] for node in self._nodes), (record.operands for record in records))

    def _rounded_weight(self, node: Node, rounding: Rounding) -> np.ndarray:
        """The rounded weight of ``node``; the last one is remembered, since some modes differ in what becomes of the operand alone."""
        if node not in self._weights or self._weights[node][0] != rounding.format:
            self._weights[node] = rounding.format, rounding.weight(weight_of(node).array())
        return self._weights[node][1]

    def _change(
        self, node: Node, operand: Operand, rounded: np.ndarray, difference: np.ndarray, operands: Mapping[Value, np.ndarray]
    ) -> np.ndarray:
        """By linearity that of the operand in fp32 times the weight's, and that of the operand times the rounded weight; and what makes up
        for rounding on average."""
        x = operands[node.inputs[0]]
        change = _product(node, x, difference, operands)
        if operand is not Operand.PLAIN:
            observed = self._observations.get(node.inputs[0])
            narrow = rounded_operand(node, x, operand, observed.range if observed is not None else None)
            change = change + _product(node, narrow - x, rounded, operands)
            if operand is Operand.BYTES and observed is not None:
                added = lost_by_rounding(node, -difference, observed).astype(np.float32)
                change = change + (added.reshape(-1, *[1] * (change.ndim - 2)) if node.op == "conv" else added)
        return np.asarray(change, np.float32)


def lowered_error(graph: Graph, precision: Precision, samples: Sequence[Arrays], ctx: Context) -> float:
    """The relative error of the results of ``graph`` with the modes of ``precision``, the worst of ``samples``: by running what its passes
    make of it, without taking anything together to first order."""
    assert ctx.evaluator is not None
    expected = [[np.array(array) for array in ctx.evaluator(graph, sample)] for sample in samples]
    lowered = Pipeline.parse("encode-weights,narrow-operands").run(graph, replace(ctx, precision=precision))
    return max(relative_error(ctx.evaluator(lowered, sample), right) for sample, right in zip(samples, expected, strict=True))


def _variables(node: Node) -> list[Value]:
    """What a layer's node reads besides constants and what is only added to its result."""
    return [value for value in node.inputs if value.constant is None and (value is node.inputs[0] or not value.tensor.dtype.is_float)]


def _product(node: Node, x: np.ndarray, weight: np.ndarray, operands: Mapping[Value, np.ndarray]) -> np.ndarray:
    """The result of ``node`` without a bias, for another operand and weight."""
    position = weight_position(node)
    others = [value for value in node.inputs[1:] if value is not node.inputs[position] and not value.tensor.dtype.is_float]
    arrays = [operands[value] if value.constant is None else value.constant.array() for value in others]
    return np.asarray(lookup(node.op).reference([x, weight, *arrays], node.attributes))


def _opened(graph: Graph, nodes: Sequence[Node], observed: Sequence[Value]) -> Graph:
    """``graph`` with inputs, behind its own, for what is added to the results of ``nodes``, and with ``observed`` behind its outputs."""
    rewriter = Rewriter(graph)
    added = {node: rewriter.builder.input(node.output.type) for node in nodes}
    for node in graph.nodes:
        rewriter.copy(node)
        if node in added:
            rewriter.builder.location = node.location
            rewriter.replace(node.output, rewriter.builder.call("add", rewriter[node.output], added[node]))
    return rewriter.builder.finish([rewriter[value] for value in (*graph.outputs, *observed)])
