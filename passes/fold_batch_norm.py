"""Batch normalisation at inference is a scale and a shift per channel: folded into the convolution or linear layer before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir import Constant, Graph, Node
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .derive import derive, small_constant
from .rewriting import LocalRewriter, Replacement, Rule, merged
from .simplify import RULES as SIMPLIFICATIONS


@register_pass
@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """batch_norm with constant parameters disappears into the weights of a convolution or linear layer that only it reads; elsewhere it
    becomes x * scale + shift. The weights are constants derived lazily."""

    name: ClassVar[str] = "fold-batch-norm"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        rules: dict[str, Sequence[Rule]] = {"batch_norm": (into_producer, into_scale_and_shift)}
        return without_dead_code(LocalRewriter(graph, merged(rules, SIMPLIFICATIONS), ctx).run())


def _scale_and_shift(node: Node) -> tuple[Constant, Constant] | None:
    """Per channel: scale = weight / sqrt(variance + eps), shift = bias - mean * scale. None unless all parameters are constants."""
    parameters = [value.constant for value in node.inputs[1:]]
    known = [constant for constant in parameters if constant is not None]
    if len(known) != len(parameters):
        return None
    mean, variance, *affine = known
    eps = small_constant(np.asarray(node.attributes["eps"], dtype=variance.type.dtype.numpy))
    scale = derive("rsqrt", derive("add", variance, eps))
    if affine:
        scale = derive("mul", scale, affine[0])
    shift = derive("mul", mean, scale)
    return scale, derive("sub", affine[1], shift) if len(affine) > 1 else derive("neg", shift)


def into_producer(rewriter: LocalRewriter, node: Node) -> Replacement:
    """batch_norm(conv(x, w, b)) -> conv(x, w * scale, b * scale + shift)."""
    product = node.inputs[0]
    inner = product.node
    if inner is None or inner.op not in ("conv", "conv_transpose", "linear") or not rewriter.is_single_use(product):
        return None
    if (inner.op == "linear" and product.tensor.rank != 2) or inner.attributes.get("dtype") is not None:
        return None
    parameters = _scale_and_shift(node)
    weight = inner.inputs[1].constant
    bias = inner.inputs[2].constant if len(inner.inputs) > 2 else None
    if parameters is None or weight is None or (len(inner.inputs) > 2 and bias is None):
        return None
    scale, shift = parameters
    scaled = _scaled_weight(inner, weight, scale)
    if scaled is None:
        return None
    moved = derive("add", derive("mul", bias, scale), shift) if bias is not None else shift
    operands = [inner.inputs[0], rewriter.constant(scaled), rewriter.constant(moved)]
    return rewriter.emit_node(inner.op, operands, inner.attributes, None, inner.location)


def _scaled_weight(inner: Node, weight: Constant, scale: Constant) -> Constant | None:
    shape = weight.type.static_shape
    if inner.op != "conv_transpose":
        return derive("mul", weight, derive("reshape", scale, shape=(shape[0],) + (1,) * (len(shape) - 1)))
    if inner.attributes["groups"] != 1:
        return None
    return derive("mul", weight, derive("reshape", scale, shape=(1, shape[1]) + (1,) * (len(shape) - 2)))


def into_scale_and_shift(rewriter: LocalRewriter, node: Node) -> Replacement:
    """batch_norm(x) -> x * scale + shift."""
    x = node.inputs[0]
    parameters = _scale_and_shift(node)
    if parameters is None:
        return None
    shape = (x.tensor.shape[1],) + (1,) * (x.tensor.rank - 2)
    scale, shift = (rewriter.constant(derive("reshape", constant, shape=shape)) for constant in parameters)
    return rewriter.emit("add", rewriter.emit("mul", x, scale), shift)
