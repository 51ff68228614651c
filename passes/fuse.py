"""Fusion: every operation of the result belongs to a region that one kernel computes."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ..ir import Graph, GraphBuilder, Node, Rewriter, TensorType, TokenType, Value, is_alias, is_control
from .acceptance import pulls_operand
from .base import Context, Pass, register_pass
from .common_subexpressions import CommonSubexpressions
from .facts import (
    SCATTERS,
    TRANSCENDENTAL,
    is_contraction,
    is_elementwise,
    is_free,
    is_inlined,
    is_normalisation,
    is_source,
    is_state,
    is_view,
    is_virtual,
    use_count,
)
from .grouping import Group, Partition
from .regions import Region
from .unrolled_loops import leads_slices


@register_pass
@dataclass(frozen=True)
class Fuse(Pass):
    """Wraps all work into ``fusion`` nodes, as few as templates and profit allow.

    First elementwise operations join the kernel that produces their operand (epilogue), then injective groups join the one kernel that
    reads them (prologue). ``max_ops`` limits the operations of one region. Afterwards every node is a fusion, a constant, a view that is
    an alias of its operand, or control flow.
    """

    name: ClassVar[str] = "fuse"
    max_ops: int = 32

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        graph = _split_virtual_views(graph)
        partition = Partition(graph, ctx, self.max_ops)
        _join_producers(partition, share=False)
        _join_consumers(partition)
        _join_producers(partition, share=True)
        _join_moves(partition)
        return CommonSubexpressions().apply(_emit(partition), ctx)


def _split_virtual_views(graph: Graph) -> Graph:
    """Gives each reader of a view that would move data its own copy of the view, so that it can be fused into all of them."""
    rewriter = Rewriter(graph)
    chains = {node for node in graph.nodes if is_virtual(node) and not leads_slices(graph, node)}
    split = {node for node in chains if use_count(graph, node.output) > 1}
    if not split:
        return graph

    def fresh(value: Value) -> Value:
        node = value.node
        if node is None or node not in chains:
            return rewriter[value]
        if node not in split and value in rewriter:
            return rewriter[value]
        new = Node(node.op, [fresh(operand) for operand in node.inputs], node.attributes, [value.type], (), node.location)
        rewriter.builder.append(new)
        return new.output

    for node in graph.nodes:
        if node in chains:
            continue
        copies = {value: fresh(value) for value in dict.fromkeys(node.inputs) if value.node in chains}
        for value, copy in copies.items():
            rewriter.replace(value, copy)
        rewriter.copy(node)
    for value in graph.outputs:
        if value.node in chains:
            rewriter.replace(value, fresh(value))
    return rewriter.finish()


def _elements(value: Value) -> int:
    if not isinstance(value.type, TensorType):
        return -1
    return value.tensor.elements if value.tensor.is_static else -1


def _join_producers(partition: Partition, share: bool) -> None:
    """Elementwise operations become epilogues of the kernel that computes an operand of the same size.

    Unless ``share``, only where that kernel then stores no more values than before, nor wider ones.
    """
    graph = partition.graph
    for node in graph.nodes:
        if not (is_elementwise(node) or node.op == "batch_norm"):
            continue
        own = partition.home(node)
        if own.anchors or (not share and _widens_for_one(graph, node)):
            continue
        candidates: dict[Group, list[Group]] = {}
        for value in node.inputs:
            chain: list[Group] = []
            seen = value
            while True:
                producer = seen.node
                if producer is None or not is_view(producer) or producer.op in ("slice", "broadcast_to"):
                    break
                chain.append(partition.home(producer))
                seen = producer.inputs[0]
            group = partition.of(seen)
            if group is None or group is own or _elements(seen) != _elements(node.output):
                continue
            candidates.setdefault(group, chain)
        ranked = sorted(candidates, key=lambda group: (_rank(group), -group.last))
        for group in ranked:
            if partition.merge(group, *candidates[group], own, most_stored=None if share else max(1, partition.stored(group.nodes))):
                break


def _widens_for_one(graph: Graph, node: Node) -> bool:
    """Whether ``node`` only makes wider numbers for one reader, which had better do so itself: narrow ones are fewer bytes."""
    return (
        node.op == "cast"
        and node.inputs[0].tensor.dtype.bits < node.output.tensor.dtype.bits
        and use_count(graph, node.output) == 1
        and node.output not in graph.output_set
    )


def _join_moves(partition: Partition) -> None:
    """A permutation or relayout that nothing computes with becomes the order in which a contraction stores its only result."""
    for group in partition.groups():
        if not all(node.op in ("permute", "reshape", "relayout") for node in group.nodes):
            continue
        if all(is_alias(node) for node in group.nodes):
            continue
        first = min(group.nodes, key=partition.order.__getitem__)
        producer = partition.of(first.inputs[0])
        if producer is not None and producer is not group and _rank(producer) == 0 and use_count(partition.graph, first.inputs[0]) == 1:
            partition.merge(producer, group)


def _rank(group: Group) -> int:
    """Which producers take an epilogue first: contractions save a whole pass over their result."""
    if any(is_contraction(node) for node in group.anchors):
        return 0
    return 1 if group.anchors else 2


def _join_consumers(partition: Partition) -> None:
    """Injective groups become prologues of the kernel that reads them."""
    for seen in reversed(partition.groups()):
        group = partition.home(next(iter(seen.nodes)))
        # A group that has become part of a later one was dealt with; one that took in what it reads ends where it did.
        if not group.injective or group.last != seen.last:
            continue
        consumers = partition.consumers(group)
        if not consumers:
            continue
        escapes = partition.escapes(group)
        if len(consumers) == 1 and not escapes:
            if _worth_pulling(partition, group, consumers[0]):
                partition.merge(group, consumers[0])
            continue
        for consumer in consumers:
            if _worth_sharing(partition, group, consumer) and partition.merge(group, consumer):
                break


def _crossing(partition: Partition, group: Group, consumer: Group) -> list[tuple[Value, Node]]:
    """The values that ``consumer`` reads of ``group``, each with the node that reads it."""
    return [
        (value, node)
        for node in sorted(consumer.nodes, key=partition.order.__getitem__)
        for value in node.inputs
        if value.node in group.nodes
    ]


def _readers(partition: Partition, value: Value, node: Node, consumer: Group) -> list[tuple[Node, int]]:
    """The nodes of ``consumer`` that read ``value`` through views, each with how often it reads an element."""
    if not is_view(node):
        return [(node, _repeats(value, node))]
    found: list[tuple[Node, int]] = []
    for user in partition.graph.users.get(node.output, ()):
        if user in consumer.nodes:
            found += [(reader, times * _repeats(value, node)) for reader, times in _readers(partition, node.output, user, consumer)]
    return found or [(node, _repeats(value, node))]


def _repeats(value: Value, node: Node) -> int:
    """How many elements of the node's result each element of ``value`` enters, for broadcasts."""
    if not (is_elementwise(node) or node.op == "broadcast_to"):
        return 1
    return max(1, -(-_elements(node.outputs[0]) // max(1, _elements(value))))


_CHEAP_OPS = 6


def _worth_pulling(partition: Partition, group: Group, consumer: Group) -> bool:
    """Whether computing ``group`` inside ``consumer`` is cheaper than storing its results."""
    if all(is_free(node) for node in group.nodes):
        return True
    heavy = any(node.op in TRANSCENDENTAL for node in group.nodes)
    work = sum(not is_free(node) for node in group.nodes)
    for value, node in _crossing(partition, group, consumer):
        for reader, times in _readers(partition, value, node, consumer):
            if reader.op == "attention" and _decodes(group, value):
                continue
            if is_contraction(reader) and not heavy and work <= _CHEAP_OPS and _pulled_in_passing(partition, group, consumer):
                continue
            if is_contraction(reader) or reader.op == "window_reduce" or reader.op == "scan" or reader.op == "sort":
                return False
            if reader.op in SCATTERS and heavy:
                # Updates are written one by one, what they are computed from is computed in vectors.
                return False
            if times > 1 and (heavy or work > _CHEAP_OPS) and times * work * _elements(value) > 1 << 16:
                return False
    return True


def _pulled_in_passing(partition: Partition, group: Group, consumer: Group) -> bool:
    """Whether ``consumer``, a contraction, computes ``group`` about as fast as it reads its results."""
    region = partition.region(group.nodes | consumer.nodes)
    return region is not None and pulls_operand(region.graph, partition.ctx.target.kind)


def _decodes(group: Group, value: Value) -> bool:
    """Whether ``group`` makes ``value`` of one stored in fewer bits: a template that takes it (which knows how) reads those bits."""
    if any(node.op in TRANSCENDENTAL for node in group.nodes):
        return False
    bits = value.tensor.dtype.bits
    return any(
        node.op == "cast" and node.inputs[0].tensor.dtype.bits < bits and _elements(node.output) == _elements(value) for node in group.nodes
    )


def _worth_sharing(partition: Partition, group: Group, consumer: Group) -> bool:
    """Whether ``consumer`` may compute ``group`` and store its results for the others as well."""
    if all(is_view(node) for node in group.nodes):
        return False
    crossing = _crossing(partition, group, consumer)
    if consumer.anchors and not all(is_normalisation(node) for node in consumer.anchors):
        return False
    stored = [value for node in group.nodes for value in node.outputs if _stored(partition, value, group)]
    sizes = {_elements(value) for value in stored} | {_elements(value) for value, _ in crossing}
    results = {_elements(value) for node in consumer.nodes for value in node.outputs if _stored(partition, value, consumer)}
    return len(sizes | results) == 1


def _stored(partition: Partition, value: Value, group: Group) -> bool:
    users = partition.graph.users.get(value, ())
    return value in partition.graph.output_set or any(user not in group.nodes for user in users)


@dataclass(frozen=True)
class _Unit:
    """What is emitted as one node: a region, or an alias or control flow by itself."""

    nodes: tuple[Node, ...]
    region: Region | None


def _emit(partition: Partition) -> Graph:
    graph = partition.graph
    units: list[_Unit] = []
    for group in partition.groups():
        # Control flow, and reads and writes of states, are not computed; they are alone in their groups, since no template takes them.
        region = None if any(is_state(node) or is_control(node) for node in group.nodes) else partition.region(group.nodes)
        if region is not None:
            units.append(_Unit(region.nodes, region))
        aliases = region.aliases if region is not None else tuple(group.nodes)
        units += [_Unit((node,), None) for node in aliases]
    builder = GraphBuilder(graph.name, graph.symbols)
    mapping: dict[Value, Value] = {value: builder.input(value.type, value.name) for value in graph.inputs}

    def resolve(value: Value) -> Value:
        if value not in mapping:
            assert value.node is not None and is_source(value.node), value
            mapping[value] = _emit_source(builder, value.node)
        return mapping[value]

    for unit in _in_order(units, partition):
        if unit.region is None:
            (node,) = unit.nodes
            types = [value.type for value in node.outputs]
            operands = [resolve(value) for value in node.inputs]
            new = builder.append(Node(node.op, operands, node.attributes, types, node.regions, node.location))
            for old, value in zip(node.outputs, new.outputs, strict=True):
                value.name = old.name
                mapping[old] = value
        else:
            body = CommonSubexpressions().apply(unit.region.graph, partition.ctx)
            _emit_fusion(builder, unit.region, body, resolve, mapping)
    outputs = [resolve(value) for value in graph.outputs]
    return builder.finish(outputs if partition.ctx.nested else _own_outputs(builder, outputs))


def _emit_fusion(
    builder: GraphBuilder, region: Region, body: Graph, resolve: Callable[[Value], Value], mapping: dict[Value, Value]
) -> None:
    anchor = max(region.nodes, key=lambda node: (is_contraction(node), is_normalisation(node), not is_free(node)))
    fusion = Node(
        "fusion",
        [resolve(value) for value in region.inputs],
        {},
        [value.type for value in body.outputs],
        (body,),
        anchor.location,
    )
    builder.append(fusion)
    for old, new in zip(region.outputs, fusion.outputs, strict=True):
        new.name = old.name
        mapping[old] = new


def _emit_source(builder: GraphBuilder, node: Node) -> Value:
    if node.op == "constant" and not is_inlined(node):
        constant = node.output.constant
        assert constant is not None
        return builder.constant(constant, node.output.tensor)
    if node.op == "constant":
        return builder.append(Node(node.op, (), node.attributes, [node.output.type], (), node.location)).output
    # A generator that is read as a whole: a graph output, or the operand of an alias.
    inner = GraphBuilder(node.op, builder.symbols)
    made = inner.append(Node(node.op, (), node.attributes, [node.output.type], (), node.location))
    return builder.append(Node("fusion", (), {}, [node.output.type], (inner.finish(made.outputs),), node.location)).output


def _own_outputs(builder: GraphBuilder, outputs: list[Value]) -> list[Value]:
    """Gives each graph output bytes of its own: a copy where it is an input, a constant, or the bytes of an earlier output."""
    taken: set[Value] = set()
    result: list[Value] = []
    for value in outputs:
        root = value
        while root.node is not None and is_alias(root.node):
            root = root.node.inputs[0]
        if isinstance(value.type, TokenType):
            result.append(value)
            continue
        if root.node is None or root.node.op in ("constant", "state_read") or root in taken:
            inner = GraphBuilder("copy", builder.symbols)
            copy = inner.append(Node("relayout", [inner.input(value.type, "x")], {}, [value.type]))
            value = builder.append(Node("fusion", [value], {}, [value.type], (inner.finish(copy.outputs),))).output
        taken.add(root)
        result.append(value)
    return result


def _in_order(units: list[_Unit], partition: Partition) -> list[_Unit]:
    """Units in topological order, otherwise as in the original graph (by their last node, where their results are due)."""
    made_by = {node: index for index, unit in enumerate(units) for node in unit.nodes}
    waiting = [0] * len(units)
    dependants: list[set[int]] = [set() for _ in units]
    for index, unit in enumerate(units):
        needed = {made_by[value.node] for node in unit.nodes for value in node.inputs if value.node in made_by} - {index}
        waiting[index] = len(needed)
        for other in needed:
            dependants[other].add(index)
    due = [max(partition.order[node] for node in unit.nodes) for unit in units]
    ready = [(due[index], index) for index in range(len(units)) if waiting[index] == 0]
    heapq.heapify(ready)
    result: list[_Unit] = []
    while ready:
        _, index = heapq.heappop(ready)
        result.append(units[index])
        for other in dependants[index]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, (due[other], other))
    assert len(result) == len(units), "groups depend on each other in a cycle"
    return result


def kernel_count(graph: Graph) -> int:
    """How many kernels a fused graph runs."""
    return sum(node.op == "fusion" for node in graph.nodes)
