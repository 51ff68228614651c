"""Binding: every operand and result of every kernel gets its place in memory, and control flow becomes steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import LoweringError
from ..ir import (
    FUSION,
    Constant,
    Cost,
    Extent,
    Graph,
    Node,
    TensorType,
    TokenType,
    Value,
    is_control,
    node_cost,
    size_of,
    specialise,
    symbol,
    typical_values,
)
from ..ir.program import (
    ALIGNMENT,
    Branch,
    BufferRef,
    ConditionalLoop,
    ConstantSlot,
    Copy,
    CountedLoop,
    KernelCall,
    Move,
    Space,
    StateSpec,
    Step,
)
from .build import CompiledKernel
from .kernels import KernelNode, label_of
from .memory_plan import MemoryPlan, aligned
from .places import EMPTY, Places, nbytes_of, placed, plan_places
from .precision import mode_label, table_label
from .sizes import parallel_margin
from .space import Config
from .storage import Storage


@dataclass(frozen=True)
class Binding:
    """What a program does with its memory: steps, places and bytes of packed constants, the plan of the arena, and the slots that the
    arena consists of where sizes are symbolic."""

    steps: tuple[Step, ...]
    constants: tuple[ConstantSlot, ...]
    weights: np.ndarray
    plan: MemoryPlan
    states: tuple[StateSpec, ...]
    slots: tuple[Extent, ...] = ()


def bind(
    storage: Storage,
    kernels: Sequence[KernelNode],
    compiled: Mapping[str, tuple[Config, CompiledKernel]],
    constants: Mapping[Value, Constant],
    states: Sequence[tuple[str, Constant]],
    arguments: int,
) -> Binding:
    """The steps that compute the graph of ``storage``, whose first ``arguments`` inputs are the program's, the others its ``states``."""
    graph = storage.graph
    binder = _Binder({kernel.node: kernel for kernel in kernels}, compiled, constants, storage)
    inputs = [BufferRef(Space.INPUT, position, nbytes_of(_held(value))) for position, value in enumerate(graph.inputs[:arguments])]
    inputs += [BufferRef(Space.STATE, position, _held(value).nbytes) for position, value in enumerate(graph.inputs[arguments:])]
    outputs = [BufferRef(Space.OUTPUT, position, nbytes_of(value.tensor)) for position, value in enumerate(graph.outputs)]
    steps = binder.region(graph, inputs, outputs) + binder.finish_states(storage.contents)
    specs = []
    for (name, initial), value in zip(states, graph.inputs[arguments:], strict=True):
        zero = not initial.array().tobytes().strip(b"\0")
        first = None if zero else binder.packed.place(initial, initial.type.layout).position
        specs.append(StateSpec(name, initial.type.dtype.text, _held(value).static_shape, first))
    plan, slots, places = plan_places(binder.buffers, typical_values(graph.symbols))
    packed, weights = binder.packed.finish()
    return Binding(tuple(placed(step, places) for step in steps), packed, weights, plan, tuple(specs), slots)


def _precision(kernel: KernelNode) -> str:
    """The modes of the kernel's encoded operands, as a report states them."""
    given = [value.tensor for value in kernel.node.inputs]
    return mode_label(given, [value.tensor for value in kernel.task.graph.inputs]) or table_label(kernel.task.graph)


def _held(value: Value) -> TensorType:
    """What a graph input holds: an argument, or the buffer of a token."""
    type = value.type.buffer if isinstance(value.type, TokenType) else value.type
    assert isinstance(type, TensorType)
    return type


def carries_unchanged(body: Graph, position: int) -> bool:
    """Whether the body of a loop hands its input number ``position`` on as it is."""
    return body.outputs[position] is body.inputs[position]


