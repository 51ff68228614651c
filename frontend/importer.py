"""The import of a whole model: export, then one pass over the exported graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind

from ..errors import ExportError, UnsupportedOpError
from ..ir import Constant, DType, Graph, Location, TensorType, TokenType, Value, size_of
from ..ir.program import Signature, TensorSpec
from . import complex_values
from . import signature as trees
from .complex_values import Complex, is_complex
from .conversion import tensor_type
from .dimensions import symbol_specs
from .export import Exported, export_model, weight_of
from .nodes import NodeConverter
from .unsupported import Unsupported


@dataclass(frozen=True)
class Imported:
    """An imported model: the graph, and the arguments and results its inputs and outputs stand for."""

    graph: Graph
    signature: Signature
    states: tuple[State, ...] = ()


@dataclass(frozen=True)
class State:
    """A buffer that the model changes: the graph has a token input for each, after the arguments. ``initial`` is its content when the model
    was imported."""

    name: str
    initial: Constant


def import_model(
    model: nn.Module | Callable[..., Any] | fx.GraphModule | ExportedProgram,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Imported:
    """``model``, traced on example arguments, as a graph of the IR. An ExportedProgram needs no arguments.

    Weights become constants that share the model's memory: they must not change while the graph lives. Buffers and arguments that the model
    changes become state tokens, whose last versions the graph yields after its results. ``dynamic_shapes`` is
    torch.export's; dimensions it does not name are fixed to those of the examples. Raises ExportError when PyTorch cannot export
    the model, and UnsupportedOpError, listing every place, when it uses operations that the IR cannot express.
    """
    return import_exported(export_model(model, args, kwargs or {}, dynamic_shapes))


def import_exported(exported: Exported) -> Imported:
    """A program that :func:`export_model` gave as a graph of the IR. UnsupportedNodesError, listing every place."""
    return _Importer(exported).run()


class UnsupportedNodesError(UnsupportedOpError):
    """The import of a graph failed; ``reasons`` maps the names of the nodes (of the outermost graph) that cannot be converted to
    why not. A refused argument or mutation has no node."""

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


class _Importer(NodeConverter):
    """State of one import: the arguments, results and states around the nodes."""

    def __init__(self, given: Exported) -> None:
        exported = given.program
        super().__init__(exported, given.constants)
        self.exported = exported
        self.returned = returned = given.returned
        self.prefix = given.prefix
        self.passed = {name: index for index, name in enumerate(dict.fromkeys(returned.values()))}
        self.tokens: dict[fx.Node, Value] = {}
        self.states: list[State] = []
        self.input_leaves: list[trees.Leaf] = []
        self.input_specs: list[TensorSpec] = []

    def run(self) -> Imported:
        nodes = list(self.exported.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        specs = dict(zip(placeholders, self.exported.graph_signature.input_specs, strict=True))
        # The arguments come first among the graph's inputs.
        for node, spec in sorted(specs.items(), key=lambda item: item[1].kind is not InputKind.USER_INPUT):
            self.placeholder(node, spec)
        self.check_outputs()
        self.convert_all(self.exported.graph_module, [node for node in nodes if node.op in ("call_function", "get_attr")])
        if self.unsupported:
            raise UnsupportedNodesError(str(self.unsupported.error()), self.reasons)
        return self.finish(nodes[-1])

    # Inputs

    def placeholder(self, node: fx.Node, spec: InputSpec) -> None:
        """An argument becomes an input, a weight or lifted tensor a constant."""
        if spec.kind is InputKind.USER_INPUT:
            self.user_input(node)
            return
        location = Location(module=str(spec.target or node.name), origin=spec.kind.name.lower())
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            self.unsupported.add(f"{spec.kind.name.lower()} input", location, "the graph takes objects that are not tensors: remove them")
            self.entries[node] = None
            return
        if node in self.mutations.final:
            self.state(node, spec, location)
            return
        if not node.users:
            return
        try:
            tensor = weight_of(self.exported, spec)
            self.builder.location = location
            if tensor.is_complex():
                self.entries[node] = complex_values.constant(self.builder, tensor)
                return
            value = self.builder.constant(self.constants.constant(tensor))
        except Unsupported as reason:
            self.unsupported.add(location.origin, location, str(reason))
            value = self.stand_in_value(node.meta["val"])
        value.name = value.name or node.name
        self.entries[node] = value

    def state(self, node: fx.Node, spec: InputSpec, location: Location) -> None:
        """A buffer that the model changes becomes a token."""
        try:
            if spec.kind is not InputKind.BUFFER:
                raise Unsupported("it is changed by a call, which only buffers may be: make it one with register_buffer")
            tensor = weight_of(self.exported, spec)
            self.builder.location = location
            # The buffer goes on to change; what it held first is part of the program.
            self.states.append(State(str(spec.target).removeprefix(self.prefix), self.constants.constant(tensor.detach().clone())))
            self.entries[node] = self.token(node, tensor_type(tensor))
        except Unsupported as reason:
            self.unsupported.add(location.origin, location, str(reason))
            self.entries[node] = self.stand_in_value(node.meta["val"])

    def token(self, node: fx.Node, type: TensorType) -> Value:
        """The content of a token input for what ``node`` holds."""
        read = self.builder.add("state_read", self.builder.input(TokenType(type), node.name))
        read.outputs[0].name = f"{node.name}.old"
        self.tokens[node] = read.outputs[1]
        return read.outputs[0]

    def user_input(self, node: fx.Node) -> None:
        example = node.meta.get("val")
        if not isinstance(example, torch.Tensor):
            if isinstance(example, torch.SymInt | torch.SymFloat | torch.SymBool):
                self.unsupported.add(
                    "symbolic number", Location(origin=node.name), f"argument '{node.name}' is dynamic: leave it out of dynamic_shapes"
                )
            self.entries[node] = example
            self.input_leaves.append(trees.value(example))
            return
        try:
            mutated = node in self.mutations.final
            type = complex_values.input_type(example) if is_complex(example) and not mutated else tensor_type(example)
            value = self.token(node, type) if mutated else self.builder.input(type, node.name)
        except Unsupported as reason:
            self.unsupported.add("input", Location(origin=node.name), f"argument '{node.name}': {reason}")
            value = self.stand_in_value(example)
        paired = is_complex(example) and isinstance(value.type, TensorType) and value.tensor.rank > example.dim()
        self.entries[node] = complex_values.parted(self.builder, value) if paired else value
        leaf = trees.leaf(len(self.input_specs))
        if node.name in self.passed:
            leaf = trees.passed(leaf, self.passed[node.name])
        self.input_leaves.append(leaf)
        self.input_specs.append(_spec(value, node.name, node in self.mutations.final, complex_=paired))

    def check_outputs(self) -> None:
        """What a program may yield: results, and new contents of buffers and arguments."""
        known = (OutputKind.USER_OUTPUT, OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION, OutputKind.USER_INPUT_MUTATION)
        for spec in self.exported.graph_signature.output_specs:
            if spec.kind not in known:
                location = Location(module=str(spec.target or ""))
                self.unsupported.add(spec.kind.name.lower().replace("_", " "), location, "compile the forward pass only")

    # Outputs

    def finish(self, output: fx.Node) -> Imported:
        """The graph, and the signature with the pytrees of arguments and results."""
        values: list[Value] = []
        pairs: list[bool] = []
        index_of: dict[fx.Node, int] = {}
        leaves: list[trees.Leaf] = []
        kinds = [spec.kind for spec in self.exported.graph_signature.output_specs]
        results = [result for result, kind in zip(output.args[0], kinds, strict=True) if kind is OutputKind.USER_OUTPUT]  # type: ignore[arg-type]
        for position, result in enumerate(results):
            if position in self.returned:
                leaves.append(trees.leaf(-1 - self.passed[self.returned[position]]))
                continue
            entry = self.argument(result)
            pair = isinstance(entry, Complex)
            if isinstance(entry, Complex):
                if entry.dtype is not DType.FLOAT32:
                    raise UnsupportedOpError(f"result '{result}' is complex with {entry.dtype.text} parts: return torch.view_as_real of it")
                entry = complex_values.paired(self.builder, entry)
            if not isinstance(entry, Value):
                leaves.append(trees.value(entry))
                continue
            assert isinstance(result, fx.Node)
            # The same tensor returned twice is one output; equal values of different tensors are two.
            if result not in index_of:
                index_of[result] = len(values)
                values.append(entry)
                pairs.append(pair)
            leaves.append(trees.leaf(index_of[result]))
        call = self.exported.call_spec
        if call.in_spec is None or call.out_spec is None:
            raise ExportError("the exported program has no record of its arguments: export it again with torch.export.export")
        # Arguments among the results follow the outputs.
        leaves = [trees.leaf(len(values) - 1 - item["index"]) if item.get("index", 0) < 0 else item for item in leaves]
        count = len(self.input_specs)
        arguments = [trees.passed(item, count + item["passed"]) if "passed" in item else item for item in self.input_leaves]
        input_tree = trees.describe(call.in_spec, arguments, count + len(self.passed))
        output_tree = trees.describe(call.out_spec, leaves, len(values) + len(self.passed))
        paths = trees.leaf_paths(output_tree)
        outputs = tuple(_spec(value, _output_name(paths[index], index), complex_=pairs[index]) for index, value in enumerate(values))
        tokens = [
            self.builder.call("state_write", token, self.content(node), location=Location(origin=f"new content of {node.name}"))
            for node, token in self.tokens.items()
        ]
        graph = self.builder.finish([*values, *tokens])
        signature = Signature(tuple(self.input_specs), outputs, input_tree, output_tree, symbol_specs(graph, len(self.input_specs)))
        return Imported(graph, signature, tuple(self.states))

    def content(self, node: fx.Node) -> Value:
        """What the buffer or argument of a placeholder holds in the end."""
        value = self.entries[self.mutations.final[node]]
        assert isinstance(value, Value)
        return value


def _spec(value: Value, name: str, mutated: bool = False, *, complex_: bool = False) -> TensorSpec:
    """What is passed for ``value``, which holds pairs of parts along its last axis where it is ``complex_``."""
    shape = tuple(size_of(extent) for extent in value.tensor.shape)
    if complex_:
        return TensorSpec(name, DType.COMPLEX64.text, shape[:-1], mutated)
    return TensorSpec(name, value.tensor.dtype.text, shape, mutated)


def _output_name(path: str, index: int) -> str:
    return f"output{index}" if not path or path.replace(".", "").isdigit() else path
