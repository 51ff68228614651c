"""How long a layer would take in one arithmetic or another, for passes that choose between them."""

from __future__ import annotations

import math

from ..codegen.task import Task
from ..codegen.winograd import WINDOW
from ..ir import DType, GraphBuilder, Layout, Node, TensorType, canonicalise
from .base import Context


def layer_seconds(node: Node, operands: tuple[TensorType, TensorType], sums: DType | None, ctx: Context) -> float:
    """What a convolution alone, channels last, over ``operands`` and with ``sums`` of a dtype is predicted to take.

    The arithmetic as its template reckons it, and reading the weight as it is stored from memory, of which minimal filtering makes several
    times as much; infinite without a template.
    """
    from ..codegen.templates import template_for

    builder = GraphBuilder()
    channels_last = Layout((0, *range(2, operands[0].rank), 1))
    inputs = [builder.input(operands[0].with_layout(channels_last)), builder.input(operands[1])]
    result = node.output.tensor.with_dtype(sums or DType.FLOAT32).with_layout(channels_last)
    y = builder.add("conv", *inputs, attributes={**node.attributes, "dtype": sums}, types=[result]).output
    task = Task(canonicalise(builder.finish([y])), frozenset({1}), ctx.target, ctx.threads, ctx.numerics).representative
    template = template_for(task.graph, ctx.target.kind)
    if template is None:
        return math.inf
    config = template.space(task).default
    cycles = template.estimated_cycles(task, [config])
    filtering = config["winograd"]
    share = ((filtering + WINDOW - 1) / WINDOW) ** 2 if filtering else 1.0
    reading = share * operands[1].nbytes / ctx.target.memory_bandwidth
    return cycles[0] / ctx.target.frequency + reading if cycles is not None else math.inf
