"""Segments of an exported graph as graphs of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.node import map_arg
from torch.utils._pytree import tree_flatten

from ..errors import ExportError
from .partition import Segment

aten = torch.ops.aten


def in_pytorch(module: fx.GraphModule, segment: Segment) -> fx.GraphModule:
    """A module that computes the tuple of the segment's outputs from its inputs, with PyTorch's own operations.

    Values of other segments are laid out in memory in row-major order, whatever order the graph was traced with: views become reshapes,
    and what reads its operand by strides gets it in the traced ones.
    """
    graph = fx.Graph()
    known = _placeholders(graph, segment.inputs)
    for node in segment.nodes:
        if node.target is aten.as_strided.default:
            operand = node.args[0]
            assert isinstance(operand, fx.Node)
            known[operand] = graph.call_function(_laid_out, (known[operand], tuple(operand.meta["val"].stride())))
        known[node] = graph.node_copy(node, known.__getitem__)
        if node.target is aten.view.default:
            known[node].target = aten.reshape.default
    graph.output(tuple(known[node] for node in segment.outputs))
    return fx.GraphModule(module, graph)


def as_program(module: fx.GraphModule, segment: Segment, weights: Mapping[fx.Node, torch.Tensor]) -> ExportedProgram:
    """A program that takes those of the segment's inputs that are no ``weights``, in order, and returns the tuple of its outputs."""
    graph = fx.Graph()
    bound = [node for node in segment.inputs if node in weights]
    arguments = [node for node in segment.inputs if node not in weights]
    known = _placeholders(graph, [*bound, *arguments])
    for node in segment.nodes:
        known[node] = graph.node_copy(node, known.__getitem__)
    outputs = [known[node] for node in segment.outputs]
    graph.output(tuple(outputs))
    constants = {known[node].name: weights[node] for node in bound}
    return _program(module, graph, constants, [known[node] for node in arguments], outputs)


def specialised(program: ExportedProgram, inputs: Sequence[Any]) -> ExportedProgram:
    """``program``, whose sizes are symbolic, for inputs (tensors, numbers) of the sizes of ``inputs``; numbers are built in.

    ExportError when PyTorch refuses an operation on such inputs.
    """
    graph = fx.Graph()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    known: dict[fx.Node, Any] = {}
    values: dict[fx.Node, Any] = {}
    given = iter(inputs)
    arguments: list[fx.Node] = []
    specs = iter(program.graph_signature.input_specs)
    with mode, torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "placeholder":
                spec = next(specs)
                value = program.constants[str(spec.target)] if spec.kind is not InputKind.USER_INPUT else next(given)
                if not isinstance(value, torch.Tensor):
                    known[node] = values[node] = value
                    continue
                new = graph.node_copy(node, known.__getitem__)
                new.meta["val"] = mode.from_tensor(value.detach())
                if spec.kind is InputKind.USER_INPUT:
                    arguments.append(new)
            elif node.op == "get_attr":
                new = graph.node_copy(node, known.__getitem__)
                values[node], known[node] = getattr(program.graph_module, str(node.target)), new
                continue
            elif node.op == "call_function":
                result = _propagate(node, values)
                if result is None or isinstance(result, bool | int | float):
                    known[node] = values[node] = result
                    continue
                args, kwargs = map_arg(node.args, known.__getitem__), map_arg(node.kwargs, known.__getitem__)
                new = graph.create_node("call_function", node.target, args, kwargs, node.name)
                new.meta = {**node.meta, "val": result}
            else:
                continue
            known[node], values[node] = new, new.meta["val"]
    outputs = [known[node] for node in program.graph.output_node().args[0]]
    graph.output(tuple(outputs))
    return _program(program.graph_module, graph, dict(program.constants), arguments, outputs)


def _propagate(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The (fake) result of a node."""
    target = aten.reshape.default if node.target is aten.view.default else node.target
    assert callable(target)
    try:
        return target(*map_arg(node.args, values.__getitem__), **map_arg(node.kwargs, values.__getitem__))
    except Exception as error:
        raise ExportError(f"{node.target} cannot be computed on inputs of these sizes: {error}") from error


def _placeholders(graph: fx.Graph, nodes: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
    known = {}
    for node in nodes:
        placeholder = graph.placeholder(node.name)
        placeholder.meta = {key: node.meta[key] for key in ("val", "nn_module_stack", "stack_trace") if key in node.meta}
        known[node] = placeholder
    return known


def _laid_out(value: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """``value`` in memory of these strides."""
    if value.stride() == strides:
        return value
    return torch.empty_strided(value.shape, strides, dtype=value.dtype, device=value.device).copy_(value)


def _program(
    root: fx.GraphModule, graph: fx.Graph, constants: dict[str, torch.Tensor], arguments: Sequence[fx.Node], outputs: Sequence[Any]
) -> ExportedProgram:
    """A program over ``graph``: placeholders named in ``constants`` are lifted tensors, the others the arguments."""
    inputs = [
        InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(node.name), node.name)
        if node.name in constants
        else InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None)
        for node in graph.find_nodes(op="placeholder")
    ]
    results = [
        OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(each.name) if isinstance(each, fx.Node) else ConstantArgument("", each), None)
        for each in outputs
    ]
    _, in_spec = tree_flatten((tuple(arguments), {}))
    _, out_spec = tree_flatten(tuple(outputs))
    signature = ModuleCallSignature([spec.arg for spec in inputs if spec.kind is InputKind.USER_INPUT], [], in_spec, out_spec)
    return ExportedProgram(
        root,
        graph,
        ExportGraphSignature(inputs, results),
        {},
        {},
        [ModuleCallEntry("", signature)],
        None,
        constants,  # type: ignore[arg-type]
    )
