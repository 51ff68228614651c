"""Sparse weights beside dense ones: single layers, layers whose weights come from memory, ``sparsity="auto"`` at many densities, models.

``python -m mlc.benchmarks.sparse [part ...]`` compiles each model twice, with ``sparsity="off"`` and ``"auto"``, and prints the times of
a call and their ratio: medians over rounds in which both take turns. ``--json`` writes the same into a file, where what it holds
of other cases stays.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import mlc

from .machine import processor, usable_cores
from .models import efficientnet_b0, mobilenet_v1

_LAYERS = 8
"""Of 64 MB each: dense or not, they are at least four times a last-level cache of 32 MB together."""
DENSITIES = (1.0, 0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01)


Made: TypeAlias = "tuple[nn.Module, tuple[Tensor, ...]]"
"""A module and example inputs."""


@dataclass(frozen=True)
class Case:
    """A module with zeros in its weights."""

    part: str
    name: str
    model: Callable[[], Made]
    precision: str = "fp32"


@dataclass(frozen=True)
class Timing:
    """Median seconds of a call of both programs; ``ratio`` is the median over the rounds of dense over sparse. ``kernels`` is how many
    of the sparse program have a sparse weight, ``error`` the norm-wise difference from PyTorch."""

    part: str
    name: str
    dense: float
    sparse: float
    ratio: float
    kernels: int
    error: float


def _layer(rows: int, inputs: int, outputs: int, pattern: str, density: float) -> Made:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    exact = None if ":" in pattern else density
    return mlc.prune(layer, pattern, exact, "projection") if density < 1 else layer, (torch.randn(rows, inputs),)


def _chain(pattern: str, density: float | None) -> Made:
    """Layers one after the other whose weights no cache holds together."""
    torch.manual_seed(0)
    first: Any = nn.Linear(4096, 4096, bias=False)
    with torch.no_grad():
        if density is None:
            first = mlc.prune(first, pattern)
        else:
            # Random places: sorting millions of magnitudes takes long.
            first.weight.mul_(torch.rand_like(first.weight) < density)
        layers = [copy.deepcopy(first) for _ in range(_LAYERS)]
        for number, layer in enumerate(layers):
            layer.weight.mul_(1 + number / 8)  # equal weights would be stored once
    return nn.Sequential(*layers), (torch.randn(1, 4096),)


def _pointwise(size: int, channels: int, density: float) -> Made:
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, channels, 1)
    pruned = mlc.prune(layer, "unstructured", density) if density < 1 else layer
    return pruned, (torch.randn(1, channels, size, size),)


def _windowed(size: int, channels: int, density: float) -> Made:
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    return mlc.prune(layer, "16x1", density, "projection"), (torch.randn(1, channels, size, size),)


def _network(make: Callable[[], Made], pattern: str, density: float) -> Made:
    """A network whose pointwise convolutions are pruned, with the statistics of its batch norms taken anew."""
    model, inputs = make()
    pruned = mlc.prune(model, {"pointwise": pattern}, density, "projection")
    norms = [module for module in pruned.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        pruned(*inputs)
    return pruned.eval(), inputs


def cases() -> list[Case]:
    """Everything that is timed."""
    found: list[Case] = []

    def linear(part: str, rows: int, inputs: int, outputs: int, pattern: str, density: float) -> None:
        name = f"linear {rows}x{inputs}x{outputs}, {pattern}, {density:.0%}"
        found.append(Case(part, name, lambda: _layer(rows, inputs, outputs, pattern, density)))

    def conv(size: int, channels: int, density: float) -> None:
        name = f"conv 1x1, {channels} at {size}x{size}, {density:.0%}"
        found.append(Case("auto", name, lambda: _pointwise(size, channels, density)))

    def quantised(rows: int, pattern: str, density: float, precision: str) -> None:
        shown = pattern if ":" in pattern else f"{pattern}, {density:.0%}"
        name = f"linear {rows}x1024x1024, {shown}, {precision}"
        found.append(Case("quantised", name, lambda: _layer(rows, 1024, 1024, pattern, density), precision))

    def windowed(size: int, channels: int, density: float) -> None:
        name = f"conv 3x3, {channels} at {size}x{size}, 16x1, {density:.0%}"
        found.append(Case("windows", name, lambda: _windowed(size, channels, density)))

    def chain(pattern: str, density: float | None) -> None:
        shown = f"{pattern}, {density:.0%}" if density is not None else pattern
        found.append(Case("matvec", f"{_LAYERS} x linear 1x4096x4096, {shown}", lambda: _chain(pattern, density)))

    def network(name: str, make: Callable[[], Made], pattern: str) -> None:
        found.append(Case("models", f"{name}, 1x1 {pattern}, 10%", lambda: _network(make, pattern, 0.1)))

    for rows, inputs, outputs in ((128, 768, 768), (128, 1024, 1024), (128, 768, 3072), (128, 3072, 768), (1, 1024, 1024)):
        linear("blocks", rows, inputs, outputs, "16x1", 0.2)
    for pattern in ("unstructured", "1x16", "4x4", "16x1", "32x32"):
        linear("patterns", 128, 1024, 1024, pattern, 0.2)
    for share in (0.5, 0.2, 0.1):
        chain("unstructured", share)
    chain("2:4", None)
    chain("1:4", None)
    for precision in ("w8", "w4"):
        quantised(1, "2:4", 0.5, precision)
        quantised(1, "1:4", 0.25, precision)
        quantised(128, "16x1", 0.2, precision)
        quantised(128, "unstructured", 0.1, precision)
    for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512)):
        windowed(size, channels, 0.2)
        windowed(size, channels, 0.1)
    for density in DENSITIES:
        for rows in (1, 4, 16, 128):
            linear("auto", rows, 1024, 1024, "unstructured", density)
        conv(56, 64, density)
        conv(14, 512, density)
    for pattern in ("unstructured", "16x1"):
        network("MobileNet-v1", mobilenet_v1, pattern)
        network("EfficientNet-b0", efficientnet_b0, pattern)
    return found


def time_case(case: Case, threads: int | None, rounds: int, seconds: float) -> Timing:
    """Compiles and times both programs of a case, as a later process finds them in the cache: equal weights are then the same pages of
    memory. Where each program has its own, their places make up to 5% between programs that are equal."""
    model, inputs = case.model()

    def compiled(sparsity: str) -> mlc.CompiledModel:
        for _ in range(2):
            made = mlc.compile(model, example_inputs=inputs, sparsity=sparsity, precision=case.precision, threads=threads)
        return made

    dense, sparse = compiled("off"), compiled("auto")
    with torch.inference_mode():
        expected = _result(model(*inputs))
        error = float((_result(sparse(*inputs)) - expected).norm() / expected.norm())
        times = _interleaved(lambda: dense(*inputs), lambda: sparse(*inputs), rounds, seconds)
    kernels = sum(kernel.config.startswith("sparse_") for program in sparse.report().programs for kernel in program.kernels)
    ratio = statistics.median(ours / theirs for ours, theirs in times)
    first, second = (statistics.median(side) for side in zip(*times, strict=True))
    return Timing(case.part, case.name, first, second, ratio, kernels, error)


def _result(output: Any) -> Tensor:
    """The tensor among the outputs that counts."""
    result: Tensor = output if isinstance(output, Tensor) else output.logits
    return result


def _interleaved(one: Callable[[], object], other: Callable[[], object], rounds: int, seconds: float) -> list[tuple[float, float]]:
    """Seconds of a call of each in every round, in which each has half of its share of ``seconds``."""

    def timed(call: Callable[[], object], count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count

    counts = []
    for call in (one, other):
        timed(call, 3)
        counts.append(max(1, int(seconds / rounds / 2 / timed(call, 2))))
    return [(timed(one, counts[0]), timed(other, counts[1])) for _ in range(rounds)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="blocks, patterns, matvec, quantised, windows, auto, models; default: all")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    parser.add_argument("--json", type=pathlib.Path, help="also write the timings to this file")
    options = parser.parse_args(arguments)
    timings: list[Timing] = []
    for case in cases():
        if options.parts and case.part not in options.parts:
            continue
        timing = time_case(case, options.threads, options.rounds, options.seconds)
        timings.append(timing)
        print(
            f"{timing.part:10}{timing.name:44} dense {1e6 * timing.dense:9.1f} us  sparse {1e6 * timing.sparse:9.1f} us  "
            f"x {timing.ratio:5.2f}  {timing.kernels:3} sparse kernels  error {timing.error:.1e}",
            flush=True,
        )
        if options.json:
            _write(options.json, options.threads or usable_cores(), timings)


def _write(path: pathlib.Path, threads: int, timings: Sequence[Timing]) -> None:
    """Puts ``timings`` into a file, in the place of those of the same cases."""
    kept = json.loads(path.read_text())["timings"] if path.exists() else []
    names = {(timing.part, timing.name) for timing in timings}
    rows = [row for row in kept if (row["part"], row["name"]) not in names] + [dataclasses.asdict(timing) for timing in timings]
    path.write_text(json.dumps({"processor": processor(), "threads": threads, "timings": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
