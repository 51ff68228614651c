"""Simpler control flow: constants go into regions, what no round changes comes out of loops, what nobody needs goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..ir import Attribute, Graph, GraphBuilder, Node, Rewriter, TensorType, Value, is_control, map_regions
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .facts import is_free, is_source, uniform


@register_pass
@dataclass(frozen=True)
class ControlFlow(Pass):
    """Makes ``cond``, ``while`` and ``loop`` nodes smaller and their regions self-contained; results stay the same.

    - Constants and generators that a region gets as operands become nodes inside, where they fold and weights are packed.
    - Operands that no region reads, and results that nobody reads, disappear.
    - What a loop hands on unchanged is an invariant; what it computes from invariants only is computed once, before it, and the linear
      layers of a sequence's elements become one layer of the whole sequence.
    - A branch on a known predicate, and a loop of one round or none, are written out.
    """

    name: ClassVar[str] = "control-flow"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        if not any(is_control(node) for node in graph.nodes):
            return graph

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            if any(not isinstance(value.type, TensorType) for value in (*node.inputs, *node.outputs)) or not ctx.budget.spend():
                return None
            used = [value in graph.output_set or bool(graph.users.get(value)) for value in node.outputs]
            return _RULES[node.op](rewriter, node, used)

        result = without_dead_code(Rewriter(graph).run(dict.fromkeys(_RULES, rule)))
        # What came into a region may go into the regions inside it.
        return map_regions(result, lambda region: self.apply(region, ctx))


def _cond(rewriter: Rewriter, node: Node, used: Sequence[bool]) -> Sequence[Value]:
    predicate, *operands = [rewriter[value] for value in node.inputs]
    known = uniform(predicate)
    if known is not None:
        return _inlined(rewriter, node.regions[0 if known else 1], operands)
    sources = _sources(operands, range(len(operands)), node.regions)
    wanted = [position for position, needed in enumerate(used) if needed]
    regions = [_changed(region, sources, [region.outputs[i] for i in wanted]) for region in node.regions]
    kept = [value for position, value in enumerate(operands) if position not in sources]
    new = rewriter.builder.add("cond", predicate, *kept, regions=regions)
    return _spread(new, wanted, operands[0] if operands else predicate, len(used))


def _while(rewriter: Rewriter, node: Node, used: Sequence[bool]) -> Sequence[Value]:
    operands = [rewriter[value] for value in node.inputs]
    condition, body = node.regions
    unchanged = [i for i in range(len(operands)) if body.outputs[i] is body.inputs[i]]
    sources = _sources(operands, unchanged, [condition, _with_outputs(body, [v for i, v in enumerate(body.outputs) if i not in unchanged])])
    kept = [position for position in range(len(operands)) if position not in sources]
    regions = [_changed(condition, sources, condition.outputs), _changed(body, sources, [body.outputs[i] for i in kept])]
    new = rewriter.builder.add("while", *(operands[i] for i in kept), regions=regions)
    results = dict(zip(kept, new.outputs, strict=True))
    return [operands[i] if i in unchanged else results[i] for i in range(len(operands))]


def _loop(rewriter: Rewriter, node: Node, used: Sequence[bool]) -> Sequence[Value]:
    loop = _Loop.of(rewriter, node)
    if loop.trips in (0, 1):
        return loop.written_out(rewriter, node)
    count = len(loop.carried)
    unchanged = {i: loop.carried[i] for i in range(count) if loop.body.outputs[i] is loop.body.inputs[i]}
    wanted = [i for i in range(len(used)) if i not in unchanged and (i < count or used[i])]
    loop = loop.with_invariants(unchanged, wanted)
    for hoist in (_hoist_invariants, _hoist_layers):
        loop = hoist(rewriter, loop)
    new = loop.without_needless().add_to(rewriter.builder)
    results: dict[int, Value] = unchanged | dict(zip(wanted, new.outputs, strict=True))
    return [results.get(i, rewriter[node.inputs[0]]) for i in range(len(used))]


_RULES = {"cond": _cond, "while": _while, "loop": _loop}


def _spread(new: Node, wanted: Sequence[int], dead: Value, count: int) -> list[Value]:
    """Results by their old positions; ``dead`` stands for those that nobody reads."""
    results = dict(zip(wanted, new.outputs, strict=True))
    return [results.get(position, dead) for position in range(count)]


def _sources(operands: Sequence[Value], among: Collection[int], regions: Sequence[Graph]) -> dict[int, Node | None]:
    """The positions of operands that regions need not be given: generators and constants, and (None) what none of them reads."""
    found: dict[int, Node | None] = {}
    for position in among:
        producer = operands[position].node
        if not any(_reads(region, region.inputs[position]) for region in regions):
            found[position] = None
        elif producer is not None and is_source(producer):
            found[position] = producer
    return found


def _reads(region: Graph, value: Value) -> bool:
    return bool(region.users.get(value)) or value in region.output_set


def _with_outputs(region: Graph, outputs: Sequence[Value]) -> Graph:
    return Graph(region.inputs, region.nodes, tuple(outputs), region.name, region.symbols)


def _changed(region: Graph, sources: Mapping[int, Node | None], outputs: Sequence[Value]) -> Graph:
    """``region`` with other ``outputs``, and without the inputs at the positions of ``sources``, which are made inside."""
    kept = tuple(value for position, value in enumerate(region.inputs) if position not in sources)
    rewriter = Rewriter(Graph(kept, region.nodes, tuple(outputs), region.name, region.symbols))
    for position, source in sources.items():
        if source is not None:
            rewriter.replace(region.inputs[position], _copied(rewriter.builder, source))
    return without_dead_code(rewriter.run({}))


def _copied(builder: GraphBuilder, source: Node) -> Value:
    value = source.output.constant
    if value is not None:
        return builder.constant(value, source.output.tensor)
    return builder.append(Node(source.op, (), source.attributes, [source.output.type], (), source.location)).output


def _inlined(rewriter: Rewriter, region: Graph, operands: Sequence[Value]) -> list[Value]:
    """The results of ``region`` for ``operands``, computed where the rewriter stands."""
    for value, operand in zip(region.inputs, operands, strict=True):
        rewriter.replace(value, operand)
    for node in region.nodes:
        rewriter.copy(node)
    return [rewriter[value] for value in region.outputs]


@dataclass(frozen=True)
class _Loop:
    """A loop in parts; the body's inputs are those of the carried values, the sequences and the invariants, in this order."""

    trips: Attribute
    reverse: Attribute
    carried: tuple[Value, ...]
    sequences: tuple[Value, ...]
    invariants: tuple[Value, ...]
    body: Graph

    @staticmethod
    def of(rewriter: Rewriter, node: Node) -> _Loop:
        operands = [rewriter[value] for value in node.inputs]
        count, sliced = node.attributes["carried"], node.attributes["sliced"]
        assert isinstance(count, int) and isinstance(sliced, int)
        last = count + sliced
        carried, sequences, invariants = tuple(operands[:count]), tuple(operands[count:last]), tuple(operands[last:])
        return _Loop(node.attributes["trips"], node.attributes["reverse"], carried, sequences, invariants, node.regions[0])

    @property
    def inner(self) -> tuple[tuple[Value, ...], tuple[Value, ...], tuple[Value, ...]]:
        """The inputs of the body for carried values, sequences and invariants."""
        count, sliced = len(self.carried), len(self.sequences)
        inputs = self.body.inputs
        return inputs[:count], inputs[count : count + sliced], inputs[count + sliced :]

    def add_to(self, builder: GraphBuilder) -> Node:
        operands = (*self.carried, *self.sequences, *self.invariants)
        attributes = {"trips": self.trips, "carried": len(self.carried), "sliced": len(self.sequences), "reverse": self.reverse}
        return builder.add("loop", *operands, attributes=attributes, regions=[self.body])

    def with_body(self, nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
        """A valid copy of the body with other parts."""
        rewriter = Rewriter(Graph(tuple(inputs), tuple(nodes), tuple(outputs), self.body.name, self.body.symbols))
        return rewriter.run({})

    def with_invariants(self, unchanged: Collection[int], wanted: Sequence[int]) -> _Loop:
        """The loop with the carried values at ``unchanged`` as invariants, yielding the ``wanted`` results."""
        carried, sequences, invariants = self.inner
        moved = [i for i in range(len(carried)) if i in unchanged]
        stay = [i for i in range(len(carried)) if i not in unchanged]
        inputs = [*(carried[i] for i in stay), *sequences, *invariants, *(carried[i] for i in moved)]
        return _Loop(
            self.trips,
            self.reverse,
            tuple(self.carried[i] for i in stay),
            self.sequences,
            (*self.invariants, *(self.carried[i] for i in moved)),
            self.with_body(self.body.nodes, inputs, [self.body.outputs[i] for i in wanted]),
        )

    def without_needless(self) -> _Loop:
        """The loop without sequences and invariants that are not read, with constant invariants inside the body."""
        body = without_dead_code(self.body)
        operands = (*self.carried, *self.sequences, *self.invariants)
        first = len(self.carried) + len(self.sequences)
        sources = _sources(operands, range(first, len(operands)), [body])
        unread = [i for i in range(len(self.carried), first) if not _reads(body, body.inputs[i])]
        sources |= dict.fromkeys(unread)
        return _Loop(
            self.trips,
            self.reverse,
            self.carried,
            tuple(operands[i] for i in range(len(self.carried), first) if i not in sources),
            tuple(operands[i] for i in range(first, len(operands)) if i not in sources),
            _changed(body, sources, body.outputs),
        )

    def written_out(self, rewriter: Rewriter, node: Node) -> list[Value]:
        """The results of a loop of one round or none, without the loop."""
        builder = rewriter.builder
        count = len(self.carried)
        if self.trips == 0:
            stacked = [builder.call("full", shape=v.tensor.shape, value=0, dtype=v.tensor.dtype) for v in node.outputs[count:]]
            return [*self.carried, *stacked]
        pieces = [builder.call("reshape", value, shape=value.tensor.shape[1:]) for value in self.sequences]
        results = _inlined(rewriter, self.body, [*self.carried, *pieces, *self.invariants])
        return [*results[:count], *(builder.call("reshape", value, shape=(1, *value.tensor.shape)) for value in results[count:])]


def _hoist_invariants(rewriter: Rewriter, loop: _Loop) -> _Loop:
    """The loop with what depends on invariants only computed before it. Views and generators move only along with what reads them."""
    invariants = loop.inner[2]
    fixed: set[Value] = set(invariants)
    constant: set[Value] = set()
    candidates: list[Node] = []
    for node in loop.body.nodes:
        if is_control(node) or not all(value in fixed for value in node.inputs):
            continue
        fixed.update(node.outputs)
        if all(value in constant for value in node.inputs):
            constant.update(node.outputs)
        candidates.append(node)
    moved = {node for node in candidates if not is_free(node) and not all(value in constant for value in node.outputs)}
    if not moved:
        return loop
    needed = set(moved)
    for node in reversed(candidates):
        if node in needed:
            needed.update(value.node for value in node.inputs if value.node is not None)
    for value, operand in zip(invariants, loop.invariants, strict=True):
        rewriter.replace(value, operand)
    for node in candidates:
        if node in needed:
            rewriter.copy(node)
    rest = [node for node in loop.body.nodes if node not in moved]
    read = {value for node in rest for value in node.inputs} | set(loop.body.outputs)
    crossing = [value for node in candidates if node in moved for value in node.outputs if value in read]
    body = _with_new_inputs(loop, rest, (), crossing)
    return _Loop(loop.trips, loop.reverse, loop.carried, loop.sequences, (*loop.invariants, *(rewriter[v] for v in crossing)), body)


def _hoist_layers(rewriter: Rewriter, loop: _Loop) -> _Loop:
    """The loop with the linear layers of elements of sequences, by invariant weights, computed for the whole sequences before it."""
    _, sequences, invariants = loop.inner
    whole = dict(zip(sequences, loop.sequences, strict=True))
    fixed = dict(zip(invariants, loop.invariants, strict=True))
    moved: dict[Node, Value] = {}
    builder = rewriter.builder
    for node in loop.body.nodes:
        if node.op != "linear" or node.inputs[0] not in whole:
            continue
        weights = [_outside(builder, value, fixed) for value in node.inputs[1:]]
        if all(weight is not None for weight in weights):
            operands = [whole[node.inputs[0]], *(weight for weight in weights if weight is not None)]
            moved[node] = builder.add("linear", *operands, attributes=node.attributes, location=node.location).output
    if not moved:
        return loop
    rest = [node for node in loop.body.nodes if node not in moved]
    body = _with_new_inputs(loop, rest, [node.output for node in moved], ())
    return _Loop(loop.trips, loop.reverse, loop.carried, (*loop.sequences, *moved.values()), loop.invariants, body)


def _outside(builder: GraphBuilder, value: Value, fixed: Mapping[Value, Value]) -> Value | None:
    """The value outside the loop that ``value`` of its body always is, if there is one."""
    if value in fixed:
        return fixed[value]
    return _copied(builder, value.node) if value.node is not None and is_source(value.node) else None


def _with_new_inputs(loop: _Loop, nodes: Sequence[Node], pieces: Sequence[Value], invariants: Sequence[Value]) -> Graph:
    """The body with only ``nodes``; what was computed by others comes in as elements of new sequences and as new invariants."""
    carried, sequences, fixed = loop.inner
    fresh = [Value(value.type, value.name) for value in (*pieces, *invariants)]
    new_pieces, new_invariants = fresh[: len(pieces)], fresh[len(pieces) :]
    inputs = (*carried, *sequences, *new_pieces, *fixed, *new_invariants)
    rewriter = Rewriter(Graph(inputs, tuple(nodes), loop.body.outputs, loop.body.name, loop.body.symbols))
    for value, new in zip((*pieces, *invariants), fresh, strict=True):
        rewriter.replace(value, rewriter[new])
    for node in nodes:
        rewriter.copy(node)
    return rewriter.finish()
