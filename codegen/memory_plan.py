"""Offsets of buffers in the arena: buffers that are never alive together may share memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ir.program import ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A buffer of ``nbytes`` that is alive from kernel call ``first`` to kernel call ``last``, both included."""

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offset of each buffer, total size, and the largest sum of (aligned) sizes alive at once, below which no plan can go."""

    offsets: tuple[int, ...]
    nbytes: int
    lower_bound: int


def aligned(nbytes: int) -> int:
    """``nbytes`` rounded up to the alignment of buffers."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def plan_memory(lifetimes: Sequence[Lifetime]) -> MemoryPlan:
    """Places one buffer after the other, each into the smallest gap that fits between those alive at the same time.

    The largest first: the greedy-by-size strategy of Pisarchyk and Lee, "Efficient memory management for deep neural net inference" (2020).
    Where that needs more than the lower bound, other orders are tried as well: the largest product of size and time first, the largest
    size at the busiest moment first, and the order of time. The smallest plan wins.
    """
    bound, busiest = _peak(lifetimes)

    def crosses(lifetime: Lifetime) -> bool:
        return lifetime.first <= busiest <= lifetime.last

    orders: tuple[Callable[[Lifetime], tuple[int, ...]], ...] = (
        lambda each: (-each.nbytes, each.first),
        lambda each: (-each.nbytes * (each.last - each.first + 1), each.first),
        lambda each: (-crosses(each), -each.nbytes, each.first),
        lambda each: (each.first, -each.nbytes),
    )
    best: tuple[tuple[int, ...], int] | None = None
    for order in orders:
        keys = [order(each) for each in lifetimes]
        found = _place(lifetimes, sorted(range(len(lifetimes)), key=keys.__getitem__))
        if best is None or found[1] < best[1]:
            best = found
        if best[1] == bound:
            break
    assert best is not None
    return MemoryPlan(*best, bound)


def _place(lifetimes: Sequence[Lifetime], order: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """The offsets and the total size when buffers are placed in this order."""
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    total = 0
    for index in order:
        lifetime = lifetimes[index]
        size = aligned(lifetime.nbytes)
        neighbours = sorted(
            (offsets[other], offsets[other] + aligned(lifetimes[other].nbytes))
            for other in placed
            if lifetimes[other].first <= lifetime.last and lifetime.first <= lifetimes[other].last
        )
        offsets[index] = _best_gap(neighbours, size)
        placed.append(index)
        total = max(total, offsets[index] + size)
    return tuple(offsets), total


def plan_slots(lifetimes: Sequence[Lifetime]) -> tuple[int, ...]:
    """The number of a slot for each buffer, such that those of one slot are never alive together.

    For buffers whose sizes are known only when the program is called: each slot is then as large as its largest buffer, so that the
    plan is right for all sizes. ``nbytes`` are typical sizes, which decide what shares; the largest are placed first, each into the
    slot that fits best (the shared objects of Pisarchyk and Lee).
    """
    slots: list[list[int]] = []
    chosen = [0] * len(lifetimes)
    for index in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].nbytes, lifetimes[i].first)):
        lifetime = lifetimes[index]
        free = [
            number
            for number, members in enumerate(slots)
            if all(lifetimes[other].first > lifetime.last or lifetime.first > lifetimes[other].last for other in members)
        ]
        if not free:
            slots.append([])
            free = [len(slots) - 1]
        chosen[index] = min(free, key=lambda number: slots[number] and lifetimes[slots[number][0]].nbytes)
        slots[chosen[index]].append(index)
    return tuple(chosen)


def _best_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    """Start of the smallest gap of at least ``size`` bytes between the sorted intervals ``taken``, else the end of the last."""
    best, best_size = -1, 0
    end = 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best < 0 or gap < best_size):
            best, best_size = end, gap
        end = max(end, stop)
    return best if best >= 0 else end


def _peak(lifetimes: Sequence[Lifetime]) -> tuple[int, int]:
    """The most (aligned) bytes alive at once, and a moment when they are."""
    changes: dict[int, int] = {}
    for lifetime in lifetimes:
        size = aligned(lifetime.nbytes)
        changes[lifetime.first] = changes.get(lifetime.first, 0) + size
        changes[lifetime.last + 1] = changes.get(lifetime.last + 1, 0) - size
    peak = alive = busiest = 0
    for moment in sorted(changes):
        alive += changes[moment]
        if alive > peak:
            peak, busiest = alive, moment
    return peak, busiest
