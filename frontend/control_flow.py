"""PyTorch's control flow (cond, while_loop, scan, map) and flex_attention: sub-graphs become regions, or are inlined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from ..ir import DType, Graph, GraphBuilder, TensorType, Type, Value
from .decompositions import our_decompositions
from .unsupported import Unsupported


class SubgraphImporter(Protocol):
    """What the importer of the whole graph does for operations with sub-graphs."""

    builder: GraphBuilder

    def region(self, body: fx.GraphModule, name: str, types: Sequence[Type]) -> Graph:
        """``body`` as a graph over inputs of ``types``."""
        ...

    def inline(self, body: fx.GraphModule, arguments: Sequence[Any]) -> Sequence[Any]:
        """What ``body`` returns for ``arguments``, computed in the graph at hand."""
        ...


Import: TypeAlias = "Callable[[SubgraphImporter, fx.Node, Sequence[Any]], Sequence[Any]]"
"""``(importer, node, arguments)``: the results of an operation with sub-graphs."""


def import_of(target: object) -> Import | None:
    """How a higher-order operator is imported, if it is known."""
    if not isinstance(target, torch._ops.HigherOrderOperator):
        return None
    name = str(target)
    return _inline if name.startswith("wrap_with_") else _IMPORTS.get(name)


def _inline(importer: SubgraphImporter, node: fx.Node, arguments: Sequence[Any]) -> Sequence[Any]:
    """A wrapped sub-graph (grad mode, autocast): its mode has already acted, or has no effect on values."""
    position = next(i for i, argument in enumerate(arguments) if isinstance(argument, fx.GraphModule))
    return importer.inline(arguments[position], arguments[position + 1 :])


def _cond(importer: SubgraphImporter, node: fx.Node, arguments: Sequence[Any]) -> Sequence[Any]:
    predicate, then, otherwise, operands = arguments
    if isinstance(predicate, bool):
        return importer.inline(then if predicate else otherwise, operands)
    values = _values("cond", [predicate, *operands])
    flag = values[0]
    if flag.tensor.shape != ():
        flag = importer.builder.call("reshape", flag, shape=())
    if flag.tensor.dtype is not DType.BOOL:
        flag = importer.builder.call("cast", flag, dtype=DType.BOOL)
    types = [value.type for value in values[1:]]
    regions = [importer.region(then, "then", types), importer.region(otherwise, "else", types)]
    return importer.builder.add("cond", flag, *values[1:], regions=regions).outputs


def _while_loop(importer: SubgraphImporter, node: fx.Node, arguments: Sequence[Any]) -> Sequence[Any]:
    condition, body, carried, additional = arguments
    values = _values("while_loop", [*carried, *additional])
    types = [value.type for value in values]
    regions = [importer.region(condition, "condition", types), importer.region(body, "body", types)]
    # The body does not yield what the loop only reads.
    step = regions[1]
    regions[1] = Graph(step.inputs, step.nodes, (*step.outputs, *step.inputs[len(carried) :]), step.name, step.symbols)
    flag = regions[0].outputs[0]
    if flag.tensor.shape != () or flag.tensor.dtype is not DType.BOOL:
        raise Unsupported(f"the condition of a while_loop yields {flag.type}: return a bool tensor without axes")
    return importer.builder.add("while", *values, regions=regions).outputs[: len(carried)]


def _scan(importer: SubgraphImporter, node: fx.Node, arguments: Sequence[Any]) -> Sequence[Any]:
    body, initial, sequences, *rest = arguments
    return _loop(importer, body, initial, sequences, rest[0] if rest else ())


def _map(importer: SubgraphImporter, node: fx.Node, arguments: Sequence[Any]) -> Sequence[Any]:
    body, sequences, *rest = arguments
    return _loop(importer, body, (), sequences, rest[0] if rest else ())


def _loop(
    importer: SubgraphImporter, body: fx.GraphModule, initial: Sequence[Any], sequences: Sequence[Any], additional: Sequence[Any]
) -> Sequence[Any]:
    values = _values("scan", [*initial, *sequences, *additional])
    first, last = len(initial), len(initial) + len(sequences)
    if first == last:
        raise Unsupported("a scan without sequences: pass at least one")
    pieces = [TensorType(value.tensor.dtype, value.tensor.shape[1:]) for value in values[first:last]]
    types = [value.type for value in values]
    region = importer.region(body, "body", [*types[:first], *pieces, *types[last:]])
    attributes = {"trips": values[first].tensor.shape[0], "carried": first, "sliced": last - first}
    return importer.builder.add("loop", *values, attributes=attributes, regions=[region]).outputs


def _flex_attention(importer: SubgraphImporter, node: fx.Node, arguments: Sequence[Any]) -> Sequence[Any]:
    """PyTorch's own definition of flex_attention in plain operations, with the score and mask functions applied to all scores."""
    from torch._higher_order_ops.flex_attention import math_attention

    flat: list[fx.Node] = []

    def note(item: fx.Node) -> fx.Node:
        if item.op != "get_attr" and item not in flat:
            flat.append(item)
        return item

    fx.map_arg((node.args, node.kwargs), note)
    owner = node.graph.owning_module
    assert owner is not None

    def attention(*tensors: torch.Tensor) -> Any:
        given: Mapping[fx.Node, Any] = dict(zip(flat, tensors, strict=True))

        def resolve(item: fx.Node) -> Any:
            return getattr(owner, str(item.target)) if item.op == "get_attr" else given[item]

        positional: Any = fx.map_arg(node.args, resolve)
        keywords: Any = fx.map_arg(node.kwargs, resolve)
        return math_attention(*positional, **keywords)

    examples = [item.meta["val"] for item in flat]
    traced = make_fx(attention, decomposition_table=our_decompositions())(*examples)
    lookup = dict(_resolved(node, arguments))
    return importer.inline(traced, [lookup[item] for item in flat])


def _resolved(node: fx.Node, arguments: Sequence[Any]) -> Sequence[tuple[fx.Node, Any]]:
    """Pairs of the nodes among the arguments of ``node`` and what they stand for."""
    pairs: list[tuple[fx.Node, Any]] = []

    def pair(item: Any, argument: Any) -> None:
        if isinstance(item, fx.Node):
            pairs.append((item, argument))
        elif isinstance(item, list | tuple):
            for inner, value in zip(item, argument, strict=True):
                pair(inner, value)
        elif isinstance(item, dict):
            for key, inner in item.items():
                pair(inner, argument[key])

    pair(node.args, tuple(arguments))
    return pairs


def _values(what: str, operands: Sequence[Any]) -> list[Value]:
    for operand in operands:
        if not isinstance(operand, Value):
            raise Unsupported(f"a {what} takes the number {operand!r}: pass it as a tensor")
    return list(operands)


_IMPORTS: Mapping[str, Import] = {
    "cond": _cond,
    "while_loop": _while_loop,
    "scan": _scan,
    "map_impl": _map,
    "flex_attention": _flex_attention,
}
