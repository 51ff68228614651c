"""Times single kernels in their default configs: how much of the machine's peak does untuned code reach?

``python -m mlc.benchmarks.kernels [name part ...]`` prints one line for each kernel: its rate, and its share of the peak that binds
it (arithmetic, or memory bandwidth where moving the operands takes longer). ``--json`` writes the same as a file.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..codegen.build import PACKAGE, compile_kernel, link_library
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..codegen.template import Template
from ..codegen.templates.conv import ConvTemplate
from ..codegen.templates.depthwise import DepthwiseTemplate
from ..codegen.templates.matmul import MatmulTemplate
from ..ir import DType, Graph, GraphBuilder, Layout, TensorType, graph_cost, interpret
from .machine import Machine, measure

_NATIVE = pathlib.Path(__file__).parent / "native"
_RUNTIME = PACKAGE.parent / "runtime" / "native"
_NHWC = Layout((0, 2, 3, 1))


@dataclass(frozen=True)
class Case:
    """One kernel: a region, and which of its inputs are weights."""

    name: str
    graph: Graph
    constants: frozenset[int]
    template: Template


@dataclass(frozen=True)
class Timing:
    """Median and best seconds of a call; ``bound`` is the least time the machine's peaks allow."""

    name: str
    config: str
    median: float
    best: float
    flops: int
    bytes: int
    bound: float
    error: float | None

    @property
    def share(self) -> float:
        """Of the peak that binds."""
        return self.bound / self.median


def f32(*shape: int, layout: Layout | None = None) -> TensorType:
    return TensorType(DType.FLOAT32, shape, layout)  # type: ignore[arg-type]


def linear(rows: int, columns: int, depth: int) -> Case:
    """A linear layer [rows, depth] -> [rows, columns] with bias."""
    builder = GraphBuilder()
    operands = [builder.input(f32(rows, depth)), builder.input(f32(columns, depth)), builder.input(f32(columns))]
    graph = builder.finish([builder.call("linear", *operands)])
    return Case(f"linear {rows}x{columns}x{depth}", graph, frozenset({1, 2}), MatmulTemplate())


def batched(batch: int, rows: int, columns: int, depth: int) -> Case:
    """A batched matrix product whose operands are both computed."""
    builder = GraphBuilder()
    operands = [builder.input(f32(batch, rows, depth)), builder.input(f32(batch, depth, columns))]
    graph = builder.finish([builder.call("matmul", *operands)])
    return Case(f"matmul {batch}x{rows}x{columns}x{depth}", graph, frozenset(), MatmulTemplate())


def depthwise(channels: int, size: int, window: int, stride: int = 1) -> Case:
    """A depthwise convolution [1, channels, size, size] with bias and relu6."""
    return convolution(channels, channels, size, window, stride, groups=channels)


