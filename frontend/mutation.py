"""What a model changes: its buffers, its arguments; and which of its results are arguments that it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

_UPDATES = frozenset(
    {
        torch.ops.aten.copy.default,
        torch.ops.aten.index_put.default,
        torch.ops.aten.index_copy.default,
        torch.ops.aten._unsafe_index_put.default,
        torch.ops.aten.slice_scatter.default,
        torch.ops.aten.select_scatter.default,
    }
)
"""Functional forms of assignments to a part of their first operand."""


@dataclass(frozen=True)
class Mutations:
    """``final`` gives for each placeholder that the program changes the node of its new content. ``versions`` are the nodes between the two
    (and the placeholders): contents of a changed buffer, which updates may overwrite."""

    final: Mapping[fx.Node, fx.Node]
    versions: frozenset[fx.Node]


def mutations(exported: ExportedProgram) -> Mutations:
    """What a functional exported program changes."""
    signature = exported.graph_signature
    nodes = {node.name: node for node in exported.graph.nodes}
    holders = {spec.target: nodes[spec.arg.name] for spec in signature.input_specs if spec.target is not None and hasattr(spec.arg, "name")}
    final: dict[fx.Node, fx.Node] = {}
    for spec in signature.output_specs:
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            final[holders[spec.target]] = nodes[spec.arg.name]
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            assert spec.target is not None
            final[nodes[spec.target]] = nodes[spec.arg.name]
    versions: set[fx.Node] = set(final)
    for placeholder, node in final.items():
        chain = []
        while node is not placeholder and node.op == "call_function" and node.target in _UPDATES:
            chain.append(node)
            operand, source = node.args[:2]
            assert isinstance(operand, fx.Node)
            # An update of a slice, which then is put back.
            if isinstance(source, fx.Node) and source.target in _UPDATES:
                chain.append(source)
            node = operand
        if node is placeholder:
            versions.update(chain)
    return Mutations(final, frozenset(versions))


def returned_inputs(exported: ExportedProgram) -> dict[int, str]:
    """The results, by position among those of the user, that are arguments changed in place, and which argument each is.

    ``exported`` is a program before its decomposition, in which mutations are operations in place; such a result and the argument are one
    object in PyTorch, as after ``cache.index_copy_(...); return cache``.
    """
    user_inputs = set(exported.graph_signature.user_inputs)
    found = {}
    (output,) = exported.graph.find_nodes(op="output")
    kinds = [spec.kind for spec in exported.graph_signature.output_specs]
    results = [node for node, kind in zip(output.args[0], kinds, strict=True) if kind is OutputKind.USER_OUTPUT]
    changed = changed_inputs(exported)
    for position, node in enumerate(results):
        base = _base(node) if isinstance(node, fx.Node) else None
        if base is not None and base in changed and base.name in user_inputs:
            found[position] = base.name
    return found


def changed_inputs(exported: ExportedProgram) -> set[fx.Node]:
    """The placeholders (and other tensors) that operations in place write, in a program before its decomposition."""
    return {_base(node) for node in exported.graph.nodes if _is_in_place(node)}


def _is_in_place(node: fx.Node) -> bool:
    """Whether ``node`` is an operation that writes its first operand and returns it."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    arguments = node.target._schema.arguments
    return bool(arguments) and arguments[0].alias_info is not None and arguments[0].alias_info.is_write


def _base(node: fx.Node) -> fx.Node:
    """The node whose tensor ``node`` is: through operations in place."""
    while _is_in_place(node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