class _Binder(Places):
    """Walks a graph and its regions in order, and lists the steps that compute them."""

    def __init__(
        self,
        kernels: Mapping[Node, KernelNode],
        compiled: Mapping[str, tuple[Config, CompiledKernel]],
        constants: Mapping[Value, Constant],
        storage: Storage,
    ) -> None:
        super().__init__(constants, storage)
        self.kernels = kernels
        self.compiled = compiled
        self._costs = _costs(storage.graph)
        self._loops = 0

    def region(self, graph: Graph, inputs: Sequence[BufferRef], outputs: Sequence[BufferRef | None]) -> list[Step]:
        """The steps that compute ``graph`` from ``inputs`` and leave its results in ``outputs``; None: a result that may be anywhere."""
        self.assigned.update(zip(graph.inputs, inputs, strict=True))
        claimed: set[Value] = set()
        copied: list[tuple[Value, BufferRef]] = []
        for value, place in zip(graph.outputs, outputs, strict=True):
            if place is None or not place.nbytes:
                continue
            root = self.root(value)
            if root.node is None or value in self.constants or root in claimed:
                copied.append((value, place))
            else:
                claimed.add(root)
                self.assigned[root] = place
        steps = [step for node in graph.nodes for step in self._node(node)]
        self.now += 1
        return steps + [self.copy(self.read(value), place) for value, place in copied]

    def _node(self, node: Node) -> list[Step]:
        self.now += 1
        match node.op:
            case "cond":
                return self._cond(node)
            case "while":
                return self._while(node)
            case "loop":
                return self._loop(node)
        return self._calls(self.kernels[node]) if node in self.kernels else []

    def finish_states(self, contents: Mapping[Value, Value]) -> list[Step]:
        """Copies the new contents of states there. What lies in another state is taken out first, before that changes."""
        taken: list[Step] = []
        copies: list[Step] = []
        for state, value in contents.items():
            place = self.read(value)
            if isinstance(self.root(value).type, TokenType):
                aside = self.new(place.nbytes)
                taken.append(self.copy(place, aside))
                place = aside
            copies.append(Copy(place, self.assigned[state]))
        self.now += 1
        self.touch(*(copy.source for copy in copies if isinstance(copy, Copy)))
        return taken + copies

    # Steps

    def _calls(self, kernel: KernelNode) -> list[Step]:
        """A call; before it, where it updates what its result must hold and does not hold yet, a copy of that."""
        operand = kernel.template.in_place(kernel.task.graph)
        if operand is None:
            return [self._call(kernel)]
        result, old = kernel.node.output, kernel.node.inputs[operand]
        held = self.root(old) is self.root(result)
        copies: list[Step] = [] if held else [self.copy(self.read(old), self.write(result))]
        return [*copies, self._call(kernel)]

    def _call(self, kernel: KernelNode) -> KernelCall:
        node = kernel.node
        config, native = self.compiled[kernel.task.key]
        arguments = []
        for position, value in enumerate(node.inputs):
            if value in self.constants:
                layout = native.constant_layouts.get(position, value.tensor.layout)
                arguments.append(self.packed.place(self.constants[value], layout))
            else:
                arguments.append(_part(self.read(value), kernel, position))
        arguments += [self.write(value) for value in node.outputs]
        workspace = size_of(kernel.renamed(native.workspace_bytes))
        if workspace != 0:
            arguments.append(self.new(workspace))
        # The task says what the kernel reads of an operand: a part, or encoded weights as they are.
        own = kernel.offsets or any(not value.tensor.encoding.is_dense for value in node.inputs)
        cost = FUSION.cost_of_region(kernel.task.representative.graph) if own else self._costs[node]
        return KernelCall(
            symbol=native.symbol,
            arguments=tuple(arguments),
            label=label_of(node),
            task=kernel.task.key,
            config=str(config),
            location=str(node.location),
            flops=cost.flops,
            bytes=cost.bytes_read + cost.bytes_written,
            sizes=tuple(size_of(symbol(name)) for name in kernel.symbols),
            margin=parallel_margin(kernel),
            precision=_precision(kernel),
        )

    def _cond(self, node: Node) -> list[Step]:
        predicate, *operands = [self.read(value) for value in node.inputs]
        results = [self.write(value) for value in node.outputs]
        then, otherwise = (tuple(self.region(region, operands, results)) for region in node.regions)
        self.now += 1
        self.touch(*operands, *results)
        return [Branch(predicate, then, otherwise)]

    def _while(self, node: Node) -> list[Step]:
        _require_fixed_sizes(node)
        condition, body = node.regions
        operands = [self.read(value) for value in node.inputs]
        number = self._next_loop()
        carried = [
            _Carried(place, place, []) if carries_unchanged(body, position) else self._carried(place, number)
            for position, place in enumerate(operands)
        ]
        present, following = [each.present for each in carried], [each.following for each in carried]
        inside = self.region(condition, present, [None])
        predicate = self.read(condition.outputs[0])
        steps: list[Step] = [step for each in carried for step in each.start]
        results = []
        for position, value in enumerate(node.outputs):
            if not carries_unchanged(body, position):
                results.append((present[position], self.write(value)))
            elif value.tensor.elements:
                steps.append(self.copy(operands[position], self.write(value)))
        finish = tuple(self.copy(source, target) for source, target in results if target.nbytes)
        rounds = self.region(body, present, [None if carries_unchanged(body, i) else place for i, place in enumerate(following)])
        self.now += 1
        self.touch(*operands, *present, *(target for _, target in results))
        steps.append(ConditionalLoop(number, tuple(inside), predicate, tuple(rounds), finish))
        return steps

    def _loop(self, node: Node) -> list[Step]:
        _require_fixed_sizes(node)
        (body,) = node.regions
        trips, count, sliced = (_number(node, name) for name in ("trips", "carried", "sliced"))
        backwards = bool(node.attributes["reverse"])
        operands = [self.read(value) for value in node.inputs]
        number = self._next_loop()
        carried = [
            _Carried(place, place, []) if carries_unchanged(body, position) else self._carried(place, number)
            for position, place in enumerate(operands[:count])
        ]
        before: list[Step] = [step for each in carried for step in each.start]
        into: list[Step] = []
        pieces = []
        for place, value in zip(operands[count : count + sliced], body.inputs[count : count + sliced], strict=True):
            piece = _piece(place, value.tensor, number, trips, backwards)
            if value.tensor.elements and value.tensor.nbytes % ALIGNMENT:
                staged = self.new(value.tensor.nbytes)
                into.append(self.copy(piece, staged))
                piece = staged
            pieces.append(piece)
        out_of: list[tuple[BufferRef, BufferRef]] = []
        results: list[BufferRef | None] = [None if carries_unchanged(body, i) else each.following for i, each in enumerate(carried)]
        stacked = [self.write(value) for value in node.outputs[count:]]
        for place, value in zip(stacked, body.outputs[count:], strict=True):
            piece = _piece(place, value.tensor, number, trips, backwards)
            if value.tensor.elements and trips and value.tensor.nbytes % ALIGNMENT:
                staged = self.new(value.tensor.nbytes)
                out_of.append((staged, piece))
                piece = staged
            results.append(piece if trips else None)
        rounds = self.region(body, [*(each.present for each in carried), *pieces, *operands[count + sliced :]], results)
        self.now += 1
        rounds += [self.copy(source, target) for source, target in out_of]
        self.now += 1
        self.touch(*operands, *stacked, *(each.present for each in carried))
        after: list[Step] = []
        for position, (value, each) in enumerate(zip(node.outputs, carried, strict=False)):
            if not carries_unchanged(body, position):
                after += self.reside(value, each.after(trips))
            elif value.tensor.elements:
                # A copy: the operand's memory may be updated in place while the result is still needed.
                after.append(self.copy(operands[position], self.write(value)))
        return [*before, CountedLoop(number, trips, (*into, *rounds)), *after]

    def _next_loop(self) -> int:
        self._loops += 1
        return self._loops - 1

    def _carried(self, initial: BufferRef, loop: int) -> _Carried:
        """Two places that a carried value occupies in turn: what a round computes is what the next one reads."""
        if not initial.nbytes:
            return _Carried(EMPTY, EMPTY, [])
        assert isinstance(initial.nbytes, int)
        stride = aligned(initial.nbytes)
        pair = self.new(2 * stride)
        first = dataclasses.replace(pair, nbytes=initial.nbytes)
        present = dataclasses.replace(first, moves=(Move(loop, stride, 2),))
        following = dataclasses.replace(first, offset=stride, moves=(Move(loop, -stride, 2),))
        return _Carried(present, following, [self.copy(initial, first)])


