"""Contractions of narrow operands: which regions they are, and the arithmetic that a target has for them."""

from __future__ import annotations

from collections.abc import Collection

from tvm import tirx

from ...ir import DType, Graph, Layout, Node, Value
from ...ir.short_sums import SHORT_SUMS, words_of
from ..constant_layout import DenseLayout
from ..emit import Expr
from ..emit.halves import HALVES, stored
from ..emit.math import Bind
from ..emit.scalar import vectorises
from ..instruction_sets import multiplies_bf16, multiplies_bytes, multiplies_int16, sums_bytes_in_16_bits
from ..short_bytes import ShortBytes
from ..target import Target
from ..task import Task
from ..widened import WidenedBytes as WidenedLayout
from . import arithmetic
from .arithmetic import Arithmetic, Fp32, PairsOfInt16, ShortSums
from .region import AnchoredRegion

_FEW_ROWS = 8
"""With so few rows, reading weights takes longer than multiplying them: bytes are then stored as bytes."""
_INPUTS_OF_SUMS = 8
"""Two words."""


def narrow_region(graph: Graph, ops: Collection[str]) -> AnchoredRegion | None:
    """The region of ``graph`` around one of ``ops`` that sums in a wider dtype than its operands', or whose weight is an input of 16-bit
    floats; None for any other."""
    region = AnchoredRegion.find(graph, ops, any_dtype=True, symbolic=True)
    if region is None or not all(vectorises(node) for node in graph.nodes if node is not region.anchor):
        return None
    return region if sums_wide(region.anchor) or _has_half_weight(region.anchor) else None


def sums_wide(anchor: Node) -> bool:
    """Whether a contraction sums in a wider dtype than that of its operands."""
    return anchor.attributes.get("dtype") is not None


def stored_weight(anchor: Node) -> Value:
    """The weight as it comes into the region: what a cast to fp32 is of."""
    weight = anchor.inputs[1]
    return weight.node.inputs[0] if weight.node is not None and _has_half_weight(anchor) else weight


def packed_input(task: Task, region: AnchoredRegion, weight: Value) -> int | None:
    """The position of the constant input that is ``weight`` and nothing else, so that it can be stored as the kernel wants it."""
    if weight.node is not None:
        return None
    position = region.graph.inputs.index(weight)
    return position if position in task.constant_inputs and len(region.graph.users[weight]) == 1 else None


def has_short_weight(region: AnchoredRegion | None) -> bool:
    """Whether the weight of a :func:`narrow_region` is an input whose products may be summed in 16 bits."""
    if region is None or region.anchor.op == "matmul" or region.anchor.attributes.get("groups", 1) != 1:
        return False
    weight = region.anchor.inputs[1]
    return weight.node is None and weight.tensor.encoding.name == SHORT_SUMS


def narrow_arithmetic(task: Task, region: AnchoredRegion, rows: int, inputs: int) -> Arithmetic:
    """How the task's target multiplies the operands of a :func:`narrow_region` with ``rows`` rows, over so many ``inputs`` together."""
    anchor, target = region.anchor, task.target
    weight = stored_weight(anchor)
    constant = packed_input(task, region, weight) is not None
    if anchor.output.tensor.dtype is DType.INT32:
        if constant and has_short_weight(region) and anchor.inputs[0].tensor.dtype is DType.UINT8 and sums_bytes_in_16_bits(target):
            words = words_of(weight.tensor.encoding)
            # Where the inputs are summed several times, at other pixels, words of two pixels may follow each other.
            return arithmetic.ShortSums(target, words, together=1 if anchor.op == "conv" and inputs % _INPUTS_OF_SUMS else words)
        return _of_bytes(target, anchor, narrow=constant and rows <= _FEW_ROWS)
    half = weight.tensor.dtype
    if sums_wide(anchor) and half is DType.BFLOAT16 and multiplies_bf16(target):
        return arithmetic.PairsOfBf16(target)
    return arithmetic.WidenedHalves(target, half) if constant else Fp32(target)


def _of_bytes(target: Target, anchor: Node, *, narrow: bool) -> Arithmetic:
    x, weight = (value.tensor.dtype for value in anchor.inputs[:2])
    if x is DType.UINT8 and weight is DType.INT8 and multiplies_bytes(target):
        return arithmetic.QuadsOfBytes(target)
    if multiplies_int16(target):
        return PairsOfInt16(target, weight, narrow=narrow)
    return arithmetic.WidenedBytes(target, weight)


def weight_layout(layout: Layout, form: Arithmetic) -> DenseLayout:
    """How a constant weight in panels of ``layout`` is stored for an arithmetic."""
    if isinstance(form, ShortSums):
        return ShortBytes(layout, form.words)
    return WidenedLayout(layout) if isinstance(form, PairsOfInt16) and not form.narrow else layout


def as_stored(bind: Bind, value: Expr, dtype: str) -> Expr:
    """A computed element as the element of TIR ``dtype`` that an :class:`Arithmetic` reads."""
    if dtype == "uint16":
        return stored(bind, value, DType.BFLOAT16)
    return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)


def _has_half_weight(anchor: Node) -> bool:
    """Whether the weight is an input of 16-bit floats, widened to fp32 for this contraction."""
    weight = anchor.inputs[1].node
    if weight is None or weight.op != "cast" or anchor.output.tensor.dtype is not DType.FLOAT32:
        return False
    (source,) = weight.inputs
    return source.node is None and source.tensor.dtype in HALVES
