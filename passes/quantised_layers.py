"""Layers in 8-bit integers: codes of activations times codes of weights, summed in 32 bits, and turned back into floats."""

from __future__ import annotations

import numpy as np

from ..codegen.instruction_sets import multiplies_bytes
from ..costmodel.workload import is_minimal_filtering
from ..ir import ArrayConstant, Constant, DType, Node, Rewriter, Value, scheme_of
from ..ir.encodings import Affine
from .base import Context
from .calibration import CODES, Range
from .derive import derive

_LEAST_DEPTH = 16
"""Products that a result must sum: with fewer, quantising takes longer than it saves."""
_LEAST_CHANNELS = 8
"""Input channels of a convolution: images have fewer, and are best read as they come."""
_CENTRE = 128
"""The code of zero where the range of an activation is found at run time."""
_WEIGHTS = Affine("i8", 0)


def can_quantise(node: Node, ctx: Context) -> bool:
    """Whether a ``linear`` or ``conv`` with a constant weight has what the kernels for bytes want, and a finite weight.

    Not where minimal filtering in fp32 saves more products than the target's instructions for bytes.
    """
    weight = node.inputs[1].constant
    assert weight is not None
    shape = weight.type.static_shape
    depth = int(np.prod(shape[1:]))
    if depth < _LEAST_DEPTH or any(value.tensor.dtype is not DType.FLOAT32 for value in node.inputs):
        return False
    if node.op == "conv":
        groups = node.attributes["groups"]
        few = shape[1] < _LEAST_CHANNELS or (groups != 1 and shape[1] % _LEAST_CHANNELS != 0)
        if few or len(shape) > 4 or (ctx.fast and is_minimal_filtering(node) and not multiplies_bytes(ctx.target)):
            return False
    return bool(np.isfinite(weight.array()).all())


class Quantiser:
    """Rebuilds layers of ``rewriter``'s graph in integers. Operands are quantised once for all layers that read them."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._builder = rewriter.builder
        self._static: dict[tuple[Value, Range], Value] = {}
        self._dynamic: dict[tuple[Value, str], tuple[Value, Value]] = {}

    def layer(self, node: Node, range: Range | None) -> Value:
        """The result of ``node``, whose operand takes numbers of ``range``, or of one that is found at run time."""
        builder = self._builder
        x, weight, *bias = node.inputs
        assert weight.constant is not None
        parts = scheme_of(_WEIGHTS.encoding).quantise(weight.constant.array())
        codes, scales = parts["codes"], parts["scales"]
        if range is not None:
            quantised, zero_point = self._in_range(self._rewriter[x], range), range.zero_point
            scales = (scales * np.float32(range.scale)).astype(np.float32)
            found = None
        else:
            quantised, found = self._by_row(self._rewriter[x], node.op)
            zero_point = _CENTRE
        operands = [quantised, builder.constant(ArrayConstant(codes))]
        if zero_point:
            sums = codes.astype(np.int64).sum(axis=tuple(np.arange(1, codes.ndim)))
            operands.append(builder.constant(ArrayConstant((-zero_point * sums).astype(np.int32))))
        attributes = {**node.attributes, "dtype": DType.INT32}
        if node.op == "conv":
            attributes["filling"] = zero_point
        total = builder.add(node.op, *operands, attributes=attributes).output
        result = builder.call("mul", builder.call("cast", total, dtype=DType.FLOAT32), self._along_outputs(node, ArrayConstant(scales)))
        if found is not None:
            result = builder.call("mul", result, found)
        if bias:
            result = builder.call("add", result, self._as_outputs(node, self._rewriter[bias[0]]))
        return result

    def _in_range(self, x: Value, range: Range) -> Value:
        """The codes of ``x`` for a known range."""
        if (x, range) not in self._static:
            rate = self._scalar(1 / range.scale)
            self._static[x, range] = self._builder.call("quantise", x, rate, zero_point=range.zero_point, dtype=DType.UINT8)
        return self._static[x, range]

    def _by_row(self, x: Value, op: str) -> tuple[Value, Value]:
        """The codes of ``x``, and what a step stands for: in each row of a linear layer, in each image of a convolution."""
        if (x, op) not in self._dynamic:
            builder, rank = self._builder, x.tensor.rank
            axes = (rank - 1,) if op == "linear" else tuple(np.arange(1, rank).tolist())
            largest = builder.call("reduce", builder.call("abs", x), kind="max", axes=axes, keepdims=True)
            largest = builder.call("maximum", largest, self._scalar(float(np.finfo(np.float32).tiny) * _CENTRE))
            rate = builder.call("div", self._scalar(CODES // 2), largest)
            codes = builder.call("quantise", x, rate, zero_point=_CENTRE, dtype=DType.UINT8)
            self._dynamic[x, op] = codes, builder.call("mul", largest, self._scalar(1 / (CODES // 2)))
        return self._dynamic[x, op]

    def _scalar(self, number: float) -> Value:
        return self._builder.call("full", shape=(), value=float(np.float32(number)), dtype=DType.FLOAT32)

    def _along_outputs(self, node: Node, constant: Constant) -> Value:
        return self._as_outputs(node, self._builder.constant(constant))

    def _as_outputs(self, node: Node, vector: Value) -> Value:
        """A number for each output, so that it broadcasts to the result of ``node``."""
        if node.op != "conv":
            return vector
        shape = (*vector.tensor.shape, *[1] * (node.output.tensor.rank - 2))
        if vector.constant is not None:
            return self._builder.constant(derive("reshape", vector.constant, shape=shape))
        return self._builder.call("reshape", vector, shape=shape)
