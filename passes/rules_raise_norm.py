"""Rules that recognise norms, softmax and attention written out in reductions and arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import Node, Value
from .facts import uniform, uniform_float
from .rewriting import LocalRewriter, Replacement, Rule


def _is_reduction(value: Value, kind: str) -> Node | None:
    """The node if ``value`` reduces with ``kind``, keeping the axes."""
    node = value.node
    if node is None or node.op != "reduce" or node.attributes["kind"] != kind or not node.attributes["keepdims"]:
        return None
    return node


def _trailing_axes(node: Node) -> int:
    """How many trailing axes a reduction reduces; 0 when it reduces others."""
    rank = node.inputs[0].tensor.rank
    axes = node.attributes["axes"]
    assert isinstance(axes, tuple)
    count = len(axes)
    return count if sorted(int(axis) % rank for axis in axes) == list(range(rank - count, rank)) else 0


def _inverse_deviation(node: Node) -> tuple[Value, Value, float] | None:
    """(x, m, eps) where ``node`` is x * rsqrt(m + eps) or x / sqrt(m + eps)."""
    pairs = [node.inputs] if node.op == "div" else [node.inputs, node.inputs[::-1]]
    for x, scale in pairs:
        root = scale.node
        if root is None or root.op != ("sqrt" if node.op == "div" else "rsqrt"):
            continue
        shifted = root.inputs[0].node
        if shifted is None or shifted.op != "add":
            continue
        eps = uniform_float(shifted.inputs[1])
        if eps is not None and x.tensor.shape == node.output.tensor.shape:
            return x, shifted.inputs[0], eps
    return None


def _mean_square(value: Value) -> tuple[Value, int] | None:
    """(x, axes) where ``value`` is the mean of x^2 over that many trailing axes."""
    mean = _is_reduction(value, "mean")
    if mean is None:
        return None
    square = mean.inputs[0].node
    axes = _trailing_axes(mean)
    if square is None or square.op != "square" or axes == 0:
        return None
    return square.inputs[0], axes


def norm(rewriter: LocalRewriter, node: Node) -> Replacement:
    """x * rsqrt(mean(x^2) + eps) -> rms_norm(x); with x = y - mean(y) -> layer_norm(y)."""
    parts = _inverse_deviation(node)
    if parts is None:
        return None
    x, spread, eps = parts
    square = _mean_square(spread)
    if square is None or square[0] is not x:
        return None
    axes = square[1]
    centred = x.node
    if centred is not None and centred.op == "sub":
        y, middle = centred.inputs
        mean = _is_reduction(middle, "mean")
        if mean is not None and mean.inputs[0] is y and _trailing_axes(mean) == axes:
            return rewriter.emit("layer_norm", y, axes=axes, eps=eps)
    return rewriter.emit("rms_norm", x, eps=eps) if axes == 1 else None


def norm_weight(rewriter: LocalRewriter, node: Node) -> Replacement:
    """rms_norm(x) * weight -> rms_norm(x, weight); the same for layer_norm."""
    for x, weight in (node.inputs, node.inputs[::-1]):
        inner = x.node
        if inner is None or inner.op not in ("rms_norm", "layer_norm") or len(inner.inputs) != 1 or not rewriter.is_single_use(x):
            continue
        parameter = _parameter(inner, weight)
        if parameter is not None and x.tensor.shape == node.output.tensor.shape:
            return rewriter.emit_node(inner.op, [inner.inputs[0], parameter], inner.attributes, None, inner.location)
    return None


def norm_bias(rewriter: LocalRewriter, node: Node) -> Replacement:
    """layer_norm(x, weight) + bias -> layer_norm(x, weight, bias)."""
    for x, bias in (node.inputs, node.inputs[::-1]):
        inner = x.node
        if inner is None or inner.op != "layer_norm" or len(inner.inputs) != 2 or not rewriter.is_single_use(x):
            continue
        parameter = _parameter(inner, bias)
        if parameter is not None and x.tensor.shape == node.output.tensor.shape:
            return rewriter.emit_node(inner.op, [*inner.inputs, parameter], inner.attributes, None, inner.location)
    return None


def _parameter(inner: Node, value: Value) -> Value | None:
    """``value`` if it has the shape that a parameter of the norm has."""
    axes = inner.attributes["axes"] if inner.op == "layer_norm" else 1
    assert isinstance(axes, int)
    return value if value.constant is not None and value.tensor.shape == inner.inputs[0].tensor.shape[-axes:] else None


def softmax(rewriter: LocalRewriter, node: Node) -> Replacement:
    """exp(x - max(x)) / sum(exp(x - max(x))) -> softmax(x); without the maximum as well, in fast numerics."""
    total = _is_reduction(node.inputs[1], "sum")
    exponential = node.inputs[0].node
    if total is None or exponential is None or exponential.op != "exp" or total.inputs[0] is not node.inputs[0]:
        return None
    axes = total.attributes["axes"]
    assert isinstance(axes, tuple)
    if len(axes) != 1:
        return None
    x = exponential.inputs[0]
    shifted = x.node
    if shifted is not None and shifted.op == "sub":
        highest = _is_reduction(shifted.inputs[1], "max")
        if highest is not None and highest.inputs[0] is shifted.inputs[0] and highest.attributes["axes"] == axes:
            return rewriter.emit("softmax", shifted.inputs[0], axis=axes[0])
    return rewriter.emit("softmax", x, axis=axes[0]) if rewriter.ctx.fast else None


def attention(rewriter: LocalRewriter, node: Node) -> Replacement:
    """softmax(q k^T * scale + mask) v -> attention(q, k, v, mask), for operands of rank 3 or 4."""
    weights, v = node.inputs
    top = weights.node
    rank = v.tensor.rank
    if top is None or top.op != "softmax" or rank not in (3, 4) or weights.tensor.rank != rank:
        return None
    if top.attributes["axis"] not in (-1, rank - 1):
        return None
    scores, masks = _masked(top.inputs[0])
    scale = 1.0
    while scores.node is not None and scores.node.op in ("mul", "div"):
        number = uniform(scores.node.inputs[1])
        if number is None or number == 0:
            break
        scale = scale * float(number) if scores.node.op == "mul" else scale / float(number)
        scores = scores.node.inputs[0]
    product = scores.node
    if product is None or product.op != "matmul":
        return None
    q, transposed = product.inputs
    flip = transposed.node
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    if q.tensor.rank != rank:
        return None
    if flip is not None and flip.op == "permute" and flip.attributes["order"] == swapped:
        k = flip.inputs[0]
    elif transposed.tensor.rank == rank:
        k = rewriter.emit("permute", transposed, order=swapped)
    else:
        return None
    mask = masks[0] if masks else None
    for other in masks[1:]:
        mask = rewriter.emit("add", mask, other) if mask is not None else other
    return _attention(rewriter, node, [q, k, v], mask, scale)


def _masked(scores: Value) -> tuple[Value, list[Value]]:
    """(scores, masks) of scores + mask + ...: a mask is an operand that does not come from a product."""
    masks: list[Value] = []
    while scores.node is not None and scores.node.op == "add":
        for product, mask in (scores.node.inputs, scores.node.inputs[::-1]):
            if product.tensor.shape == scores.tensor.shape and product.op in ("matmul", "mul", "div", "add"):
                masks.append(mask)
                scores = product
                break
        else:
            break
    return scores, masks


def _attention(rewriter: LocalRewriter, node: Node, operands: Sequence[Value], mask: Value | None, scale: float) -> Replacement:
    q, k, v = operands
    if not q.tensor.shape[:-2] == k.tensor.shape[:-2] == v.tensor.shape[:-2] == node.output.tensor.shape[:-2]:
        return None
    masks = [mask] if mask is not None else []
    if q.tensor.rank == 4:
        return rewriter.emit("attention", q, k, v, *masks, scale=scale)
    wide = [rewriter.emit("reshape", x, shape=(x.tensor.shape[0], 1, *x.tensor.shape[1:])) for x in (q, k, v)]
    if mask is not None and mask.tensor.rank == 3:
        masks = [rewriter.emit("reshape", mask, shape=(mask.tensor.shape[0], 1, *mask.tensor.shape[1:]))]
    result = rewriter.emit("attention", *wide, *masks, scale=scale)
    return rewriter.emit("reshape", result, shape=node.output.tensor.shape)


RULES: dict[str, Sequence[Rule]] = {
    "mul": (norm, norm_weight),
    "div": (norm, softmax),
    "add": (norm_bias,),
    "matmul": (attention,),
}
