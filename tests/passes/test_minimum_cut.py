"""Choices of least cost: against trying all of them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mlc.passes.minimum_cut import Choices, Table

KEYS = "abcde"
COSTS = st.integers(0, 9)


def least(choices: Choices[str], keys: str) -> int:
    """The least cost of all choices."""
    return min(choices.cost(dict(zip(keys, chosen, strict=True))) for chosen in itertools.product((False, True), repeat=len(keys)))


@st.composite
def agreeing(draw: st.DrawFn) -> Table:
    """A pair that costs no more when its choices agree."""
    together, apart = sorted((draw(COSTS) + draw(COSTS), draw(COSTS) + draw(COSTS)))
    both_false, only_first = draw(st.integers(0, together)), draw(st.integers(0, apart))
    return (both_false, apart - only_first), (only_first, together - both_false)


SINGLE = st.dictionaries(st.sampled_from(KEYS), st.integers(-9, 9))


@given(SINGLE, st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS), agreeing()), max_size=8), st.sets(st.sampled_from(KEYS)))
def test_the_cut_is_the_least_cost(single: dict[str, int], pairs: list[tuple[str, str, Table]], turned: set[str]) -> None:
    """Also where some choices are the other way around, so that pairs of them want to differ."""
    choices: Choices[str] = Choices()
    for key in KEYS:
        choices.add(key, single.get(key, 0))
    for first, second, table in pairs:
        if first == second:
            continue
        rows = table[::-1] if first in turned else table
        choices.add_pair(first, second, (rows[0][::-1], rows[1][::-1]) if second in turned else (rows[0], rows[1]))
    assert choices.cost(choices.best()) == least(choices, KEYS)


def test_what_makes_no_difference_is_false() -> None:
    choices: Choices[str] = Choices()
    choices.add("a", 0)
    choices.add_pair("b", "c", ((0, 3), (3, 0)))
    assert choices.best() == {"a": False, "b": False, "c": False}


def test_pairs_that_contradict_each_other_still_have_an_answer() -> None:
    """Three that should all differ."""
    choices: Choices[str] = Choices()
    for first, second in itertools.combinations("abc", 2):
        choices.add_pair(first, second, ((5, 0), (0, 5)))
    choices.add("a", -1)
    best = choices.best()
    assert best["a"]
    assert choices.cost(best) == least(choices, "abc")
