"""The kernels of a graph: a task and a template for every node that computes something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import LoweringError
from ..ir import (
    DENSE,
    Constant,
    DerivedConstant,
    Dim,
    Graph,
    GraphBuilder,
    Location,
    Node,
    SymbolRange,
    Value,
    canonicalise,
    control_walk,
    is_alias,
    is_control,
    lookup,
    symbol,
    used_symbols,
)
from .offsets import without_offsets
from .target import Kind, Target
from .task import Numerics, Task
from .template import Template
from .templates import template_for


@dataclass(frozen=True)
class KernelNode:
    """A kernel call to be: the fused node, its task and the template that takes it.

    ``symbols`` are the graph's names of what the task calls s0, s1, ...
    ``offsets`` are the bytes from the start of operands, by their position, to the parts of them that the task takes.
    """

    node: Node
    task: Task
    template: Template
    symbols: tuple[str, ...] = ()
    offsets: Mapping[int, int] = field(default_factory=dict)

    def renamed(self, dim: Dim) -> Dim:
        """A size that the task's kernel states, in the symbols of the graph."""
        if isinstance(dim, int):
            return dim
        names = {symbol(old): symbol(new) for old, new in zip(self.task.graph.symbols, self.symbols, strict=True)}
        result: Dim = dim.subs(names, simultaneous=True)
        return result


def kernel_nodes(graph: Graph, target: Target, threads: int, numerics: Numerics, constants: Mapping[Value, Constant]) -> list[KernelNode]:
    """A task and a template for every top-level node that needs a kernel; LoweringError that lists all nodes without one."""
    kernels: list[KernelNode] = []
    refused: list[str] = []
    locations: list[Location] = []
    for node in control_walk(graph):
        if node.op == "constant" or is_control(node) or _is_free(node, constants):
            continue
        original = node.regions[0] if node.op == "fusion" else wrapped(node, graph.symbols)
        region = canonicalise(original)
        template = template_for(region, target.kind)
        if template is None:
            refused.append(f"  {label_of(node)} ({node.location}) on {', '.join(str(value.type) for value in node.inputs)}")
            locations += _refused_locations(node, target.kind)
            continue
        if not template.reads_encoded(region):
            region = canonicalise(with_dense_inputs(region))
        constant_inputs = frozenset(position for position, value in enumerate(node.inputs) if value in constants)
        offsets: dict[int, int] = {}
        symbols = used_symbols(original)
        if not symbols and template.in_place(region) is None:
            part, found = without_offsets(region, constant_inputs)
            better = template_for(canonicalise(part), target.kind) if found else None
            if better is not None and better.in_place(part) is None:
                region, template, offsets = canonicalise(part), better, found
        kernels.append(KernelNode(node, Task(region, constant_inputs, target, threads, numerics), template, symbols, offsets))
    if refused:
        remedy = "compile with static shapes (without dynamic_shapes), " if graph.symbols else ""
        error = LoweringError(
            f"no kernel template takes these operations; {remedy}replace them in the model, or compile that part with PyTorch:\n"
            + "\n".join(refused)
        )
        error.locations = tuple(locations)
        raise error
    return kernels


def locations_of(node: Node) -> tuple[Location, ...]:
    """Where the operations of a kernel come from."""
    if node.op != "fusion":
        return (node.location,)
    return tuple(inner.location for inner in node.regions[0].nodes if not _is_plumbing(inner)) or (node.location,)


def _refused_locations(node: Node, kind: Kind) -> tuple[Location, ...]:
    """Where the operations of a refused node come from: those that no template takes alone, else all that compute."""
    if node.op != "fusion":
        return (node.location,)
    inner = [each for each in node.regions[0].nodes if not (_is_plumbing(each) or is_alias(each))]
    alone = [each.location for each in inner if template_for(canonicalise(wrapped(each)), kind) is None]
    return tuple(alone) or locations_of(node)


def label_of(node: Node) -> str:
    """A short description of a fused node: its computing operations joined by +."""
    if node.op != "fusion":
        return node.op
    ops = [inner.op for inner in node.regions[0].nodes if not _is_plumbing(inner)]
    return "+".join(ops) or "+".join(inner.op for inner in node.regions[0].nodes) or "copy"


def _is_plumbing(node: Node) -> bool:
    return node.op in ("constant", "full", "reshape", "permute", "broadcast_to", "slice", "relayout", "cast")


def _is_free(node: Node, constants: Mapping[Value, Constant]) -> bool:
    """Whether the node needs no kernel: its result shares its operand's memory, is a constant, or has no elements."""
    known = len(node.outputs) == 1 and node.output in constants
    return known or is_alias(node) or all(value.tensor.is_empty for value in node.outputs)


def with_dense_inputs(region: Graph) -> Graph:
    """``region`` for inputs that are stored densely: the numbers are the same."""
    if all(value.tensor.encoding.is_dense for value in region.inputs):
        return region
    builder = GraphBuilder(region.name, region.symbols)
    mapping = {value: builder.input(value.tensor.with_encoding(DENSE), value.name) for value in region.inputs}
    for node in region.nodes:
        types = [value.type for value in node.outputs]
        new = builder.append(Node(node.op, [mapping[value] for value in node.inputs], node.attributes, types, node.regions, node.location))
        mapping.update(zip(node.outputs, new.outputs, strict=True))
    return builder.finish([mapping[value] for value in region.outputs])


def wrapped(node: Node, symbols: Mapping[str, SymbolRange] | None = None) -> Graph:
    """A region that computes the single operation ``node``, whose types may hold ``symbols``."""
    builder = GraphBuilder(node.op, symbols)
    inputs = [builder.input(value.type) for value in node.inputs]
    inner = builder.append(Node(node.op, inputs, node.attributes, [value.type for value in node.outputs], node.regions, node.location))
    return builder.finish(inner.outputs)


def known_constants(graph: Graph) -> dict[Value, Constant]:
    """The values known at compile time, in the graph and the regions of its control flow: constants and views of constants."""
    known: dict[Value, Constant] = {}
    for node in control_walk(graph):
        if node.op == "constant":
            value = node.output.constant
            assert value is not None
            known[node.output] = value
        elif node.op in ("reshape", "permute", "relayout") and node.inputs[0] in known:
            known[node.output] = _view_of(node, known[node.inputs[0]])
    return known


def _view_of(node: Node, operand: Constant) -> Constant:
    if node.op == "relayout":
        return operand

    def evaluate() -> np.ndarray:
        result = lookup(node.op).reference([operand.array()], node.attributes)
        return np.asarray(result[0] if isinstance(result, tuple) else result)

    attributes = tuple(sorted(node.attributes.items()))
    return DerivedConstant(node.op, (operand,), attributes, 0, node.output.tensor.with_layout(None), evaluate)
