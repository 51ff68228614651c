"""The pytrees of a model's arguments and results, as the JSON-like trees of :class:`mlc.ir.program.Signature`."""

from __future__ import annotations

import dataclasses
import itertools
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import TreeSpec

from ..errors import ExportError
from ..ir import DType, GraphBuilder, TensorType, size_of
from ..ir.program import Signature, TensorSpec
from ..ir.size import Extent
from .dimensions import dimension, dims, symbol_ranges, symbol_specs
from .dtypes import from_torch
from .holders import Opened, Outline, Returned
from .unsupported import Unsupported

Leaf = dict[str, Any]


def leaf(index: int) -> Leaf:
    """A tensor: number ``index`` of the flat inputs or outputs."""
    return {"kind": "leaf", "index": index}


def passed(node: Leaf, index: int) -> Leaf:
    """``node`` of the input tree as one that the result contains as well: object number ``index``."""
    return {**node, "passed": index}


def value(scalar: bool | int | float | str | None) -> Leaf:
    """A non-tensor that is part of the signature."""
    return {"kind": "value", "value": scalar}


def describe(spec: TreeSpec, leaves: Sequence[Leaf], holders: int) -> dict[str, Any]:
    """The description of ``spec`` with ``leaves`` at its leaves, in order; ExportError for a class that cannot be rebuilt.

    ``holders`` is the number, among the flat inputs or outputs and what is passed behind them, of the first object that holds tensors.
    """
    remaining = iter(leaves)
    tree = _describe(spec, remaining, _Holders(holders, itertools.count(holders)))
    assert next(remaining, None) is None, "there are more leaves than the tree has"
    return tree


@dataclasses.dataclass(frozen=True)
class _Holders:
    """The number of the first holder, and those that follow in the order of the arguments."""

    first: int
    numbers: Iterator[int]


def _describe(spec: TreeSpec, leaves: Iterator[Leaf], holders: _Holders) -> dict[str, Any]:
    kind, context = spec.type, spec.context
    if kind is Opened:
        assert isinstance(context, Outline)
        return passed(_describe_outline(context, leaves), next(holders.numbers))
    if kind is Returned:
        return leaf(holders.first + context)
    if spec.is_leaf():
        return next(leaves)
    items = [_describe(child, leaves, holders) for child in spec.children()]
    if kind is tuple:
        return {"kind": "tuple", "items": items}
    if kind is list:
        return {"kind": "list", "items": items}
    if kind in (dict, OrderedDict):
        return {"kind": "dict", "keys": list(context), "items": items}
    if kind is defaultdict:
        return {"kind": "dict", "keys": list(context[1]), "items": items}
    if kind is namedtuple:  # the class is the context
        kind = context
    if kind.__module__ == "torch.return_types":  # what torch.max, topk and the like return; it takes no keywords
        return {"kind": "tuple", "items": items}
    keys, absent = _field_names(kind, context)
    if len(keys) != len(items):
        raise ExportError(
            f"the model takes or returns a {kind.__module__}.{kind.__qualname__}, which cannot be rebuilt from its tensors: "
            "use tuples, dicts or dataclasses (for a cache of a Hugging Face model: pass or configure use_cache=False)"
        )
    return {
        "kind": "object",
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "keys": [*keys, *absent],
        "items": [*items, *(value(None) for _ in absent)],
    }


def _describe_outline(outline: Outline, leaves: Iterator[Leaf]) -> dict[str, Any]:
    """A holder as an object with attributes; what is neither tensor, plain value nor container of them is not looked at."""
    match outline.kind:
        case "tensor":
            return next(leaves)
        case "value":
            return value(outline.value)
        case "list" | "tuple":
            return {"kind": outline.kind, "items": [_describe_outline(item, leaves) for item in outline.items]}
    named = [(key, _describe_outline(item, leaves)) for key, item in zip(outline.keys, outline.items, strict=True) if item.kind != "opaque"]
    tree = {"kind": outline.kind, "keys": [key for key, _ in named], "items": [item for _, item in named]}
    return tree if outline.kind == "dict" else {**tree, "type": f"{outline.value.__module__}.{outline.value.__qualname__}"}


