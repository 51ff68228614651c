"""What symbolic sizes cost: one program for a range of sizes, timed beside programs compiled for each size alone.

``python -m mlc.benchmarks.dynamic [bert_base resnet50 ...] [--full] [--seconds 1]``. Models have reduced depth unless ``--full``. Both
programs of a size are called in turn, and medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.export import Dim

import mlc

from .models import ZOO
from .tables import duration


@dataclass(frozen=True)
class Sweep:
    """A model of the zoo, its inputs for given sizes, their ranges as torch.export takes them, and the sizes to time."""

    model: str
    inputs: Callable[..., tuple[Tensor, ...]]
    shapes: Any
    sizes: Sequence[tuple[int, ...]]


def _images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 224, 224),)


def _tokens(batch: int, length: int) -> tuple[Tensor, ...]:
    return (torch.randint(30000, (batch, length)),)


def _rows(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 784),)


def _text(name: str) -> Sweep:
    axes = {0: Dim("batch", min=1, max=16), 1: Dim("length", min=16, max=512)}
    return Sweep(name, _tokens, (axes,), ((2, 24), (1, 16), (1, 32), (1, 50), (1, 128), (4, 64), (3, 100), (1, 512), (8, 128), (16, 32)))


SWEEPS: Mapping[str, Sweep] = {
    sweep.model: sweep
    for sweep in (
        _text("bert_base"),
        _text("gpt2"),
        _text("llama"),
        Sweep("resnet50", _images, ({0: Dim("batch", min=1, max=32)},), ((2,), (1,), (4,), (7,), (32,))),
        Sweep("mobilenet_v2", _images, ({0: Dim("batch", min=1, max=32)},), ((2,), (1,), (4,), (7,), (32,))),
        Sweep("mlp", _rows, ({0: Dim("batch", min=1, max=256)},), ((2,), (1,), (8,), (32,), (100,), (256,))),
    )
}


@dataclass(frozen=True)
class Point:
    """Median seconds of both programs at one size, and the error of the symbolic one against PyTorch (by the norm)."""

    size: tuple[int, ...]
    dynamic: float
    static: float
    error: float


def measure(sweep: Sweep, *, full: bool = False, seconds: float = 1.0) -> list[Point]:
    """Compiles the model once for all sizes and once for each of them, and times both at each."""
    entry = ZOO[sweep.model]
    model, _ = entry.full() if full else entry.small()
    with torch.inference_mode():
        fast = mlc.compile(_positional(model), example_inputs=sweep.inputs(*sweep.sizes[0]), dynamic_shapes=sweep.shapes)
        return [_point(fast, model, sweep.inputs(*size), size, seconds) for size in sweep.sizes]


class _Positional(nn.Module):
    """A model called with one tensor, its first result: keyword arguments with defaults would need dynamic shapes as well."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return _first(self.model(x))


def _positional(model: nn.Module) -> nn.Module:
    return _Positional(model).eval()


def _first(result: Any) -> Tensor:
    first: Tensor = result if isinstance(result, Tensor) else next(iter(result.values())) if hasattr(result, "values") else result[0]
    return first


def _point(fast: Any, model: nn.Module, inputs: tuple[Tensor, ...], size: tuple[int, ...], seconds: float) -> Point:
    static = mlc.compile(_positional(model), example_inputs=inputs)
    expected = _first(model(*inputs)).double()
    error = float((fast(*inputs).double() - expected).norm() / expected.norm())
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for program, found in zip((fast, static), times, strict=True):
            start = time.perf_counter()
            program(*inputs)
            found.append(time.perf_counter() - start)
    dynamic, alone = (statistics.median(found[len(found) // 5 :]) for found in times)
    return Point(size, dynamic, alone, error)


def table(sweep: Sweep, points: Sequence[Point]) -> Table:
    """The times of a sweep, and by how much the symbolic program is slower."""
    grid = Table(title=sweep.model, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("size", "one program", "its own program", "ratio", "error"):
        grid.add_column(heading, justify="right")
    for point in points:
        size = " x ".join(map(str, point.size))
        grid.add_row(size, duration(point.dynamic), duration(point.static), f"{point.dynamic / point.static:.2f}", f"{point.error:.1e}")
    return grid


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["bert_base", "resnet50"], choices=[*SWEEPS, []], help="models of the zoo")
    parser.add_argument("--full", action="store_true", help="full depth")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to time each size")
    given = parser.parse_args(arguments)
    for name in given.models:
        sweep = SWEEPS[name]
        Console().print(table(sweep, measure(sweep, full=given.full, seconds=given.seconds)))


if __name__ == "__main__":
    main()
