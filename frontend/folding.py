"""What an exported graph computes from weights alone with operations that mlc lacks, computed once by PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx.node import map_arg

from .partition import has_effect, weights_of


def fold_weights(exported: ExportedProgram, refused: Collection[str]) -> bool:
    """Makes the results of those nodes named in ``refused`` that depend on weights alone constants, in place; whether there were any.

    Orthogonal parametrisations, inverses of fixed matrices and the like then cost nothing when the model is called.
    """
    values: dict[fx.Node, Any] = dict(weights_of(exported))
    constant = set(values)
    for node in exported.graph.nodes:
        if node.op == "call_function" and constant.issuperset(node.all_input_nodes) and not has_effect(node):
            constant.add(node)
    folded = False
    for node in [node for node in exported.graph.nodes if node in constant and node.name in refused]:
        try:
            _evaluate(node, values)
        except Exception:  # whatever PyTorch raises, it raises again when the model is called, as it should
            continue
        results = [user for user in node.users if user.target is operator.getitem] if isinstance(values[node], list | tuple) else [node]
        for result in results:
            value = _evaluate(result, values)
            if isinstance(value, torch.Tensor) and result.users:
                _bind(exported, result, value)
                folded = True
    if folded:
        exported.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or has_effect(node))
        exported.graph_module.recompile()
    return folded


def _evaluate(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """The value of a node that depends on weights alone."""
    pending = [node]
    with torch.no_grad():
        while pending:
            current = pending[-1]
            missing = [operand for operand in current.all_input_nodes if operand not in values]
            if missing:
                pending += missing
                continue
            pending.pop()
            if current not in values:
                assert callable(current.target)
                args, kwargs = map_arg(current.args, values.__getitem__), map_arg(current.kwargs, values.__getitem__)
                values[current] = current.target(*args, **kwargs)
    return values[node]


def _bind(exported: ExportedProgram, node: fx.Node, value: torch.Tensor) -> None:
    """Puts a lifted constant in the place of ``node``."""
    first = next(iter(exported.graph.nodes))
    with exported.graph.inserting_before(first):
        placeholder = exported.graph.placeholder(f"folded_{node.name}")
    placeholder.meta = {"val": node.meta["val"]}
    node.replace_all_uses_with(placeholder)
    exported.graph_signature.input_specs.insert(0, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(placeholder.name), placeholder.name))
    exported.constants[placeholder.name] = value
    for spec in exported.graph_signature.output_specs:
        if getattr(spec.arg, "name", None) == node.name:
            spec.arg = TensorArgument(placeholder.name)
