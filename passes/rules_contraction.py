"""Canonical forms of matrix products, linear layers and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..ir import Constant, Node, Value
from .derive import derive
from .facts import uniform
from .rewriting import LocalRewriter, Replacement, Rule


def matmul_by_matrix(rewriter: LocalRewriter, node: Node) -> Replacement:
    """matmul by a constant matrix [in, out], or by the transpose of a matrix, -> linear."""
    a, b = node.inputs
    if b.tensor.rank != 2:
        return None
    constant = b.constant
    if constant is not None:
        return rewriter.emit("linear", a, rewriter.constant(derive("permute", constant, order=(1, 0))), dtype=node.attributes["dtype"])
    if b.node is not None and b.node.op == "permute":
        return rewriter.emit("linear", a, b.node.inputs[0], dtype=node.attributes["dtype"])
    return None


def matmul_broadcasts(rewriter: LocalRewriter, node: Node) -> Replacement:
    """matmul(broadcast_to(a), b) -> matmul(a, b) where the leading axes broadcast by themselves."""
    shape = node.output.tensor.shape
    for position, value in enumerate(node.inputs):
        inner = value.node
        if inner is None or inner.op != "broadcast_to" or inner.inputs[0].tensor.rank < 2:
            continue
        (source,) = inner.inputs
        if source.tensor.shape[-2:] != value.tensor.shape[-2:]:
            continue
        operands = [*node.inputs[:position], source, *node.inputs[position + 1 :]]
        result = rewriter.emit("matmul", *operands, dtype=node.attributes["dtype"])
        if result.tensor.shape == shape:
            return result
    return None


def bias_of_linear(rewriter: LocalRewriter, node: Node) -> Replacement:
    """linear(x, w) + b -> linear(x, w, b) for a constant b per output feature; the same for convolutions."""
    for product, other in (node.inputs, node.inputs[::-1]):
        inner = product.node
        constant = other.constant
        if inner is None or inner.op not in ("linear", "conv", "conv_transpose") or constant is None:
            continue
        if not rewriter.is_single_use(product) or product.tensor.shape != node.output.tensor.shape:
            continue
        bias = _per_channel(constant, product.tensor.rank, 1 if inner.op != "linear" else product.tensor.rank - 1, inner)
        if bias is None:
            continue
        if len(inner.inputs) == 3:
            before = inner.inputs[2].constant
            if before is None:
                continue
            bias = derive("add", before, bias)
        return rewriter.emit_node(inner.op, [*inner.inputs[:2], rewriter.constant(bias)], inner.attributes, None, inner.location)
    return None


def _per_channel(constant: Constant, rank: int, axis: int, producer: Node) -> Constant | None:
    """``constant`` as a vector if it broadcasts along all axes but ``axis`` of a result of that rank; else None."""
    shape = (1,) * (rank - constant.type.rank) + constant.type.static_shape
    channels = producer.output.tensor.shape[axis]
    if len(shape) != rank or shape[axis] != channels or any(extent != 1 for index, extent in enumerate(shape) if index != axis):
        return None
    return derive("reshape", constant, shape=(channels,))


def linear_between_reshapes(rewriter: LocalRewriter, node: Node) -> Replacement:
    """reshape(linear(x), [..., out]) -> linear(reshape(x, [..., in])): leading axes are split before the layer, where they were often
    merged just for it."""
    product = node.inputs[0]
    inner = product.node
    shape = node.output.tensor.shape
    if inner is None or inner.op != "linear" or not rewriter.is_single_use(product):
        return None
    if not shape or shape[-1] != product.tensor.shape[-1] or not node.output.tensor.is_static:
        return None
    x = inner.inputs[0]
    rows = rewriter.emit("reshape", x, shape=(*shape[:-1], x.tensor.shape[-1]))
    return rewriter.emit_node("linear", [rows, *inner.inputs[1:]], inner.attributes, None, inner.location)


def pad_of_conv(rewriter: LocalRewriter, node: Node) -> Replacement:
    """conv(pad(x, 0)) -> conv with that padding; of quantised operands, where the zero point is what padding is filled with."""
    inner = node.inputs[0].node
    if inner is None or inner.op != "pad" or uniform(node.inputs[0]) is not None:
        return None
    if inner.attributes["value"] != node.attributes["filling"]:
        return None
    pads = cast("tuple[tuple[int, int], ...]", inner.attributes["pads"])
    if pads[0] != (0, 0) or pads[1] != (0, 0):
        return None
    own = cast("tuple[tuple[int, int], ...]", node.attributes["padding"])
    padding = tuple((low + a, high + b) for (low, high), (a, b) in zip(own, pads[2:], strict=True))
    return rewriter.emit_node(node.op, [inner.inputs[0], *node.inputs[1:]], {**node.attributes, "padding": padding})


def conv_of_resample(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A 1x1 convolution of an enlarged image -> the convolution enlarged, which has fewer elements to compute.

    Exact for nearest neighbours; interpolation rounds elsewhere (fast numerics).
    """
    image = node.inputs[0]
    inner = image.node
    if inner is None or inner.op != "resample" or not rewriter.is_single_use(image):
        return None
    if inner.attributes["kind"] != "nearest" and not rewriter.ctx.fast:
        return None
    stride = cast("tuple[int, ...]", node.attributes["stride"])
    padding = cast("tuple[tuple[int, int], ...]", node.attributes["padding"])
    pointwise = all(size == 1 for size in (*node.inputs[1].tensor.shape[2:], *stride))
    if not pointwise or any(pair != (0, 0) for pair in padding):
        return None
    (x,) = inner.inputs
    if not x.tensor.is_static or x.tensor.elements >= image.tensor.elements:
        return None
    small = rewriter.emit_node("conv", [x, *node.inputs[1:]], node.attributes)[0]
    return rewriter.emit_node("resample", [small], inner.attributes, None, inner.location)


def zero_bias(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A bias of zeros is left out."""
    if len(node.inputs) == 3 and uniform(node.inputs[2]) == 0:
        return rewriter.emit_node(node.op, node.inputs[:2], node.attributes)
    return None


def product_of_nothing(rewriter: LocalRewriter, node: Node) -> Replacement:
    """A sum over no products is 0, or the bias."""
    if node.inputs[0].tensor.shape[-1] != 0:
        return None
    if len(node.inputs) == 3:
        return rewriter.emit("broadcast_to", node.inputs[2], shape=node.output.tensor.shape)
    return rewriter.full(0, node.output)


def scaled_operand(value: Value) -> tuple[Value, float, list[Node]]:
    """``value`` = views(x) * factor: gives x, the factor, and the views to apply to x again, innermost first."""
    factor = 1.0
    views: list[Node] = []
    while value.node is not None:
        node = value.node
        if node.op in ("reshape", "permute"):
            views.append(node)
            value = node.inputs[0]
            continue
        if node.op == "mul":
            number = uniform(node.inputs[1])
            if number is not None and node.inputs[0].tensor.shape == node.output.tensor.shape:
                factor *= float(number)
                value = node.inputs[0]
                continue
        break
    return value, factor, views[::-1]


RULES: dict[str, Sequence[Rule]] = {
    "matmul": (product_of_nothing, matmul_broadcasts, matmul_by_matrix),
    "add": (bias_of_linear,),
    "reshape": (linear_between_reshapes,),
    "conv": (pad_of_conv, zero_bias, conv_of_resample),
    "linear": (product_of_nothing, zero_bias),
}