def _field_names(kind: Any, context: Any) -> tuple[list[str], list[str]]:
    """Keywords with which the class takes its items, and those of fields that are None; no keywords if it is not built by them."""
    if hasattr(kind, "_fields"):  # a named tuple
        return list(kind._fields), []
    if not dataclasses.is_dataclass(kind):
        return [], []
    # torch.export.register_dataclass keeps (names, names of fields that are None), Hugging Face's ModelOutput the names.
    if context and isinstance(context[0], list | tuple):
        return [str(name) for name in context[0]], [str(name) for name in context[1]]
    return [str(name) for name in context], []


def call_signature(exported: ExportedProgram) -> Signature:
    """The arguments and results of an exported program; sizes that depend on data are -1. In the output tree all flat results are leaves,
    numbers and None included, while ``outputs`` are the tensors among them.

    ExportError for numbers as arguments that are not fixed.
    """
    inputs: list[TensorSpec] = []
    shapes = GraphBuilder(symbols=symbol_ranges(exported))
    leaves: list[Leaf] = []
    placeholders = exported.graph.find_nodes(op="placeholder")
    for node, spec in zip(placeholders, exported.graph_signature.input_specs, strict=True):
        if spec.kind is not InputKind.USER_INPUT:
            continue
        example = node.meta.get("val")
        if isinstance(example, torch.SymInt | torch.SymFloat | torch.SymBool):
            raise ExportError(f"argument '{node.name}' is a number that may change: leave it out of dynamic_shapes")
        if isinstance(example, torch.Tensor):
            leaves.append(leaf(len(inputs)))
            inputs.append(_tensor_spec(node.name, example))
            shapes.input(TensorType(DType.FLOAT32, dims(example.shape)))
        else:
            leaves.append(value(example))
    kinds = [spec.kind for spec in exported.graph_signature.output_specs]
    given = zip(exported.graph.output_node().args[0], kinds, strict=True)
    results = [result for result, kind in given if kind is OutputKind.USER_OUTPUT]
    nodes = [result for result in results if isinstance(result, fx.Node)]
    outputs = [_tensor_spec(node.name, node.meta["val"]) for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    in_spec, out_spec = exported.call_spec.in_spec, exported.call_spec.out_spec
    if in_spec is None or out_spec is None:
        raise ExportError("the exported program has no record of its arguments: export it again with torch.export.export")
    input_tree = describe(in_spec, leaves, len(inputs))
    output_tree = describe(out_spec, [leaf(index) for index in range(len(results))], len(results))
    return Signature(tuple(inputs), tuple(outputs), input_tree, output_tree, symbol_specs(shapes.finish(()), len(inputs)))


def _tensor_spec(name: str, example: torch.Tensor) -> TensorSpec:
    shape = tuple(_extent(extent) for extent in example.shape)
    return TensorSpec(name, "c64" if example.dtype is torch.complex64 else from_torch(example.dtype).text, shape)


def _extent(extent: int | torch.SymInt) -> Extent:
    try:
        return size_of(dimension(extent))
    except Unsupported:
        return -1


def leaf_paths(tree: dict[str, Any], prefix: str = "") -> dict[int, str]:
    """For each tensor the dotted path of keys to it, '' where it has none; the first place of a repeated tensor counts."""
    if tree["kind"] == "leaf":
        return {tree["index"]: prefix}
    if tree["kind"] == "value":
        return {}
    names = tree["keys"] if "keys" in tree else range(len(tree["items"]))
    paths: dict[int, str] = {}
    for name, item in zip(names, tree["items"], strict=True):
        for index, path in leaf_paths(item, f"{prefix}.{name}" if prefix else str(name)).items():
            paths.setdefault(index, path)
    return paths
