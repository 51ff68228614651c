"""Simplification rules for attention: masks, scales, repeated key and value heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir import DType, Node, Value
from .derive import small_constant
from .facts import as_array, uniform
from .rewriting import LocalRewriter, Replacement, Rule
from .rules_contraction import scaled_operand

_MASKED = -1e30
"""A number added to a score that is below this masks the key."""


def scaled_queries(rewriter: LocalRewriter, node: Node) -> Replacement:
    """attention(q * c, k, v, scale) -> attention(q, k, v, scale * c); the same for k. Fast numerics: the product rounds elsewhere."""
    if not rewriter.ctx.fast:
        return None
    scale = node.attributes["scale"]
    assert isinstance(scale, float | int)
    operands = list(node.inputs)
    for position in (0, 1):
        source, factor, views = scaled_operand(operands[position])
        if factor == 1.0:
            continue
        scale = scale * factor
        operands[position] = _again(rewriter, source, views)
    if all(new is old for new, old in zip(operands, node.inputs, strict=True)):
        return None
    return rewriter.emit_node("attention", operands, {**node.attributes, "scale": float(scale)})


def _again(rewriter: LocalRewriter, value: Value, views: Sequence[Node]) -> Value:
    for view in views:
        (value,) = rewriter.emit_node(view.op, [value], view.attributes, None, view.location)
    return value


def repeated_heads(rewriter: LocalRewriter, node: Node) -> Replacement:
    """Key and value heads that are repeated for groups of query heads are read in place: attention is grouped-query by itself."""
    q, k, v, *mask = node.inputs
    first, second = _unrepeated_heads(rewriter, k), _unrepeated_heads(rewriter, v)
    if first is None or second is None or first.tensor.shape[1] != second.tensor.shape[1]:
        return None
    return rewriter.emit_node("attention", [q, first, second, *mask], node.attributes)


def _unrepeated_heads(rewriter: LocalRewriter, value: Value) -> Value | None:
    """x [B, H, T, D] where ``value`` [B, H * n, T, D] is reshape(broadcast_to([B, H, 1, T, D], [B, H, n, T, D])) of its elements."""
    merged = value.node
    if merged is None or merged.op != "reshape":
        return None
    repeated = merged.inputs[0].node
    if repeated is None or repeated.op != "broadcast_to" or repeated.output.tensor.rank != 5:
        return None
    (split,) = repeated.inputs
    batch, heads, count, length, width = repeated.output.tensor.shape
    if split.tensor.shape != (batch, heads, 1, length, width) or value.tensor.shape != (batch, heads * count, length, width):
        return None
    return rewriter.emit("reshape", split, shape=(batch, heads, length, width))


def plain_mask(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A mask that keeps everything is dropped; a known lower triangle becomes ``is_causal``; a repeated mask is read in place.

    A known mask of zeros and (practically) minus infinity becomes boolean (fast numerics, when every query keeps a key).
    """
    if len(node.inputs) < 4:
        if node.attributes["is_causal"] and node.inputs[0].tensor.shape[2] == 1 and node.inputs[1].tensor.shape[2] == 1:
            return rewriter.emit_node("attention", node.inputs, {**node.attributes, "is_causal": False})
        return None
    mask = node.inputs[3]
    number = uniform(mask)
    if number is not None and ((mask.tensor.dtype is DType.BOOL and number) or (mask.tensor.dtype.is_float and number == 0)):
        return rewriter.emit_node("attention", node.inputs[:3], node.attributes)
    if mask.node is not None and mask.node.op == "broadcast_to":
        return rewriter.emit_node("attention", [*node.inputs[:3], mask.node.inputs[0]], node.attributes)
    data = as_array(mask)
    return _known_mask(rewriter, node, data) if data is not None and data.ndim >= 2 else None


def _known_mask(rewriter: LocalRewriter, node: Node, data: np.ndarray) -> Replacement:
    queries, keys = node.inputs[0].tensor.shape[2], node.inputs[1].tensor.shape[2]
    if not isinstance(queries, int) or not isinstance(keys, int):
        return None
    keeps = data
    if data.dtype != np.bool_:
        masked = data <= _MASKED
        if not rewriter.ctx.fast or not bool(((data == 0) | masked).all()) or bool(masked.all(axis=-1).any()):
            return None
        keeps = ~masked
    if keeps.all():
        return rewriter.emit_node("attention", node.inputs[:3], node.attributes)
    if keeps.shape[-2:] == (queries, keys) and bool((keeps == np.tri(queries, keys, dtype=np.bool_)).all()):
        return rewriter.emit_node("attention", node.inputs[:3], {**node.attributes, "is_causal": True})
    # One copy for all batches or heads whose masks agree.
    small = keeps
    for axis in range(keeps.ndim - 2):
        if small.shape[axis] > 1 and bool((small == small.take([0], axis=axis)).all()):
            small = small.take([0], axis=axis)
    if small is data:
        return None
    return rewriter.emit_node("attention", [*node.inputs[:3], rewriter.constant(small_constant(small))], node.attributes)


RULES: dict[str, Sequence[Rule]] = {"attention": (scaled_queries, repeated_heads, plain_mask)}
