"""The roofline: how fast a task can run at best on a target, from arithmetic, bytes and the target's rates.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (2009), with one roof per cache level.
Two uses with different rates: :func:`lower_bound` must never be beaten by a measurement and so takes optimistic rates and
caches full of the task's own data; :func:`roofline` says what a good kernel can be expected to take.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from ..codegen.instruction_sets import multiplies_bf16, multiplies_bytes, multiplies_int16, sums_bytes_in_16_bits
from ..codegen.target import Target
from ..codegen.task import Task
from ..ir import DType, Node
from ..ir.short_sums import SHORT_SUMS, words_of
from .workload import Workload, least_operations, operations, sums_wide, workload

# A target's frequency and bandwidth are typical sustained figures. A processor may clock higher, and a server's memory channels
# may give far more than the table's desktop-like figure, so a bound needs room above them.
FREQUENCY_HEADROOM = 1.35
MEMORY_HEADROOM = 3.0

L1_VECTORS_PER_CYCLE = 3
"""Loads and stores of full vectors per cycle: at most two and one on the x86 cores of the target table."""

L2_BYTES_PER_CYCLE = 64
L3_BYTES_PER_CYCLE = 32
"""Per core, at most."""

SUSTAINED_L3_SHARE = 0.5
_WIDENED_HALVES = 2.1
_PAIRS = 2.75
_SHORT_SUMS = {1: 2.1, 2: 1.75}
_WIDENED_BYTES = 5.0
"""See :func:`narrow_slowdown`: halves are widened to fp32, bytes multiplied as pairs of 16-bit integers, in sums of 16
bits over one word or two, or one by one."""
LAUNCH_SECONDS = 1e-6
"""Cost of calling a kernel and of starting its parallel loop, for estimates."""


class Bound(enum.Enum):
    """What limits a task."""

    COMPUTE = "compute"
    L1 = "L1 bandwidth"
    L2 = "L2 bandwidth"
    L3 = "L3 bandwidth"
    MEMORY = "memory bandwidth"
    LAUNCH = "launch overhead"


@dataclass(frozen=True)
class Rates:
    """What ``threads`` cores of a target do per second: fp32 operations, and bytes from each level of the memory hierarchy.

    ``capacity`` are the bytes that L1, L2 and L3 hold together with the levels above.
    """

    operations: float
    l1: float
    l2: float
    l3: float
    memory: float
    capacity: tuple[int, int, int]

    @staticmethod
    def sustained(target: Target, threads: int) -> Rates:
        """Rates that good kernels reach."""
        cores = max(1, min(threads, target.threads))
        cycles = target.frequency * cores
        return Rates(
            operations=target.peak_flops * cores,
            l1=2 * target.vector_bytes * cycles,
            l2=L2_BYTES_PER_CYCLE / 2 * cycles,
            l3=L3_BYTES_PER_CYCLE * SUSTAINED_L3_SHARE * cycles,
            memory=target.memory_bandwidth * min(1.0, 0.6 * cores),
            capacity=_capacity(target, cores),
        )

    @staticmethod
    def peak(target: Target, threads: int) -> Rates:
        """Rates that no kernel exceeds."""
        cores = max(1, threads)
        cycles = target.frequency * FREQUENCY_HEADROOM * cores
        return Rates(
            operations=target.peak_flops * FREQUENCY_HEADROOM * cores,
            l1=L1_VECTORS_PER_CYCLE * target.vector_bytes * cycles,
            l2=L2_BYTES_PER_CYCLE * cycles,
            l3=L3_BYTES_PER_CYCLE * cycles,
            memory=max(target.memory_bandwidth * MEMORY_HEADROOM, 0.0),
            capacity=_capacity(target, cores),
        )


def _capacity(target: Target, cores: int) -> tuple[int, int, int]:
    inner = target.l1_bytes * cores
    middle = inner + target.l2_bytes * cores
    return inner, middle, middle + target.l3_bytes


@dataclass(frozen=True)
class Roofline:
    """Seconds that each resource needs for a task; the largest is the time. All of them may overlap, none can be undercut."""

    compute: float
    l1: float
    l2: float
    l3: float
    memory: float
    launch: float = 0.0

    @property
    def parts(self) -> dict[Bound, float]:
        return {
            Bound.COMPUTE: self.compute,
            Bound.L1: self.l1,
            Bound.L2: self.l2,
            Bound.L3: self.l3,
            Bound.MEMORY: self.memory,
            Bound.LAUNCH: self.launch,
        }

    @property
    def seconds(self) -> float:
        return max(self.compute, self.l1, self.l2, self.l3, self.memory) + self.launch

    @property
    def bound(self) -> Bound:
        """The resource that takes longest."""
        parts = self.parts
        return max(parts, key=lambda bound: parts[bound])


def roofs(work: Workload, rates: Rates, *, cold_bytes: int = 0, launch: float = 0.0) -> Roofline:
    """Every roof over ``work``. ``cold_bytes`` of its data come from memory for certain, the rest from where all of it fits."""
    inner, middle, outer = rates.capacity
    warm = work.nbytes - cold_bytes
    return Roofline(
        compute=work.operations / rates.operations,
        l1=work.nbytes / rates.l1,
        l2=(max(0, warm - inner) + cold_bytes) / rates.l2,
        l3=(max(0, warm - middle) + cold_bytes) / rates.l3,
        memory=(max(0, warm - outer) + cold_bytes) / rates.memory,
        launch=launch,
    )


def lower_bound(task: Task) -> Roofline:
    """What no kernel for ``task`` beats, even one that finds everything in the caches that can hold it and does least arithmetic."""
    work = replace(workload(task.graph, task.constant_inputs), operations=least_operations(task.graph))
    return roofs(work, Rates.peak(task.target, task.threads))


def roofline(task: Task, *, cold: bool = False) -> Roofline:
    """What a good kernel for ``task`` takes when its data is as warm as it can be, or with ``cold`` its constants come from memory."""
    work = workload(task.graph, task.constant_inputs)
    extra = sum(operations(node) * (narrow_slowdown(node, task.target) - 1) for node in task.graph.nodes if sums_wide(node))
    work = replace(work, operations=work.operations + extra)
    rates = Rates.sustained(task.target, task.threads)
    return roofs(work, rates, cold_bytes=work.constant_bytes if cold else 0, launch=LAUNCH_SECONDS)


def narrow_slowdown(node: Node, target: Target) -> float:
    """How many times as long as its operands' width says a contraction of narrow operands takes for want of instructions (measured)."""
    if node.inputs[0].tensor.dtype in (DType.BFLOAT16, DType.FLOAT16):
        bf16 = node.inputs[0].tensor.dtype is DType.BFLOAT16 and multiplies_bf16(target)
        return 1.0 if bf16 else _WIDENED_HALVES
    if multiplies_bytes(target):
        return 1.0
    weight = node.inputs[1].tensor.encoding
    if weight.name == SHORT_SUMS and sums_bytes_in_16_bits(target):
        return _SHORT_SUMS[words_of(weight)]
    return _PAIRS if multiplies_int16(target) else _WIDENED_BYTES
