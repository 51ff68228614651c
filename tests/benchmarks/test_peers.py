"""Peers end to end: what they compute, how they fail, and that none runs while it is another's turn."""

from __future__ import annotations

import os
import pathlib
import signal
import time

import pytest
import torch
from torch import nn

from mlc.benchmarks import accuracy, suite
from mlc.benchmarks.machine import Machine
from mlc.benchmarks.models import spec
from mlc.benchmarks.prepared import reason
from mlc.benchmarks.process import Worker
from mlc.benchmarks.report import Comparison, Plan, Report, Timing
from mlc.benchmarks.systems import SYSTEMS
from mlc.benchmarks.work import Work
from mlc.errors import MeasurementError

HERE = Machine("a processor", cores=2, threads=1, flops=1e12, bandwidth=1e11)


def run(model: str, *systems: str, patience: float = 300) -> Comparison:
    plan = Plan((model,), systems=systems, threads=1, rounds=2, seconds=0, patience=patience)
    (comparison,) = suite.run(plan, HERE).comparisons
    return comparison


def test_peers_compute_what_pytorch_does() -> None:
    peers = ("onnxruntime", "openvino")
    found = run("mlp_tiny", *peers, "eager")
    for peer in peers:
        assert not found.timings[peer].failed
        assert found.timings[peer].error < 1e-5 and found.sound(peer)
        assert len(found.timings[peer].medians) == 2
    assert found.best_peer == min(found.timings, key=lambda system: found.timings[system].median)


@pytest.mark.parametrize(
    ("system", "least", "most"),
    [("openvino-default", 0, 0.02), ("openvino-w8", 1e-4, 0.02), ("openvino-w4", 0.02, 0.3), ("openvino-int8", 1e-4, 0.1)],
)
def test_openvino_in_lower_precision_is_as_near_as_its_bits_allow(system: str, least: float, most: float) -> None:
    """Whether the plug-in's own choice rounds depends on the processor; weights in 8 and in 4 bits always do."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64)).eval(), torch.randn(4, 256)
    prepared = SYSTEMS[system]().prepare(model, (x,), 1)
    found = accuracy.error(prepared.read(prepared.call()), accuracy.reference(model, (x,)))
    assert least <= found < most


def test_a_peer_that_refuses_a_model_is_reported_and_does_not_count(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "plain.py"
    file.write_text("import torch\ndef make():\n    return torch.relu, (torch.randn(2, 4),)\n")
    found = run(f"{file}:make", "onnxruntime", "eager")
    assert "only modules can be exported to ONNX" in found.timings["onnxruntime"].failed
    assert found.sound("eager") and found.best_peer == "eager"


def test_the_reason_is_what_went_wrong_first() -> None:
    try:
        try:
            raise ValueError("\x1b[31mno such\n   layout\x1b[0m")
        except ValueError as error:
            raise RuntimeError("conversion failed, please report this") from error
    except RuntimeError as error:
        assert reason(error) == "ValueError: no such layout"
    assert reason(MeasurementError("only modules")) == "only modules"
    assert reason(KeyError()) == "KeyError"


def test_patience_ends() -> None:
    found = run("mlp_tiny", "eager", patience=0.05)
    assert "not done within 0 s" in found.timings["eager"].failed


def test_a_worker_runs_only_while_it_is_asked_and_says_when_it_died(tmp_path: pathlib.Path) -> None:
    def stopped() -> bool:
        """Whether the process comes to a stop: the signal takes a moment."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if pathlib.Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return True
            time.sleep(0.01)
        return False

    worker = Worker(spec("mlp_tiny"), "eager", 1, tmp_path)
    try:
        assert stopped()
        assert len(worker.ask(do="round", seconds=0)["times"]) >= 3
        assert stopped()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(MeasurementError, match="ended with code -9"):
            worker.ask(do="round", seconds=0)
    finally:
        worker.close()


def test_what_is_done_is_kept_and_each_model_is_saved() -> None:
    earlier = Comparison("mlp", Work(1, 1, 1), 1e-5, {"eager": Timing.of("eager", [[1.0], [1.0]])})
    plan = Plan(("mlp", "mlp_tiny"), systems=("eager",), threads=1, rounds=2, seconds=0)
    saved: list[Report] = []
    report = suite.run(plan, HERE, save=saved.append, done=[earlier])
    assert report.comparisons[0] is earlier
    assert [[c.model for c in each.comparisons] for each in saved] == [["mlp", "mlp_tiny"]]
    assert saved[0] == report
