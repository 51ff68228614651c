"""Offsets of buffers in the arena."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlc.codegen.memory_plan import Lifetime, aligned, plan_memory, plan_slots
from mlc.ir.program import ALIGNMENT

LIFETIMES = st.lists(
    st.builds(
        lambda size, first, length: Lifetime(size, first, first + length), st.integers(1, 5000), st.integers(0, 12), st.integers(0, 6)
    ),
    max_size=25,
)


@given(LIFETIMES)
def test_buffers_alive_together_never_share_memory(lifetimes: list[Lifetime]) -> None:
    plan = plan_memory(lifetimes)
    for i, (a, start) in enumerate(zip(lifetimes, plan.offsets, strict=True)):
        assert start % ALIGNMENT == 0
        assert start + a.nbytes <= plan.nbytes
        for b, other in list(zip(lifetimes, plan.offsets, strict=True))[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert start + aligned(a.nbytes) <= other or other + aligned(b.nbytes) <= start


@given(LIFETIMES)
def test_the_lower_bound_is_the_largest_sum_alive_at_once(lifetimes: list[Lifetime]) -> None:
    plan = plan_memory(lifetimes)
    sums = [sum(aligned(item.nbytes) for item in lifetimes if item.first <= moment <= item.last) for moment in range(20)]
    assert plan.lower_bound == max(sums)
    assert plan.lower_bound <= plan.nbytes


@given(LIFETIMES)
def test_a_slot_never_holds_two_buffers_at_once(lifetimes: list[Lifetime]) -> None:
    chosen = plan_slots(lifetimes)
    for i, a in enumerate(lifetimes):
        for b, slot in zip(lifetimes[:i], chosen, strict=False):
            assert slot != chosen[i] or a.first > b.last or b.first > a.last
    assert set(chosen) == set(range(len(set(chosen))))


def test_a_chain_needs_two_slots() -> None:
    assert set(plan_slots([Lifetime(1000, step, step + 1) for step in range(10)])) == {0, 1}


def test_a_chain_needs_two_buffers() -> None:
    plan = plan_memory([Lifetime(1000, step, step + 1) for step in range(10)])
    assert plan.nbytes == plan.lower_bound == 2 * aligned(1000)


def test_a_freed_gap_is_filled_by_what_fits_it_best() -> None:
    alive, freed, later = (0, 9), (0, 1), (5, 6)
    sizes = [(640, alive), (512, freed), (448, alive), (384, freed), (320, alive), (100, later)]
    plan = plan_memory([Lifetime(size, *when) for size, when in sizes])
    assert plan.offsets[5] == plan.offsets[3]


def test_another_order_is_taken_where_the_largest_first_leaves_a_hole() -> None:
    """By size alone the second buffer goes behind the third, and the 64 bytes that the first leaves free there hold nothing."""
    lifetimes = [Lifetime(448, 3, 5), Lifetime(192, 0, 3), Lifetime(512, 1, 1), Lifetime(128, 3, 6)]
    plan = plan_memory(lifetimes)
    assert plan.nbytes == plan.lower_bound == 448 + 192 + 128
