"""Contractions over narrow operands: what a module's mode says they are multiplied in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..codegen.instruction_sets import multiplies_bf16
from ..codegen.precision import Compute, Precision
from ..codegen.target import Kind
from ..costmodel.workload import is_minimal_filtering
from ..ir import DType, Graph, Node, Rewriter, Value
from .base import Context, Pass, register_pass
from .calibration import Observation, observe
from .common_subexpressions import without_dead_code
from .derive import derive
from .layer_seconds import layer_seconds
from .quantised_layers import Quantiser, can_quantise

_FEW_ROWS = 16
"""With so few rows a product reads weights more slowly than it multiplies them, so that halves pay even if they must be widened."""
_LEAST_CHANNELS = 2
"""Input channels of a convolution in bfloat16: one is a word by itself, so that fp32 is as quick."""
_LEAST_IN_GROUPS = 5
"""The same where there are groups, whose channels would share words."""
_HALF = {Compute.BF16: DType.BFLOAT16, Compute.FP16: DType.FLOAT16}


@register_pass
@dataclass(frozen=True)
class NarrowOperands(Pass):
    """Linear layers and convolutions with constant weights multiply what their module's mode says, and sum in 32 bits.

    ``bf16``: operands are rounded to bfloat16 where the target multiplies that; elsewhere, and in ``fp16``, the weights of layers over few
    rows are stored so and widened, which is all that is gained. ``int8``: weights are rounded to 8 bits with a scale for each output,
    activations to the range that they have in the context's calibration; without one, to the range of each row (of each image), found
    when the program runs. Layers that are better left alone stay in fp32: few channels (images, where four bytes of a pixel are no word),
    depthwise and short sums, and what minimal filtering speeds up more. In ``bf16`` these read activations in bfloat16 all the same, except
    single channels.

    The mode is that of a node's module, or ``mode`` where that is given.
    """

    name: ClassVar[str] = "narrow-operands"
    rounds: ClassVar[bool] = True
    mode: str = ""

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        precision = Precision.of(self.mode) if self.mode else ctx.precision
        wanted = {node: compute_of(node, precision.mode(node.location.module).compute, ctx) for node in graph.nodes}
        modes = {node: compute for node, compute in wanted.items() if compute is not Compute.FP32}
        if not modes:
            return graph
        observed = self._observed(graph, [node for node, compute in modes.items() if compute is Compute.INT8], ctx)
        rewriter = Rewriter(graph)
        quantiser = Quantiser(rewriter, ctx.target)
        for node in graph.nodes:
            rewriter.builder.location = node.location
            compute = modes.get(node, Compute.FP32)
            if compute is Compute.FP32 or not ctx.budget.spend():
                rewriter.copy(node)
            elif compute is Compute.INT8:
                rewriter.replace(node.output, quantiser.layer(node, observed.get(node.inputs[0])))
            else:
                rewriter.replace(node.output, _halved(rewriter, node, _HALF[compute], ctx))
        return without_dead_code(rewriter.finish())

    def _observed(self, graph: Graph, nodes: Sequence[Node], ctx: Context) -> Mapping[Value, Observation]:
        if not nodes or not ctx.calibration or ctx.nested or ctx.evaluator is None:
            return {}
        return observe(graph, (node.inputs[0] for node in nodes), ctx.calibration, ctx.evaluator)


def compute_of(node: Node, compute: Compute, ctx: Context) -> Compute:
    """What ``node`` is multiplied in where its mode says ``compute``."""
    if (
        compute is Compute.FP32
        or node.op not in ("linear", "conv")
        or node.attributes["dtype"] is not None
        or ctx.target.kind is not Kind.CPU
    ):
        return Compute.FP32
    weight = node.inputs[1]
    if weight.constant is None or not weight.tensor.encoding.is_dense or weight.tensor.dtype is not DType.FLOAT32:
        return Compute.FP32
    if compute is Compute.INT8:
        return compute if can_quantise(node, ctx) else Compute.FP32
    if compute is Compute.BF16 and multiplies_bf16(ctx.target):
        return Compute.FP32 if _has_few_channels(node) else compute
    return compute if compute in _HALF and node.op == "linear" and has_few_rows(node) else Compute.FP32


def _has_few_channels(node: Node) -> bool:
    """Whether ``node`` is a convolution over so few channels that words of pairs are no fewer than they."""
    if node.op != "conv" or _is_depthwise(node):
        return False
    return node.inputs[1].tensor.static_shape[1] < (_LEAST_CHANNELS if node.attributes["groups"] == 1 else _LEAST_IN_GROUPS)


def _is_depthwise(node: Node) -> bool:
    """Whether every channel of a convolution has filters of its own."""
    return node.op == "conv" and node.attributes["groups"] != 1 and node.inputs[1].tensor.static_shape[1] == 1


def _is_quicker_in_fp32(node: Node, half: DType, ctx: Context) -> bool:
    """Whether minimal filtering in fp32 is predicted to be quicker than the target's products of halves."""
    x, weight = (value.tensor for value in node.inputs[:2])
    if not (ctx.fast and x.is_static and is_minimal_filtering(node)):
        return False
    narrow = layer_seconds(node, (x.with_dtype(half), weight.with_dtype(half)), DType.FLOAT32, ctx)
    return layer_seconds(node, (x, weight), None, ctx) < narrow


def has_few_rows(layer: Node) -> bool:
    """Whether a linear layer has so few rows that reading its weight takes longer than multiplying; not where their number is symbolic."""
    rows = math.prod(layer.inputs[0].tensor.shape[:-1])
    return isinstance(rows, int) and rows <= _FEW_ROWS


def _halved(rewriter: Rewriter, node: Node, half: DType, ctx: Context) -> Value:
    """The result of ``node`` with a weight, and where the target multiplies such numbers an operand, of 16-bit floats."""
    builder = rewriter.builder
    weight = node.inputs[1]
    assert weight.constant is not None
    attributes = dict(node.attributes)
    operands = [rewriter[value] for value in node.inputs]
    if _is_depthwise(node) or _is_quicker_in_fp32(node, half, ctx):
        # What is gained is that activations are stored in fewer bytes.
        operands[0] = builder.call("cast", builder.call("cast", operands[0], dtype=half), dtype=DType.FLOAT32)
        return builder.add(node.op, *operands, attributes=attributes).output
    operands[1] = builder.constant(derive("cast", weight.constant, dtype=half))
    if half is DType.BFLOAT16 and multiplies_bf16(ctx.target):
        operands[0] = builder.call("cast", operands[0], dtype=half)
        attributes["dtype"] = DType.FLOAT32
    else:
        operands[1] = builder.call("cast", operands[1], dtype=DType.FLOAT32)
    return builder.add(node.op, *operands, attributes=attributes).output
