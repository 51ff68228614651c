"""Layers in 8-bit integers: codes of activations times codes of weights, summed in 32 bits, and turned back into floats."""

from __future__ import annotations

import numpy as np

from ..codegen.instruction_sets import multiplies_bytes, sums_bytes_in_16_bits
from ..codegen.target import Target
from ..costmodel.workload import is_minimal_filtering
from ..ir import ArrayConstant, DType, Node, Rewriter, Value
from .base import Context
from .calibration import STEPS, Observation, Range
from .derive import derive
from .layer_seconds import layer_seconds
from .weight_codes import WeightCodes, encoding_of_codes, lost_by_rounding, weight_codes

_LEAST_DEPTH = 16
"""Products that a result must sum: with fewer, quantising takes longer than it saves."""
_LEAST_CHANNELS = 8
"""Input channels of a convolution: images have fewer, and are best read as they come."""
_LEAST_COLOURS = 3
"""The same with instructions that multiply four bytes at once, of which three are enough."""
_CENTRE = 128
"""The code of zero where the range of an activation is found at run time."""
_LARGEST_BIAS = 2.0**29
"""Steps of a bias in a sum of 32 bits; the products of one result are below 2**30 in layers of up to 32768 products."""


def can_quantise(node: Node, ctx: Context) -> bool:
    """Whether a ``linear`` or ``conv`` with a constant weight has what the kernels for bytes want, and a finite weight.

    Not where minimal filtering in fp32 is predicted to be quicker than the target's instructions for bytes.
    """
    weight = node.inputs[1].constant
    assert weight is not None
    shape = weight.type.static_shape
    depth = int(np.prod(shape[1:]))
    if depth < _LEAST_DEPTH or any(value.tensor.dtype is not DType.FLOAT32 for value in node.inputs):
        return False
    if node.op == "conv":
        groups = node.attributes["groups"]
        few = shape[1] < _least_channels(ctx.target) or (groups != 1 and shape[1] % _LEAST_CHANNELS != 0)
        if few or len(shape) > 4 or (ctx.fast and is_minimal_filtering(node) and not _is_quicker_in_bytes(node, ctx)):
            return False
    return bool(np.isfinite(weight.array()).all())


def _least_channels(target: Target) -> int:
    return _LEAST_COLOURS if multiplies_bytes(target) else _LEAST_CHANNELS


def _is_quicker_in_bytes(node: Node, ctx: Context) -> bool:
    """Whether the kernel for bytes of a convolution is predicted to be quicker than that in fp32."""
    if multiplies_bytes(ctx.target):
        return True
    x, weight = (value.tensor for value in node.inputs[:2])
    if not sums_bytes_in_16_bits(ctx.target) or not x.is_static:
        return False
    in_bytes = weight.with_dtype(DType.INT8).with_encoding(encoding_of_codes(node, ctx.target))
    return layer_seconds(node, (x.with_dtype(DType.UINT8), in_bytes), DType.INT32, ctx) < layer_seconds(node, (x, weight), None, ctx)


def _in_steps(bias: np.ndarray, scales: np.ndarray) -> np.ndarray | None:
    """A ``bias`` as whole steps of ``scales``; None where sums in 32 bits might not hold it."""
    steps = np.rint(bias.astype(np.float64) / scales)
    return steps.astype(np.int64) if bool((np.abs(steps) < _LARGEST_BIAS).all()) else None


