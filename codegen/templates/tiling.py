"""How contractions are cut into register tiles and shared among threads, and what a cut costs by the target's facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from ...ir import Dim
from ..emit import PARALLEL, SERIAL, Emitter, Expr, extent_of, index
from ..target import Kind, Target

PARALLEL_SECONDS = 6e-6
"""Work of one thread below which a kernel stays on it (measured on Zen 3, kernels back to back: two threads are 1.6 to 1.9 times as fast
with 10 us of work, 1.3 to 1.6 times with 6 us, no faster with 2 us)."""

_FMA_LATENCY = 4
_LOADS_PER_CYCLE = 2
_L2_BYTES_PER_CYCLE = 32
_L3_BYTES_PER_CYCLE = 20
_HIDDEN = 0.05
_STORING = (2.0, 20.0)
"""Cycles for each vector of sums and for each tile behind its arithmetic."""
_STORING_DELAYED = (0.8, 4.0)
"""The same where rows are stored between the arithmetic of the next tile (measured on Zen 5)."""
_L2_SHARE = 0.8
"""Of the second-level cache, for a panel that is read again for each tile of rows."""
_SHARED = 0.5
"""Of the time for reading an operand that arithmetic does not hide. Convolutional networks on two cores of Zen 3 gain 1 to 4% by the
threads' shares that this prefers, with 0.25 and 1 a little less."""
_WARM = 1 / 16
"""Of the second-level cache: weights of more bytes have been displaced by those of other kernels when a model calls this one again."""
_TILES_TO_PREFETCH = 4
"""Tiles that a panel must serve: with fewer, memory is busy all the time and the hardware reads ahead by itself."""
_WAYS = 8
_PAGE = 4096


@dataclass(frozen=True)
class Pace:
    """How quickly a register tile multiplies and adds.

    ``multiplications`` are the instructions on a multiplier for a multiply-add of vectors of words, ``latency`` the cycles after which
    a sum can be added to again, ``loads`` how many times as long as at best loads take, ``exposed`` the share of what arithmetic hides that
    is felt all the same.
    """

    multiplications: float = 1.0
    latency: int = _FMA_LATENCY
    loads: float = 1.0
    exposed: float = _HIDDEN


FUSED = Pace()
"""Of fused multiply-adds."""


@dataclass(frozen=True)
class Run:
    """``count`` tiles of ``size`` each, the first one at ``start``."""

    start: int
    count: int
    size: int


