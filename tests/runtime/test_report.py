"""Profiles and reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from native_programs import adder, mlp

from mlc.runtime import KernelReport, ProgramReport

KERNELS = (
    KernelReport("k0", "conv+relu", "model.py:3", "t0", "tile=4", flops=2_000_000, bytes=4_000_000, seconds=1e-3),
    KernelReport("k1", "contract", "model.py:9", "t1", "", flops=6_000_000, bytes=1_000, seconds=3e-3),
)
REPORT = ProgramReport("net", "(x: f32[1]) -> f32[1]", "cpu", 2, 3 << 20, 2 << 20, 10_000, KERNELS)


def test_figures() -> None:
    assert REPORT.seconds == pytest.approx(4e-3)
    assert REPORT.share(KERNELS[1]) == pytest.approx(0.75)
    assert KERNELS[0].gflops == pytest.approx(2.0) and KERNELS[0].gbytes == pytest.approx(4.0)
    data = json.loads(json.dumps(REPORT.to_dict()))
    assert data["kernels"][1]["share"] == pytest.approx(0.75) and data["arena_lower_bound"] == 2 << 20


def test_text_puts_the_slowest_kernel_first() -> None:
    lines = str(REPORT).splitlines()
    assert "weights 9.8 KB, arena 3.0 MB (at least 2.0 MB)" in lines[1]
    first = next(line for line in lines if "model.py" in line)
    assert first.split() == ["contract", "3000.00", "75.0%", "2.0", "0.0", "6.000", "1.0", "model.py:9"]


def test_unmeasured_reports_have_no_times() -> None:
    report = ProgramReport("net", "() -> ()", "cpu", 1, 0, 0, 0, (KernelReport("k", "add", "", "t", "", 1, 1),))
    assert report.seconds is None and report.share(report.kernels[0]) is None
    assert "GFLOP/s" not in str(report) and "add" in str(report)


def test_profile_measures_each_kernel(tmp_path: Path) -> None:
    run, _ = mlp(tmp_path)
    report = run.profile(calls=5)
    assert [kernel.label for kernel in report.kernels] == ["label_0", "label_1"]
    assert all(kernel.seconds is not None and 0 < kernel.seconds < 0.1 for kernel in report.kernels)
    assert run.report().seconds is None
    large = adder(tmp_path, (512, 512)).profile([np.ones((512, 512), np.float32)] * 2, calls=3)
    assert (large.seconds or 0) > (report.seconds or 0)
    with pytest.raises(ValueError, match="at least one call"):
        run.profile(calls=0)
