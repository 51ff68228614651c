"""The benchmark of precision="auto": what it says of a model, and what inputs it draws."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from mlc.benchmarks import auto_precision, models
from mlc.benchmarks.models import ZooModel

HELD = auto_precision.Outcome("net", tolerance=0.05, error=0.01, fp32_s=3e-3, auto_s=2e-3, layers={"w8": 2})


def test_a_model_holds_its_tolerance_or_not() -> None:
    assert HELD.held and HELD.speedup == pytest.approx(1.5) and "2 w8" in auto_precision.row(HELD)
    for change in ({"error": 0.06}, {"error": float("nan")}, {"failed": "no"}):
        assert not dataclasses.replace(HELD, **change).held


def test_inputs_are_other_numbers_of_the_same_kind() -> None:
    example = {"tokens": torch.tensor([[7]]), "mask": torch.ones(1, 4, dtype=torch.int64), "image": torch.ones(2, 3)}
    one, other = (auto_precision.drawn(example, 1000, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert one["tokens"].shape == (1, 1) and one["tokens"] != other["tokens"] and 3 <= int(one["tokens"]) < 1000
    assert torch.equal(one["mask"], example["mask"])
    assert not torch.equal(one["image"], other["image"]) and one["image"].dtype is torch.float32


def test_a_model_is_compiled_checked_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 64)).eval(), (torch.randn(1, 512),)

    monkeypatch.setattr(models, "ZOO", {"tiny": ZooModel("tiny", tiny)})
    outcome = auto_precision.check("tiny", tolerance=0.05, full=False, seconds=0.01)
    assert outcome.held and outcome.fp32_error < 1e-5 < outcome.error and not outcome.note
    assert sum(outcome.layers.values()) == 2 and set(outcome.layers) != {"fp32"}
    assert outcome.fp32_s > 0 and outcome.auto_s > 0 and outcome.cached_compile_s > 0
