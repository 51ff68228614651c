"""Binding: every operand and result of every kernel gets its place in memory, and control flow becomes steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import LoweringError
from ..ir import Constant, Graph, Node, TensorType, TokenType, Value, node_cost
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
from .memory_plan import Lifetime, MemoryPlan, aligned, plan_memory
from .packing import PackedConstants
from .space import Config
from .storage import Storage


@dataclass(frozen=True)
class Binding:
    """What a program does with its memory: steps, the slots and the bytes of packed constants, and the plan of the arena."""

    steps: tuple[Step, ...]
    slots: tuple[ConstantSlot, ...]
    weights: np.ndarray
    plan: MemoryPlan
    states: tuple[StateSpec, ...]


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
    inputs = [BufferRef(Space.INPUT, position, _held(value).nbytes) for position, value in enumerate(graph.inputs[:arguments])]
    inputs += [BufferRef(Space.STATE, position, _held(value).nbytes) for position, value in enumerate(graph.inputs[arguments:])]
    outputs = [BufferRef(Space.OUTPUT, position, value.tensor.nbytes) for position, value in enumerate(graph.outputs)]
    steps = binder.region(graph, inputs, outputs) + binder.finish_states(storage.contents)
    specs = []
    for (name, initial), value in zip(states, graph.inputs[arguments:], strict=True):
        zero = not initial.array().tobytes().strip(b"\0")
        first = None if zero else binder.packed.place(initial, initial.type.layout).position
        specs.append(StateSpec(name, initial.type.dtype.text, _held(value).static_shape, first))
    plan = plan_memory([Lifetime(buffer.nbytes, buffer.first, buffer.last) for buffer in binder.buffers])
    slots, weights = binder.packed.finish()
    return Binding(tuple(_placed(step, plan.offsets) for step in steps), slots, weights, plan, tuple(specs))


def _held(value: Value) -> TensorType:
    """What a graph input holds: an argument, or the buffer of a token."""
    type = value.type.buffer if isinstance(value.type, TokenType) else value.type
    assert isinstance(type, TensorType)
    return type


def carries_unchanged(body: Graph, position: int) -> bool:
    """Whether the body of a loop hands its input number ``position`` on as it is."""
    return body.outputs[position] is body.inputs[position]


@dataclass
class _Buffer:
    """A buffer of the arena, alive from step ``first`` to step ``last``."""

    nbytes: int
    first: int
    last: int


_EMPTY = BufferRef(Space.CONSTANT, 0, 0)
"""Where values without elements are: nobody reads or writes them."""


class _Binder:
    """Walks a graph and its regions in order. Until the memory is planned, a place in the arena is the number of its buffer."""

    def __init__(
        self,
        kernels: Mapping[Node, KernelNode],
        compiled: Mapping[str, tuple[Config, CompiledKernel]],
        constants: Mapping[Value, Constant],
        storage: Storage,
    ) -> None:
        self.root = storage.root
        self.kernels = kernels
        self.compiled = compiled
        self.constants = constants
        self.packed = PackedConstants()
        self.buffers: list[_Buffer] = []
        self._places: dict[Value, BufferRef] = {}
        self._now = 0
        self._loops = 0

    def region(self, graph: Graph, inputs: Sequence[BufferRef], outputs: Sequence[BufferRef | None]) -> list[Step]:
        """The steps that compute ``graph`` from ``inputs`` and leave its results in ``outputs``; None: a result that may be anywhere."""
        self._places.update(zip(graph.inputs, inputs, strict=True))
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
                self._places[root] = place
        steps = [step for node in graph.nodes for step in self._node(node)]
        self._now += 1
        return steps + [self._copy(self._read(value), place) for value, place in copied]

    def _node(self, node: Node) -> list[Step]:
        self._now += 1
        match node.op:
            case "cond":
                return self._cond(node)
            case "while":
                return self._while(node)
            case "loop":
                return self._loop(node)
        return self._calls(self.kernels[node]) if node in self.kernels else []

    # Places

    def _new(self, nbytes: int) -> BufferRef:
        """A new buffer of the arena, alive at this moment."""
        self.buffers.append(_Buffer(max(nbytes, 1), self._now, self._now))
        return BufferRef(Space.ARENA, len(self.buffers) - 1, nbytes)

    def _touch(self, *places: BufferRef) -> None:
        """Says that the buffers of ``places`` are needed at this moment."""
        for place in places:
            if place.space is Space.ARENA:
                self.buffers[place.position].last = self._now

    def _read(self, value: Value) -> BufferRef:
        """Where ``value`` lies, in the layout of its type."""
        if value.tensor.elements == 0:
            return _EMPTY
        if value in self.constants:
            return self.packed.place(self.constants[value], value.tensor.layout)
        place = self._places[self.root(value)]
        self._touch(place)
        return place

    def _write(self, value: Value) -> BufferRef:
        """Where to put ``value``: where its region wants it, else a new buffer."""
        if value.tensor.elements == 0:
            return _EMPTY
        root = self.root(value)
        place = self._places.get(root)
        if place is None:
            place = self._places[root] = self._new(value.tensor.nbytes)
        self._touch(place)
        return place

    def _reside(self, value: Value, place: BufferRef) -> list[Step]:
        """``value`` is at ``place``: a copy to where its region wants it, or nothing to do if it may be anywhere."""
        if value.tensor.elements == 0:
            return []
        wanted = self._places.setdefault(value, place)
        return [] if wanted == place else [self._copy(place, wanted)]

    def _copy(self, source: BufferRef, target: BufferRef) -> Copy:
        self._touch(source, target)
        return Copy(source, target)

    def finish_states(self, contents: Mapping[Value, Value]) -> list[Step]:
        """Copies the new contents of states there. What lies in another state is taken out first, before that changes."""
        taken: list[Step] = []
        copies: list[Step] = []
        for state, value in contents.items():
            place = self._read(value)
            if isinstance(self.root(value).type, TokenType):
                aside = self._new(place.nbytes)
                taken.append(self._copy(place, aside))
                place = aside
            copies.append(Copy(place, self._places[state]))
        self._now += 1
        self._touch(*(copy.source for copy in copies if isinstance(copy, Copy)))
        return taken + copies

    # Steps

    def _calls(self, kernel: KernelNode) -> list[Step]:
        """A call; before it, where it updates what its result must hold and does not hold yet, a copy of that."""
        operand = kernel.template.in_place(kernel.task.graph)
        if operand is None:
            return [self._call(kernel)]
        result, old = kernel.node.output, kernel.node.inputs[operand]
        held = self.root(old) is self.root(result)
        copies: list[Step] = [] if held else [self._copy(self._read(old), self._write(result))]
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
                arguments.append(self._read(value))
        arguments += [self._write(value) for value in node.outputs]
        if native.workspace_bytes:
            arguments.append(self._new(native.workspace_bytes))
        cost = node_cost(node)
        return KernelCall(
            symbol=native.symbol,
            arguments=tuple(arguments),
            label=label_of(node),
            task=kernel.task.key,
            config=str(config),
            location=str(node.location),
            flops=cost.flops,
            bytes=cost.bytes_read + cost.bytes_written,
        )

    def _cond(self, node: Node) -> list[Step]:
        predicate, *operands = [self._read(value) for value in node.inputs]
        results = [self._write(value) for value in node.outputs]
        then, otherwise = (tuple(self.region(region, operands, results)) for region in node.regions)
        self._now += 1
        self._touch(*operands, *results)
        return [Branch(predicate, then, otherwise)]

    def _while(self, node: Node) -> list[Step]:
        condition, body = node.regions
        operands = [self._read(value) for value in node.inputs]
        number = self._next_loop()
        carried = [
            _Carried(place, place, []) if carries_unchanged(body, position) else self._carried(place, number)
            for position, place in enumerate(operands)
        ]
        present, following = [each.present for each in carried], [each.following for each in carried]
        inside = self.region(condition, present, [None])
        predicate = self._read(condition.outputs[0])
        steps: list[Step] = [step for each in carried for step in each.start]
        results = []
        for position, value in enumerate(node.outputs):
            if not carries_unchanged(body, position):
                results.append((present[position], self._write(value)))
            elif value.tensor.elements:
                steps.append(self._copy(operands[position], self._write(value)))
        finish = tuple(self._copy(source, target) for source, target in results if target.nbytes)
        rounds = self.region(body, present, [None if carries_unchanged(body, i) else place for i, place in enumerate(following)])
        self._now += 1
        self._touch(*operands, *present, *(target for _, target in results))
        steps.append(ConditionalLoop(number, tuple(inside), predicate, tuple(rounds), finish))
        return steps

    def _loop(self, node: Node) -> list[Step]:
        (body,) = node.regions
        trips, count, sliced = (_number(node, name) for name in ("trips", "carried", "sliced"))
        backwards = bool(node.attributes["reverse"])
        operands = [self._read(value) for value in node.inputs]
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
                staged = self._new(value.tensor.nbytes)
                into.append(self._copy(piece, staged))
                piece = staged
            pieces.append(piece)
        out_of: list[tuple[BufferRef, BufferRef]] = []
        results: list[BufferRef | None] = [None if carries_unchanged(body, i) else each.following for i, each in enumerate(carried)]
        stacked = [self._write(value) for value in node.outputs[count:]]
        for place, value in zip(stacked, body.outputs[count:], strict=True):
            piece = _piece(place, value.tensor, number, trips, backwards)
            if value.tensor.elements and trips and value.tensor.nbytes % ALIGNMENT:
                staged = self._new(value.tensor.nbytes)
                out_of.append((staged, piece))
                piece = staged
            results.append(piece if trips else None)
        rounds = self.region(body, [*(each.present for each in carried), *pieces, *operands[count + sliced :]], results)
        self._now += 1
        rounds += [self._copy(source, target) for source, target in out_of]
        self._now += 1
        self._touch(*operands, *stacked, *(each.present for each in carried))
        after: list[Step] = []
        for position, (value, each) in enumerate(zip(node.outputs, carried, strict=False)):
            if not carries_unchanged(body, position):
                after += self._reside(value, each.after(trips))
            elif value.tensor.elements:
                # A copy: the operand's memory may be updated in place while the result is still needed.
                after.append(self._copy(operands[position], self._write(value)))
        return [*before, CountedLoop(number, trips, (*into, *rounds)), *after]

    def _next_loop(self) -> int:
        self._loops += 1
        return self._loops - 1

    def _carried(self, initial: BufferRef, loop: int) -> _Carried:
        """Two places that a carried value occupies in turn: what a round computes is what the next one reads."""
        if not initial.nbytes:
            return _Carried(_EMPTY, _EMPTY, [])
        stride = aligned(initial.nbytes)
        pair = self._new(2 * stride)
        first = dataclasses.replace(pair, nbytes=initial.nbytes)
        present = dataclasses.replace(first, moves=(Move(loop, stride, 2),))
        following = dataclasses.replace(first, offset=stride, moves=(Move(loop, -stride, 2),))
        return _Carried(present, following, [self._copy(initial, first)])


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


def _piece(whole: BufferRef, piece: TensorType, loop: int, trips: int, backwards: bool) -> BufferRef:
    """The part of a stacked buffer that belongs to a round."""
    if not whole.nbytes:
        return _EMPTY
    stride = piece.nbytes
    move = Move(loop, -stride if backwards else stride)
    offset = whole.offset + ((trips - 1) * stride if backwards else 0)
    return dataclasses.replace(whole, nbytes=stride, offset=offset, moves=(*whole.moves, move))


def _number(node: Node, name: str) -> int:
    number = node.attributes[name]
    if not isinstance(number, int):
        raise LoweringError(
            f"{node!r} ({node.location}): '{name}' is {number}; code is generated for loops of a fixed number of rounds only"
        )
    return number


def _placed(step: Step, offsets: Sequence[int]) -> Step:
    """``step`` with byte offsets in the arena instead of numbers of buffers."""

    def ref(buffer: BufferRef) -> BufferRef:
        if buffer.space is not Space.ARENA:
            return buffer
        return dataclasses.replace(buffer, position=offsets[buffer.position] + buffer.offset, offset=0)

    def all_of(steps: Sequence[Step]) -> tuple[Step, ...]:
        return tuple(_placed(inner, offsets) for inner in steps)

    match step:
        case KernelCall():
            return dataclasses.replace(step, arguments=tuple(ref(argument) for argument in step.arguments))
        case Copy():
            return Copy(ref(step.source), ref(step.target))
        case Branch():
            return Branch(ref(step.predicate), all_of(step.then), all_of(step.otherwise))
        case CountedLoop():
            return CountedLoop(step.number, step.trips, all_of(step.body))
        case ConditionalLoop():
            return ConditionalLoop(step.number, all_of(step.condition), ref(step.predicate), all_of(step.body), all_of(step.finish))
