"""The garbage collector rests while it is paused, collects what became garbage later, and is left as it was found."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from mlc.collection import collection_paused


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    gc.collect()
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_until_a_full_collection() -> None:
    with collection_paused():
        assert not gc.isenabled()
        garbage = weakref.ref(Cycle())
    assert gc.isenabled()
    gc.collect(0)
    assert garbage() is not None  # old at once
    gc.collect()
    assert garbage() is None


def test_a_collector_that_rests_goes_on_resting() -> None:
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collection_paused():
        pass
    # Those that nobody refers to any more are freed all the same.
    assert gc.get_freeze_count() > frozen // 2 > 0


def test_it_goes_on_after_an_error() -> None:
    with pytest.raises(ValueError, match="once"), collection_paused():
        raise ValueError("once")
    assert gc.isenabled()
