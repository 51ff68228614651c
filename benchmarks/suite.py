"""The benchmark harness: several systems on several models, side by side.

Each system runs each model in a process of its own with the same number of threads. Calls are timed in rounds that go around the
systems, so that whatever else the machine does hits all of them; every round is warmed up, and a process is stopped while it is not its
turn. The machine's peaks are measured at the start of each round; the best of each counts as the machine's. Outputs are compared with
PyTorch in float64.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from ..errors import MeasurementError
from . import accuracy
from .machine import Machine, peaks
from .models import spec as spec_of
from .process import Worker
from .report import Comparison, Plan, Report, Timing
from .systems import BASELINE, OURS
from .work import Work

_PACKAGES = ("mlc", "torch", "apache-tvm", "transformers", "onnxruntime", "openvino")


def run(
    plan: Plan,
    machine: Machine,
    progress: Callable[[str], None] = lambda what: None,
    save: Callable[[Report], None] = lambda report: None,
    done: Sequence[Comparison] = (),
) -> Report:
    """Carries out ``plan`` except for models that are ``done``. A failing system is reported, not raised.

    ``progress`` is told each step before it is taken; ``save`` gets the report so far after each model.
    """
    found = {comparison.model: comparison for comparison in done}
    report = Report(machine, plan, _versions(), tuple(found[model] for model in plan.models if model in found))
    for model in plan.models:
        if model in found:
            continue
        found[model] = _compare(model, plan, progress)
        for measured in found[model].peaks:
            machine = machine.at_least(measured)
        report = Report(machine, plan, report.versions, tuple(found[model] for model in plan.models if model in found))
        save(report)
    return report


def _compare(model: str, plan: Plan, progress: Callable[[str], None]) -> Comparison:
    workers: dict[str, Worker] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            for system in plan.systems:
                progress(f"{model}: {system} prepares")
                try:
                    options = asdict(plan.ours) if system == OURS else {}
                    workers[system] = Worker(spec_of(model), system, plan.threads, folder, plan.patience, options)
                except MeasurementError as error:
                    failures[system] = str(error)
            progress(f"{model}: outputs")
            errors = _errors(workers, failures, folder)
            rounds: dict[str, list[list[float]]] = {system: [] for system in workers}
            measured = []
            for number in range(plan.rounds):
                measured.append(peaks(plan.threads))
                turn = number % len(plan.systems)
                for system in (*plan.systems[turn:], *plan.systems[:turn]):
                    progress(f"{model}: {system}, round {number + 1}")
                    if system in workers and system not in failures:
                        try:
                            rounds[system].append(workers[system].ask(do="round", seconds=plan.seconds)["times"])
                        except MeasurementError as error:
                            failures[system] = str(error)
        finally:
            for worker in workers.values():
                worker.close()
    timings = {
        system: Timing(system, failed=failures[system])
        if system in failures
        else Timing.of(system, rounds[system], workers[system].prepare_s, errors[system], workers[system].moved)
        for system in plan.systems
    }
    allowed = accuracy.allowed(errors.get(BASELINE, 0.0)) if plan.precision == "fp32" else accuracy.UNRELATED
    needed = workers[BASELINE].work if BASELINE in workers else Work()
    return Comparison(model, needed, allowed, timings, tuple(measured))


def _errors(workers: Mapping[str, Worker], failures: dict[str, str], folder: pathlib.Path) -> dict[str, float]:
    """Each system's error against float64."""
    truth: list[torch.Tensor] = []
    errors = {}
    for system in sorted(workers, key=lambda name: name != BASELINE):  # the baseline computes the truth
        reference = str(folder / "reference.npz") if system == BASELINE else None
        outputs = folder / f"{system}.npz"
        try:
            workers[system].ask(do="outputs", path=str(outputs), reference=reference)
        except MeasurementError as error:
            failures[system] = str(error)
            continue
        if reference:
            truth = _load(pathlib.Path(reference))
        errors[system] = accuracy.error(_load(outputs), truth)
    return errors


def _load(path: pathlib.Path) -> list[torch.Tensor]:
    with np.load(path) as arrays:
        return [torch.from_numpy(arrays[name]) for name in arrays.files]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a peer that is not installed
            continue
    return {**found, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
