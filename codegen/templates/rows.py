"""Rows: loops over the free axes of a tensor, and within them passes over its reduced axes.

Where the reduced axes are innermost in memory, vectors run along the row and a sum ends with one across the lanes (*along* rows). Where
a free axis is innermost, vectors hold one element of each of several rows (*across* rows), and no lane ever meets another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tvm import tirx

from ...ir import Dim, Graph, Value, product
from ..emit import SERIAL, VECTORIZED, Emitter, Expr, Substitute, extent_of, index
from ..emit.affine import Box, Probe, Walk, merged_loops, walks_of
from .loops import LoopGroup, groups_of, largest_power_of_two, outer_loops

Combine = Callable[[Expr, Expr], Expr]
STAGE_ELEMENTS = 16384
"""Elements of a row (times lanes) that may be staged on the stack: 64 KB in fp32."""


@dataclass(frozen=True)
class RowLoops:
    """The loops of a row computation. ``lane`` is the free loop along which vectors run, None when they run along the row."""

    free: tuple[LoopGroup, ...]
    lane: LoopGroup | None
    reduced: tuple[LoopGroup, ...]

    @property
    def length(self) -> Dim:
        """Elements of a row."""
        return product([group.extent for group in self.reduced])


@dataclass(frozen=True)
class Element:
    """Where a pass stands: the index of every axis longer than 1, the place in a staged row, and the lane."""

    indices: dict[int, Expr]
    slot: Expr
    lane: Expr


@dataclass(frozen=True)
class Step:
    """One reduction of a pass: ``element`` gives what is combined. ``dtype`` is that of the accumulator."""

    combine: Combine
    identity: Expr
    dtype: str
    element: Callable[[Element], Expr]


class Passes(Protocol):
    """What the computation of a row may do, however its elements are shared among lanes or threads. See :class:`Row`."""

    def once(self) -> AbstractContextManager[Element]: ...

    def keep(self, value: Callable[[Expr], Expr]) -> Callable[[Expr], Expr]: ...

    def each(self, body: Callable[[Element], None]) -> None: ...

    def accumulate(self, *steps: Step) -> list[Callable[[Expr], Expr]]: ...


def plan_rows(
    graph: Graph,
    shape: Sequence[Dim],
    order: Sequence[int],
    reduced: Sequence[int],
    substitutes: Mapping[Value, Substitute],
    evaluate: Callable[[Probe, Sequence[Expr]], object],
) -> RowLoops:
    """The loops for rows of a tensor of ``shape`` that lies in memory in ``order``; ``evaluate`` touches all that a row reads and writes.

    Vectors run along the axis in which most of the reads are contiguous.
    """
    box = Box((0,) * len(shape), tuple(shape))
    free_axes = [axis for axis in order if axis not in reduced and shape[axis] != 1]
    reduced_axes = [axis for axis in order if axis in reduced and shape[axis] != 1]
    axes = [*free_axes, *reduced_axes]
    places = walks_of(graph, substitutes, box, axes, evaluate)
    innermost = _innermost(places, axes, order)
    lane_last = innermost in free_axes
    if lane_last:
        free_axes = [axis for axis in free_axes if axis != innermost]
    rest = [*free_axes, *([innermost] if lane_last and innermost is not None else []), *reduced_axes]
    moved = [_reordered(place, [axes.index(axis) for axis in rest]) for place in places]
    free_count = len(rest) - len(reduced_axes)
    free = _groups(moved, rest, shape, 0, free_count)
    inner = _groups(moved, rest, shape, free_count, len(rest))
    lane = free.pop() if lane_last else None
    return RowLoops(tuple(free), lane, tuple(inner))


def _innermost(places: Sequence[Walk], axes: Sequence[int], order: Sequence[int]) -> int | None:
    counts = dict.fromkeys(axes, 0)
    for place in places:
        if place.strides is not None:
            for axis, stride in zip(axes, place.strides, strict=True):
                # A read that only walks a few axes, such as a weight's, matters less.
                counts[axis] += sum(map(bool, place.strides)) if stride == 1 else 0
    ranked = [axis for axis in reversed(order) if axis in counts]
    return max(ranked, key=lambda axis: counts[axis]) if ranked else None


def _reordered(place: Walk, positions: Sequence[int]) -> Walk:
    strides = None if place.strides is None else tuple(place.strides[position] for position in positions)
    return replace(place, strides=strides, touched=tuple(place.touched[position] for position in positions))


def _groups(places: Sequence[Walk], axes: Sequence[int], shape: Sequence[Dim], start: int, stop: int) -> list[LoopGroup]:
    window = range(start, stop)
    part = [_reordered(place, window) for place in places]
    extents = [shape[axis] for axis in axes[start:stop]]
    return groups_of(axes[start:stop], extents, merged_loops(part, extents))


class Rows:
    """Emits row computations over ``loops`` with vectors of ``lanes``; ``accumulators`` of them break the chain of dependent sums.

    ``ahead`` gives what the next row will read where this one reads an element: a buffer and an offset. It is brought into the caches
    during the second pass, which computes while memory would otherwise have nothing to do.
    """

    def __init__(
        self,
        emitter: Emitter,
        loops: RowLoops,
        lanes: int,
        accumulators: int = 4,
        vectorised: bool = True,
        ahead: Callable[[Element], tuple[Any, Expr]] | None = None,
    ) -> None:
        self.ahead = ahead
        self.emitter = emitter
        self.loops = loops
        self.accumulators = accumulators
        self.kind = VECTORIZED if vectorised else SERIAL
        inner = loops.lane.extent if loops.lane is not None else loops.reduced[-1].extent if loops.reduced else 1
        wide = lanes * accumulators if loops.lane is not None else lanes
        # Symbolic extents that turn out to be shorter than a vector have code of their own.
        self.lanes = 1 if not vectorised else min(wide, largest_power_of_two(inner)) if isinstance(inner, int) else wide

    @property
    def stage_size(self) -> int | None:
        """Elements that one staged row (or one for each lane) takes at most; None when nothing bounds a symbolic length."""
        length = self.emitter.most(self.loops.length)
        return None if length is None else length * (self.lanes if self.loops.lane is not None else 1)

    def run(self, parallel: bool, wanted: int, body: Callable[[Row], None]) -> None:
        """Runs ``body`` for each row, or each bundle of rows across the lanes; the outer loops in parallel if asked for."""
        lane = self.loops.lane
        if lane is None:
            with outer_loops(self.emitter, self.loops.free, parallel, wanted) as indices:
                body(Row(self, indices, None))
            return
        if self.emitter.least(lane.extent) >= self.lanes:
            self._run_bundles(lane, parallel, wanted, body)
            return
        size = extent_of(lane.extent)
        with self.emitter.when(size >= self.lanes):
            self._run_bundles(lane, parallel, wanted, body)
        with self.emitter.when(size < self.lanes):
            single = copy.copy(self)
            single.lanes = 1
            single._run_bundles(lane, parallel, wanted, body)

    def _run_bundles(self, lane: LoopGroup, parallel: bool, wanted: int, body: Callable[[Row], None]) -> None:
        """Bundles of rows across the lanes; there are at least as many rows as lanes."""
        block_group = LoopGroup((-1,), (-(-lane.extent // self.lanes),))
        with outer_loops(self.emitter, [*self.loops.free, block_group], parallel, wanted) as indices:
            start = indices.pop(-1) * self.lanes
            if not self.emitter.divides(self.lanes, lane.extent):
                # The last bundle overlaps the one before.
                start = self.emitter.bind(tirx.Min(start, index(lane.extent - self.lanes)))
            body(Row(self, indices, start))


class Row:
    """One row, or one for each lane. Results of reductions are functions of the lane."""

    def __init__(self, rows: Rows, indices: dict[int, Expr], start: Expr | None) -> None:
        self._rows = rows
        self._emitter = rows.emitter
        self._loops = rows.loops
        self._indices = indices
        self._start = start
        self._passes = 0

    def _lane_indices(self, lane: Expr) -> dict[int, Expr]:
        group = self._loops.lane
        return group.indices(self._emitter, self._start + lane) if group is not None else {}

    @contextmanager
    def once(self) -> Iterator[Element]:
        """Code that runs once for the row, after its passes: a scalar, or a vector across the rows."""
        if self._loops.lane is None:
            with self._emitter.scope():
                yield Element(dict(self._indices), index(0), index(0))
            return
        with self._emitter.loop(self._rows.lanes, self._rows.kind) as lane:
            yield Element({**self._indices, **self._lane_indices(lane)}, lane, lane)

    @contextmanager
    def _outer_reduced(self, groups: Sequence[LoopGroup]) -> Iterator[tuple[dict[int, Expr], Expr]]:
        """Loops over ``groups``: axis indices, and the position in all of them."""
        with ExitStack() as stack:
            indices = dict(self._indices)
            position: Expr = index(0)
            for group in groups:
                variable = stack.enter_context(self._emitter.loop(group.extent))
                indices.update(group.indices(self._emitter, variable))
                position = position * extent_of(group.extent) + variable
            yield indices, position

    def keep(self, value: Callable[[Expr], Expr]) -> Callable[[Expr], Expr]:
        """Computes ``value(lane)`` once for the row, for use in later passes."""
        if self._loops.lane is None:
            result = self._emitter.bind(value(index(0)))
            return lambda lane: result
        buffer = self._emitter.allocate(self._rows.lanes, "float32", "kept")
        with self._emitter.loop(self._rows.lanes, self._rows.kind) as lane:
            self._emitter.store(buffer, value(lane), lane)
        return lambda lane: self._emitter.load(buffer, lane)

    def each(self, body: Callable[[Element], None]) -> None:
        """A pass: runs ``body`` for every element of the row. It must bear to run twice for an element."""
        self._pass(lambda element, slot, fresh: body(element))

    def accumulate(self, *steps: Step) -> list[Callable[[Expr], Expr]]:
        """A pass that reduces; the results, as functions of the lane. Elements may be evaluated twice but count once."""
        across = self._loops.lane is not None
        accumulators = 1 if across else self._rows.accumulators
        lanes = self._rows.lanes
        buffers = [self._emitter.allocate(lanes * accumulators, step.dtype, "accumulator") for step in steps]
        for part in range(accumulators):
            with self._emitter.loop(lanes, self._rows.kind) as lane:
                for step, buffer in zip(steps, buffers, strict=True):
                    self._emitter.store(buffer, step.identity, lane + part * lanes)

        def add(element: Element, slot: int, fresh: Expr | None) -> None:
            for step, buffer in zip(steps, buffers, strict=True):
                value = self._emitter.bind(step.element(element))
                if fresh is not None:
                    value = tirx.Select(fresh, value, step.identity)
                place = element.lane + slot * lanes
                self._emitter.store(buffer, step.combine(self._emitter.load(buffer, place), value), place)

        self._pass(add)
        if across:
            return [lambda lane, buffer=buffer: self._emitter.load(buffer, lane) for buffer in buffers]  # type: ignore[misc]
        results = [self._across_lanes(step, buffer, lanes * accumulators) for step, buffer in zip(steps, buffers, strict=True)]
        return [lambda lane, result=result: result for result in results]  # type: ignore[misc]

    def _across_lanes(self, step: Step, buffer: object, count: int) -> Expr:
        """All elements of ``buffer`` combined, by halves."""
        while count > 1:
            half = count // 2
            width = min(half, self._rows.lanes)
            for part in range(half // width):
                with self._emitter.loop(width, self._rows.kind) as lane:
                    place = lane + part * width
                    combined = step.combine(self._emitter.load(buffer, place), self._emitter.load(buffer, place + half))
                    self._emitter.store(buffer, combined, place)
            count = half
        return self._emitter.bind(self._emitter.load(buffer, 0))

    def _pass(self, body: Callable[[Element, int, Expr | None], None]) -> None:
        """``body(element, accumulator, fresh)``; ``fresh`` is None, or says which lanes are met for the first time."""
        emitter, lanes, kind = self._emitter, self._rows.lanes, self._rows.kind
        if self._loops.lane is not None:
            with self._outer_reduced(self._loops.reduced) as (indices, position), emitter.loop(lanes, kind) as lane:
                body(Element({**indices, **self._lane_indices(lane)}, position * lanes + lane, lane), 0, None)
            return
        *outer, inner = self._loops.reduced or (LoopGroup((), ()),)
        accumulators = self._rows.accumulators
        ahead = self._rows.ahead if self._passes == 1 else None
        self._passes += 1
        with self._outer_reduced(outer) as (indices, position):

            def at(place: Expr, lane: Expr) -> Element:
                found = {**indices, **inner.indices(emitter, place)} if inner.axes else dict(indices)
                return Element(found, position * extent_of(inner.extent) + place, lane)

            def vector(start: Expr, slot: int = 0, fresh_from: Expr | int = 0, count: int = 1) -> None:
                with emitter.loop(count * lanes, kind) as lane:
                    fresh = None if isinstance(fresh_from, int) and not fresh_from else lane >= fresh_from
                    body(at(start + lane, lane), slot, fresh)

            def together(first: Expr) -> None:
                """A vector for each accumulator: as one of several registers, whose chains of instructions LLVM interleaves."""
                if lanes > 1:
                    if ahead is not None:
                        buffer, offset = ahead(at(first * lanes, index(0)))
                        emitter.prefetch(buffer, offset, accumulators * lanes)
                    vector(first * lanes, count=accumulators)
                    return
                for slot in range(accumulators):
                    vector(first + slot, slot)

            if not isinstance(inner.extent, int):
                self._symbolic_pass(inner, at, vector, together, body)
                return
            blocks, rest = divmod(inner.extent, lanes * accumulators)
            if blocks:
                with emitter.loop(blocks) as block:
                    together(block * accumulators)
            whole, rest = divmod(rest, lanes)
            for slot in range(whole):
                vector(index((blocks * accumulators + slot) * lanes), slot)
            if rest:
                vector(index(inner.extent - lanes), fresh_from=lanes - rest)

    def _symbolic_pass(
        self,
        inner: LoopGroup,
        at: Callable[[Expr, Expr], Element],
        vector: Callable[..., None],
        together: Callable[[Expr], None],
        body: Callable[[Element, int, Expr | None], None],
    ) -> None:
        """The innermost loop of a pass over a row of symbolic length: vectors for as many as fit, an overlapping one for the rest, or
        element by element if not even one fits."""
        emitter, lanes, accumulators = self._emitter, self._rows.lanes, self._rows.accumulators
        size = index(inner.extent)
        with emitter.loop(inner.extent // (lanes * accumulators)) as block:
            together(block * accumulators)
        if accumulators > 1:
            done = emitter.bind(emitter.simplify(size // (lanes * accumulators) * accumulators))
            with emitter.loop(emitter.simplify(size // lanes - done)) as block:
                vector((done + block) * lanes)
        if lanes == 1 or emitter.divides(lanes, inner.extent):
            return
        rest = emitter.bind(emitter.simplify(size % lanes))
        short = emitter.least(inner.extent) < lanes
        with emitter.when(tirx.And(rest > 0, size >= lanes) if short else rest > 0):
            vector(emitter.bind(size - lanes), fresh_from=lanes - rest)
        if short:
            with emitter.when(size < lanes), emitter.loop(inner.extent) as place:
                body(at(place, index(0)), 0, None)
