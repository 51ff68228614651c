"""Times what surrounds the kernels: a call from Python, from guards to new outputs, and the launch of a parallel loop.

``python -m mlc.benchmarks.overhead [--json file]``. The program is a two-layer perceptron of width 16, written in C, so that the
figures are the runtime's alone; PyTorch's eager call of the same model stands beside them. A parallel loop is timed with tasks of 5
microseconds; its figure is the time beyond them, with workers still on the look-out or asleep after a pause.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..ir.program import KernelCall, Program, Signature, TensorSpec
from ..module import CompiledModel
from ..runtime import Executable, LoadedModel

_SOURCE = pathlib.Path(__file__).parent / "native" / "overhead.c"
_INCLUDE = pathlib.Path(__file__).parent.parent / "runtime" / "native"
_WIDTH = 16


@dataclass(frozen=True)
class Overhead:
    """Median and least microseconds of one call (or one launch)."""

    name: str
    median: float
    least: float


def measure(seconds: float = 0.5) -> list[Overhead]:
    """All figures; ``seconds`` is the time spent on each."""
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "overhead.so"
        command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", f"-I{_INCLUDE}", str(_SOURCE), "-o", str(library)]
        subprocess.run(command, check=True)
        model = torch.nn.Sequential(torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.ReLU(), torch.nn.Linear(_WIDTH, _WIDTH)).eval()
        executable = _perceptron(library, model)
        compiled = CompiledModel(model, lambda args, kwargs: executable, [executable])
        loaded = LoadedModel([executable])
        x = torch.randn(1, _WIDTH)
        array = x.numpy().copy()
        view = torch.randn(_WIDTH, 2)[:, 0].reshape(_WIDTH, 1).t()
        with torch.inference_mode():
            torch.testing.assert_close(compiled(x), model(x))
            figures = [
                _time("compiled model, torch", lambda: compiled(x), seconds),
                _time("loaded model, torch", lambda: loaded(x), seconds),
                _time("loaded model, torch, by name", lambda: loaded(x=x), seconds),
                _time("loaded model, torch, strided view", lambda: loaded(view), seconds),
                _time("loaded model, NumPy", lambda: loaded(array), seconds),
                _time("PyTorch, eager", lambda: model(x), seconds),
            ]
        figures.append(_time("loaded model, torch, gradients enabled", lambda: loaded(x), seconds))
        figures.append(_launch(library, "parallel loop, workers awake", 0, seconds))
        figures.append(_launch(library, "parallel loop, workers asleep", 500_000, seconds))
        return figures


def _time(name: str, call: Callable[[], Any], seconds: float) -> Overhead:
    """Times batches of calls."""
    batch = 1
    while True:
        begin = time.perf_counter()
        for _ in range(batch):
            call()
        if time.perf_counter() - begin > 1e-3:
            break
        batch *= 2
    samples = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(batch):
            call()
        samples.append((time.perf_counter() - begin) / batch * 1e6)
    return Overhead(name, statistics.median(samples), min(samples))


def _perceptron(library: pathlib.Path, model: torch.nn.Sequential) -> Executable:
    parts = [part.detach().t().ravel() if part.ndim == 2 else part.detach() for part in model.parameters()]
    weights = torch.cat(parts).numpy()
    signature = Signature((TensorSpec("x", "f32", (1, _WIDTH)),), (TensorSpec("y", "f32", (1, _WIDTH)),))
    return Executable(_program(signature, "overhead_mlp", weights.nbytes, threads=1), library, weights)


def _launch(library: pathlib.Path, name: str, pause: int, seconds: float) -> Overhead:
    """The time a parallel loop takes beyond its tasks', each after ``pause`` nanoseconds without one."""
    signature = Signature((TensorSpec("options", "i64", (2,)),), (TensorSpec("excess", "f64", (1,)),))
    executable = Executable(_program(signature, "overhead_launch", 0, os.cpu_count() or 1), library)
    options = np.array([20, pause])
    samples = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        samples.append(float(executable(options)[0]) * 1e-3)
    return Overhead(name, statistics.median(samples), min(samples))


def _program(signature: Signature, entry: str, constant_bytes: int, threads: int) -> Program:
    calls = (KernelCall("kernel", (), "kernel", "", "", "", 1000, 1000),)
    return Program("overhead", signature, calls, (), constant_bytes, 64, 64, "cpu", (), threads, entry)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures = measure(options.seconds)
    for figure in figures:
        print(f"{figure.name:42} {figure.median:8.2f} us (least {figure.least:.2f})")
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
