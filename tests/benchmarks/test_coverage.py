"""The coverage benchmark: what it says of models that are fine, wrong, refused or too slow."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from mlc.benchmarks import coverage
from mlc.benchmarks.models import families
from mlc.benchmarks.models.families import FAMILIES, Family

GOOD = coverage.Outcome("net", kernels=3, error=1e-6, allowed=1e-5, compile_s=1.0, latency_s=1e-3, eager_s=2e-3)


def test_a_good_model_is_native_right_and_fast() -> None:
    assert GOOD.good
    assert GOOD.speedup == pytest.approx(2)


@pytest.mark.parametrize(
    "change",
    [{"fallback": ("aten.inverse",)}, {"error": 1e-4}, {"error": float("nan")}, {"allowed": 1.0}, {"latency_s": 3e-3}, {"failed": "no"}],
)
def test_whatever_is_not_so_is_not_good(change: dict[str, object]) -> None:
    assert not dataclasses.replace(GOOD, **change).good


def test_a_model_is_compiled_checked_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Family(
        "tiny", lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU()), lambda generator: {"input": torch.randn(2, 8, generator=generator)}
    )
    monkeypatch.setattr(families, "FAMILIES", {"tiny": tiny})
    outcome = coverage.check("tiny", seconds=0.01)
    assert not outcome.failed and outcome.kernels >= 1 and not outcome.fallback
    assert 0 < outcome.error <= outcome.allowed
    assert outcome.latency_s > 0 and outcome.eager_s > 0


def test_a_process_that_fails_gives_its_reason() -> None:
    outcome = coverage.check_apart("no such model", timeout=60, seconds=0.01)
    assert "no such model" in outcome.failed
    assert not outcome.good
    assert "failed" in coverage.row(outcome)[1]


def test_time_runs_out() -> None:
    assert "not ready" in coverage.check_apart("RWKV", timeout=0.05, seconds=0.01).failed


def test_every_family_has_a_name_of_its_own() -> None:
    assert len(FAMILIES) >= 44
    assert all(name == family.name for name, family in FAMILIES.items())
