"""The harness end to end, on PyTorch alone."""

from __future__ import annotations

import json
import math
import pathlib

import pytest
import torch
from rich.console import Console

from mlc.benchmarks import accuracy, machine, suite
from mlc.benchmarks.models import BENCHMARK, expand, spec
from mlc.benchmarks.report import Comparison, Plan, Report, Timing
from mlc.benchmarks.tables import duration, table
from mlc.benchmarks.work import Work
from mlc.errors import MeasurementError

HERE = machine.Machine("a processor", cores=2, threads=2, flops=1e12, bandwidth=1e11)


def timed(model: str) -> Report:
    return suite.run(Plan((model,), systems=("eager",), rounds=2, seconds=0.001), HERE)


def test_the_baseline_against_itself() -> None:
    report = timed("mlp_tiny")
    (comparison,) = report.comparisons
    assert comparison.sound("eager")
    assert comparison.speedup("eager") == 1
    assert comparison.work.flops == 2 * (16 * 16 + 16 * 16)
    assert 0 < comparison.timings["eager"].error < 1e-5
    assert len(comparison.timings["eager"].medians) == 2


def test_a_failing_model_is_reported(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import torch\ndef make():\n    return torch.nn.Linear(3, 3), (torch.randn(2, 4),)\n")
    report = timed(f"{file}:make")
    (comparison,) = report.comparisons
    assert not comparison.sound("eager")
    assert "shapes cannot be multiplied" in comparison.timings["eager"].failed
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["geometric_mean"] == {"eager": None}


def test_the_table_fits_a_terminal_and_names_what_failed() -> None:
    fine = Timing.of("eager", ((0.0125, 0.0124), (0.0126, 0.0125)), error=1e-7)
    wrong = Timing.of("mlc", ((0.005, 0.005), (0.005, 0.005)), prepare_s=12.0, error=1.0)
    dead = Timing("mlc", failed="it crashed")
    report = Report(
        HERE,
        Plan(("resnet50", "gpt2")),
        {},
        (
            Comparison("resnet50", Work(8_000_000_000, 80_000_000), 1e-5, {"mlc": wrong, "eager": fine}, (HERE.peaks,) * 2),
            Comparison("gpt2", Work(8_000_000_000, 80_000_000), 1e-5, {"mlc": dead, "eager": fine}, (HERE.peaks,) * 2),
        ),
    )
    console = Console(width=80, record=True)
    with console.capture() as capture:
        console.print(table(report))
    text = capture.get()
    assert "2.50x" in text and "1600" in text and "160%" in text
    assert "gpt2, mlc failed: it crashed" in text
    assert "mlc: 2.50x as fast as eager" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2.00 s"), (0.0413, "41.3 ms"), (9.81e-6, "9.81 us"), (0.237, "237 ms"), (5e-8, "0.05 us")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_busy_machine_is_mentioned() -> None:
    def text(busy: float) -> str:
        console = Console(width=120)
        here = machine.Machine("a processor", cores=2, threads=2, flops=1e12, bandwidth=1e11, busy=busy)
        with console.capture() as capture:
            console.print(table(Report(here, Plan(()), {}, ())))
        return capture.get()

    assert "kept the processor 40% busy" in text(0.4)
    assert "busy" not in text(0.02)


def test_an_unknown_system_is_named() -> None:
    with pytest.raises(MeasurementError, match="no system is called tensorflow; there are mlc"):
        Plan(("mlp",), systems=("tensorflow",))


def test_groups_stand_for_their_members() -> None:
    assert expand(["models", "unet", "x.py:f"]) == (*BENCHMARK, "unet", "x.py:f")
    assert spec("bert_base") == "mlc.benchmarks.models:bert_base"
    assert spec("x.py:f") == "x.py:f"


def test_the_machine_measures_itself() -> None:
    here = machine.measure(1)
    assert 1e9 < here.flops < 1e14
    assert 1e8 < here.bandwidth < 1e13


def test_errors_are_relative_and_notice_what_differs() -> None:
    ones = [torch.ones(4)]
    assert accuracy.error([torch.ones(4) * 1.001], ones) == pytest.approx(1e-3, rel=1e-3)
    assert accuracy.error([torch.ones(5)], ones) == math.inf
    assert accuracy.error([], ones) == math.inf
    assert accuracy.error([torch.tensor([1, 1, 1, math.nan])], ones) == math.inf
    assert accuracy.allowed(1e-7) == 1e-5 and accuracy.allowed(1e-5) == pytest.approx(1e-4)
