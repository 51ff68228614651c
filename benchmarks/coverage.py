"""Compiles many model families and says of each what became of it: ``python -m mlc.benchmarks.coverage [names] [--json file]``.

Each model has a process of its own with limits of time and memory. A line gives the kernels, the operations that ran in PyTorch, the
error against float64 beside the allowed one, the seconds to compile from scratch, and the latency beside eager PyTorch's, in
interleaved rounds on all cores. The exit status is 1 when a model fails, is wrong, falls back to PyTorch, or is slower than 0.9 of eager.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SLOWEST = 0.9
"""The least speed relative to eager PyTorch that counts as good."""

CHAOTIC = 1e-3
"""Allowed error from which on a model amplifies rounding so much that nothing is checked: its weights are badly chosen."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model. ``speedup`` is eager's latency over mlc's; errors are norm-wise against float64."""

    model: str
    kernels: int = 0
    fallback: tuple[str, ...] = ()
    error: float = 0.0
    allowed: float = 0.0
    compile_s: float = 0.0
    latency_s: float = 0.0
    eager_s: float = 0.0
    failed: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def speedup(self) -> float:
        return self.eager_s / self.latency_s if self.latency_s else 0.0

    @property
    def good(self) -> bool:
        return not self.failed and not self.fallback and self.error <= self.allowed < CHAOTIC and self.speedup >= SLOWEST


def check(name: str, seconds: float = 1.0) -> Outcome:
    """Compiles, checks and times one model in this process; ``seconds`` of calls for each of the two systems."""
    import torch

    import mlc

    from . import accuracy
    from .models.families import FAMILIES

    family = FAMILIES[name]
    model, kwargs = family.build()
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eager = model(**kwargs)
        begin = time.perf_counter()
        compiled = mlc.compile(model, example_kwargs=kwargs)
        actual = compiled(**kwargs)
        compile_s = time.perf_counter() - begin
        wide = copy.deepcopy(model)
        family.reference(wide)
        truth = accuracy.reference(wide, (), kwargs)
        allowed = accuracy.allowed(accuracy.error(accuracy.tensors(eager), truth))
        error = accuracy.error(accuracy.tensors(actual), truth)
        times = interleaved({"mlc": lambda: compiled(**kwargs), "eager": lambda: model(**kwargs)}, seconds)
    report = compiled.report().to_dict()
    programs = report.get("programs", [report])
    return Outcome(
        name,
        kernels=sum(len(program["kernels"]) for program in programs),
        fallback=tuple(report.get("fallback", ())),
        error=error,
        allowed=allowed,
        compile_s=compile_s,
        latency_s=times["mlc"],
        eager_s=times["eager"],
        notes=tuple(dict.fromkeys(str(warning.message).splitlines()[0] for warning in caught if "mlc" in str(warning.filename))),
    )


def interleaved(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median time of each call, in turns, over about ``seconds`` for each; at least five turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    begin = time.perf_counter()
    while len(next(iter(times.values()))) < 5 or time.perf_counter() - begin < seconds * len(calls):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def check_apart(name: str, timeout: float, seconds: float) -> Outcome:
    """Like :func:`check`, in a process of its own with an empty kernel cache."""
    with tempfile.TemporaryDirectory(prefix="mlc-coverage-") as cache:
        environment = {**os.environ, "MLC_CACHE_DIR": cache}
        command = [sys.executable, "-m", "mlc.benchmarks.coverage", "--one", name, "--seconds", str(seconds)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return Outcome(name, failed=f"not ready after {timeout:.0f} s")
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        data: dict[str, Any] = json.loads(lines[-1])
        lists = {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
        return Outcome(**(data | lists))
    reason = [line for line in done.stderr.strip().splitlines() if line.strip()] or [f"ended with status {done.returncode}"]
    return Outcome(name, failed=_essence(reason))


def _essence(lines: Sequence[str]) -> str:
    """The error itself and what it lists, without the traceback."""
    starts = [i for i, line in enumerate(lines) if line[:1].isalpha() and (": " in line or "Error" in line)]
    return "\n".join(lines[starts[-1] :] if starts else lines[-3:])[:1500]


def row(outcome: Outcome) -> tuple[str, ...]:
    """The cells of one line."""
    if outcome.failed:
        return (outcome.model, "failed: " + outcome.failed.splitlines()[0][:90])
    return (
        outcome.model,
        str(outcome.kernels),
        ", ".join(outcome.fallback) or "-",
        f"{outcome.error:.1e} of {outcome.allowed:.0e}",
        f"{outcome.compile_s:.1f}",
        f"{outcome.latency_s * 1e3:.2f}",
        f"{outcome.eager_s * 1e3:.2f}",
        f"{outcome.speedup:.2f}x",
        "ok" if outcome.good else "NOT GOOD",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    from .models.families import FAMILIES

    parser = argparse.ArgumentParser(prog="python -m mlc.benchmarks.coverage", description=__doc__)
    parser.add_argument("names", nargs="*", help="models (default: all)")
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds a model may take")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of calls for each timing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        outcome = check(options.one, options.seconds)
        print(json.dumps(asdict(outcome)))
        return 0
    names = options.names or list(FAMILIES)
    if unknown := [name for name in names if name not in FAMILIES]:
        parser.error(f"unknown models {', '.join(unknown)}; there are: {', '.join(FAMILIES)}")
    headings = ("model", "kernels", "in PyTorch", "error of allowed", "compile s", "mlc ms", "eager ms", "speed-up", "")
    print("{:24}{:>8}  {:24}{:>20}{:>10}{:>10}{:>10}{:>9}  {}".format(*headings), flush=True)
    outcomes = []
    for name in names:
        outcome = check_apart(name, options.timeout, options.seconds)
        outcomes.append(outcome)
        cells = row(outcome)
        line = "{:24}{}".format(*cells) if outcome.failed else "{:24}{:>8}  {:24}{:>20}{:>10}{:>10}{:>10}{:>9}  {}".format(*cells)
        print(line, flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1) + "\n")
    good = sum(outcome.good for outcome in outcomes)
    print(f"{good} of {len(outcomes)} models are native, right and at least {SLOWEST} times as fast as eager PyTorch")
    return 0 if good == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
