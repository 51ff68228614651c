"""Conversion of the nodes of an exported graph and of its sub-graphs: each becomes the values it stands for, or a reason why it cannot."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from ..errors import Error, ExportError
from ..ir import DType, Graph, GraphBuilder, TensorType, Type, Value
from . import ops as _ops  # noqa: F401  registers the converters
from .complex_values import Complex, complex_converter_of, is_complex, of_parts
from .constants import ConstantPool
from .control_flow import import_of
from .conversion import Conversion, tensor_type
from .dimensions import dimension, symbol_ranges
from .location import location_of, operation_name
from .mutation import mutations
from .registry import Result, converter_of
from .unsupported import Unsupported, UnsupportedOps, remedy_for

Entry: TypeAlias = "Value | Sequence[Value | None] | Any"
"""What a node of the exported graph stands for: a value, several, or (symbolic sizes, specialised arguments) a plain object."""


class NodeConverter:
    """The graph that grows as nodes are converted, and what each node (``entries``) stands for in it; ``reasons`` says of nodes of the
    outermost graph, by name, why they cannot be converted."""

    def __init__(self, exported: ExportedProgram, constants: ConstantPool | None = None) -> None:
        self.mutations = mutations(exported)
        self.builder = GraphBuilder(symbols=symbol_ranges(exported))
        self.constants = ConstantPool(constants)
        self.unsupported = UnsupportedOps()
        self.reasons: dict[str, str] = {}
        self.outermost: fx.Node | None = None
        self.entries: dict[fx.Node, Entry] = {}
        self.scalars: dict[tuple[str, DType], Value] = {}

    def convert_all(self, module: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
        """Converts ``nodes`` of ``module`` in order; what cannot be converted is recorded, a stand-in takes its place."""
        enclosing = self.outermost
        for node in nodes:
            self.outermost = enclosing or node
            self.builder.location = location_of(node)
            example = node.meta.get("val")
            try:
                self.entries[node] = self.convert(module, node)
            except Unsupported as reason:
                self.refuse(node, str(reason))
            except Exception as error:
                # Behind a stand-in types may no longer fit; the first reason is the one that counts.
                if self.unsupported:
                    self.entries[node] = self.stand_in(example)
                elif self.builder.symbols and isinstance(error, Error):
                    remedy = "say in dynamic_shapes what sizes are multiples of (16 * Dim('tiles')), or compile with static shapes"
                    self.refuse(node, f"{error}: {remedy}")
                else:
                    self.refuse(node, f"a use that mlc does not know ({type(error).__name__}: {error})")
        self.outermost = enclosing

    def refuse(self, node: fx.Node, reason: str) -> None:
        """Records that ``node`` cannot be converted; a stand-in takes its place."""
        self.unsupported.add(operation_name(node), self.builder.location, reason)
        assert self.outermost is not None
        self.reasons.setdefault(self.outermost.name, reason)
        self.entries[node] = self.stand_in(node.meta.get("val"))

    def convert(self, module: fx.GraphModule, node: fx.Node) -> Entry:
        if node.op == "get_attr":
            attribute = getattr(module, str(node.target))
            return self.builder.constant(self.constants.constant(attribute)) if isinstance(attribute, torch.Tensor) else attribute
        example = node.meta.get("val")
        if isinstance(example, torch.SymInt):
            return dimension(example)
        if isinstance(example, bool | int | float) or not node.users:
            return example
        if isinstance(example, torch.SymBool | torch.SymFloat):
            raise Unsupported("the result is a number that depends on symbolic dimensions: compile with static shapes")
        arguments = map_aggregate(node.args, self.argument)
        keywords = map_aggregate(node.kwargs, self.argument)
        if node.target is operator.getitem:
            return _pick(node, arguments)  # type: ignore[arg-type]
        imported = import_of(node.target)
        if imported is not None:
            return imported(self, node, arguments)
        results = tuple(example) if isinstance(example, list | tuple) else (example,)
        given = pytree.tree_leaves((arguments, keywords), is_leaf=lambda item: isinstance(item, Complex))
        if any(isinstance(item, Complex | complex) for item in given) or any(map(is_complex, results)):
            return self.convert_complex(node, results, arguments, keywords)
        converter = converter_of(node.target)
        if converter is None:
            raise Unsupported(remedy_for(operation_name(node)))
        overwrites = node in self.mutations.versions
        result = converter(Conversion(self.builder, node, results, self.scalars, overwrites), *arguments, **keywords)
        _check_types(node, result, results)
        if isinstance(result, Value) and not result.name:
            result.name = node.name
        return result

    def convert_complex(self, node: fx.Node, results: Sequence[Any], arguments: Any, keywords: Any) -> Entry:
        """An operation on complex numbers: its converter works with their parts."""
        converter = complex_converter_of(node.target)
        if converter is None:
            raise Unsupported(f"{operation_name(node)} of complex numbers: compute it from real and imaginary parts (torch.view_as_real)")
        parts = tuple(of_parts(result) if isinstance(result, torch.Tensor) else result for result in results)
        result = converter(Conversion(self.builder, node, parts, self.scalars), *arguments, **keywords)
        for part in ("real", "imag"):
            _check_types(node, pytree.tree_map_only(Complex, operator.attrgetter(part), result, is_leaf=_is_pair), parts)
        return result

    def argument(self, item: Any) -> Any:
        """What an argument in the exported graph stands for here."""
        if isinstance(item, fx.Node):
            return self.entries[item]
        return dimension(item) if isinstance(item, torch.SymInt) else item

    def inline(self, body: fx.GraphModule, arguments: Sequence[Any]) -> Sequence[Entry]:
        """What a sub-graph returns for ``arguments``, computed in the graph at hand."""
        nodes = list(body.graph.nodes)
        for inner, outer in zip([node for node in nodes if node.op == "placeholder"], arguments, strict=True):
            self.entries[inner] = outer
        self.convert_all(body, [node for node in nodes if node.op in ("call_function", "get_attr")])
        results = nodes[-1].args[0]
        return [self.argument(result) for result in (results if isinstance(results, list | tuple) else [results])]

    def region(self, body: fx.GraphModule, name: str, types: Sequence[Type]) -> Graph:
        """A sub-graph as a graph of its own over inputs of ``types``."""
        outside = self.builder, self.scalars
        self.builder, self.scalars = GraphBuilder(name, self.builder.symbols), {}
        try:
            results = self.inline(body, [self.builder.input(type) for type in types])
            if not all(isinstance(result, Value) for result in results):
                raise Unsupported(f"the {name} of a control flow operation returns something other than tensors: return tensors only")
            return self.builder.finish([result for result in results if isinstance(result, Value)])
        finally:
            self.builder, self.scalars = outside

    def stand_in(self, example: Any) -> Entry:
        """A value of the right type, so that the import can go on to find more that is unsupported."""
        if isinstance(example, list | tuple):
            return [self.stand_in(item) for item in example]
        if is_complex(example):
            return self.stand_in_complex(example)
        return self.stand_in_value(example) if isinstance(example, torch.Tensor) else None

    def stand_in_complex(self, example: torch.Tensor) -> Complex:
        real = of_parts(example)
        assert real is not None
        return Complex(self.stand_in_value(real), self.stand_in_value(real))

    def stand_in_value(self, example: torch.Tensor) -> Value:
        try:
            type = tensor_type(example)
        except Unsupported:
            type = TensorType(DType.FLOAT32, (1,) * example.dim())
        return self.builder.input(type)


def _is_pair(item: Any) -> bool:
    return isinstance(item, Complex)


def _pick(node: fx.Node, arguments: tuple[Any, int]) -> Entry:
    """One result of an operation with several."""
    results, index = arguments
    if results[index] is None:
        producer = node.args[0]
        name = operation_name(producer) if isinstance(producer, fx.Node) else "the operation"
        raise Unsupported(f"mlc does not compute result {index} of {name}: use its other results only")
    return results[index]


def _check_types(node: fx.Node, result: Result, examples: Sequence[Any]) -> None:
    """Holds a converter to what PyTorch says of the results: a mistake here would surface far away."""
    results = [result] if isinstance(result, Value) else list(result)
    for value, example in zip(results, examples, strict=False):
        if value is None or not isinstance(example, torch.Tensor):
            continue
        expected = tensor_type(example)
        same = value.tensor.dtype is expected.dtype and value.tensor.rank == expected.rank
        if not same or (expected.is_static and value.tensor.shape != expected.shape):
            raise ExportError(f"the conversion of {operation_name(node)} yields {value.type} where PyTorch has {expected}: a defect of mlc")
