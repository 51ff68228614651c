"""Times single kernels in their default configs: how much of the machine's peak does untuned code reach?

``python -m mlc.benchmarks.kernels [name part ...]`` prints one line for each kernel: its rate, and its share of the peak that binds
it: direct arithmetic (Winograd's algorithm needs less and may pass 100%), or memory bandwidth where moving operands that no cache holds
takes longer. The kernels of a group are timed in rounds, each kernel of a round right after the peaks were measured anew, so that what
else the machine does hits both. The share is the median over the rounds of median time against median peak; the best share, of the least
time against the best peak. ``--json`` writes the same as a file.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import functools
import json
import math
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..autotune.running import Memory
from ..codegen.build import PACKAGE, compile_candidate, link_library
from ..codegen.constant_layout import stored
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..ir import Constant, TensorType, constant_of, interpret
from .kernel_cases import Case, groups
from .machine import Machine, Peaks, RepeatedPeaks, measure, repeated_peaks

_NATIVE = pathlib.Path(__file__).parent / "native"
_RUNTIME = PACKAGE.parent / "runtime" / "native"

STREAM = 2
"""How many times the last-level cache the weights are that a streamed case cycles through, at least."""


@dataclass(frozen=True)
class Timing:
    """Median and least seconds of a call. ``share`` of the peak that binds, which ``memory`` says is the bandwidth.

    ``best_share`` is that of the least time in the best peaks of all rounds. ``read`` and ``written`` are bytes of operands and results,
    ``workspace`` those that the kernel needs besides.
    """

    name: str
    group: str
    config: str
    median: float
    best: float
    flops: int
    read: int
    written: int
    workspace: int
    memory: bool
    share: float
    best_share: float
    error: float | None


def bound(case: Case, peaks: Peaks, cache: int) -> tuple[float, bool]:
    """The least seconds that ``peaks`` allow for ``case``, and whether memory sets them. What fits ``cache`` bytes is taken to be there."""
    arithmetic = case.flops / peaks.flops
    moved = case.read + case.written
    memory = peaks.memory_seconds(case.read, case.written) if case.streamed or moved > cache else 0.0
    return max(arithmetic, memory), memory > arithmetic


class Bench:
    """A compiled kernel with random operands."""

    def __init__(self, case: Case, target: Target, config: Config | None = None, cache: int = 0, stream: int = STREAM) -> None:
        self.case = case
        self.task = Task(case.graph, case.constants, target, target.threads)
        self.config = config or case.template.space(self.task).default
        kernel = compile_candidate(self.task, case.template, self.config)
        self.workspace = kernel.workspace_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-bench-")
        self._function = self._load(kernel.symbol, kernel.object, kernel.workspace_bytes)
        generator = np.random.default_rng(0)
        inputs = [case.known.get(position) or _random(value.tensor, generator) for position, value in enumerate(case.graph.inputs)]
        self.inputs = [constant.array() for constant in inputs]
        layouts = [kernel.constant_layouts.get(position, value.tensor.layout) for position, value in enumerate(case.graph.inputs)]
        placed = [_placed(stored(constant, layout)) for constant, layout in zip(inputs, layouts, strict=True)]
        self._outputs = [_placed(_poisoned(value.tensor)) for value in case.graph.outputs]
        workspace = [_placed(np.empty(kernel.workspace_bytes // 4, np.float32))] if kernel.workspace_bytes else []
        self.weights = sum(placed[position].nbytes for position in case.constants)
        copies = 1 + math.ceil(stream * cache / self.weights) if case.streamed else 1
        self._sets = [[*placed, *self._outputs, *workspace]]
        for _ in range(copies - 1):
            others = [_placed(array) if position in case.constants else array for position, array in enumerate(placed)]
            self._sets.append([*others, *self._outputs, *workspace])

    def _load(self, symbol: str, content: bytes, workspace_bytes: int) -> Callable[..., int]:
        count = len(self.case.graph.inputs) + len(self.case.graph.outputs) + bool(workspace_bytes)
        parameters = ", ".join(["void*"] * count)
        arguments = ", ".join(f"arguments[{number}]" for number in range(count))
        call = (
            f"#include <stdint.h>\nint32_t {symbol}({parameters});\n"
            f"int32_t kernel_call(void* const* arguments) {{ return {symbol}({arguments}); }}\n"
        )
        sources = {"call.c": call}
        for path in (_NATIVE / "time_kernel.c", _RUNTIME / "threads.c"):
            sources[path.name] = f'#include "{path}"\n'
        path = pathlib.Path(self._folder.name) / "kernel.so"
        link_library([content], sources, ["time_kernel"], path)
        function: Callable[..., int] = ctypes.CDLL(str(path)).time_kernel
        return function

    def run(self, count: int, warmup: int = 3) -> list[float]:
        """Seconds of each of ``count`` calls."""
        places = [array.ctypes.data for arrays in self._sets for array in arrays]
        pointers = (ctypes.c_void_p * len(places))(*places)
        seconds = (ctypes.c_double * count)()
        code = self._function(pointers, len(self._sets), len(self._sets[0]), self.task.threads, warmup, count, seconds)
        if code:
            raise RuntimeError(f"kernel {self.case.name} failed with code {code}")
        return list(seconds)

    def results(self) -> list[np.ndarray]:
        """The outputs of the last call, in logical order."""
        outputs = zip(self.case.graph.outputs, self._outputs, strict=True)
        return [value.tensor.layout.unpack(got, value.tensor.static_shape) for value, got in outputs]

    def error(self) -> float:
        """Norm-wise relative error of the last call against float64."""
        expected = interpret(self.case.graph, self.inputs, wide=True)
        return max(float(np.linalg.norm(got - want) / np.linalg.norm(want)) for got, want in zip(self.results(), expected, strict=True))


def _placed(array: np.ndarray) -> np.ndarray:
    """A copy that lies as in a program: aligned, in huge pages where the system has them."""
    copy = Memory(array.shape, array.dtype).array
    copy[...] = array
    return copy


def _random(type: TensorType, generator: np.random.Generator) -> Constant:
    """Any numbers of a byte; integers of 32 bits that do not drown such; floats of about one."""
    if type.dtype.is_integer:
        limits = np.iinfo(type.dtype.numpy if type.dtype.nbytes == 1 else np.int16)
        return constant_of(generator.integers(limits.min, limits.max, type.static_shape, endpoint=True).astype(type.dtype.numpy), type)
    return constant_of(generator.standard_normal(type.static_shape, np.float32).astype(type.dtype.numpy), type)


def _poisoned(type: TensorType) -> np.ndarray:
    """NaN, or -1 in whatever integers."""
    return np.full(math.prod(type.physical_shape) * type.dtype.nbytes, 0xFF, np.uint8).view(type.dtype.numpy).reshape(type.physical_shape)


def time_group(
    name: str, cases: Sequence[Case], target: Target, machine: Machine, *, check: bool = False, rounds: int = 7, seconds: float = 0.4
) -> Iterator[Timing]:
    """Times each kernel for about ``seconds`` in all, in ``rounds`` around the group."""
    benches = [Bench(case, target, cache=machine.cache) for case in cases]
    counts = [int(min(max(seconds / rounds / min(bench.run(3)), 3), 2000)) for bench in benches]
    times: list[list[list[float]]] = [[] for _ in benches]
    measured: list[list[RepeatedPeaks]] = [[] for _ in benches]
    for _ in range(rounds):
        for bench, count, found, peaks in zip(benches, counts, times, measured, strict=True):
            peaks.append(repeated_peaks(target.threads))
            found.append(bench.run(count, warmup=1))
    best = functools.reduce(Machine.at_least, (peak.best for peaks in measured for peak in peaks), machine).peaks
    for case, bench, found, peaks in zip(cases, benches, times, measured, strict=True):
        bounds = [bound(case, peak.median, machine.cache) for peak in peaks]
        least = min(time for each in found for time in each)
        yield Timing(
            case.name,
            name,
            str(bench.config),
            statistics.median(time for each in found for time in each),
            least,
            case.flops,
            case.read,
            case.written,
            bench.workspace,
            statistics.median_low(memory for _, memory in bounds),
            statistics.median(needed / statistics.median(each) for (needed, _), each in zip(bounds, found, strict=True)),
            bound(case, best, machine.cache)[0] / least,
            bench.error() if check and case.checkable else None,
        )


def line(timing: Timing) -> str:
    """A timing for the terminal."""
    rate, bandwidth = timing.flops / timing.median / 1e9, (timing.read + timing.written) / timing.median / 1e9
    resource = "bandwidth" if timing.memory else "arithmetic"
    workspace = f"  workspace {timing.workspace / 2**20:.2f} MiB" if timing.workspace else ""
    error = f"  error {timing.error:.1e}" if timing.error is not None else ""
    return (
        f"{timing.name:34} {1e6 * timing.median:9.1f} us (best {1e6 * timing.best:9.1f}) {rate:6.0f} GFLOP/s {bandwidth:5.1f} GB/s "
        f"{100 * timing.share:4.0f}% (best {100 * timing.best_share:3.0f}%) of {resource}  {timing.config}{workspace}{error}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only kernels whose name contains one of these")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each kernel")
    parser.add_argument("--rounds", type=int, default=7, help="around the kernels of a group; the peaks are measured before each kernel")
    parser.add_argument("--check", action="store_true", help="compare each result with float64 (slow)")
    parser.add_argument("--json", type=pathlib.Path, help="also write the timings to this file")
    options = parser.parse_args(arguments)
    target = Target.parse(options.target)
    machine = measure(target.threads)
    print(f"{machine}, {machine.copy / 1e9:.0f} GB/s copied")
    timings = []
    for group, cases in groups().items():
        chosen = [case for case in cases if not options.names or any(name in case.name for name in options.names)]
        if not chosen:
            continue
        print(f"{group}:")
        for timing in time_group(group, chosen, target, machine, check=options.check, rounds=options.rounds, seconds=options.seconds):
            timings.append(timing)
            print(line(timing), flush=True)
    if options.json:
        report = {"machine": dataclasses.asdict(machine), "kernels": [dataclasses.asdict(timing) for timing in timings]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