@dataclass(frozen=True)
class EvenSplit:
    """``extent`` cut into the fewest tiles of at most ``most``, as equal as can be: two sizes at most, the larger first."""

    extent: int
    most: int

    @property
    def tiles(self) -> int:
        return -(-self.extent // self.most)

    @property
    def largest(self) -> int:
        return -(-self.extent // self.tiles)

    @property
    def runs(self) -> tuple[Run, ...]:
        small = self.extent // self.tiles
        large_count = self.extent - small * self.tiles
        runs = (Run(0, large_count, small + 1), Run(large_count * (small + 1), self.tiles - large_count, small))
        return tuple(run for run in runs if run.count)

    @contextmanager
    def loop(self, emitter: Emitter, run: Run, low: Expr | None = None, high: Expr | None = None) -> Iterator[Expr]:
        """A loop over the tiles of ``run`` (those numbered in [low, high) of the whole split); yields where the tile starts."""
        if low is None or high is None:
            with emitter.loop(run.count, name="tile") as tile:
                yield emitter.bind(tile * run.size + run.start, "row")
            return
        first = 0 if run.start == 0 else self.runs[0].count
        begin = emitter.bind(tirx.Max(low, index(first)), "begin")
        count = tirx.Max(tirx.Min(high, index(first + run.count)) - begin, index(0))
        with emitter.loop(emitter.bind(count, "count"), name="tile", start=begin) as tile:
            yield emitter.bind((tile - first) * run.size + run.start, "row")


@dataclass(frozen=True)
class StepSplit:
    """A symbolic ``extent`` cut into tiles of a few ``sizes``, the largest first; what is computed twice must bear it.

    As many whole tiles of the largest size as fit, then one of the smallest size that covers the rest, which starts early enough to end
    with the extent. An extent too short for that is covered by two tiles of the next smaller size.
    """

    extent: Dim
    sizes: tuple[int, ...]

    @staticmethod
    def of(emitter: Emitter, extent: Dim, most: int) -> StepSplit:
        """Tiles of at most ``most``: of a few sizes for the rest, and down to 1 where the extent may be that short."""
        sizes = [most]
        least = emitter.least(extent)
        for size in (-(-3 * most // 4), -(-most // 2), -(-most // 4)):
            if size < sizes[-1]:
                sizes.append(size)
        # Each size is at most twice the next, so that two tiles of the next cover what is shorter.
        while sizes[-1] > max(least, 1):
            sizes.append(-(-sizes[-1] // 2))
        return StepSplit(extent, tuple(sizes))

    def runs(self, emitter: Emitter) -> list[StepRun]:
        """The tiles, by size; emits what counts them."""
        extent, sizes = index(self.extent), self.sizes
        most = sizes[0]
        whole = emitter.bind(emitter.simplify(extent // most), "whole")
        rest = emitter.bind(emitter.simplify(extent % most), "rest")
        long = emitter.least(self.extent) >= most
        found: list[StepRun] = []
        first: Expr = index(0)
        for number, size in enumerate(sizes):
            smaller = sizes[number + 1] if number + 1 < len(sizes) else 0
            ends = tirx.And(rest > smaller, rest <= size)
            if not long:
                ends = tirx.And(ends, extent >= size)
            count = tirx.Select(ends, index(1), index(0))
            if number == 0:
                count = whole + count
            elif not long:
                short = tirx.And(extent > size, extent < sizes[number - 1])
                count = tirx.Select(short, index(2), count)
            count = emitter.bind(count, "tiles")
            found.append(StepRun(size, first, count, emitter.bind(emitter.simplify(extent - size), "last"), number > 0))
            first = emitter.bind(first + count, "first")
        return found


@dataclass(frozen=True)
class StepRun:
    """``count`` tiles of ``size``, numbered from ``first`` on among those of all runs; the last one starts at ``last``."""

    size: int
    first: Expr
    count: Expr
    last: Expr
    is_rest: bool

    @contextmanager
    def loop(self, emitter: Emitter, low: Expr | None = None, high: Expr | None = None) -> Iterator[Expr]:
        """A loop over the tiles (those numbered in [low, high)); yields where the tile starts."""
        begin: Expr = index(0)
        count = self.count
        if low is not None and high is not None:
            begin = emitter.bind(tirx.Max(low - self.first, index(0)), "begin")
            count = emitter.bind(tirx.Max(tirx.Min(high - self.first, self.count) - begin, index(0)), "count")
        with emitter.loop(count, name="tile", start=begin) as tile:
            start = tirx.Min(tile * self.size, self.last)
            # A single tile of a smaller size is the rest behind larger ones.
            yield emitter.bind(tirx.Select(tirx.EQ(self.count, 1), self.last, start) if self.is_rest else start, "row")


def tile_count(runs: list[StepRun]) -> Expr:
    """The tiles of all runs."""
    return runs[-1].first + runs[-1].count


def distinct_splits(extent: int, most: int) -> tuple[int, ...]:
    """Tile sizes up to ``most`` that cut ``extent`` in different ways, largest first."""
    return tuple(sorted({EvenSplit(extent, size).largest for size in range(1, min(most, extent) + 1)}, reverse=True))


@contextmanager
def share(emitter: Emitter, part: Expr, parts: int, count: Dim | Expr) -> Iterator[tuple[Expr, Expr]]:
    """The range [low, high) of ``count`` items that is ``part``'s, of ``parts`` equal shares."""
    size = extent_of(count)
    low = emitter.bind(emitter.simplify(part * size // parts), "low")
    high = emitter.bind(emitter.simplify((part + 1) * size // parts), "high")
    yield low, high


@contextmanager
def threads(emitter: Emitter, count: int) -> Iterator[Expr]:
    """A parallel loop over ``count`` threads; for one, the thread number 0."""
    with emitter.loop(count, PARALLEL if count > 1 else SERIAL, "thread") as thread:
        yield thread


def streams(target: Target, nbytes: int, tiles: int) -> bool:
    """Whether panels of ``nbytes`` in all come from beyond the second-level cache, while ``tiles`` for each have time to fetch the next."""
    return target.kind is Kind.CPU and nbytes > _WARM * target.l2_bytes and tiles >= _TILES_TO_PREFETCH


def useful_threads(target: Target, available: int, flops: float, bytes_moved: float) -> int:
    """``available``, or 1 when the work takes less than :data:`PARALLEL_SECONDS` on one thread."""
    seconds = max(flops / target.peak_flops, bytes_moved * available / target.memory_bandwidth)
    return available if seconds >= PARALLEL_SECONDS else 1


def fits_registers(target: Target, rows: int, vectors: int, temporaries: int = 0) -> bool:
    """Whether accumulators, one row of ``b``, a broadcast element and ``temporaries`` fit the vector registers."""
    return rows * vectors + vectors + 1 + temporaries <= target.vector_registers


def aliases(target: Target, row_bytes: int, rows: int) -> bool:
    """Whether ``rows`` that lie ``row_bytes`` apart compete for the same few sets of the first-level cache."""
    return _competing(row_bytes, rows) > _WAYS


def alias_penalty(row_bytes: int, rows: int) -> float:
    """By how much such competition slows a tile down (measured)."""
    competing = _competing(row_bytes, rows)
    return 1.1 if competing > _WAYS else 1.02 if competing > _WAYS / 2 else 1.0


def crowding(target: Target, row_bytes: int, rows: int) -> float:
    """How many of ``rows`` that lie ``row_bytes`` apart, and are read at the same places, have no way left in their set of the first-level
    cache."""
    return max(_competing(row_bytes, rows) - target.l1_bytes / _PAGE, 0.0)


def _competing(row_bytes: int, rows: int) -> float:
    """How many of ``rows`` that lie ``row_bytes`` apart map to the same set of the first-level cache, whose ways span a page."""
    return rows * math.gcd(row_bytes, _PAGE) / _PAGE


def tile_cycles(
    target: Target,
    rows: int,
    vectors: int,
    depth: float,
    passes: int = 2,
    b_bytes: int = 4,
    pace: Pace = FUSED,
    *,
    delayed: bool = False,
) -> float:
    """Estimated cycles of a register tile with ``depth`` steps of reduction: arithmetic, loads, streaming of ``b``, and store.

    ``passes`` is how often the panel of ``b``, of ``b_bytes`` a lane, is read: a second time it comes from the second-level cache, if it
    fits. Rows may be ``delayed`` into the next tile.
    """
    multiply_adds = rows * vectors
    step_bytes = vectors * target.vector_lanes * b_bytes
    cached = passes > 1 and depth * step_bytes <= _L2_SHARE * target.l2_bytes
    loads = pace.loads * (rows + vectors) / _LOADS_PER_CYCLE
    stream = stream_cycles(step_bytes, cached=cached)
    step = max(multiply_adds * pace.multiplications / target.fma_units, loads, pace.latency, stream)
    # What hides behind the arithmetic still hurts a little: among equals, the tile that moves least is best.
    per_vector, per_tile = _STORING_DELAYED if delayed else _STORING
    return depth * (step + pace.exposed * (loads + stream + pace.latency)) + per_vector * multiply_adds + per_tile


def stream_cycles(nbytes: float, *, cached: bool) -> float:
    """In which so many bytes come from the second-level cache, or from the one behind it."""
    return nbytes / (_L2_BYTES_PER_CYCLE if cached else _L3_BYTES_PER_CYCLE)


def group_penalty(groups: int) -> float:
    """What sharing rows costs beside the balance: every group of threads reads all of ``b``."""
    return 1.0 + 0.01 * math.log2(groups)


def sharing_cycles(parallel: int, groups: int, a_bytes: float, b_bytes: float) -> float:
    """What a thread waits for more of the operands than its share to come from beyond its own caches, where other threads left them or read
    them too: all rows of its group, and its group's part of ``b``."""
    more = a_bytes * (parallel - groups) / (groups * parallel) + b_bytes * (groups - 1) / parallel
    return _SHARED * more / _L3_BYTES_PER_CYCLE


def busiest_share(full_cycles: float, full: int, tail_cycles: float | None, batch: int, parts: int) -> float:
    """Cycles of the busiest of ``parts`` equal shares of ``batch`` rows of panels: ``full`` whole ones, then perhaps a narrow one."""
    panels = full + (tail_cycles is not None)
    count = batch * panels
    whole = max((part + 1) * count // parts - part * count // parts for part in range(parts))
    if tail_cycles is None:
        return whole * full_cycles
    if batch > 1:
        return whole * (full * full_cycles + tail_cycles) / panels
    last = count - (parts - 1) * count // parts
    others = max(((part + 1) * count // parts - part * count // parts for part in range(parts - 1)), default=0)
    return max(others * full_cycles, (last - 1) * full_cycles + tail_cycles)


def panel_candidates(target: Target, columns: int, rows: int) -> tuple[int, ...]:
    """Numbers of vectors a panel may have: as many as ``columns`` fill, and as leave room for some of ``rows``."""
    widest = -(-columns // target.vector_lanes)
    return tuple(vectors for vectors in (1, 2, 3, 4, 6, 8) if vectors <= max(widest, 1) and fits_registers(target, 1, vectors))


def by_width(emitter: Emitter, number: Expr, columns: int, width: int, body: Callable[[Expr, int], None]) -> None:
    """Emits ``body(number, width)`` for a panel of ``width`` out of all ``columns``; where fewer are left for the last one, a body of its
    own with that number and what is left, of which the right one is chosen at run time."""
    whole, rest = divmod(columns, width)
    if whole:
        with emitter.when(number < whole) if rest else emitter.scope():
            body(number, width)
    if rest:
        with emitter.when(tirx.EQ(number, index(whole))) if whole else emitter.scope():
            body(index(whole), rest)


def round_up(value: Dim, multiple: int) -> Dim:
    return -(-value // multiple) * multiple


def divisors(number: int) -> tuple[int, ...]:
    return tuple(value for value in range(1, number + 1) if number % value == 0)
