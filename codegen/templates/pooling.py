"""Pooling: the largest or mean element of sliding windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from ...errors import LoweringError
from ...ir import Graph
from ..emit import VECTORIZED, Expr, Kernel, index, unflatten
from ..emit.math import f32, is_nan
from ..space import Config, Space
from ..task import Numerics, Task
from ..template import LoweredKernel, Template
from .region import AnchoredRegion, Epilogue
from .tiling import share, threads, useful_threads

_UNROLLED_TAPS = 9


class PoolingTemplate(Template):
    """Regions around one ``window_reduce`` over fp32, with elementwise operations before and after it.

    The innermost axis in memory (the channel, channels last) runs along the vector lanes. Knob: ``vectors`` computed at once.
    """

    name: ClassVar[str] = "pooling"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("window_reduce",))
        if region is None:
            return False
        attributes = region.anchor.attributes
        return attributes["kind"] == "max" or all(step == 1 for step in attributes["dilation"])  # type: ignore[union-attr]

    def space(self, task: Task) -> Space:
        return Space(self.name, (("vectors", (1, 2, 4)),), Config.of(self.name, {"vectors": 4}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        region = AnchoredRegion.find(task.graph, ("window_reduce",))
        if region is None:
            raise LoweringError("the pooling template takes regions with one window_reduce; ask takes() first")
        return _Lowering(task, region, config["vectors"]).lower()


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: extents of operand and result, and how the window slides."""

    position: int
    extent: int
    window: int
    stride: int
    low: int
    high: int
    dilation: int

    def source(self, place: Expr, tap: Expr | int) -> Expr:
        return place * self.stride + (tap * self.dilation - self.low)


