"""How a mode rounds what a layer multiplies, in NumPy: the numbers are those of the mode's kernels."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ...codegen.instruction_sets import multiplies_bf16
from ...codegen.precision import Compute, Mode
from ...ir import Encoding, Node, scheme_of
from ...ir.encodings import Affine
from ..base import Context
from ..calibration import STEPS, Range
from ..encode_weights import WEIGHTS, encoded_weight
from ..narrow_operands import compute_of
from .errors_of import relative_error
from .layers import weight_of

_BYTES = Affine("i8", 0).encoding
_SAMPLED = 1 << 15
"""Numbers of a weight by which the distance of its rounding is judged."""


class Operand(enum.Enum):
    """What becomes of the operand of a layer."""

    PLAIN = enum.auto()
    BYTES = enum.auto()
    BF16 = enum.auto()


@dataclass(frozen=True)
class Rounding:
    """What a mode does to a node: ``weight`` gives the numbers that stand for those of its weight, or of a part of it along the axis of its
    outputs."""

    weight: Callable[[np.ndarray], np.ndarray]
    operand: Operand = Operand.PLAIN


def rounding_of(node: Node, mode: Mode, ctx: Context) -> Rounding | None:
    """What ``mode`` does to a layer's ``node``; None where it leaves it alone."""
    if mode.weights is not None:
        weight = weight_of(node)
        encoding = mode.weights(WEIGHTS[node.op][1](weight.type.rank))
        return Rounding(_decoded(encoding)) if encoded_weight(weight, encoding) is not None else None
    compute = compute_of(node, mode.compute, ctx)
    if compute is Compute.INT8:
        return Rounding(_decoded(_BYTES), Operand.BYTES)
    if compute is Compute.BF16:
        return Rounding(_in_bf16, Operand.BF16 if multiplies_bf16(ctx.target) else Operand.PLAIN)
    if compute is Compute.FP16:
        return Rounding(lambda array: array.astype(np.float16).astype(np.float32))
    return None


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
        return _in_bf16(x)
    if range is not None:
        codes = np.clip(np.rint(x / np.float32(range.scale)) + range.zero_point, 0, STEPS)
        return np.asarray((codes - range.zero_point) * np.float32(range.scale), np.float32)
    axes = (-1,) if node.op == "linear" else tuple(np.arange(1, x.ndim))
    step = np.maximum(np.abs(x).max(axis=axes, keepdims=True), np.finfo(np.float32).tiny) / np.float32(STEPS // 2)
    return np.asarray(np.rint(x / step) * step, np.float32)


def _decoded(encoding: Encoding) -> Callable[[np.ndarray], np.ndarray]:
    scheme = scheme_of(encoding)
    return lambda array: scheme.decode(scheme.quantise(array))


def _in_bf16(array: np.ndarray) -> np.ndarray:
    return np.asarray(array.astype(ml_dtypes.bfloat16).astype(np.float32))
