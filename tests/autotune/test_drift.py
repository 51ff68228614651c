"""Times of a batch as they would have been when its references were measured."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mlc.autotune.drift import as_before
from mlc.codegen.record import Record
from mlc.codegen.space import Config


def config(rows: int) -> Config:
    return Config.of("synthetic", {"rows": rows})


def batch(seconds: Mapping[int, float]) -> list[Record]:
    return [Record("task", "cpu", config(rows), (time,) if time else (), "synthetic", 0.0) for rows, time in seconds.items()]


HELD = {config(1): 1.0, config(2): 2.0, config(9): float("inf")}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param({1: 1.5, 2: 3.0, 3: 4.5}, {1: 1.0, 2: 2.0, 3: 3.0}, id="slower machine"),
        pytest.param({1: 1.5, 2: 2.5, 3: 5.0}, {1: 1.2, 2: 2.0, 3: 4.0}, id="the smallest change"),
        pytest.param({1: 0.1, 2: 2.1, 3: 5.0}, {1: 0.1, 2: 2.1, 3: 5.0}, id="no agreement"),
        pytest.param({3: 5.0, 4: 6.0}, {3: 5.0, 4: 6.0}, id="no reference"),
        pytest.param({9: 5.0, 2: 4.0, 1: 0.0, 3: 5.0}, {9: 2.5, 2: 2.0, 1: 0.0, 3: 2.5}, id="references that failed"),
    ],
)
def test_what_the_references_agree_on_is_undone(seconds: Mapping[int, float], expected: Mapping[int, float]) -> None:
    found = as_before(batch(seconds), HELD)
    assert [record.config for record in found] == [config(rows) for rows in seconds]
    assert [sum(record.times) for record in found] == pytest.approx(list(expected.values()))
