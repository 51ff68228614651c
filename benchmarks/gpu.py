"""Checks and times programs for NVIDIA GPUs against PyTorch on the same GPU: ``python -m mlc.benchmarks.gpu``.

Single operations and models are compiled for the GPU at hand, compared with PyTorch in float64, and timed in rounds that go around the
systems: mlc, and eager PyTorch in fp32 with TF32 off (the same arithmetic) and on. Times are device times between CUDA events around a
batch of calls; ``kernels`` is the sum of mlc's kernels alone, without what the host takes between them. ``--json`` writes all of it.
"""

from __future__ import annotations

import argparse
import copy
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .. import compile
from . import accuracy
from .models import ZOO, expand
from .models.randomise import randomise


@dataclass(frozen=True)
class Case:
    """What is compiled: a model and the inputs it is called with, both on the host."""

    name: str
    model: nn.Module
    inputs: tuple[Any, ...]


@dataclass(frozen=True)
class Result:
    """Median seconds of a call by system; ``kernels`` of mlc's kernels alone. ``failed`` says why there are none."""

    name: str
    seconds: Mapping[str, float]
    kernels: float = 0.0
    error: float = 0.0
    eager_error: float = 0.0
    failed: str = ""

    @property
    def sound(self) -> bool:
        """Whether mlc ran, and is as exact as it has to be."""
        return not self.failed and self.error <= accuracy.allowed(self.eager_error)


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def operations() -> Iterator[Case]:
    """One operation of each template, in sizes of common models."""

    def case(name: str, model: nn.Module | Callable[..., Tensor], *shapes: Sequence[int]) -> Case:
        inputs = tuple(torch.randn(*shape) for shape in shapes)
        module = model if isinstance(model, nn.Module) else _Function(model)
        return Case(name, randomise(module, inputs), inputs)

    functional = nn.functional
    yield case("linear 4096x4096x4096", nn.Linear(4096, 4096), (4096, 4096))
    yield case("linear+gelu 512x3072x768", nn.Sequential(nn.Linear(768, 3072), nn.GELU()), (512, 768))
    yield case("linear 1x4096x4096", nn.Linear(4096, 4096), (1, 4096))
    yield case("matmul 96x512x512x64", torch.matmul, (96, 512, 64), (96, 64, 512))
    yield case("conv 3x3 64->64 56x56", nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU()), (32, 64, 56, 56))
    yield case("conv 1x1 256->512 14x14", nn.Conv2d(256, 512, 1), (32, 256, 14, 14))
    yield case("conv 7x7/2 3->64 224x224", nn.Conv2d(3, 64, 7, 2, 3), (32, 3, 224, 224))
    yield case("depthwise 3x3 144 56x56", nn.Conv2d(144, 144, 3, 1, 1, groups=144), (32, 144, 56, 56))
    yield case("max pool 3x3/2 64 112x112", nn.MaxPool2d(3, 2, 1), (32, 64, 112, 112))
    yield case("softmax 8192x1024", nn.Softmax(-1), (8192, 1024))
    yield case("layer norm 8192x768", nn.LayerNorm(768), (8192, 768))
    yield case("mean of 64x2048 7x7", lambda x: x.mean((2, 3)), (64, 2048, 7, 7))
    yield case("add+gelu 64M", lambda x, y: functional.gelu(x + y), (1 << 26,), (1 << 26,))
    attention = (4, 12, 1024, 64)
    yield case("attention 4x12x1024x64", functional.scaled_dot_product_attention, attention, attention, attention)
    yield case(
        "causal attention 4x12x1024x64",
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        *(attention, attention, attention),
    )


def models(names: Sequence[str], small: bool) -> Iterator[Case]:
    """Models of the zoo, with random weights."""
    for name in expand(names):
        model, inputs = ZOO[name].small() if small else ZOO[name].full()
        yield Case(name, model, inputs)


def measure(case: Case, *, rounds: int = 7, seconds: float = 0.2) -> Result:
    """Checks and times one case on the current GPU."""
    on_device = pytree.tree_map(lambda value: value.cuda() if isinstance(value, Tensor) else value, case.inputs)
    try:
        fast = compile(case.model, example_inputs=case.inputs, target="cuda")
        eager = copy.deepcopy(case.model).cuda()
        with torch.no_grad(), tf32(False):
            actual, own = accuracy.tensors(fast(*on_device)), accuracy.tensors(eager(*on_device))
            expected = accuracy.reference(eager, on_device)
            systems: dict[str, tuple[Callable[..., Any], bool]] = {
                "mlc": (fast, False),
                "torch": (eager, False),
                "torch TF32": (eager, True),
            }
            samples: dict[str, list[float]] = {name: [] for name in systems}
            for _ in range(rounds):
                for name, (run, fast_maths) in systems.items():
                    with tf32(fast_maths):
                        samples[name].append(seconds_of(run, on_device, seconds / rounds))
            profile = fast.profile(*on_device, calls=10)
    except Exception as error:
        return Result(case.name, {}, failed=f"{type(error).__name__}: {error}")
    times = {name: statistics.median(values) for name, values in samples.items()}
    return Result(case.name, times, profile.seconds or 0.0, accuracy.error(actual, expected), accuracy.error(own, expected))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Lets PyTorch multiply with TF32 tensor cores, or not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def seconds_of(run: Callable[..., Any], inputs: Sequence[Any], seconds: float) -> float:
    """Device seconds of a call, over as many warmed calls as fit ``seconds``."""

    def batch(calls: int) -> float:
        event: Any = torch.cuda.Event
        before, after = event(enable_timing=True), event(enable_timing=True)
        before.record()
        for _ in range(calls):
            run(*inputs)
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) * 1e-3 / calls

    batch(2)
    once = batch(3)
    return batch(max(3, min(1000, int(seconds / max(once, 1e-7)))))


def table(results: Sequence[Result]) -> Table:
    """The results for people: milliseconds, and how many times as fast as PyTorch mlc is."""
    found = Table(box=None, pad_edge=False)
    for heading in ("", "mlc ms", "kernels ms", "torch ms", "TF32 ms", "x torch", "x TF32", "error", "torch's", ""):
        found.add_column(heading, justify="right" if heading else "left")
    for result in results:
        if result.failed:
            found.add_row(result.name, *[""] * 8, result.failed[:300])
            continue
        own, eager, lower = (result.seconds[name] for name in ("mlc", "torch", "torch TF32"))
        times = (f"{1e3 * value:.3f}" for value in (own, result.kernels, eager, lower))
        ratios = (f"{eager / own:.2f}", f"{lower / own:.2f}")
        errors = (f"{result.error:.1e}", f"{result.eager_error:.1e}")
        found.add_row(result.name, *times, *ratios, *errors, "" if result.sound else "WRONG")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m mlc.benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["models"], help="models of the zoo; by default all; 'none' for operations only")
    parser.add_argument("--small", action="store_true", help="models at reduced depth")
    parser.add_argument("--seconds", type=float, default=0.2, help="of calls for each system and case")
    parser.add_argument("--json", type=pathlib.Path, help="a file to write the figures to")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit(
            f"this needs an NVIDIA GPU and a CUDA build of PyTorch; here is torch {torch.__version__} without a GPU that it can use. "
            "What can be checked without one: pytest tests/codegen -k gpu"
        )
    console = Console(stderr=True)
    cases = [*operations(), *(models(options.models, options.small) if options.models != ["none"] else ())]
    results = []
    for case in cases:
        with console.status(case.name):
            results.append(measure(case, seconds=options.seconds))
        torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    Console().print(table(results))
    if options.json is not None:
        document = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(document, indent=1))
    if not all(result.sound for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
