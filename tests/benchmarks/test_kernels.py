"""The kernel benchmark: its cases, what bounds them, and one group timed for real."""

from __future__ import annotations

import pytest

from mlc.benchmarks import kernels
from mlc.benchmarks.kernel_cases import Case, attention, decode, groups, linear, rowwise
from mlc.benchmarks.machine import Machine, Peaks
from mlc.codegen.target import Target

PEAKS = Peaks(flops=1e11, bandwidth=1e10, copy=1e10)
CACHE = 32 << 20


def test_cases_have_names_of_their_own_and_templates_that_take_them() -> None:
    cases = [case for group in groups().values() for case in group]
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.template.takes(case.graph) for case in cases)


def test_causal_attention_counts_the_kept_half() -> None:
    assert attention(128).flops == 2 * 2 * 12 * 64 * (128 * 129 // 2)


@pytest.mark.parametrize(
    ("case", "seconds", "memory"),
    [
        (linear(1024, 1024, 1024), 2.15e-2, False),
        (linear(1, 1024, 1024), 2.1e-5, False),  # its weights fit the cache
        (decode(1024, 1024), 4.2e-4, True),  # and here they do not come from it
        (rowwise("add"), 2.01e-2, True),
    ],
)
def test_the_resource_that_takes_longest_binds(case: Case, seconds: float, memory: bool) -> None:
    least, by_memory = kernels.bound(case, PEAKS, CACHE)
    assert least == pytest.approx(seconds, rel=0.02)
    assert by_memory is memory


def test_a_group_is_timed_and_checked() -> None:
    target = Target.parse("cpu -threads=1")
    here = Machine("a processor", 1, 1, flops=1e11, bandwidth=1e10, copy=1e10, cache=1 << 20)
    cases = [linear(4, 16, 32), decode(64, 64)]
    plain, streamed = kernels.time_group("small", cases, target, here, check=True, rounds=2, seconds=0.01)
    for timing in (plain, streamed):
        assert 0 < timing.best <= timing.median
        assert timing.share > 0
        assert timing.error is not None and timing.error < 1e-5
    assert (plain.flops, plain.read, plain.written) == (2 * 4 * 16 * 32, 4 * (4 * 32 + 16 * 32 + 16), 4 * 4 * 16)
    assert "GB/s" in kernels.line(streamed) and "decode 64x64" in kernels.line(streamed)
