"""Matrix products, linear layers, convolutions, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...ir import Dim, DType, Value
from ..conversion import Conversion, Number, elements, static
from ..registry import converts
from ..unsupported import Unsupported

aten = torch.ops.aten


@converts(aten.linear.default)
def linear(c: Conversion, x: Value, weight: Value, bias: Value | None = None) -> Value:
    if weight.tensor.rank == 1:  # one output without an axis
        product = c.call("linear", x, c.reshape(weight, (1, *weight.tensor.shape)))
        product = c.reshape(product, c.shape)
        return product if bias is None else c.call("add", product, bias)
    if bias is not None and bias.tensor.shape != weight.tensor.shape[:1]:
        return c.call("add", c.call("linear", x, weight), bias)
    return c.call("linear", x, weight, *([] if bias is None else [bias]))


def _is_weight(x: Value) -> bool:
    """Whether ``x`` is a constant, possibly with its axes permuted."""
    if x.node is not None and x.op == "permute":
        x = x.node.inputs[0]
    return x.constant is not None


def _transposed(c: Conversion, x: Value) -> Value:
    """The matrix ``x`` with its axes exchanged; undoes an exchange rather than adding one."""
    if x.node is not None and x.op == "permute":
        return x.node.inputs[0]
    return c.permute(x, (1, 0))


def _product(c: Conversion, a: Value, b: Value, bias: Value | None = None) -> Value:
    """a b + bias; a linear layer where ``b`` is a weight matrix and the bias (if any) has one number per column."""
    columns = b.tensor.shape[-1]
    if b.tensor.rank == 2 and _is_weight(b) and (bias is None or bias.tensor.shape == (columns,)):
        return c.call("linear", a, _transposed(c, b), *([] if bias is None else [bias]))
    product = c.call("matmul", a, b)
    return product if bias is None else c.call("add", product, bias)


@converts(aten.mm.default, aten.bmm.default)
def mm(c: Conversion, a: Value, b: Value) -> Value:
    return _product(c, a, b)


@converts(aten.matmul.default)
def matmul(c: Conversion, a: Value, b: Value) -> Value:
    """A vector on either side is a matrix of one row or column."""
    if a.tensor.rank == 1:
        a = c.reshape(a, (1, *a.tensor.shape))
    if b.tensor.rank == 1:
        b = c.reshape(b, (*b.tensor.shape, 1))
    return c.reshape(_product(c, a, b), c.shape)


@converts(aten.mv.default, aten.dot.default)
def vector_product(c: Conversion, a: Value, b: Value) -> Value:
    return matmul(c, a, b)


@converts(aten.addmm.default, aten.baddbmm.default, aten.addmv.default, aten.addbmm.default)
def addmm(c: Conversion, bias: Value, a: Value, b: Value, *, beta: Number = 1, alpha: Number = 1) -> Value:
    if b.tensor.rank == 1:
        product = c.reshape(c.call("matmul", a, c.reshape(b, (*b.tensor.shape, 1))), a.tensor.shape[:1])
    elif alpha == 1 and beta == 1 and len(c.shape) == b.tensor.rank:
        return _product(c, a, b, bias)
    else:
        product = _product(c, a, b)
        if product.tensor.rank > len(c.shape):  # addbmm sums over the batch
            product = c.reduce("sum", product, (0,))
    if alpha != 1:
        product = c.call("mul", product, c.scalar(alpha, c.dtype))
    if beta == 0:
        return product
    return c.call("add", product, bias if beta == 1 else c.call("mul", bias, c.scalar(beta, c.dtype)))


def _spatial(values: Sequence[int], count: int) -> tuple[int, ...]:
    """One number for each of ``count`` spatial axes; a single one counts for all."""
    return tuple(values) * count if len(values) == 1 else tuple(values)


@converts(aten.convolution.default)
def convolution(
    c: Conversion,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    spatial = weight.tensor.rank - 2
    batched = x.tensor.rank == weight.tensor.rank
    x = x if batched else c.reshape(x, (1, *x.tensor.shape))
    attributes: dict[str, object] = {
        "stride": _spatial(stride, spatial),
        "padding": tuple((amount, amount) for amount in _spatial(padding, spatial)),
        "dilation": _spatial(dilation, spatial),
        "groups": groups,
    }
    if transposed:
        attributes["output_padding"] = _spatial(output_padding, spatial)
    result = c.call("conv_transpose" if transposed else "conv", x, weight, *([] if bias is None else [bias]), **attributes)
    return result if batched else c.reshape(result, c.shape)


@converts(aten.scaled_dot_product_attention.default)
def scaled_dot_product_attention(
    c: Conversion,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    if dropout_p > 0:
        raise Unsupported("attention drops out weights: call model.eval() before compiling, or pass dropout_p=0")
    width = static(q.tensor.shape[-1], "the width of attention heads")
    attributes = {"scale": 1 / math.sqrt(width) if scale is None else float(scale), "is_causal": is_causal}
    mask = attn_mask
    if mask is not None and mask.tensor.dtype is not DType.BOOL:
        mask = c.cast(mask, q.tensor.dtype)
    # Fewer key heads than query heads: asked for, or one head that PyTorch broadcasts.
    grouped = enable_gqa or (min(k.tensor.rank, v.tensor.rank) >= 3 and k.tensor.shape[-3] == v.tensor.shape[-3] == 1)
    operands = [_four_axes(c, q), *(_four_axes(c, x, grouped) for x in (k, v))]
    if mask is not None:
        operands.append(_mask_four_axes(c, mask))
    return c.reshape(c.call("attention", *operands, **attributes), c.shape)


def _four_axes(c: Conversion, x: Value, own_heads: bool = False) -> Value:
    """x [..., heads, length, width] as [batch, heads, length, width], broadcast to the result's batch and (unless it has its own) heads."""
    batch = c.shape[:-3]
    heads: tuple[Dim, ...] = x.tensor.shape[-3:-2] if own_heads else c.shape[-3:-2]
    x = c.broadcast(x, (*batch, *heads, *x.tensor.shape[-2:]))
    return c.reshape(x, (elements(batch), *(heads or (1,)), *x.tensor.shape[-2:]))


def _mask_four_axes(c: Conversion, mask: Value) -> Value:
    """The mask in at most four axes, as :func:`_four_axes` leaves the operands."""
    if len(c.shape) <= 4 or mask.tensor.rank <= 3:
        return mask
    return _four_axes(c, c.broadcast(mask, (*c.shape[:-1], mask.tensor.shape[-1])))


@converts(aten._trilinear.default)
def trilinear(
    c: Conversion,
    a: Value,
    b: Value,
    d: Value,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Value:
    """The product of three tensors, each with new axes at the given places, summed over some axes (torch.nn.Bilinear)."""
    product: Value | None = None
    for x, axes in ((a, expand1), (b, expand2), (d, expand3)):
        shape: list[Dim] = list(x.tensor.shape)
        for axis in sorted(axes):
            shape.insert(axis, 1)
        spread = c.reshape(x, shape)
        product = spread if product is None else c.call("mul", product, spread)
    assert product is not None
    return c.reduce("sum", product, tuple(sorted(sumdim)))
