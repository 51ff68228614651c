"""Times elementary functions of fp32 vectors beside PyTorch's, on one thread and arrays that stay in the second-level cache.

``python -m mlc.benchmarks.vector_maths [name ...]`` prints nanoseconds an element of both and their ratio: medians, and minima, of
interleaved rounds. ``--json`` writes the same as a file.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..codegen.build import compile_kernel, link_library
from ..codegen.target import Target
from ..codegen.task import Task
from ..codegen.templates.elementwise import Elementwise
from ..ir import DType, GraphBuilder, TensorType
from .machine import processor

Call = Callable[[], object]


@dataclass(frozen=True)
class Function:
    """An operation, PyTorch's out= form of it, and the range of each operand, from which its elements are drawn evenly."""

    name: str
    op: str
    theirs: Callable[..., object]
    ranges: tuple[tuple[float, float], ...]
    attributes: tuple[tuple[str, object], ...] = ()


def functions() -> list[Function]:
    """What is timed. Sine and cosine have a second line for arguments that need a longer reduction."""
    aten = torch.ops.aten

    def approximate(kind: str) -> Callable[..., object]:
        return lambda x, out: aten.gelu.out(x, approximate=kind, out=out)

    return [
        Function("exp", "exp", torch.exp, ((-20, 20),)),
        Function("exp2", "exp2", torch.exp2, ((-20, 20),)),
        Function("expm1", "expm1", torch.expm1, ((-5, 5),)),
        Function("log", "log", torch.log, ((0, 100),)),
        Function("log2", "log2", torch.log2, ((0, 100),)),
        Function("log10", "log10", torch.log10, ((0, 100),)),
        Function("log1p", "log1p", torch.log1p, ((-0.9, 10),)),
        Function("tanh", "tanh", torch.tanh, ((-5, 5),)),
        Function("erf", "erf", torch.erf, ((-4, 4),)),
        Function("sigmoid", "sigmoid", torch.sigmoid, ((-10, 10),)),
        Function("silu", "silu", lambda x, out: aten.silu.out(x, out=out), ((-10, 10),)),
        Function("gelu", "gelu", approximate("none"), ((-5, 5),), (("approximate", "none"),)),
        Function("gelu, tanh", "gelu", approximate("tanh"), ((-5, 5),), (("approximate", "tanh"),)),
        Function("softplus", "softplus", lambda x, out: aten.softplus.out(x, out=out), ((-10, 10),)),
        Function("sin", "sin", torch.sin, ((-100, 100),)),
        Function("sin to 1e5", "sin", torch.sin, ((-1e5, 1e5),)),
        Function("cos", "cos", torch.cos, ((-100, 100),)),
        Function("cos to 1e5", "cos", torch.cos, ((-1e5, 1e5),)),
        Function("tan", "tan", torch.tan, ((-100, 100),)),
        Function("rsqrt", "rsqrt", torch.rsqrt, ((0, 100),)),
        Function("pow", "pow", torch.pow, ((0, 10), (-4, 4))),
    ]


class Contest:
    """One function on both sides, over the same numbers."""

    def __init__(self, function: Function, elements: int, target: Target) -> None:
        self.function = function
        generator = np.random.default_rng(0)
        # PyTorch's memory is aligned as kernels need it.
        self._inputs = [torch.from_numpy(generator.uniform(*bounds, elements).astype(np.float32)).clone() for bounds in function.ranges]
        self._mine, self._theirs = torch.empty(elements), torch.empty(elements)
        began = time.perf_counter()
        self._library, self._symbol = self._compile(elements, target)
        self.compile_seconds = time.perf_counter() - began

    def _compile(self, elements: int, target: Target) -> tuple[ctypes.CDLL, str]:
        builder = GraphBuilder()
        operands = [builder.input(TensorType(DType.FLOAT32, (elements,))) for _ in self.function.ranges]
        attributes: dict[str, Any] = dict(self.function.attributes)
        task = Task(builder.finish([builder.call(self.function.op, *operands, **attributes)]), frozenset(), target, 1)
        template = Elementwise()
        config = template.space(task).default
        kernel = compile_kernel("", target, lambda: template.lower(task, config), cached=False)
        with tempfile.TemporaryDirectory(prefix="mlc-bench-") as folder:
            path = pathlib.Path(folder) / "kernel.so"
            link_library([kernel.object], {}, [kernel.symbol], path)
            return ctypes.CDLL(str(path)), kernel.symbol

    @property
    def mine(self) -> Call:
        """A call of the compiled kernel."""
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*self._inputs, self._mine)]
        kernel = getattr(self._library, self._symbol)
        return lambda: kernel(*pointers)

    @property
    def theirs(self) -> Call:
        """A call of PyTorch's function."""
        theirs, inputs, result = self.function.theirs, self._inputs, self._theirs
        return lambda: theirs(*inputs, out=result)

    def difference(self) -> float:
        """The largest difference of the two last results, over max(1, |PyTorch's|)."""
        return float(((self._mine - self._theirs).abs() / self._theirs.abs().clamp(min=1.0)).max())


@dataclass(frozen=True)
class Timing:
    """Nanoseconds an element, medians and minima of the rounds, and the seconds that compiling the kernel took."""

    name: str
    mlc: float
    torch: float
    mlc_best: float
    torch_best: float
    compile_seconds: float

    @property
    def speedup(self) -> float:
        """How many times faster than PyTorch, by medians."""
        return self.torch / self.mlc


def time_function(function: Function, target: Target, *, elements: int, rounds: int, calls: int) -> Timing:
    """Times one function in ``rounds`` rounds, each of ``calls`` calls of either side."""
    contest = Contest(function, elements, target)
    mine, theirs = contest.mine, contest.theirs
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, seconds in zip((mine, theirs), times, strict=True):
            began = time.perf_counter()
            for _ in range(calls):
                call()
            if number:  # the first round warms up
                seconds.append((time.perf_counter() - began) / calls / elements * 1e9)
    if contest.difference() > 1e-4:
        raise RuntimeError(f"the results of '{function.name}' differ by {contest.difference()}")
    own, other = times
    medians = statistics.median(own), statistics.median(other)
    return Timing(function.name, medians[0], medians[1], min(own), min(other), contest.compile_seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these functions")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--elements", type=int, default=32768, help="of each array")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=20, help="of either side in a round")
    parser.add_argument("--json", type=pathlib.Path, help="also write the timings to this file")
    options = parser.parse_args(arguments)
    target = Target.parse(options.target)
    torch.set_num_threads(1)
    print(f"{'ns an element':14} {'mlc':>7} {'PyTorch':>8} {'ratio':>7}   (minima {'mlc':>7} {'PyTorch':>8} {'ratio':>7})  compiled in")
    timings = []
    for function in functions():
        if options.names and function.name not in options.names:
            continue
        timing = time_function(function, target, elements=options.elements, rounds=options.rounds, calls=options.calls)
        timings.append(timing)
        print(
            f"{timing.name:14} {timing.mlc:7.3f} {timing.torch:8.3f} {timing.speedup:6.2f}x           {timing.mlc_best:7.3f} "
            f"{timing.torch_best:8.3f} {timing.torch_best / timing.mlc_best:6.2f}x   {timing.compile_seconds:.2f} s",
            flush=True,
        )
    if options.json:
        facts = {"processor": processor(), "target": str(target), "torch": torch.__version__, "elements": options.elements}
        facts["capability"] = torch.backends.cpu.get_cpu_capability()
        options.json.write_text(json.dumps({**facts, "functions": [dataclasses.asdict(timing) for timing in timings]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