class Quantiser:
    """Rebuilds layers of ``rewriter``'s graph in integers, for ``target``. Operands are quantised once for all layers that read them."""

    def __init__(self, rewriter: Rewriter, target: Target) -> None:
        self._rewriter = rewriter
        self._target = target
        self._builder = rewriter.builder
        self._static: dict[tuple[Value, Range], Value] = {}
        self._dynamic: dict[tuple[Value, str], tuple[Value, Value]] = {}

    def layer(self, node: Node, observed: Observation | None) -> Value:
        """The result of ``node``, whose operand takes numbers as ``observed``, or of a range that is found at run time."""
        weight = node.inputs[1].constant
        assert weight is not None
        codes = weight_codes(weight.array(), encoding_of_codes(node, self._target))
        if observed is None:
            return self._by_row(node, codes)
        return self._in_range(node, observed.range, codes, lost_by_rounding(node, weight.array() - codes.numbers, observed))

    def _in_range(self, node: Node, range: Range, weight: WeightCodes, lost: np.ndarray) -> Value:
        """The layer for a known range: a constant bias is part of the sums, and so is what the sums have ``lost``."""
        x, _, *bias = node.inputs
        if (x, range) not in self._static:
            rate = self._scalar(1 / range.scale)
            quantised = self._builder.call("quantise", self._rewriter[x], rate, zero_point=range.zero_point, dtype=DType.UINT8)
            self._static[x, range] = quantised
        steps = (weight.scales * np.float32(range.scale)).astype(np.float32)
        start = _in_steps(lost + (bias[0].constant.array() if bias and bias[0].constant is not None else 0), steps)
        total = self._sums(node, self._static[x, range], range.zero_point, weight, start)
        result = self._builder.call("mul", total, self._as_outputs(node, self._builder.constant(ArrayConstant(steps))))
        is_added = not bias or (start is not None and bias[0].constant is not None)
        return result if is_added else self._builder.call("add", result, self._as_outputs(node, self._rewriter[bias[0]]))

    def _by_row(self, node: Node, weight: WeightCodes) -> Value:
        """The layer for ranges that are found in each row (of a convolution: in each image) when the program runs."""
        builder = self._builder
        x, _, *bias = node.inputs
        if (x, node.op) not in self._dynamic:
            self._dynamic[x, node.op] = self._quantised_by_row(self._rewriter[x], node.op)
        quantised, step = self._dynamic[x, node.op]
        total = self._sums(node, quantised, _CENTRE, weight, None)
        result = builder.call("mul", total, self._as_outputs(node, builder.constant(ArrayConstant(weight.scales))))
        result = builder.call("mul", result, step)
        return builder.call("add", result, self._as_outputs(node, self._rewriter[bias[0]])) if bias else result

    def _sums(self, node: Node, x: Value, zero_point: int, weight: WeightCodes, start: np.ndarray | None) -> Value:
        """The sums of products of what the codes of ``x`` and of the weight count from their zero points, from ``start`` on, as floats."""
        operands = [x, self._builder.constant(weight.constant, weight.type)]
        codes = weight.codes
        first = -zero_point * codes.astype(np.int64).sum(axis=tuple(np.arange(1, codes.ndim))) + (0 if start is None else start)
        if first.any():
            operands.append(self._builder.constant(ArrayConstant(first.astype(np.int32))))
        attributes = {**node.attributes, "dtype": DType.INT32}
        if node.op == "conv":
            attributes["filling"] = zero_point
        total = self._builder.add(node.op, *operands, attributes=attributes).output
        return self._builder.call("cast", total, dtype=DType.FLOAT32)

    def _quantised_by_row(self, x: Value, op: str) -> tuple[Value, Value]:
        """Codes of ``x``, and what a step of each row stands for."""
        builder, rank = self._builder, x.tensor.rank
        axes = (rank - 1,) if op == "linear" else tuple(np.arange(1, rank).tolist())
        largest = builder.call("reduce", builder.call("abs", x), kind="max", axes=axes, keepdims=True)
        largest = builder.call("maximum", largest, self._scalar(float(np.finfo(np.float32).tiny) * _CENTRE))
        rate = builder.call("div", self._scalar(STEPS // 2), largest)
        codes = builder.call("quantise", x, rate, zero_point=_CENTRE, dtype=DType.UINT8)
        return codes, builder.call("mul", largest, self._scalar(1 / (STEPS // 2)))

    def _scalar(self, number: float) -> Value:
        return self._builder.call("full", shape=(), value=float(np.float32(number)), dtype=DType.FLOAT32)

    def _as_outputs(self, node: Node, vector: Value) -> Value:
        """A number for each output, so that it broadcasts to the result of ``node``."""
        if node.op != "conv":
            return vector
        shape = (*vector.tensor.shape, *[1] * (node.output.tensor.rank - 2))
        if vector.constant is not None:
            return self._builder.constant(derive("reshape", vector.constant, shape=shape))
        return self._builder.call("reshape", vector, shape=shape)
