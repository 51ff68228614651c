"""Places: the memory that values get while a program is bound, when each buffer of it is needed, and where in the arena it lies then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir import Constant, Extent, TensorType, Value, product, size_of
from ..ir.program import Branch, BufferRef, ConditionalLoop, Copy, CountedLoop, KernelCall, Space, Step
from ..ir.size import Size, largest
from .memory_plan import Lifetime, MemoryPlan, plan_memory, plan_slots
from .packing import PackedConstants
from .storage import Storage

EMPTY = BufferRef(Space.CONSTANT, 0, 0)
"""Where values without elements are: nobody reads or writes them."""


@dataclass
class Buffer:
    """A buffer of the arena, alive from step ``first`` to step ``last``."""

    nbytes: Extent
    first: int
    last: int


class Places:
    """Where values are (``assigned``, by who owns the memory). Until the memory is planned, a place in the arena is the number of its
    buffer; ``now`` counts the moments at which buffers are needed."""

    def __init__(self, constants: Mapping[Value, Constant], storage: Storage) -> None:
        self.root = storage.root
        self.constants = constants
        self.packed = PackedConstants()
        self.buffers: list[Buffer] = []
        self.assigned: dict[Value, BufferRef] = {}
        self.now = 0

    def new(self, nbytes: Extent) -> BufferRef:
        """A new buffer of the arena, alive at this moment."""
        self.buffers.append(Buffer(max(nbytes, 1) if isinstance(nbytes, int) else nbytes, self.now, self.now))
        return BufferRef(Space.ARENA, len(self.buffers) - 1, nbytes)

    def touch(self, *places: BufferRef) -> None:
        """Says that the buffers of ``places`` are needed at this moment."""
        for place in places:
            if place.space is Space.ARENA:
                self.buffers[place.position].last = self.now

    def read(self, value: Value) -> BufferRef:
        """Where ``value`` lies, in the layout of its type."""
        if value.tensor.is_empty:
            return EMPTY
        if value in self.constants:
            return self.packed.place(self.constants[value], value.tensor.layout)
        place = self.assigned[self.root(value)]
        self.touch(place)
        return place

    def write(self, value: Value) -> BufferRef:
        """Where to put ``value``: where its region wants it, else a new buffer."""
        if value.tensor.is_empty:
            return EMPTY
        root = self.root(value)
        place = self.assigned.get(root)
        if place is None:
            place = self.assigned[root] = self.new(nbytes_of(value.tensor))
        self.touch(place)
        return place

    def reside(self, value: Value, place: BufferRef) -> list[Step]:
        """``value`` is at ``place``: a copy to where its region wants it, or nothing to do if it may be anywhere."""
        if value.tensor.is_empty:
            return []
        wanted = self.assigned.setdefault(value, place)
        return [] if wanted == place else [self.copy(place, wanted)]

    def copy(self, source: BufferRef, target: BufferRef) -> Copy:
        """A copy, at this moment."""
        self.touch(source, target)
        return Copy(source, target)


def plan_places(buffers: Sequence[Buffer], typical: Mapping[str, int]) -> tuple[MemoryPlan, tuple[Extent, ...], list[tuple[Space, int]]]:
    """Where each buffer of the arena lies: at an offset, or, if the size of any depends on symbols, in a slot."""
    lifetimes = [Lifetime(max(_number_of(buffer.nbytes, typical), 1), buffer.first, buffer.last) for buffer in buffers]
    plan = plan_memory(lifetimes)
    if all(isinstance(buffer.nbytes, int) for buffer in buffers):
        return plan, (), [(Space.ARENA, offset) for offset in plan.offsets]
    chosen = plan_slots(lifetimes)
    members: list[list[Extent]] = [[] for _ in range(max(chosen) + 1)]
    for slot, buffer in zip(chosen, buffers, strict=True):
        members[slot].append(buffer.nbytes)
    return MemoryPlan((), 0, plan.lower_bound), tuple(largest(sizes) for sizes in members), [(Space.SLOT, slot) for slot in chosen]


def _number_of(extent: Extent, values: Mapping[str, int]) -> int:
    return extent.evaluate(values) if isinstance(extent, Size) else extent


def nbytes_of(type: TensorType) -> Extent:
    """Bytes of a stored tensor, which may depend on symbols."""
    if type.is_static:
        return type.nbytes
    return size_of(product(type.layout.physical_shape(type.shape)) * type.dtype.nbytes)


def placed(step: Step, places: Sequence[tuple[Space, int]]) -> Step:
    """``step`` with byte offsets in the arena, or slots of it, instead of numbers of buffers."""

    def ref(buffer: BufferRef) -> BufferRef:
        if buffer.space is not Space.ARENA:
            return buffer
        space, position = places[buffer.position]
        if space is Space.SLOT:
            return dataclasses.replace(buffer, space=space, position=position)
        return dataclasses.replace(buffer, position=position + buffer.offset, offset=0)

    def all_of(steps: Sequence[Step]) -> tuple[Step, ...]:
        return tuple(placed(inner, places) for inner in steps)

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
