"""The bufferised program: what assembly produces, an artifact stores and the runtime calls.

Everything here is plain data without torch, tvm or sympy, so that a process which only runs programs stays light.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from .size import Extent

ALIGNMENT = 64
"""Bytes to which every buffer a kernel sees is aligned."""


INDEX_ERROR = -1
"""What a kernel returns when an index is outside of the axis it selects along (MLC_INDEX_ERROR of ``mlc_abi.h``)."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a program: what a caller must pass or gets back. ``dtype`` is the text form (``f32``). An input that is
    ``mutated`` is changed in place."""

    name: str
    dtype: str
    shape: tuple[Extent, ...]
    mutated: bool = False

    @property
    def is_static(self) -> bool:
        """Whether every extent is a number."""
        return all(isinstance(extent, int) for extent in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as numbers; ValueError when an extent depends on symbols."""
        if not self.is_static:
            raise ValueError(f"'{self.name}' has a symbolic shape where numbers are needed")
        return tuple(extent for extent in self.shape if isinstance(extent, int))


@dataclass(frozen=True)
class StateSpec:
    """A buffer that a program keeps from call to call: it belongs to the session that calls. Programs of one model share those of equal
    names.

    ``initial`` is the byte offset of its first content among the constants; None stands for zeros.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    initial: int | None = None


@dataclass(frozen=True)
class SymbolSpec:
    """A symbolic dimension of a signature: its inclusive bounds (``upper`` None: none), and how a call tells its value.

    Axis ``axis`` of input number ``input`` has the extent ``factor * value + offset``.
    """

    name: str
    lower: int
    upper: int | None
    input: int
    axis: int
    factor: int = 1
    offset: int = 0


@dataclass(frozen=True)
class Signature:
    """The flat inputs and outputs, and the pytrees they stand for.

    ``input_tree`` and ``output_tree`` are JSON-like descriptions: ``{"kind": "leaf", "index": i}``, ``{"kind": "tuple" | "list",
    "items": [...]}``, ``{"kind": "dict", "keys": [...], "items": [...]}``, ``{"kind": "object", "type": "module.Class", "keys": [...],
    "items": [...]}`` (an output dataclass such as Hugging Face's ModelOutput), ``{"kind": "value", "value": JSON scalar}`` for
    a non-tensor argument that was specialised. The input tree is a tuple ``(args, kwargs)``.

    Results that are arguments changed in place are the very objects that the caller passed: a node of the input tree with
    ``"passed": len(inputs) + k`` stands for object k, which the output tree refers to as leaf ``len(outputs) + k``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_tree: dict[str, Any] = field(default_factory=dict)
    output_tree: dict[str, Any] = field(default_factory=dict)
    symbols: tuple[SymbolSpec, ...] = ()
    """In the order in which the entry gets their values."""


class Space(enum.Enum):
    """The memory a buffer lives in."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    ARENA = "arena"
    STATE = "state"
    SLOT = "slot"


@dataclass(frozen=True)
class Move:
    """How far a buffer lies from its start in a round of an enclosing loop: ``stride`` bytes times the number of the round, which
    counts from 0, modulo ``period`` unless that is 0. A period of 2 alternates between two places."""

    loop: int
    stride: int
    period: int = 0


@dataclass(frozen=True)
class BufferRef:
    """A pointer a kernel gets: input, output or state number ``position``, byte offset ``position`` in the constants or the arena, or
    slot number ``position`` of the arena of a program whose sizes depend on symbols.

    ``offset`` more bytes from there, and as many as the ``moves`` add in the present rounds of the loops around the call.
    """

    space: Space
    position: int
    nbytes: Extent
    offset: int = 0
    moves: tuple[Move, ...] = ()

    @property
    def static_nbytes(self) -> int:
        """:attr:`nbytes` of a buffer of fixed size; ValueError for others."""
        if not isinstance(self.nbytes, int):
            raise ValueError(f"{self} has a symbolic size where a number is needed")
        return self.nbytes


@dataclass(frozen=True)
class KernelCall:
    """One call of a native kernel, with what the profiler and the report say about it.

    ``flops`` and ``bytes`` are the work of the call by the IR's cost model, at typical values of symbolic dimensions; ``label`` is a
    short human description such as ``conv+add+relu``; ``task`` is the key under which it is tuned; ``location`` the user's code it
    comes from.
    """

    symbol: str
    arguments: tuple[BufferRef, ...]
    label: str
    task: str
    config: str
    location: str
    flops: int
    bytes: int
    sizes: tuple[Extent, ...] = ()
    """What the kernel is told of symbolic dimensions, as arguments after the pointers."""
    margin: Extent | None = None
    """What is negative where symbolic dimensions leave too little work for several threads; None: the kernel decides that itself."""
    precision: str = ""
    """The precision modes of its encoded operands; in parentheses where the kernel reads them decoded."""


@dataclass(frozen=True)
class Copy:
    """Copies ``target.nbytes`` bytes."""

    source: BufferRef
    target: BufferRef


@dataclass(frozen=True)
class Branch:
    """The steps of ``then`` if the byte at ``predicate`` is not zero, else those of ``otherwise``."""

    predicate: BufferRef
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


@dataclass(frozen=True)
class CountedLoop:
    """The steps of ``body`` in each of ``trips`` rounds. ``number`` names the loop in the program, for :class:`Move`."""

    number: int
    trips: int
    body: tuple[Step, ...]


@dataclass(frozen=True)
class ConditionalLoop:
    """In each round ``condition``; then ``body`` if the byte at ``predicate`` is not zero, else, once, ``finish``, and the loop ends."""

    number: int
    condition: tuple[Step, ...]
    predicate: BufferRef
    body: tuple[Step, ...]
    finish: tuple[Step, ...]


Step: TypeAlias = "KernelCall | Copy | Branch | CountedLoop | ConditionalLoop"


def bodies(step: Step) -> tuple[tuple[Step, ...], ...]:
    """The sequences of steps inside ``step``, in the order in which the entry writes them."""
    match step:
        case Branch():
            return (step.then, step.otherwise)
        case CountedLoop():
            return (step.body,)
        case ConditionalLoop():
            return (step.condition, step.finish, step.body)
        case _:
            return ()


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step, outer before inner."""
    for step in steps:
        yield step
        for inner in bodies(step):
            yield from walk(inner)


def buffers(step: Step) -> tuple[BufferRef, ...]:
    """The buffers that ``step`` itself reads and writes."""
    match step:
        case KernelCall():
            return step.arguments
        case Copy():
            return (step.source, step.target)
        case Branch() | ConditionalLoop():
            return (step.predicate,)
        case CountedLoop():
            return ()


def _runs(steps: Sequence[Step], times: int = 1) -> Iterator[tuple[KernelCall, int]]:
    for step in steps:
        if isinstance(step, KernelCall):
            yield step, times
        inner_times = times * step.trips if isinstance(step, CountedLoop) else times
        for inner in bodies(step):
            yield from _runs(inner, inner_times)


@dataclass(frozen=True)
class ConstantSlot:
    """One packed constant in the weights blob: byte offset, size, hexadecimal SHA-256 of the packed bytes."""

    offset: int
    nbytes: int
    digest: str


class Form(enum.Enum):
    """What the first blob of a program is: a native library, or C sources to be built for a device (see ``codegen/c/program.py``)."""

    LIBRARY = "library"
    SOURCES = "sources"


@dataclass(frozen=True)
class Footprint:
    """The memory that a program takes up on a microcontroller, in bytes. ``measured`` when a cross compiler built it, else estimated.

    Flash holds the code and the weights; RAM the arena, the stack, and the caller's inputs and outputs.
    """

    code_bytes: int
    weights_bytes: int
    arena_bytes: int
    stack_bytes: int
    io_bytes: int
    measured: bool

    @property
    def flash_bytes(self) -> int:
        return self.code_bytes + self.weights_bytes

    @property
    def ram_bytes(self) -> int:
        return self.arena_bytes + self.stack_bytes + self.io_bytes


@dataclass(frozen=True)
class Program:
    """A compiled model for one signature, without its two blobs (native library and packed weights).

    ``steps`` are run in order; profiles number the kernel calls in them by their place in :attr:`calls`.

    ``features`` are the CPU features the library needs, by the names of /proc/cpuinfo. ``arena_bytes`` is the memory one call in
    flight needs; ``arena_lower_bound`` the largest sum of buffers alive at once, for the report. ``footprint`` is known of programs for
    microcontrollers.
    """

    name: str
    signature: Signature
    steps: tuple[Step, ...]
    constants: tuple[ConstantSlot, ...]
    constant_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    target: str
    features: tuple[str, ...]
    threads: int
    entry: str = "mlc_entry"
    states: tuple[StateSpec, ...] = ()
    form: Form = Form.LIBRARY
    footprint: Footprint | None = None
    slots: tuple[Extent, ...] = ()
    """Bytes of the parts of the arena of a program with symbolic dimensions: they follow each other behind the first ``arena_bytes``, each
    rounded up to :data:`ALIGNMENT`."""

    @cached_property
    def runs(self) -> tuple[tuple[KernelCall, int], ...]:
        """Every kernel call, with how often a call of the program makes it: once in a branch, once a round where rounds are not counted."""
        return tuple(_runs(self.steps))

    @cached_property
    def calls(self) -> tuple[KernelCall, ...]:
        """Every kernel call of the steps, nested ones included, in order."""
        return tuple(call for call, _ in self.runs)
