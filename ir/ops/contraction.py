"""Contractions: matrix products, linear layers, convolutions, attention."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..types import Dim, DType, Kind, TensorType
from .attributes import BOOL, FLOAT
from .definition import REQUIRED, Attributes, Op, Trait, register, require
from .elementwise import TRANSCENDENTAL_FLOPS, broadcast_shapes

if TYPE_CHECKING:
    from ..graph import GraphBuilder, Value

_CONTRACTION = frozenset({Trait.CONTRACTION})


_NUMBERS = (Kind.INTEGER, Kind.FLOAT)


def _same_dtype(op: str, inputs: Sequence[TensorType], kinds: tuple[Kind, ...] = _NUMBERS) -> None:
    first = inputs[0].dtype
    require(first.kind in kinds, op, f"does not take {first.text}")
    for type in inputs:
        require(type.dtype is first, op, f"operands have dtypes {first.text} and {type.dtype.text}; insert a cast")


def _infer_matmul(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    a, b = inputs
    _same_dtype("matmul", inputs)
    require(a.rank >= 2 and b.rank >= 2, "matmul", f"operands need rank 2 at least, got {list(a.shape)} and {list(b.shape)}")
    require(a.shape[-1] == b.shape[-2], "matmul", f"inner extents of {list(a.shape)} and {list(b.shape)} differ")
    batch = broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2]) if a.rank > 2 or b.rank > 2 else ()
    return a.with_shape((*batch, a.shape[-2], b.shape[-1]))


register(
    Op(
        "matmul",
        ("a", "b"),
        _infer_matmul,
        lambda inputs, attributes: np.matmul(inputs[0], inputs[1]),
        lambda inputs, attributes, outputs: 2 * outputs[0].elements * inputs[0].static_shape[-1],
        traits=_CONTRACTION,
        doc="matrix product over the last two axes; leading axes broadcast: [..., M, K] x [..., K, N] -> [..., M, N]",
    )
)


def _infer_linear(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, weight, *bias = inputs
    _same_dtype("linear", inputs)
    require(weight.rank == 2, "linear", f"the weight needs rank 2, got {list(weight.shape)}")
    require(
        x.rank >= 1 and x.shape[-1] == weight.shape[1],
        "linear",
        f"{list(x.shape)} does not fit a weight of {list(weight.shape)} [out, in]",
    )
    if bias:
        require(
            bias[0].shape == weight.shape[:1],
            "linear",
            f"bias {list(bias[0].shape)} does not fit a weight of {list(weight.shape)} [out, in]",
        )
    return x.with_shape((*x.shape[:-1], weight.shape[0]))


def _decompose_linear(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    x, weight, *bias = inputs
    transposed = builder.call("permute", weight, order=(1, 0))
    rank = x.tensor.rank
    if rank == 1:
        x = builder.call("reshape", x, shape=(1, x.tensor.shape[0]))
    product = builder.call("matmul", x, transposed)
    if rank == 1:
        product = builder.call("reshape", product, shape=product.tensor.shape[1:])
    return builder.call("add", product, bias[0]) if bias else product


register(
    Op(
        "linear",
        ("x", "weight", "bias?"),
        _infer_linear,
        lambda inputs, attributes: inputs[0] @ inputs[1].T + (inputs[2] if len(inputs) > 2 else 0),
        lambda inputs, attributes, outputs: 2 * outputs[0].elements * inputs[1].static_shape[1],
        traits=_CONTRACTION,
        decompose=_decompose_linear,
        doc="x [..., in] times the transpose of weight [out, in], plus bias [out]",
    )
)


def require_window(op: str, x: TensorType, extents: Sequence[Dim], window: Sequence[Dim]) -> None:
    """TypeInferenceError unless a window of this shape fits at least once into every spatial axis of the padded operand."""
    fits = all(not isinstance(extent, int) or extent >= 1 for extent in extents)
    require(fits, op, f"the window {list(window)} exceeds the padded operand {list(x.shape)}")


def convolved_extent(extent: Dim, window: int, stride: int, padding: tuple[int, int], dilation: int) -> Dim:
    """Result extent of sliding a window along an axis."""
    return (extent + padding[0] + padding[1] - dilation * (window - 1) - 1) // stride + 1


def _infer_conv(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, weight, *bias = inputs
    _same_dtype("conv", inputs)
    spatial = x.rank - 2
    groups = attributes["groups"]
    require(
        spatial >= 1 and weight.rank == x.rank,
        "conv",
        f"operand {list(x.shape)} and weight {list(weight.shape)} need the same rank, at least 3",
    )
    require(
        x.shape[1] == weight.shape[1] * groups,
        "conv",
        f"{x.shape[1]} channels do not fit a weight of {list(weight.shape)} in {groups} groups",
    )
    require(
        not isinstance(weight.shape[0], int) or weight.shape[0] % groups == 0,
        "conv",
        f"{weight.shape[0]} outputs in {groups} groups",
    )
    for name in ("stride", "padding", "dilation"):
        require(len(attributes[name]) == spatial, "conv", f"{name} {attributes[name]} needs {spatial} entries")
    if bias:
        require(
            bias[0].shape == weight.shape[:1],
            "conv",
            f"bias {list(bias[0].shape)} does not fit {weight.shape[0]} outputs",
        )
    extents = [
        convolved_extent(
            x.shape[2 + i],
            int(weight.static_shape[2 + i]),
            attributes["stride"][i],
            attributes["padding"][i],
            attributes["dilation"][i],
        )
        for i in range(spatial)
    ]
    require_window("conv", x, extents, weight.shape[2:])
    return x.with_shape((x.shape[0], weight.shape[0], *extents))


def _kernel_at(weight: np.ndarray, offset: tuple[int, ...]) -> np.ndarray:
    """The matrices [groups, rows, columns] of a weight [groups, rows, columns, kernel...] at one kernel position."""
    index: tuple[Any, ...] = (slice(None), slice(None), slice(None), *offset)
    return np.asarray(weight[index])


def _conv(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, weight, *bias = inputs
    stride, dilation, groups = attributes["stride"], attributes["dilation"], attributes["groups"]
    padded = np.pad(x, [(0, 0), (0, 0), *attributes["padding"]])
    window = weight.shape[2:]
    extents = [int(convolved_extent(padded.shape[2 + i], window[i], stride[i], (0, 0), dilation[i])) for i in range(len(window))]
    outputs_per_group = weight.shape[0] // groups
    grouped_weight = weight.reshape(groups, outputs_per_group, *weight.shape[1:])
    total = np.zeros((x.shape[0], groups, outputs_per_group, math.prod(extents)))
    for offset in itertools.product(*(range(size) for size in window)):
        index = tuple(slice(o * d, o * d + (e - 1) * s + 1, s) for o, d, e, s in zip(offset, dilation, extents, stride, strict=True))
        patch = padded[(slice(None), slice(None), *index)].reshape(x.shape[0], groups, weight.shape[1], total.shape[3])
        total += np.einsum("goc,ngcp->ngop", _kernel_at(grouped_weight, offset), patch, optimize=True)
    result = total.reshape(x.shape[0], weight.shape[0], *extents)
    return result + bias[0].reshape(-1, *[1] * len(window)) if bias else result


def _conv_flops(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    return 2 * outputs[0].elements * math.prod(inputs[1].static_shape[1:])


register(
    Op(
        "conv",
        ("x", "weight", "bias?"),
        _infer_conv,
        _conv,
        _conv_flops,
        {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "groups": 1},
        _CONTRACTION,
        doc="cross-correlation of x [N, C, spatial...] with weight [O, C / groups, kernel...], plus bias [O]; padding is a "
        "(low, high) pair for each spatial axis",
    )
)


def _infer_conv_transpose(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, weight, *bias = inputs
    _same_dtype("conv_transpose", inputs)
    spatial = x.rank - 2
    groups = attributes["groups"]
    require(
        spatial >= 1 and weight.rank == x.rank,
        "conv_transpose",
        f"operand {list(x.shape)} and weight {list(weight.shape)} need the same rank",
    )
    for name in ("stride", "padding", "dilation", "output_padding"):
        require(len(attributes[name]) == spatial, "conv_transpose", f"{name} {attributes[name]} needs {spatial} entries")
    require(
        not isinstance(weight.shape[0], int) or weight.shape[0] % groups == 0,
        "conv_transpose",
        f"{weight.shape[0]} channels in {groups} groups",
    )
    require(
        x.shape[1] == weight.shape[0],
        "conv_transpose",
        f"{x.shape[1]} channels do not fit a weight of {list(weight.shape)} [in, out / groups, ...]",
    )
    outputs = weight.static_shape[1] * groups
    if bias:
        require(bias[0].shape == (outputs,), "conv_transpose", f"bias {list(bias[0].shape)} does not fit {outputs} outputs")
    extents = [
        (x.shape[2 + i] - 1) * attributes["stride"][i]
        - sum(attributes["padding"][i])
        + attributes["dilation"][i] * (weight.static_shape[2 + i] - 1)
        + attributes["output_padding"][i]
        + 1
        for i in range(spatial)
    ]
    require(
        all(not isinstance(extent, int) or extent >= 1 for extent in extents),
        "conv_transpose",
        f"padding {attributes['padding']} leaves nothing of {list(x.shape)}",
    )
    return x.with_shape((x.shape[0], outputs, *extents))


def _conv_transpose(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, weight, *bias = inputs
    stride, dilation, groups, padding = (
        attributes["stride"],
        attributes["dilation"],
        attributes["groups"],
        attributes["padding"],
    )
    window = weight.shape[2:]
    batch, positions = x.shape[0], x.shape[2:]
    full = [
        (p - 1) * s + d * (w - 1) + o + 1
        for p, s, d, w, o in zip(positions, stride, dilation, window, attributes["output_padding"], strict=True)
    ]
    result = np.zeros((batch, groups * weight.shape[1], *full))
    grouped = x.reshape(batch, groups, x.shape[1] // groups, *positions)
    grouped_weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    if 0 in positions:
        window = (0,) * len(window)
    for offset in itertools.product(*(range(size) for size in window)):
        part = np.einsum("gco,ngc...->ngo...", _kernel_at(grouped_weight, offset), grouped, optimize=True)
        index = tuple(slice(o * d, o * d + (p - 1) * s + 1, s) for o, d, p, s in zip(offset, dilation, positions, stride, strict=True))
        result[(slice(None), slice(None), *index)] += part.reshape(*result.shape[:2], *positions)
    result = result[(slice(None), slice(None), *(slice(low, extent - high) for (low, high), extent in zip(padding, full, strict=True)))]
    return result + bias[0].reshape(-1, *[1] * len(window)) if bias else result


register(
    Op(
        "conv_transpose",
        ("x", "weight", "bias?"),
        _infer_conv_transpose,
        _conv_transpose,
        lambda inputs, attributes, outputs: 2 * inputs[0].elements * math.prod(inputs[1].static_shape[1:]),
        {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "output_padding": REQUIRED, "groups": 1},
        _CONTRACTION,
        doc="transposed convolution of x [N, C, spatial...] with weight [C, O / groups, kernel...], plus bias [O]",
    )
)


def _infer_attention(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    q, k, v, *mask = inputs
    _same_dtype("attention", [q, k, v], (Kind.FLOAT,))
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
        _CONTRACTION,
        _decompose_attention,
        kinds={"scale": FLOAT, "is_causal": BOOL},
        doc="softmax(q k^T * scale + mask) v over q [B, H, S, D], k [B, Hkv, T, D], v [B, Hkv, T, Dv] (Vaswani et al. 2017); H is a "
        "multiple of Hkv, query head h reads key head h * Hkv // H; a boolean mask keeps where true, is_causal keeps key t <= query s",
    )
)
