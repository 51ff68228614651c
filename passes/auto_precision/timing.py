"""How long a layer takes in a mode, by the kernels that it would become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ...codegen.assembly import tasks_of
from ...codegen.kernels import KernelNode
from ...codegen.precision import Mode, Precision
from ...costmodel import LAUNCH_SECONDS, roofline
from ...errors import Error
from ...ir import Graph, GraphBuilder, Node, Value
from ..base import Context
from ..pipeline import Pipeline
from .layers import Layer

Seconds = Callable[[Layer, Mode], float]
"""Predicted seconds of a layer in a mode."""

_LOWERING = "encode-weights,narrow-operands,common-subexpressions,layout,fuse,dead-code"


def predicted_seconds(graph: Graph, ctx: Context) -> Seconds:
    """A function that predicts for the layers of ``graph`` on the context's target. Equal layers are asked about once.

    Weights come from memory if all constants of the graph together do not fit the last-level cache.
    """
    nbytes = sum(value.tensor.nbytes for node in graph.nodes if node.op == "constant" for value in node.outputs)
    cold = nbytes > ctx.target.l3_bytes
    known: dict[object, float] = {}

    def seconds(layer: Layer, mode: Mode) -> float:
        return sum(of_node(node, mode) for node in layer.nodes)

    def of_node(node: Node, mode: Mode) -> float:
        key = (node.op, str(sorted(node.attributes.items())), tuple(str(value.type) for value in node.inputs), mode.name)
        if key not in known:
            known[key] = _seconds(node, replace(ctx, precision=Precision((("", mode.name),)), calibration=_like(node, ctx)), cold)
        return known[key]

    return seconds


def _seconds(node: Node, ctx: Context, cold: bool) -> float:
    try:
        lowered = Pipeline.parse(_LOWERING).run(_alone(node), ctx)
        kernels = tasks_of(lowered, ctx.target, threads=ctx.threads, numerics=ctx.numerics)
    except Error:
        # A layer that cannot be compiled like that is none that anybody would choose.
        return float("inf")
    return sum(_of_kernel(kernel, cold) for kernel in kernels)


def _of_kernel(kernel: KernelNode, cold: bool) -> float:
    """The roofs of the memory hierarchy, or what the kernel's template reckons for its default config where that is more."""
    task = kernel.task
    bound = roofline(task, cold=cold).seconds
    space = kernel.template.space(task)
    cycles = kernel.template.estimated_cycles(task, [space.default])
    return max(bound, cycles[0] / task.target.frequency + LAUNCH_SECONDS if cycles is not None else 0.0)


def _like(node: Node, ctx: Context) -> Sequence[Sequence[np.ndarray]]:
    """A sample of the inputs of the graph of ``node`` alone if the context has any, so that no range is found at run time then."""
    variables = [value.tensor for value in node.inputs if value.constant is None]
    return [[np.broadcast_to(np.zeros((), type.dtype.numpy), type.static_shape) for type in variables]] if ctx.calibration else ()


def _alone(node: Node) -> Graph:
    """The graph of one layer: its operand is the input, constants are its own."""
    builder = GraphBuilder(node.op)
    operands: list[Value] = []
    for value in node.inputs:
        constant = value.constant
        operands.append(builder.constant(constant, value.tensor) if constant is not None else builder.input(value.type))
    new = builder.append(Node(node.op, operands, node.attributes, [value.type for value in node.outputs], (), node.location))
    return builder.finish(new.outputs)
