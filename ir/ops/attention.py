"""Scaled dot-product attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..types import Dim, DType, Kind, TensorType
from .attributes import BOOL, FLOAT
from .definition import REQUIRED, Attributes, Op, Trait, register, require
from .elementwise import TRANSCENDENTAL_FLOPS, broadcast_shapes

if TYPE_CHECKING:
    from ..graph import GraphBuilder, Value


def _infer_attention(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    q, k, v, *mask = inputs
    for type in (q, k, v):
        require(type.dtype is q.dtype and type.dtype.kind is Kind.FLOAT, "attention", f"takes floats of one dtype, not {type.dtype.text}")
    for type in (q, k, v):
        require(type.rank == 4, "attention", f"operands need rank 4 [batch, heads, length, width], got {list(type.shape)}")
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    require(
        q.shape[0] == k.shape[0] == v.shape[0] and q.shape[3] == k.shape[3],
        "attention",
        f"batch or width differ: {shapes}",
    )
    require(k.shape[1:3] == v.shape[1:3], "attention", f"k and v differ in heads or length: {shapes}")
    heads, kv_heads = q.shape[1], k.shape[1]
    grouped = not (isinstance(heads, int) and isinstance(kv_heads, int)) or (kv_heads > 0 and heads % kv_heads == 0)
    require(grouped, "attention", f"{heads} query heads are not a multiple of {kv_heads} key heads")
    result = q.with_shape((*q.shape[:3], v.shape[3]))
    if mask:
        require(
            mask[0].dtype in (DType.BOOL, q.dtype),
            "attention",
            f"the mask is {mask[0].dtype.text}; b1 or {q.dtype.text} is needed",
        )
        scores = (*q.shape[:3], k.shape[2])
        require(
            broadcast_shapes("attention", mask[0].shape, scores) == scores,
            "attention",
            f"mask {list(mask[0].shape)} does not broadcast to {list(scores)}",
        )
    return result


def _attention(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    q, k, v, *mask = inputs
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.matmul(q, k.swapaxes(-1, -2)) * attributes["scale"]
    if attributes["is_causal"]:
        scores = np.where(np.tri(q.shape[2], k.shape[2], dtype=bool), scores, -np.inf)
    if mask:
        scores = np.where(mask[0], scores, -np.inf) if mask[0].dtype == np.bool_ else scores + mask[0]
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    # A row whose keys are all masked gives zeros, as PyTorch's safe softmax does.
    weights = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.matmul(weights / np.where(total == 0, 1, total), v))


def _grouped_heads(builder: GraphBuilder, x: Value, heads: Dim) -> Value:
    """Keys or values [B, Hkv, T, D], each head repeated for the query heads that read it: [B, heads, T, D]."""
    batch, own, length, width = x.tensor.shape
    if own == heads:
        return x
    split = builder.call("reshape", x, shape=(batch, own, 1, length, width))
    repeated = builder.call("broadcast_to", split, shape=(batch, own, heads // own, length, width))
    return builder.call("reshape", repeated, shape=(batch, heads, length, width))


def _decompose_attention(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    q, k, v, *mask = inputs
    dtype = q.tensor.dtype
    heads, queries, keys = q.tensor.shape[1], q.tensor.shape[2], k.tensor.shape[2]

    def scalar(value: float) -> Value:
        return builder.call("full", shape=(), value=value, dtype=dtype)

    if keys == 0:
        return builder.call("full", shape=(*q.tensor.shape[:3], v.tensor.shape[3]), value=0.0, dtype=dtype)
    k, v = _grouped_heads(builder, k, heads), _grouped_heads(builder, v, heads)
    scores = builder.call("matmul", q, builder.call("permute", k, order=(0, 1, 3, 2)))
    scores = builder.call("mul", scores, scalar(attributes["scale"]))
    if attributes["is_causal"]:
        row = builder.call("reshape", builder.call("iota", size=queries), shape=(queries, 1))
        kept = builder.call("ge", row, builder.call("iota", size=keys))
        scores = builder.call("where", kept, scores, scalar(-math.inf))
    if mask and mask[0].tensor.dtype is DType.BOOL:
        scores = builder.call("where", mask[0], scores, scalar(-math.inf))
    elif mask:
        scores = builder.call("add", scores, mask[0])
    highest = builder.call("reduce", scores, kind="max", axes=(3,), keepdims=True)
    # A row whose keys are all masked: its maximum counts as 0 and its sum as 1, so that it gives zeros.
    masked = builder.call("eq", highest, scalar(-math.inf))
    exponentials = builder.call("exp", builder.call("sub", scores, builder.call("where", masked, scalar(0.0), highest)))
    total = builder.call("reduce", exponentials, kind="sum", axes=(3,), keepdims=True)
    total = builder.call("where", masked, scalar(1.0), total)
    return builder.call("matmul", builder.call("div", exponentials, total), v)


def _attention_flops(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    batch, heads, queries, width = inputs[0].static_shape
    keys = inputs[1].static_shape[2]
    scores = batch * heads * queries * keys
    if attributes["is_causal"]:
        scores = scores * (min(queries, keys) + 1) // (2 * keys) if keys else 0
    return scores * (2 * width + 2 * inputs[2].static_shape[3] + TRANSCENDENTAL_FLOPS)


register(
    Op(
        "attention",
        ("q", "k", "v", "mask?"),
        _infer_attention,
        _attention,
        _attention_flops,
        {"scale": REQUIRED, "is_causal": False},
        frozenset({Trait.CONTRACTION}),
        _decompose_attention,
        kinds={"scale": FLOAT, "is_causal": BOOL},
        doc="softmax(q k^T * scale + mask) v over q [B, H, S, D], k [B, Hkv, T, D], v [B, Hkv, T, Dv] (Vaswani et al. 2017); H is a "
        "multiple of Hkv, query head h reads key head h * Hkv // H; a boolean mask keeps where true, is_causal keeps key t <= query s",
    )
)
