"""Checks and times products and convolutions of narrow numbers against what the machine's instructions can do.

``python -m mlc.benchmarks.narrow [name part ...]`` prints a line for each kernel, on one thread: the rate of each type (a multiply-add is
two operations), its share of the ceiling of the instructions that its arithmetic uses, measured beside it, and how much faster it is than
fp32. Kernels of a shape are timed in turn, so that what else the machine does hits all types. Results are compared with the NumPy
reference: integers exactly, floats by their norm.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..codegen.target import Target
from ..codegen.task import Task
from ..codegen.template import Template
from ..codegen.templates.arithmetic import Arithmetic, PairsOfBf16, PairsOfInt16, QuadsOfBytes, ShortSums
from ..codegen.templates.conv import ConvTemplate, NarrowConv
from ..codegen.templates.matmul import MatmulTemplate, NarrowMatmul
from ..errors import MeasurementError
from ..ir import DENSE, Constant, DType, Encoding, Graph, GraphBuilder, Layout, TensorType, Value, constant_of, interpret
from ..ir.short_sums import short_sums
from .kernel_cases import Case
from .kernels import Bench

_SOURCE = pathlib.Path(__file__).parent / "native" / "peak_narrow.c"
_NHWC = Layout((0, 2, 3, 1))
_RATES = 3
"""The input of graphs over bytes that says how many codes a sum's unit is."""
_PRODUCT = 255 * 128 / 3
"""The root mean square of products of random bytes, unsigned ones and signed ones."""
_BYTES = 256


@dataclass(frozen=True)
class Kind:
    """Operands and sums of a type of arithmetic; ``sums`` None where they are of the operands' dtype. ``encoding`` is the weight's."""

    name: str
    activation: DType
    weight: DType
    sums: DType | None
    encoding: Encoding = DENSE

    def weight_of(self, *shape: int) -> TensorType:
        """The type of a weight."""
        return TensorType(self.weight, shape).with_encoding(self.encoding)


KINDS = (
    Kind("fp32", DType.FLOAT32, DType.FLOAT32, None),
    Kind("bf16", DType.BFLOAT16, DType.BFLOAT16, DType.FLOAT32),
    Kind("int8", DType.UINT8, DType.INT8, DType.INT32),
    # What passes make of weights for processors that sum bytes in 16 bits; others multiply them as any.
    Kind("int8 short", DType.UINT8, DType.INT8, DType.INT32, short_sums(2)),
)
LINEAR = ((128, 768, 768), (128, 3072, 768), (128, 768, 3072), (1, 4096, 4096))
"""Rows, columns, depth."""
CONVOLUTIONS = ((64, 64, 56, 3), (128, 128, 28, 3), (256, 512, 14, 1), (64, 256, 56, 1), (512, 512, 7, 3))
"""Input channels, outputs, pixels along an axis, window."""