@dataclass(frozen=True)
class _Carried:
    """Where a round finds a carried value, where it leaves the next one, and the steps before the loop."""

    present: BufferRef
    following: BufferRef
    start: list[Step]

    def after(self, trips: int) -> BufferRef:
        """Where the value is after ``trips`` rounds."""
        if not self.present.nbytes:
            return self.present
        (move,) = self.present.moves
        return dataclasses.replace(self.present, offset=trips % 2 * move.stride, moves=())


def _part(whole: BufferRef, kernel: KernelNode, position: int) -> BufferRef:
    """What the kernel takes of its operand at ``position``."""
    if position not in kernel.offsets or not whole.nbytes:
        return whole
    nbytes = kernel.task.graph.inputs[position].tensor.nbytes
    return dataclasses.replace(whole, nbytes=nbytes, offset=whole.offset + kernel.offsets[position])


def _piece(whole: BufferRef, piece: TensorType, loop: int, trips: int, backwards: bool) -> BufferRef:
    """The part of a stacked buffer that belongs to a round."""
    if not whole.nbytes:
        return EMPTY
    stride = piece.nbytes
    move = Move(loop, -stride if backwards else stride)
    offset = whole.offset + ((trips - 1) * stride if backwards else 0)
    return dataclasses.replace(whole, nbytes=stride, offset=offset, moves=(*whole.moves, move))


def _require_fixed_sizes(node: Node) -> None:
    """LoweringError when what a loop carries or slices has a size that depends on symbols."""
    for value in (*node.inputs, *node.outputs):
        if not value.tensor.is_static:
            raise LoweringError(
                f"{node!r} ({node.location}): %{value.name}: {value.type} has no static shape; loops are compiled for fixed sizes only: "
                "leave the dimension out of dynamic_shapes"
            )


def _costs(graph: Graph) -> dict[Node, Cost]:
    """The work of every node, at typical values of symbols; also of those in the regions of control flow."""
    found: dict[Node, Cost] = {}

    def visit(symbolic: Graph, concrete: Graph) -> None:
        for node, at in zip(symbolic.nodes, concrete.nodes, strict=True):
            if is_control(node):
                for region, region_at in zip(node.regions, at.regions, strict=True):
                    visit(region, region_at)
            elif not any(isinstance(value.type, TokenType) for value in (*at.inputs, *at.outputs)):
                found[node] = node_cost(at)

    visit(graph, specialise(graph, typical_values(graph.symbols)))
    return found


def _number(node: Node, name: str) -> int:
    number = node.attributes[name]
    if not isinstance(number, int):
        raise LoweringError(
            f"{node!r} ({node.location}): '{name}' is {number}; code is generated for loops of a fixed number of rounds only"
        )
    return number