class _Lowering:
    """One kernel in the making."""

    def __init__(self, task: Task, region: AnchoredRegion, vectors: int) -> None:
        attributes: Any = region.anchor.attributes
        self.strict = task.numerics is Numerics.STRICT
        self.largest = attributes["kind"] == "max"
        self.counts_padding = bool(attributes["count_include_pad"])
        self.divisor = attributes["divisor"]
        self.operand = region.anchor.inputs[0]
        result = region.anchor.output.tensor
        self.shape = result.static_shape
        source = self.operand.tensor.static_shape
        uncounted = attributes["uncounted"] or (0,) * len(attributes["window"])
        self.axes = [
            _Axis(2 + i, source[2 + i], window, attributes["stride"][i], *attributes["padding"][i], attributes["dilation"][i])
            for i, window in enumerate(attributes["window"])
        ]
        # Padding up to here counts in a mean.
        self.counted_end = [axis.extent + axis.high - skip for axis, skip in zip(self.axes, uncounted, strict=True)]
        self.kernel = Kernel(region.graph)
        self.emitter = self.kernel.emitter
        self.epilogue = Epilogue(self.kernel, region)
        self.lanes = task.target.vector_lanes
        self.vectors = vectors
        wide = [axis for axis in reversed(result.layout.order) if self.shape[axis] > 1]
        self.along = wide[0] if wide else result.rank - 1
        flops = float(math.prod(self.shape) * math.prod(attributes["window"]))
        moved = 4.0 * (math.prod(source) + math.prod(self.shape))
        self.parallel = useful_threads(task.target, task.threads, flops * self.lanes, moved)
        self.outer = [axis for axis in result.layout.order if axis != self.along]

    def lower(self) -> LoweredKernel:
        emitter = self.emitter
        extents = [self.shape[axis] for axis in self.outer]
        chunk = self.lanes * self.vectors
        whole, rest = divmod(self.shape[self.along], chunk)
        with (
            threads(emitter, self.parallel) as thread,
            share(emitter, thread, self.parallel, math.prod(extents)) as (low, high),
            emitter.loop(emitter.simplify(high - low), name="position", start=low) as position,
        ):
            places: list[Expr] = [index(0)] * len(self.shape)
            for axis, place in zip(self.outer, unflatten(emitter, extents, position), strict=True):
                places[axis] = self._bounded(place, self.shape[axis])
            if whole:
                with emitter.loop(whole, name="chunk") as number:
                    self._chunk(places, number * chunk, [self.lanes] * self.vectors)
            if rest:
                widths = [min(self.lanes, rest - start) for start in range(0, rest, self.lanes)]
                with emitter.scope():
                    self._chunk(places, index(whole * chunk), widths)
        return LoweredKernel(self.kernel.finish())

    def _bounded(self, place: Expr, extent: int) -> Expr:
        bound = self.emitter.bind(place, "place")
        if isinstance(bound, tirx.Var) and not bound.same_as(place):
            self.emitter.bind_range(bound, extent)
        return bound

    def _chunk(self, places: Sequence[Expr], start: Expr, widths: Sequence[int]) -> None:
        """Results at ``places``, from ``start`` on along the vector axis: one vector for each of ``widths``."""
        emitter = self.emitter
        totals = emitter.allocate(len(widths) * self.lanes, "float32", "totals")
        for number, width in enumerate(widths):
            with emitter.loop(width, VECTORIZED, "lane") as lane:
                emitter.store(totals, f32(-math.inf if self.largest else 0.0), lane + number * self.lanes)
        with self._taps() as all_taps:
            for taps in all_taps:
                with self._inside(places, taps):
                    for number, width in enumerate(widths):
                        with emitter.loop(width, VECTORIZED, "lane") as lane:
                            self._add(totals, lane + number * self.lanes, [*places], start + number * self.lanes + lane, taps)
        for number, width in enumerate(widths):
            with emitter.loop(width, VECTORIZED, "lane") as lane:
                at = self._along(places, start + number * self.lanes + lane)
                total = emitter.load(totals, lane + number * self.lanes)
                self.epilogue.store(at, total if self.largest else total / self._count(at))

    @contextmanager
    def _taps(self) -> Iterator[list[tuple[Expr, ...]]]:
        """The window's positions: listed when they are few, else as loop variables."""
        emitter = self.emitter
        windows = [axis.window for axis in self.axes]
        if math.prod(windows) <= _UNROLLED_TAPS:
            yield [tuple(index(tap) for tap in taps) for taps in itertools.product(*map(range, windows))]
            return
        with emitter.loop(math.prod(windows), name="tap") as tap:
            yield [
                tuple(self._bounded(place, axis.window) for place, axis in zip(unflatten(emitter, windows, tap), self.axes, strict=True))
            ]

    def _along(self, places: Sequence[Expr], at: Expr) -> list[Expr]:
        return [at if axis == self.along else place for axis, place in enumerate(places)]

    @contextmanager
    def _inside(self, places: Sequence[Expr], taps: Sequence[Expr]) -> Iterator[None]:
        """Only where the window's position lies within the operand along every axis but the vector's."""
        condition: Expr | None = None
        for axis, tap in zip(self.axes, taps, strict=True):
            if axis.position == self.along:
                continue
            source = self.emitter.simplify(axis.source(places[axis.position], tap))
            for test in (source >= 0, source < axis.extent):
                if not self.emitter.proves(test):
                    condition = test if condition is None else tirx.And(condition, test)
        if condition is None:
            with self.emitter.scope():
                yield
        else:
            with self.emitter.when(condition):
                yield

    def _add(self, totals: Any, offset: Expr, places: Sequence[Expr], at: Expr, taps: Sequence[Expr]) -> None:
        emitter = self.emitter
        source = self._along(places, at)
        valid: Expr | None = None
        for axis, tap in zip(self.axes, taps, strict=True):
            place = emitter.simplify(axis.source(source[axis.position], tap))
            if axis.position == self.along and not (emitter.proves(place >= 0) and emitter.proves(place < axis.extent)):
                valid = tirx.And(place >= 0, place < axis.extent)
                place = tirx.Max(tirx.Min(place, index(axis.extent - 1)), index(0))
            source[axis.position] = place
        element = self.epilogue.evaluator.value_at(self.operand, source)
        if valid is not None:
            element = emitter.bind(tirx.Select(valid, element, f32(-math.inf if self.largest else 0.0)))
        before = emitter.load(totals, offset)
        if not self.largest:
            result = before + element
        elif self.strict:
            result = tirx.Select(tirx.Or(element > before, is_nan(element)), element, before)
        else:
            result = tirx.Max(before, element)
        emitter.store(totals, result, offset)

    def _count(self, at: Sequence[Expr]) -> Expr:
        """How many positions a mean divides by."""
        if self.divisor:
            return f32(float(self.divisor))
        count: Expr = index(1)
        for axis, end in zip(self.axes, self.counted_end, strict=True):
            first = axis.source(at[axis.position], 0)
            last = first + axis.window
            if self.counts_padding:
                count = count * (tirx.Min(last, index(end)) - first)
            else:
                count = count * (tirx.Min(last, index(axis.extent)) - tirx.Max(first, index(0)))
        simple = self.emitter.simplify(count)
        return f32(float(simple.value)) if isinstance(simple, tirx.IntImm) else tirx.Cast("float32", simple)
