"""Which values share memory: views, updates in place, states; and the copies that remain.

A graph means values; this is where they become places. A state (a token input: a buffer or an argument that the program changes) is read
where it lies. A kernel that updates one of its operands in place does so if nothing reads the old content afterwards, else its result
has memory of its own. The new content of a state is computed where the state lies if its old content is not needed any more, else it is
copied there in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import LoweringError
from ..ir import UNKNOWN, Graph, GraphBuilder, Node, SymbolRange, TokenType, Value, is_alias, is_control


@dataclass
class Storage:
    """``graph`` without reads and writes of states; :meth:`root` says where its values lie, ``contents`` what must be copied to which state
    in the end."""

    graph: Graph
    contents: dict[Value, Value] = field(default_factory=dict)
    _owners: dict[Value, Value] = field(default_factory=dict)

    def root(self, value: Value) -> Value:
        """The value whose memory ``value`` occupies: an input of its graph, a constant, or what a node computes."""
        while True:
            if value in self._owners:
                value = self._owners[value]
            elif value.node is not None and is_alias(value.node):
                value = value.node.inputs[0]
            else:
                return value

    def share(self, value: Value, owner: Value) -> None:
        """Puts ``value`` into the memory of ``owner``."""
        self._owners[value] = owner


def assign_storage(graph: Graph, updated: Callable[[Node], int | None]) -> Storage:
    """Decides where the values of a fused ``graph`` lie.

    ``updated`` says which operand a node updates in place, if any. Afterwards each tensor among the graph's outputs has memory of its own
    that a kernel writes row-major. LoweringError when a state is used otherwise than read once and then written.
    """
    storage = Storage(graph)
    contents = _detach_states(storage)
    _update_in_place(storage, updated, contents)
    _place_contents(storage, contents)
    _copy_outputs(storage)
    _lay_out_contents(storage, contents)
    return storage


def _detach_states(storage: Storage) -> dict[Value, Value]:
    """Takes reads and writes of states out of the graph; for each state (token input) that is written, its new content."""
    graph = storage.graph
    states = {value: value for value in graph.inputs if isinstance(value.type, TokenType)}
    contents: dict[Value, Value] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        if node.op not in ("state_read", "state_write"):
            kept.append(node)
            if any(isinstance(value.type, TokenType) for value in node.inputs):
                raise LoweringError(f"{node!r} ({node.location}): states within control flow are not compiled; pass what they hold instead")
            continue
        state = states[node.inputs[0]]
        if state in contents:
            raise LoweringError(f"{node!r} ({node.location}): a state that was written is used again in one graph; use the value written")
        states[node.outputs[-1]] = state
        if node.op == "state_read":
            storage.share(node.outputs[0], state)
        else:
            contents[state] = node.inputs[1]
    outputs = tuple(value for value in graph.outputs if not isinstance(value.type, TokenType))
    storage.graph = Graph(graph.inputs, tuple(kept), outputs, graph.name, graph.symbols)
    return contents


class _Uses:
    """When the memory of values is read for the last time: the number of a node, infinity for results and new contents of states."""

    def __init__(self, storage: Storage, contents: Mapping[Value, Value]) -> None:
        self._last: dict[Value, float] = {}
        self._storage = storage
        for position, node in enumerate(storage.graph.nodes):
            if not is_alias(node):
                for value in node.inputs:
                    self._last[storage.root(value)] = position
        for value in (*storage.graph.outputs, *contents.values()):
            self._last[storage.root(value)] = math.inf

    def last(self, value: Value) -> float:
        return self._last.get(self._storage.root(value), -1)


def _update_in_place(storage: Storage, updated: Callable[[Node], int | None], contents: Mapping[Value, Value]) -> None:
    """Lets a result that updates an operand share its memory, if nothing reads the operand later."""
    uses = _Uses(storage, contents)
    for position, node in enumerate(storage.graph.nodes):
        operand = updated(node)
        if operand is None:
            continue
        root = storage.root(node.inputs[operand])
        if (isinstance(root.type, TokenType) or _is_computed(root)) and uses.last(root) <= position:
            storage.share(node.output, node.inputs[operand])


def _place_contents(storage: Storage, contents: Mapping[Value, Value]) -> None:
    """Lets kernels write the new contents of states right there, where the old content is not needed any more."""
    order = {value: position for position, node in enumerate(storage.graph.nodes) for value in node.outputs}
    taken = {storage.root(value) for value in storage.graph.outputs}
    kept = {storage.root(value) for value in contents.values()}
    uses = _Uses(storage, {})
    for state, value in contents.items():
        root = storage.root(value)
        free = uses.last(state) < order.get(root, -1) and state not in kept
        if _is_computed(root) and free and root not in taken and value.tensor.layout.is_row_major:
            storage.share(root, state)
            taken.add(root)


def _is_computed(root: Value) -> bool:
    """Whether a kernel fills the memory, which may be anywhere then. What control flow yields is placed with it."""
    return root.node is not None and root.node.op != "constant" and not is_control(root.node)


def _copy_outputs(storage: Storage) -> None:
    """Adds a copy for every output that no kernel can write in place: an input, a state, a constant, a value returned twice, or one that
    does not lie in memory in row-major order."""
    claimed: set[Value] = set()
    copies: list[Node] = []
    outputs: list[Value] = []
    for value in storage.graph.outputs:
        root = storage.root(value)
        if root.node is not None and root.node.op != "constant" and root not in claimed and value.tensor.layout.is_row_major:
            claimed.add(root)
            outputs.append(value)
            continue
        copies.append(_copy_of(value, f"{value.name}.copy{len(copies)}", storage.graph.symbols))
        outputs.append(copies[-1].output)
    _extend(storage, copies, outputs)


def _lay_out_contents(storage: Storage, contents: Mapping[Value, Value]) -> None:
    """Records which contents of states are still to be copied there, each in row-major order."""
    relaid: list[Node] = []
    for state, value in contents.items():
        if storage.root(value) is state:
            continue
        if not value.tensor.layout.is_row_major:
            relaid.append(_copy_of(value, f"{value.name}.content", storage.graph.symbols))
            value = relaid[-1].output
        storage.contents[state] = value
    _extend(storage, relaid, storage.graph.outputs)


def _extend(storage: Storage, nodes: Sequence[Node], outputs: Sequence[Value]) -> None:
    graph = storage.graph
    storage.graph = Graph(graph.inputs, (*graph.nodes, *nodes), tuple(outputs), graph.name, graph.symbols)


def _copy_of(value: Value, name: str, symbols: Mapping[str, SymbolRange]) -> Node:
    """A fused node that copies ``value`` to row-major memory."""
    builder = GraphBuilder("copy", symbols)
    operand = builder.input(value.type)
    type = value.tensor.with_layout(None)
    region = builder.finish([builder.add("relayout", operand, types=[type]).output])
    node = Node("fusion", [value], {}, [type], [region], value.node.location if value.node is not None else UNKNOWN)
    node.output.name = name
    return node
