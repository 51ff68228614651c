"""The bufferised program: what assembly produces, an artifact stores and the runtime calls.

Everything here is plain data without torch, tvm or sympy, so that a process which only runs programs stays light.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

ALIGNMENT = 64
"""Bytes to which every buffer a kernel sees is aligned."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a program: what a caller must pass or gets back. ``dtype`` is the text form (``f32``)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """The flat inputs and outputs, and the pytrees they stand for.

    ``input_tree`` and ``output_tree`` are JSON-like descriptions: ``{"kind": "leaf", "index": i}``, ``{"kind": "tuple" | "list",
    "items": [...]}``, ``{"kind": "dict", "keys": [...], "items": [...]}``, ``{"kind": "object", "type": "module.Class", "keys": [...],
    "items": [...]}`` (an output dataclass such as Hugging Face's ModelOutput), ``{"kind": "value", "value": JSON scalar}`` for
    a non-tensor argument that was specialised. The input tree is a tuple ``(args, kwargs)``.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_tree: dict[str, Any] = field(default_factory=dict)
    output_tree: dict[str, Any] = field(default_factory=dict)


class Space(enum.Enum):
    """The memory a buffer lives in."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    ARENA = "arena"


@dataclass(frozen=True)
class BufferRef:
    """A pointer a kernel gets: input or output number ``position``, or byte offset ``position`` in the constants or the arena."""

    space: Space
    position: int
    nbytes: int


@dataclass(frozen=True)
class KernelCall:
    """One call of a native kernel, with what the profiler and the report say about it.

    ``flops`` and ``bytes`` are the work of the call by the IR's cost model; ``label`` is a short human description such as
    ``conv+add+relu``; ``task`` is the key under which it is tuned; ``location`` the user's code it comes from.
    """

    symbol: str
    arguments: tuple[BufferRef, ...]
    label: str
    task: str
    config: str
    location: str
    flops: int
    bytes: int


@dataclass(frozen=True)
class ConstantSlot:
    """One packed constant in the weights blob: byte offset, size, hexadecimal SHA-256 of the packed bytes."""

    offset: int
    nbytes: int
    digest: str


@dataclass(frozen=True)
class Program:
    """A compiled model for one signature, without its two blobs (native library and packed weights).

    ``features`` are the CPU features the library needs, by the names of /proc/cpuinfo. ``arena_bytes`` is the memory one call in
    flight needs; ``arena_lower_bound`` the largest sum of buffers alive at once, for the report.
    """

    name: str
    signature: Signature
    calls: tuple[KernelCall, ...]
    constants: tuple[ConstantSlot, ...]
    constant_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    target: str
    features: tuple[str, ...]
    threads: int
    entry: str = "mlc_entry"