def convolution(channels: int, outputs: int, size: int, window: int, stride: int = 1, *, residual: bool = False, groups: int = 1) -> Case:
    """A convolution [1, channels, size, size] with bias and relu, as residual networks have it: channels last, except an image."""
    pad = (window - 1) // 2
    attributes = {"stride": (stride, stride), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "groups": groups}
    extent = (size + 2 * pad - window) // stride + 1
    result = f32(1, outputs, extent, extent, layout=_NHWC)
    builder = GraphBuilder()
    x = builder.input(f32(1, channels, size, size, layout=None if channels == 3 else _NHWC))
    weight, bias = builder.input(f32(outputs, channels // groups, window, window)), builder.input(f32(outputs))
    y = builder.add("conv", x, weight, bias, attributes=attributes, types=[result]).output
    if residual:
        y = builder.call("add", y, builder.input(result))
    activated = builder.call("relu", y) if groups == 1 else builder.call("clamp", y, min=0.0, max=6.0)
    graph = builder.finish([activated])
    kind = "conv" if groups == 1 else "depthwise"
    template = ConvTemplate() if groups == 1 else DepthwiseTemplate()
    name = f"{kind} {window}x{window}{f'/{stride}' if stride > 1 else ''} {channels}->{outputs} {size}x{size}{' +' if residual else ''}"
    return Case(name, graph, frozenset({1, 2}), template)


def residual_network() -> list[Case]:
    """The convolutions of ResNet-50."""
    found = [convolution(3, 64, 224, 7, 2)]
    channels, size = 64, 56
    for stage in range(4):
        width, stride = 64 << stage, 1 if stage == 0 else 2
        found += [convolution(channels, width, size, 1), convolution(width, width, size, 3, stride)]
        found.append(convolution(channels, 4 * width, size, 1, stride))
        channels, size = 4 * width, size // stride
        found += [convolution(width, channels, size, 1, residual=True), convolution(channels, width, size, 1)]
        found.append(convolution(width, width, size, 3))
    return found


def cases() -> list[Case]:
    """The kernels of the benchmark models."""
    return [
        *(linear(128, columns, depth) for columns, depth in ((768, 768), (3072, 768), (768, 3072), (2304, 768))),
        linear(1024, 1024, 1024),
        linear(197, 768, 768),
        linear(128, 50257, 768),
        linear(128, 2816, 1024),
        linear(32, 1024, 784),
        linear(32, 1024, 1024),
        linear(32, 10, 1024),
        linear(1, 2816, 1024),
        linear(1, 1024, 2816),
        linear(1, 32000, 1024),
        linear(1, 1000, 2048),
        linear(4, 4096, 4096),
        batched(12, 128, 128, 64),
        batched(12, 128, 64, 128),
        convolution(256, 512, 14, 1),
        *residual_network(),
        *(depthwise(*shape) for shape in ((32, 112, 3), (96, 112, 3, 2), (144, 56, 3), (192, 28, 3), (384, 14, 3), (960, 7, 3))),
    ]


class Bench:
    """A compiled kernel with random operands."""

    def __init__(self, case: Case, target: Target, config: Config | None = None) -> None:
        self.case = case
        self.task = Task(case.graph, case.constants, target, target.threads)
        self.config = config or case.template.space(self.task).default
        key = f"{self.task.key}|{self.config}|{case.template.revision}"
        kernel = compile_kernel(key, target, lambda: case.template.lower(self.task, self.config))
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-bench-")
        self._function = self._load(kernel.symbol, kernel.object, kernel.workspace_bytes)
        generator = np.random.default_rng(0)
        self._inputs = [generator.standard_normal(value.tensor.static_shape, np.float32) for value in case.graph.inputs]
        layouts = [kernel.constant_layouts.get(position, value.tensor.layout) for position, value in enumerate(case.graph.inputs)]
        stored = [_aligned(layout.pack(array)) for layout, array in zip(layouts, self._inputs, strict=True)]
        self._outputs = [_aligned(np.full(value.tensor.physical_shape, np.nan, np.float32)) for value in case.graph.outputs]
        workspace = [_aligned(np.empty(kernel.workspace_bytes // 4, np.float32))] if kernel.workspace_bytes else []
        self._arrays = [*stored, *self._outputs, *workspace]

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
        pointers = (ctypes.c_void_p * len(self._arrays))(*(array.ctypes.data for array in self._arrays))
        seconds = (ctypes.c_double * count)()
        code = self._function(pointers, self.task.threads, warmup, count, seconds)
        if code:
            raise RuntimeError(f"kernel {self.case.name} failed with code {code}")
        return list(seconds)

    def error(self) -> float:
        """Norm-wise relative error of the last call against float64."""
        worst = 0.0
        expected = interpret(self.case.graph, self._inputs, wide=True)
        for value, got, want in zip(self.case.graph.outputs, self._outputs, expected, strict=True):
            logical = value.tensor.layout.unpack(got, value.tensor.static_shape)
            worst = max(worst, float(np.linalg.norm(logical - want) / np.linalg.norm(want)))
        return worst


def _aligned(array: np.ndarray) -> np.ndarray:
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy


def time_case(case: Case, target: Target, machine: Machine, *, check: bool, seconds: float = 0.4) -> Timing:
    """Times one kernel for about ``seconds``."""
    bench = Bench(case, target)
    first = min(bench.run(3))
    times = bench.run(int(min(max(seconds / first, 5), 2000)))
    cost = graph_cost(case.graph)
    size = sum(value.tensor.nbytes for value in (*case.graph.inputs, *case.graph.outputs))
    bound = max(cost.flops / machine.flops, size / machine.bandwidth)
    error = bench.error() if check else None
    return Timing(case.name, str(bench.config), statistics.median(times), min(times), cost.flops, size, bound, error)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only kernels whose name contains one of these")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each kernel")
    parser.add_argument("--check", action="store_true", help="compare each result with float64 (slow)")
    parser.add_argument("--json", type=pathlib.Path, help="also write the timings to this file")
    options = parser.parse_args(arguments)
    target = Target.parse(options.target)
    machine = measure(target.threads)
    print(machine)
    timings = []
    for case in cases():
        if options.names and not any(name in case.name for name in options.names):
            continue
        timing = time_case(case, target, machine, check=options.check, seconds=options.seconds)
        timings.append(timing)
        rate, bandwidth = timing.flops / timing.median / 1e9, timing.bytes / timing.median / 1e9
        print(
            f"{timing.name:34} {1e6 * timing.median:9.1f} us (best {1e6 * timing.best:9.1f}) {rate:6.0f} GFLOP/s {bandwidth:5.0f} GB/s "
            f"{100 * timing.share:4.0f}% (best {100 * timing.bound / timing.best:4.0f}%)  {timing.config}"
            + (f"  error {timing.error:.1e}" if timing.error is not None else ""),
            flush=True,
        )
    if options.json:
        report = {"machine": dataclasses.asdict(machine), "kernels": [dataclasses.asdict(timing) for timing in timings]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
