"""What activations are multiplied with just before they are quantised becomes part of constants that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir import ArrayConstant, Constant, DType, Graph, Node, Value
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .derive import derive
from .facts import uniform_float
from .rewriting import LocalRewriter, Replacement


@register_pass
@dataclass(frozen=True)
class FoldRates(Pass):
    """Codes of products with constants are those of what is multiplied, at another rate; codes of sums of such products take the rate into
    their constants. Codes whose lowest stands for zero are limited there, so that nothing needs to limit their numbers before.

    Sums of bytes then become bytes with one multiplication, and two fewer instructions in all for every element: as many as half a dozen
    others. Numbers are rounded in other places: but for what needs no rounding, fast numerics only.
    """

    name: ClassVar[str] = "fold-rates"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        return without_dead_code(LocalRewriter(graph, {"quantise": (limited_by_codes, rate_of_product, rate_of_sum)}, ctx).run())


def limited_by_codes(rewriter: LocalRewriter, node: Node) -> Replacement:
    """quantise(relu(x)) -> quantise(x) where no code stands for less than zero. Exact: NaN has the lowest code too."""
    x, rate = node.inputs
    limits = np.iinfo(_dtype(node).numpy)
    positive = (uniform_float(rate) or 0.0) > 0
    if x.node is None or x.node.op != "relu" or node.attributes["zero_point"] != limits.min or not positive:
        return None
    return rewriter.emit("quantise", x.node.inputs[0], rate, **node.attributes)


def rate_of_product(rewriter: LocalRewriter, node: Node) -> Replacement:
    """quantise(x * c, rate) -> quantise(x, c * rate)."""
    x, rate = node.inputs
    number = uniform_float(rate)
    if number is None or not (made := _product(rewriter, x)):
        return None
    factor, constant = made
    return rewriter.emit("quantise", factor, _times(rewriter, constant, number), **node.attributes)


def rate_of_sum(rewriter: LocalRewriter, node: Node) -> Replacement:
    """quantise(x * c + y * d, rate) -> quantise(x * (c * rate) + y * (d * rate), 1); a term may be a constant alone."""
    x, rate = node.inputs
    number = uniform_float(rate)
    total = x.node
    if number is None or number == 1 or total is None or total.op != "add" or not _is_passing(rewriter, x):
        return None
    if not all(_scales(rewriter, value) for value in total.inputs):
        return None
    one = rewriter.scalar(1.0, DType.FLOAT32)
    terms = [_scaled(rewriter, value, number) for value in total.inputs]
    return rewriter.emit("quantise", rewriter.emit("add", *terms), one, **node.attributes)


def _scales(rewriter: LocalRewriter, value: Value) -> bool:
    """Whether ``value`` can be multiplied with a number by other constants alone."""
    if (source := _source_of_rounded(rewriter, value)) is not None:
        return _product(rewriter, source) is not None
    return _constant(value) is not None or _product(rewriter, value) is not None


def _scaled(rewriter: LocalRewriter, value: Value, number: float) -> Value:
    """A ``value`` that :func:`_scales` times ``number``."""
    if (source := _source_of_rounded(rewriter, value)) is not None:
        half = rewriter.emit("cast", _scaled(rewriter, source, number), dtype=DType.BFLOAT16)
        return rewriter.emit("cast", half, dtype=DType.FLOAT32)
    if (constant := _constant(value)) is not None:
        return _times(rewriter, constant, number)
    made = _product(rewriter, value)
    assert made is not None
    return rewriter.emit("mul", made[0], _times(rewriter, made[1], number))


def _source_of_rounded(rewriter: LocalRewriter, value: Value) -> Value | None:
    """The fp32 number that ``value`` is, rounded to bfloat16 (which has the same exponents), if nothing else reads either."""
    half = value.node.inputs[0] if value.node is not None and value.node.op == "cast" else None
    if half is None or half.node is None or half.node.op != "cast" or half.tensor.dtype is not DType.BFLOAT16:
        return None
    return half.node.inputs[0] if _is_passing(rewriter, value) and rewriter.is_single_use(half) else None


def _product(rewriter: LocalRewriter, value: Value) -> tuple[Value, Constant] | None:
    """What ``value``, which nothing else reads, is the product of: a tensor of its shape, and a constant."""
    node = value.node
    if node is None or node.op != "mul" or not _is_passing(rewriter, value):
        return None
    for factor, other in (node.inputs, node.inputs[::-1]):
        constant = _constant(other)
        if constant is not None and factor.tensor.shape == value.tensor.shape:
            return factor, constant
    return None


def _is_passing(rewriter: LocalRewriter, value: Value) -> bool:
    """Whether fp32 numbers may be scaled: one node reads them, and what they are need not be kept bit for bit."""
    return rewriter.ctx.fast and rewriter.is_single_use(value) and value.tensor.dtype is DType.FLOAT32


def _constant(value: Value) -> Constant | None:
    if value.constant is not None:
        return value.constant
    number = uniform_float(value)
    return None if number is None or value.tensor.rank else ArrayConstant(np.asarray(number, np.float32))


def _times(rewriter: LocalRewriter, constant: Constant, number: float) -> Value:
    if not constant.type.rank:
        return rewriter.scalar(float(np.float32(constant.array().item() * number)), DType.FLOAT32)
    return rewriter.constant(derive("mul", constant, ArrayConstant(np.asarray(number, np.float32))))


def _dtype(node: Node) -> DType:
    dtype = node.attributes["dtype"]
    assert isinstance(dtype, DType)
    return dtype
