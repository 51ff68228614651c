"""The model with some layers lowered, without compiling it anew for each: rounded weights are inputs of one graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ...codegen.instruction_sets import multiplies_bf16
from ...codegen.precision import Compute, Mode
from ...ir import DType, Graph, Node, Rewriter, TensorType, Value
from ..base import Context
from ..calibration import STEPS, Observation, observe
from ..encode_weights import WEIGHTS, encoded_weight
from ..narrow_operands import compute_of
from ..weight_codes import encoding_of_codes, lost_by_rounding, weight_codes
from .layers import Layer, weight_of, weight_position

Modes = Mapping[Layer, Mode]
"""The layers that are lowered; the others compute in fp32."""

_PLAIN, _BYTES, _BF16 = 0, 1, 2
"""What becomes of the operand of a layer."""


@dataclass(frozen=True)
class _Inputs:
    """The positions, among the inputs of the simulating graph, of what lowers a node: its weight, what becomes of its operand, and for
    codes in bytes the range they stand for, and what is added to each output."""

    weight: int
    kind: int
    scale: int
    zero_point: int
    shift: int


@dataclass(frozen=True)
class Effect:
    """What a mode does to a node: the numbers of its weight, and what its operand is rounded to."""

    weight: np.ndarray
    operand: int = _PLAIN


def effect_of(node: Node, mode: Mode, ctx: Context) -> Effect | None:
    """What ``mode`` does to a layer's ``node``; None where it leaves it alone."""
    weight = weight_of(node)
    if mode.weights is not None:
        encoded = encoded_weight(weight, mode.weights(WEIGHTS[node.op][1](weight.type.rank)))
        return Effect(encoded.array()) if encoded is not None else None
    compute = compute_of(node, mode.compute, ctx)
    if compute is Compute.INT8:
        return Effect(weight_codes(weight.array(), encoding_of_codes(node, ctx.target)).numbers, _BYTES)
    if compute is Compute.BF16:
        rounded = weight.array().astype(ml_dtypes.bfloat16).astype(np.float32)
        return Effect(rounded, _BF16 if multiplies_bf16(ctx.target) else _PLAIN)
    if compute is Compute.FP16:
        return Effect(weight.array().astype(np.float16).astype(np.float32))
    return None