def ceilings() -> Mapping[str, float]:
    """Operations per second of one thread by kind of instruction (see ``native/peak_narrow.c``); MeasurementError without a C compiler."""
    done = subprocess.run([str(_program())], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@functools.cache
def _program() -> pathlib.Path:
    folder = tempfile.mkdtemp(prefix="mlc-peak-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = pathlib.Path(folder) / "peak"
    try:
        subprocess.run(["cc", "-O3", "-march=native", str(_SOURCE), "-o", str(program)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MeasurementError(f"the ceilings cannot be measured: {getattr(error, 'stderr', error)}; install a C compiler") from error
    return program


def linear(kind: Kind, rows: int, columns: int, depth: int) -> Case:
    """A linear layer with bias; of bytes, back to bytes."""
    builder = GraphBuilder()
    operands = [builder.input(TensorType(kind.activation, (rows, depth))), builder.input(kind.weight_of(columns, depth))]
    operands.append(builder.input(TensorType(kind.sums or kind.weight, (columns,))))
    graph = _finished(builder, kind, builder.call("linear", *operands, dtype=kind.sums), (columns,))
    template: Template = MatmulTemplate() if kind.sums is None else NarrowMatmul()
    return _case(f"linear {rows}x{columns}x{depth}", graph, template, rows * columns, depth)


def convolution(kind: Kind, channels: int, outputs: int, size: int, window: int) -> Case:
    """A convolution of an image, channels last, with bias; of bytes, back to bytes."""
    builder = GraphBuilder()
    x = builder.input(TensorType(kind.activation, (1, channels, size, size), _NHWC))
    weight = builder.input(kind.weight_of(outputs, channels, window, window))
    bias = builder.input(TensorType(kind.sums or kind.weight, (outputs,)))
    pad = (window - 1) // 2
    attributes = {"stride": (1, 1), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "dtype": kind.sums}
    result = TensorType(kind.sums or kind.weight, (1, outputs, size, size), _NHWC)
    y = builder.add("conv", x, weight, bias, attributes=attributes, types=[result]).output
    template: Template = ConvTemplate() if kind.sums is None else NarrowConv()
    graph = _finished(builder, kind, y, (outputs, 1, 1))
    name = f"conv {window}x{window} {channels}->{outputs} {size}x{size}"
    return _case(name, graph, template, size * size * outputs, channels * window * window)


def _finished(builder: GraphBuilder, kind: Kind, y: Value, per_output: tuple[int, ...]) -> Graph:
    """With relu; sums of bytes become bytes as ``fold-rates`` leaves it: scales and rates in one, no code below what relu gives."""
    if kind.sums is DType.INT32:
        rate = builder.input(TensorType(DType.FLOAT32, per_output))
        return builder.finish([builder.call("quantise", builder.call("cast", y, dtype=DType.FLOAT32), rate, dtype=DType.UINT8)])
    return builder.finish([builder.call("relu", y)])


def _case(name: str, graph: Graph, template: Template, sums: int, depth: int) -> Case:
    """Of so many ``sums`` of ``depth`` products. Rates are such that the positive ones of random bytes fill the range of bytes."""
    known: dict[int, Constant] = {}
    if len(graph.inputs) > _RATES:
        type = graph.inputs[_RATES].tensor
        spread = 0.5 + np.random.default_rng(1).random(type.static_shape, np.float32)
        known[_RATES] = constant_of(spread * np.float32(_BYTES / 2 / (_PRODUCT * depth**0.5)), type)
    return Case(name, graph, frozenset(range(1, len(graph.inputs))), template, arithmetic=2 * sums * depth, known=known)


def arithmetic_of(case: Case, target: Target) -> Arithmetic:
    """What a kernel multiplies by."""
    template = case.template
    assert isinstance(template, MatmulTemplate | ConvTemplate)
    task = Task(case.graph, case.constants, target, 1)
    region = template.find(task.graph)
    assert region is not None
    return template.arithmetic(task, region)


def _ceiling(arithmetic: Arithmetic) -> str:
    """The entry of :func:`ceilings` that bounds an arithmetic."""
    if isinstance(arithmetic, ShortSums):
        return f"short{arithmetic.steps}"
    for kind, name in ((QuadsOfBytes, "bytes"), (PairsOfInt16, "pairs"), (PairsOfBf16, "bf16")):
        if isinstance(arithmetic, kind):
            return name
    return "fp32"


def _is_right(bench: Bench) -> str:
    expected = interpret(bench.case.graph, bench.inputs)
    for value, got, want in zip(bench.case.graph.outputs, bench.results(), expected, strict=True):
        if not value.tensor.dtype.is_float and not np.array_equal(got, want):
            return "WRONG"
        error = float(np.linalg.norm(got.astype(np.float64) - want)) / float(np.linalg.norm(want.astype(np.float64)))
        if error > 1e-5:
            return f"WRONG by {error:.0e}"
    return "right"


def time_shape(cases: Mapping[str, Case], target: Target, rounds: int, calls: int) -> None:
    """Prints a line for each type of a shape."""
    benches = {name: Bench(case, target) for name, case in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in benches}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        for name, rate in ceilings().items():
            peaks[name] = max(peaks.get(name, 0.0), rate)
        for name, bench in benches.items():
            seconds[name] += bench.run(calls, warmup=1)
    for name, bench in benches.items():
        median, best = statistics.median(seconds[name]), min(seconds[name])
        bound = _ceiling(arithmetic_of(bench.case, target))
        print(
            f"{bench.case.name:28} {name:10} {bench.case.flops / median / 1e9:7.0f} Gop/s (best {bench.case.flops / best / 1e9:5.0f})  "
            f"{bench.case.flops / best / peaks[bound]:4.0%} of {bound}  {min(seconds['fp32']) / best:5.2f}x fp32  {_is_right(bench)}  "
            f"{bench.config}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only kernels whose name contains one of these")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5, help="of each kernel in a round")
    options = parser.parse_args(arguments)
    target = Target.parse("cpu -threads=1")
    print(f"{target}: " + ", ".join(f"{name} {rate / 1e9:.0f} Gop/s" for name, rate in ceilings().items() if rate))
    shapes = [{kind.name: linear(kind, *shape) for kind in KINDS} for shape in LINEAR]
    shapes += [{kind.name: convolution(kind, *shape) for kind in KINDS} for shape in CONVOLUTIONS]
    for cases in shapes:
        if not options.names or any(part in cases["fp32"].name for part in options.names):
            time_shape(cases, target, options.rounds, options.calls)


if __name__ == "__main__":
    main()
