"""Rows on a GPU: a block takes one row or a bundle of them, its threads share the elements, and partial results meet in shared memory.

Where the reduced axes are innermost in memory, neighbouring threads read neighbouring elements of one row (*along* rows). Where a free
axis is innermost, they read the same element of neighbouring rows (*across* rows).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir import Graph
from ..emit import SERIAL, UNROLLED, Expr, index, unflatten
from ..space import Config, Space
from ..task import Task
from ..templates.loops import LoopGroup, largest_power_of_two
from ..templates.rows import Element, RowLoops, Step
from .kernel import GpuKernel

MOST_UNROLLED = 16
"""Elements of a row that one thread may take for its passes to be unrolled, so that staged elements stay in registers."""


@dataclass(frozen=True)
class RowShares:
    """How blocks and threads share rows: ``parts`` threads (a power of two) for each of ``bundle`` rows of a block."""

    loops: RowLoops
    parts: int
    bundle: int

    @property
    def across(self) -> bool:
        """Whether neighbouring threads work on neighbouring rows."""
        return self.loops.lane is not None

    @property
    def free(self) -> tuple[LoopGroup, ...]:
        """The loops over rows, the innermost last."""
        return (*self.loops.free, self.loops.lane) if self.loops.lane is not None else self.loops.free

    @property
    def rows(self) -> int:
        return math.prod(group.extent for group in self.free)

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.bundle)

    @property
    def threads(self) -> int:
        return self.parts * self.bundle

    @property
    def per_thread(self) -> int:
        """Elements of a row that a thread takes at most."""
        return -(-self.loops.length // self.parts)


def row_space(template: str, task: Task, loops: RowLoops) -> Space:
    """Knobs ``parts`` and ``bundle`` of :class:`RowShares`.

    By default a thread has about four elements of a row, less where there are too few rows to fill the device, and a block is a few warps.
    """
    rows = math.prod(group.extent for group in (*loops.free, *([loops.lane] if loops.lane else [])))
    longest = largest_power_of_two(loops.length)
    wanted = largest_power_of_two(max(loops.length // 4, 1))
    if loops.lane is not None:
        # Threads across rows are enough as long as there are rows.
        busy = largest_power_of_two(-(-task.target.threads * 512 // rows))
        parts = min(busy, max(longest // 4, 1), 16)
        bundle = 32 if parts > 1 or rows < 64 * task.target.threads else 128
        bundles: tuple[int, ...] = (32, 64, 128)
        most = 32
    else:
        parts = max(min(wanted, 256), min(32, longest))
        bundle = max(128 // parts, 1)
        bundles = (1, 2, 4, 8, 16, 32)
        most = 1024
    all_parts = tuple(1 << bit for bit in range(11) if 1 << bit <= min(longest, most))
    choices = (("bundle", tuple(sorted({bundle, *bundles}))), ("parts", all_parts))

    def allows(knobs: Mapping[str, int]) -> bool:
        return 32 <= knobs["bundle"] * knobs["parts"] <= 1024 or knobs == {"bundle": bundle, "parts": parts}

    return Space(template, choices, Config.of(template, {"bundle": bundle, "parts": parts}), allows)


def shares_of(loops: RowLoops, config: Config) -> RowShares:
    return RowShares(loops, config["parts"], config["bundle"])


class BlockRow:
    """The passes over the rows of this block, one for each group of ``parts`` threads (see :class:`..templates.rows.Passes`).

    Threads beyond the last row repeat it: they store the same values at the same places.
    """

    def __init__(self, kernel: GpuKernel, shares: RowShares) -> None:
        self._kernel = kernel
        self._emitter = emitter = kernel.emitter
        self._shares = shares
        self._loops = shares.loops
        thread = kernel.thread
        if shares.across:
            which, part = emitter.simplify(thread % shares.bundle), emitter.simplify(thread // shares.bundle)
        else:
            which, part = emitter.simplify(thread // shares.parts), emitter.simplify(thread % shares.parts)
        self._part = emitter.bind(part, "part")
        row = emitter.simplify(kernel.block * shares.bundle + which)
        if shares.rows % shares.bundle:
            row = tirx.Min(row, index(shares.rows - 1))
        row = kernel.bounded(row, shares.rows, "row")
        self._first = emitter.bind(which if shares.across else which * shares.parts, "first")
        self._indices: dict[int, Expr] = {}
        for group, value in zip(shares.free, unflatten(emitter, [group.extent for group in shares.free], row), strict=True):
            self._indices.update(group.indices(emitter, emitter.bind(value)))
        self._partial: dict[tuple[str, int], Any] = {}

    @property
    def stage_size(self) -> int:
        """Elements that a thread keeps of a staged row; 0 when there are too many for registers."""
        return self._shares.per_thread if self._shares.per_thread <= MOST_UNROLLED else 0

    @contextmanager
    def once(self) -> Iterator[Element]:
        """Code that runs once for the row, after its passes."""
        with self._emitter.when(tirx.EQ(self._part, index(0))) if self._shares.parts > 1 else self._emitter.scope():
            yield Element(dict(self._indices), index(0), index(0))

    def keep(self, value: Callable[[Expr], Expr]) -> Callable[[Expr], Expr]:
        """Computes ``value`` once for the row in each thread, for use in later passes."""
        result = self._emitter.bind(value(index(0)))
        return lambda lane: result

    def each(self, body: Callable[[Element], None]) -> None:
        """A pass: runs ``body`` for every element of the row."""
        emitter, shares, length = self._emitter, self._shares, self._loops.length
        per_thread = shares.per_thread
        with emitter.loop(per_thread, UNROLLED if per_thread <= MOST_UNROLLED else SERIAL, "step") as step:
            place = emitter.bind(step * shares.parts + self._part, "place")
            with emitter.when(place < length) if length % shares.parts else emitter.scope():
                self._at(self._kernel.bounded(place, length, "place"), step, body)

    def _at(self, place: Expr, step: Expr, body: Callable[[Element], None]) -> None:
        emitter = self._emitter
        found = dict(self._indices)
        groups = self._loops.reduced
        for group, value in zip(groups, unflatten(emitter, [group.extent for group in groups], place), strict=True):
            found.update(group.indices(emitter, emitter.bind(value)))
        body(Element(found, step, index(0)))

    def accumulate(self, *steps: Step) -> list[Callable[[Expr], Expr]]:
        """A pass that reduces; the results, the same in all threads of the row."""
        emitter = self._emitter
        sums = [emitter.allocate(1, step.dtype, "sum") for step in steps]
        for step, held in zip(steps, sums, strict=True):
            emitter.store(held, step.identity, 0)

        def add(element: Element) -> None:
            for step, held in zip(steps, sums, strict=True):
                value = emitter.bind(step.element(element))
                emitter.store(held, step.combine(emitter.load(held, 0), value), 0)

        self.each(add)
        alone = self._shares.parts == 1
        results = [emitter.bind(emitter.load(held, 0)) for held in sums] if alone else self._met(steps, sums)
        return [lambda lane, result=result: result for result in results]  # type: ignore[misc]

    def _met(self, steps: Sequence[Step], sums: Sequence[Any]) -> list[Expr]:
        """The partial results of all threads of a row combined, by halves."""
        kernel, emitter, shares = self._kernel, self._emitter, self._shares
        stride = shares.bundle if shares.across else 1
        shared = [self._buffer(step.dtype, number) for number, step in enumerate(steps)]
        for held, buffer in zip(sums, shared, strict=True):
            emitter.store(buffer, emitter.load(held, 0), kernel.thread)
        kernel.barrier()
        half = shares.parts // 2
        while half:
            with emitter.when(self._part < half):
                for step, buffer in zip(steps, shared, strict=True):
                    other = emitter.bind(emitter.load(buffer, kernel.thread + half * stride))
                    emitter.store(buffer, step.combine(emitter.bind(emitter.load(buffer, kernel.thread)), other), kernel.thread)
            kernel.barrier()
            half //= 2
        results = [emitter.bind(emitter.load(buffer, self._first)) for buffer in shared]
        # Before anyone writes there again.
        kernel.barrier()
        return results

    def _buffer(self, dtype: str, number: int) -> Any:
        key = dtype, number
        if key not in self._partial:
            self._partial[key] = self._kernel.shared(self._shares.threads, dtype, "partial")
        return self._partial[key]


def planning_kernel(graph: Graph) -> GpuKernel:
    """A kernel to plan with, before it is known how many blocks it takes."""
    return GpuKernel(graph, blocks=1, threads=1)