class Simulation:
    """Runs ``graph`` with any of ``layers`` in any mode, on samples of its inputs, with the context's evaluator.

    Weights have the very numbers that their mode decodes to; operands are rounded as kernels for narrow operands round them, those in bytes
    to the range that they take in ``samples``. Sums are in fp32.
    """

    def __init__(
        self,
        graph: Graph,
        layers: Sequence[Layer],
        samples: Sequence[Sequence[np.ndarray]],
        ctx: Context,
        rounded: Iterable[Layer] | None = None,
    ) -> None:
        """Operands can be rounded of the layers in ``rounded`` only (None: of all), which saves the others what that costs."""
        assert ctx.evaluator is not None
        self._rounded = {node for layer in (layers if rounded is None else rounded) for node in layer.nodes}
        self._ctx = ctx
        self._evaluate = ctx.evaluator
        self._nodes = [node for layer in layers for node in layer.nodes]
        self._observations = self._observed(graph, samples)
        self._plain: list[np.ndarray] = []
        self._places: dict[Node, _Inputs] = {}
        self._graph = self._open(graph)

    def effects(self, layer: Layer, mode: Mode) -> dict[Node, Effect]:
        """What ``mode`` does to the nodes of ``layer``; empty where it leaves all of them alone."""
        found = ((node, effect_of(node, mode, self._ctx)) for node in layer.nodes)
        return {node: effect for node, effect in found if effect is not None}

    def outputs(self, modes: Modes, sample: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The results for ``sample`` with layers lowered to ``modes``."""
        effects = (self.effects(layer, mode) for layer, mode in modes.items())
        return self.outputs_of({node: effect for found in effects for node, effect in found.items()}, sample)

    def outputs_of(self, effects: Mapping[Node, Effect], sample: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The results for ``sample`` with ``effects``."""
        extra = list(self._plain)
        for node, effect in effects.items():
            places = self._places[node]
            extra[places.weight] = np.ascontiguousarray(effect.weight, np.float32)
            if effect.operand == _PLAIN:
                continue
            range = self._observations[node.inputs[0]].range
            extra[places.kind] = np.asarray(effect.operand, np.int32)
            extra[places.scale] = np.asarray(range.scale, np.float32)
            extra[places.zero_point] = np.asarray(range.zero_point, np.float32)
            if effect.operand == _BYTES:
                rounding = weight_of(node).array() - effect.weight
                extra[places.shift] = lost_by_rounding(node, rounding, self._observations[node.inputs[0]]).astype(np.float32)
        return self._evaluate(self._graph, [*sample, *extra])

    def _observed(self, graph: Graph, samples: Sequence[Sequence[np.ndarray]]) -> dict[Value, Observation]:
        return observe(graph, [node.inputs[0] for node in self._nodes if node in self._rounded], samples, self._evaluate)

    def _open(self, graph: Graph) -> Graph:
        """``graph`` with inputs for what lowers a layer, behind its own; fills in their plain values."""
        rewriter = Rewriter(graph)
        lowered = dict.fromkeys(self._nodes)
        for node in graph.nodes:
            if node not in lowered:
                rewriter.copy(node)
                continue
            weight = weight_of(node)
            self._places[node] = _Inputs(*(len(self._plain) + number for number in range(5)))
            builder = rewriter.builder
            operands = [rewriter[value] for value in node.inputs]
            operands[weight_position(node)] = builder.input(node.inputs[weight_position(node)].type)
            self._plain.append(weight.array())
            if node in self._rounded:
                scalars = [builder.input(TensorType(dtype, ())) for dtype in (DType.INT32, DType.FLOAT32, DType.FLOAT32)]
                self._plain += [np.asarray(_PLAIN, np.int32), np.asarray(1, np.float32), np.asarray(0, np.float32)]
                operands[0] = _rounded(rewriter, operands[0], *scalars)
            result = builder.append(
                Node(node.op, operands, node.attributes, [value.type for value in node.outputs], (), node.location)
            ).output
            if node in self._rounded and node.op in ("linear", "conv"):
                outputs = weight.type.static_shape[0]
                self._plain.append(np.zeros(outputs, np.float32))
                shift = builder.input(TensorType(DType.FLOAT32, (outputs,)))
                if node.op == "conv":
                    shift = builder.call("reshape", shift, shape=(outputs, *[1] * (result.tensor.rank - 2)))
                result = builder.call("add", result, shift)
            rewriter.replace(node.output, result)
        return rewriter.finish()


def _rounded(rewriter: Rewriter, x: Value, kind: Value, scale: Value, zero_point: Value) -> Value:
    """``x``, or the numbers that its codes in bytes stand for, or ``x`` rounded to bfloat16, as ``kind`` says."""
    builder = rewriter.builder

    def number(value: float, dtype: DType = DType.FLOAT32) -> Value:
        return builder.call("full", shape=(), value=value, dtype=dtype)

    code = builder.call("add", builder.call("round", builder.call("div", x, scale)), zero_point)
    code = builder.call("minimum", builder.call("maximum", code, number(0.0)), number(float(STEPS)))
    in_bytes = builder.call("mul", builder.call("sub", code, zero_point), scale)
    half = builder.call("cast", builder.call("cast", x, dtype=DType.BFLOAT16), dtype=DType.FLOAT32)
    is_bytes = builder.call("eq", kind, number(_BYTES, DType.INT32))
    is_half = builder.call("eq", kind, number(_BF16, DType.INT32))
    return builder.call("where", is_bytes, in_bytes, builder.call("where", is_half, half, x))
