"""How a mode rounds what a layer multiplies, in NumPy: the numbers are those of the mode's kernels."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from ...codegen.instruction_sets import multiplies_bf16
from ...codegen.precision import Compute, Mode
from ...ir import DType, Encoding, Node, relative_error, scheme_of
from ..base import Context
from ..calibration import STEPS, Range
from ..encode_weights import WEIGHTS, encoded_weight
from ..narrow_operands import compute_of
from ..weight_codes import encoding_of_codes, weight_codes
from .layers import weight_of

_SAMPLED = 1 << 13
"""Numbers of a weight by which the distance of its rounding is judged."""


class Operand(enum.Enum):
    """What becomes of the operand of a layer."""

    PLAIN = enum.auto()
    BYTES = enum.auto()
    BF16 = enum.auto()


@dataclass(frozen=True)
class Rounding:
    """What a mode does to a node: the ``format`` whose numbers its weight takes, an encoding, that of its codes where the operand becomes
    bytes, or a dtype; and what its operand becomes."""

    format: Encoding | DType
    operand: Operand = Operand.PLAIN

    def weight(self, array: np.ndarray) -> np.ndarray:
        """The numbers that stand for those of the weight, or of a part of it along the axis of its outputs."""
        if isinstance(self.format, DType):
            return _cast(array, self.format)
        if self.operand is Operand.BYTES:
            return weight_codes(array, self.format).numbers
        scheme = scheme_of(self.format)
        return scheme.decode(scheme.quantise(array))


def rounding_of(node: Node, mode: Mode, ctx: Context) -> Rounding | None:
    """What ``mode`` does to a layer's ``node``; None where it leaves it alone."""
    if mode.weights is not None:
        weight = weight_of(node)
        encoding = mode.weights(WEIGHTS[node.op][1](weight.type.rank))
        return Rounding(encoding) if encoded_weight(weight, encoding) is not None else None
    compute = compute_of(node, mode.compute, ctx)
    if compute is Compute.INT8:
        return Rounding(encoding_of_codes(node, ctx.target), Operand.BYTES)
    if compute is Compute.BF16:
        return Rounding(DType.BFLOAT16, Operand.BF16 if multiplies_bf16(ctx.target) else Operand.PLAIN)
    return Rounding(DType.FLOAT16) if compute is Compute.FP16 else None


def distance(node: Node, rounding: Rounding) -> float:
    """How far the rounded weight is from that in fp32, relative; by the first of its outputs."""
    weight = weight_of(node).array()
    axis = WEIGHTS[node.op][1](weight.ndim).output
    outputs = max(_SAMPLED * weight.shape[axis] // max(weight.size, 1), 1)
    part = weight[(slice(None),) * axis + (slice(outputs),)]
    return relative_error([rounding.weight(part)], [part])


def rounded_operand(node: Node, x: np.ndarray, operand: Operand, range: Range | None) -> np.ndarray:
    """``x``, the operand of ``node``, as it is multiplied: in bytes by their ``range``, or where that is None by one of each row (of each
    image)."""
    if operand is Operand.PLAIN:
        return x
    if operand is Operand.BF16:
        return _cast(x, DType.BFLOAT16)
    if range is not None:
        codes = np.clip(np.rint(x / np.float32(range.scale)) + range.zero_point, 0, STEPS)
        return np.asarray((codes - range.zero_point) * np.float32(range.scale), np.float32)
    axes = (-1,) if node.op == "linear" else tuple(np.arange(1, x.ndim))
    step = np.maximum(np.abs(x).max(axis=axes, keepdims=True), np.finfo(np.float32).tiny) / np.float32(STEPS // 2)
    return np.asarray(np.rint(x / step) * step, np.float32)


def _cast(array: np.ndarray, dtype: DType) -> np.ndarray:
    return np.asarray(array.astype(dtype.numpy).astype(np.float32))
