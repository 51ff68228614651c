"""Ways of putting one row in order, by integer keys: counting, selection, merging. All are stable.

*Counting* gives each element the number of those before it, in vectors, all pairs. *Selection* finds the first few, each as the best of
those that come after the one before. *Merging* counts within blocks and merges runs of doubling length (Knuth, vol. 3, 5.2.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir import DType
from ..emit import VECTORIZED, Emitter, Expr, compute_dtype, index
from ..emit.math import Bind, is_nan, select
from ..task import Numerics
from .loops import LoopGroup
from .reduction import extreme, lowest
from .rows import Element, Row, RowLoops, Rows, Step

BLOCK = 32
"""Elements of the runs with which merging starts."""

Store = Callable[[Expr, Expr], None]
"""``store(place, position)``: the element from ``position`` of the row comes to ``place``."""

Allocate = Callable[[int, str, str], Any]
"""``allocate(count, dtype, name)``: a flat buffer."""


def key_dtype(dtype: DType) -> DType:
    """The integers that stand for elements of ``dtype`` in comparisons: of the same width for floats."""
    return {DType.FLOAT32: DType.INT32, DType.FLOAT64: DType.INT64}.get(dtype, dtype)


def key_of(bind: Bind, value: Expr, dtype: DType) -> Expr:
    """An integer that orders as ``value`` does in PyTorch: zeros are equal, NaN exceeds everything."""
    if not dtype.is_float:
        return value
    name = compute_dtype(key_dtype(dtype))
    highest = 2 ** (key_dtype(dtype).bits - 1) - 1
    bits = bind(tirx.reinterpret(name, value))
    # The representation of a negative float falls as the float rises.
    ordered = bind(select(bits < tirx.const(0, name), bits ^ tirx.const(highest, name), bits))
    ordered = bind(select(tirx.EQ(bits, tirx.const(-highest - 1, name)), tirx.const(0, name), ordered))
    return bind(select(is_nan(value), tirx.const(highest, name), ordered))


@dataclass(frozen=True)
class Method:
    """How rows of ``length`` elements are sorted of which the first ``count`` are wanted; ``padded`` is how many keys are held."""

    name: str
    length: int
    count: int

    @staticmethod
    def choose(length: int, count: int, lanes: int) -> Method:
        """The cheapest, counted in vector operations (a step of a merge takes about six)."""
        blocks = -(-length // BLOCK)
        passes = (blocks - 1).bit_length()
        costs = {
            "count": length * math.ceil(length / lanes),
            "select": 2 * count * math.ceil(length / lanes),
            "merge": 6 * length * passes + length * math.ceil(BLOCK / lanes),
        }
        return Method(min(costs, key=lambda name: costs[name]), length, count)

    @property
    def padded(self) -> int:
        return -(-self.length // BLOCK) * BLOCK if self.name == "merge" else self.length

    def scratch(self, dtype: DType) -> list[tuple[int, str, str]]:
        """Buffers that the method needs beside the keys: count, dtype, name."""
        if self.name == "count":
            return [(self.length, "int32", "rank")]
        if self.name == "select":
            return []
        key = compute_dtype(key_dtype(dtype))
        return [(self.padded, key, "merged"), (self.padded, "int32", "place"), (self.padded, "int32", "moved")]


class KeyRow:
    """A row of keys in a buffer, and the ways of sorting it."""

    def __init__(self, emitter: Emitter, keys: Any, scratch: list[Any], method: Method, dtype: DType, descending: bool, lanes: int) -> None:
        self.emitter = emitter
        self.keys = keys
        self.scratch = scratch
        self.method = method
        self.dtype = key_dtype(dtype)
        self.descending = descending
        self.length = method.length
        self.rows = Rows(emitter, RowLoops((), None, (LoopGroup((0,), (self.length,)),)), lanes)

    def sort(self, store: Store) -> None:
        """Emits the code that hands the first elements in order to ``store``."""
        {"count": self._count, "select": self._select, "merge": self._merge}[self.method.name](store)

    def last(self) -> Expr:
        """A key that nothing comes after: what pads a row."""
        return lowest("max" if self.descending else "min", self.dtype)

    def _before(self, a: Expr, b: Expr) -> Expr:
        return a > b if self.descending else a < b

    def _ranks(self, ranks: Any, start: Expr, lanes: int, first: Expr, extent: int) -> None:
        """Counts for ``lanes`` elements from ``start`` how many of ``extent`` keys from ``first`` come before; equal ones in order."""
        emitter = self.emitter
        with emitter.loop(lanes, VECTORIZED) as lane:
            emitter.store(ranks, index(0), start + lane)
        with emitter.loop(extent) as number:
            other = emitter.bind(first + number)
            value = emitter.bind(emitter.load(self.keys, other))
            with emitter.loop(lanes, VECTORIZED) as lane:
                own = emitter.bind(emitter.load(self.keys, start + lane))
                tie = tirx.And(tirx.EQ(value, own), other < start + lane)
                earlier = select(tirx.Or(self._before(value, own), tie), index(1), index(0))
                emitter.store(ranks, emitter.load(ranks, start + lane) + earlier, start + lane)

    def _count(self, store: Store) -> None:
        emitter, lanes, count = self.emitter, self.rows.lanes, self.method.count
        (ranks,) = self.scratch
        with emitter.loop(-(-self.length // lanes)) as block:
            # The last vector overlaps the one before.
            start = emitter.bind(tirx.Min(block * lanes, index(self.length - lanes)))
            self._ranks(ranks, start, lanes, index(0), self.length)
        with emitter.loop(self.length) as position:
            place = emitter.bind(emitter.load(ranks, position))
            if count < self.length:
                with emitter.when(place < count):
                    store(place, position)
            else:
                store(place, position)

    def _select(self, store: Store) -> None:
        """Each next element is the best of those after the last: worse, or equal and further back."""
        emitter = self.emitter
        kind = "max" if self.descending else "min"
        worst = lowest(kind, self.dtype)
        none = tirx.const(2**31 - 1, "int32")
        last_value = emitter.allocate(1, compute_dtype(self.dtype), "value")
        last_place = emitter.allocate(1, "int32", "place")
        emitter.store(last_value, lowest("min" if self.descending else "max", self.dtype), 0)
        emitter.store(last_place, index(-1), 0)
        with emitter.loop(self.method.count) as place:
            before = emitter.bind(emitter.load(last_value, 0))
            after = emitter.bind(emitter.load(last_place, 0))
            row = Row(self.rows, {}, None)

            def remaining(element: Element) -> tuple[Expr, Expr]:
                value = emitter.bind(emitter.load(self.keys, element.slot))
                tie = tirx.And(tirx.EQ(value, before), element.slot > after)
                return value, tirx.Or(self._before(before, value), tie)

            def candidate(element: Element) -> Expr:
                value, free = remaining(element)
                return select(free, value, worst)

            (best,) = row.accumulate(Step(extreme(kind, self.dtype, Numerics.FAST), worst, compute_dtype(self.dtype), candidate))
            value = emitter.bind(best(index(0)))

            def position(element: Element) -> Expr:
                own, free = remaining(element)
                return select(tirx.And(free, tirx.EQ(own, value)), element.slot, none)

            (first,) = row.accumulate(Step(lambda a, b: select(a < b, a, b), none, "int32", position))
            chosen = emitter.bind(tirx.Min(first(index(0)), index(self.length - 1)))
            store(place, chosen)
            emitter.store(last_value, value, 0)
            emitter.store(last_place, chosen, 0)

    def _merge(self, store: Store) -> None:
        emitter, padded = self.emitter, self.method.padded
        merged, places, moved = self.scratch
        lanes = min(self.rows.lanes, BLOCK)
        # Ranks are needed only until the blocks are in order, where merging has not begun to use its second buffer of positions.
        with emitter.loop(padded // BLOCK) as block:
            base = emitter.bind(block * BLOCK)
            with emitter.loop(BLOCK // lanes) as part:
                self._ranks(moved, emitter.bind(base + part * lanes), lanes, base, BLOCK)
            with emitter.loop(BLOCK) as number:
                place = emitter.bind(base + emitter.load(moved, base + number))
                emitter.store(merged, emitter.load(self.keys, base + number), place)
                emitter.store(places, base + number, place)
        source, target = (merged, places), (self.keys, moved)
        left, right = emitter.allocate(1, "int32", "left"), emitter.allocate(1, "int32", "right")
        width = BLOCK
        while width < padded:
            with emitter.loop(-(-padded // (2 * width))) as pair:
                self._merge_pair(source, target, left, right, emitter.bind(pair * (2 * width)), width)
            source, target = target, source
            width *= 2
        with emitter.loop(self.method.count) as place:
            store(place, emitter.bind(emitter.load(source[1], place)))

    def _merge_pair(self, source: tuple[Any, Any], target: tuple[Any, Any], left: Any, right: Any, base: Expr, width: int) -> None:
        """Merges the runs of ``width`` elements that begin at ``base`` and behind it; the second may be short, or missing."""
        emitter, padded = self.emitter, self.method.padded
        middle = emitter.bind(tirx.Min(base + width, index(padded)))
        end = emitter.bind(tirx.Min(base + 2 * width, index(padded)))
        emitter.store(left, base, 0)
        emitter.store(right, middle, 0)
        with emitter.loop(emitter.bind(end - base)) as number:
            i, j = emitter.bind(emitter.load(left, 0)), emitter.bind(emitter.load(right, 0))
            # One run may be used up: what is then read in its place is not chosen.
            safe_i, safe_j = emitter.bind(tirx.Min(i, index(padded - 1))), emitter.bind(tirx.Min(j, index(padded - 1)))
            a, b = emitter.bind(emitter.load(source[0], safe_i)), emitter.bind(emitter.load(source[0], safe_j))
            # Of equal keys the one on the left comes first.
            second = emitter.bind(tirx.And(j < end, tirx.Or(i >= middle, self._before(b, a))))
            emitter.store(target[0], select(second, b, a), base + number)
            taken = emitter.bind(select(second, safe_j, safe_i))
            emitter.store(target[1], emitter.load(source[1], taken), base + number)
            step = emitter.bind(select(second, index(1), index(0)))
            emitter.store(left, i + (index(1) - step), 0)
            emitter.store(right, j + step, 0)
