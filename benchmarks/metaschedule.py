"""TVM's own tuner as a peer: MetaSchedule on a few workloads, with weights in whatever layout it likes best."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import math
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import te, topi
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule

from ..codegen.target import Target
from .kernel_cases import Case, convolution, linear, rowwise

_PER_ITERATION = 32
"""Candidates that are measured before the model is trained anew."""
_REPEATS = 5


@dataclass(frozen=True)
class Workload:
    """The same computation twice: ours, and as MetaSchedule takes it. ``weight`` is the position of the argument whose layout is free."""

    case: Case
    function: Any
    weight: int | None


@dataclass(frozen=True)
class Found:
    """What a search has found after ``trials`` measurements and ``elapsed`` seconds: a kernel, to be timed beside others."""

    trials: int
    elapsed: float
    kernel: Any
    arguments: tuple[Any, ...]

    def seconds(self) -> float:
        """Median seconds of a call."""
        timed = self.kernel.time_evaluator("main", tvm.cpu(), number=1, repeat=_REPEATS, min_repeat_ms=20)(*self.arguments)
        return float(statistics.median(timed.results))


def matmul_workload(rows: int, columns: int, depth: int) -> Workload:
    """A linear layer with bias."""
    x, weight = te.placeholder((rows, depth), name="x"), te.placeholder((depth, columns), name="weight")
    bias = te.placeholder((columns,), name="bias")
    k = te.reduce_axis((0, depth), name="k")
    product = te.compute((rows, columns), lambda i, j: te.sum(x[i, k] * weight[k, j], axis=k), name="product")
    result = te.compute((rows, columns), lambda i, j: product[i, j] + bias[j], name="result")
    return Workload(linear(rows, columns, depth), _function([x, weight, bias, result], 1), 1)


def convolution_workload(channels: int, outputs: int, size: int, window: int, stride: int = 1) -> Workload:
    """A convolution of one image, channels last, with bias and relu."""
    pad = (window - 1) // 2
    x, weight = te.placeholder((1, size, size, channels), name="x"), te.placeholder((window, window, channels, outputs), name="weight")
    bias = te.placeholder((outputs,), name="bias")
    product = topi.nn.conv2d_nhwc(x, weight, stride, pad, 1, out_dtype="float32")
    result = te.compute(product.shape, lambda n, y, i, c: te.max(product[n, y, i, c] + bias[c], 0.0), name="result")
    return Workload(convolution(channels, outputs, size, window, stride), _function([x, weight, bias, result], 1), 1)


def softmax_workload(rows: int, width: int) -> Workload:
    """A softmax over the innermost axis."""
    x = te.placeholder((rows, width), name="x")
    return Workload(rowwise("softmax", rows, width), _function([x, topi.nn.softmax(x)], None), None)


def workloads() -> Sequence[Workload]:
    """Two matrix products, three convolutions, a softmax."""
    return (
        matmul_workload(128, 768, 768),
        matmul_workload(1024, 1024, 1024),
        convolution_workload(64, 64, 56, 3),
        convolution_workload(256, 512, 14, 1),
        convolution_workload(128, 128, 56, 3, 2),
        softmax_workload(1536, 512),
    )


def _function(tensors: Sequence[Any], weight: int | None) -> Any:
    function = te.create_prim_func(tensors)
    return function if weight is None else function.with_attr("layout_free_buffers", [weight])


class _OutOfTime(RuntimeError):
    """Ends a search from within."""


@derived_object
class _Watch(meta_schedule.measure_callback.PyMeasureCallback):  # type: ignore[misc]
    """Notes when each batch was measured, and what came of its candidates; ends the search at the first batch after ``limit`` seconds."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.begin = time.perf_counter()
        self.limit = limit
        self.expired = False
        self.seen: list[tuple[float, float, Any]] = []

    def apply(self, scheduler: Any, task: int, candidates: Any, builds: Any, runs: Any) -> None:
        elapsed = time.perf_counter() - self.begin
        for candidate, run in zip(candidates, runs, strict=True):
            failed = run.run_secs is None
            seconds = math.inf if failed else statistics.fmean(float(value) for value in run.run_secs)
            self.seen.append((elapsed, seconds, candidate.sch.mod))
        if elapsed > self.limit:
            self.expired = True
            raise _OutOfTime

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keeps the end that this brings about from the caller: TVM hands it on as an error of another type."""
        try:
            yield
        except RuntimeError:
            if not self.expired:
                raise


def import_intrinsics() -> None:
    """Imports what a search and each of its build workers would import first of all, so that it does not count as search.

    For each of several hundred intrinsics the import looks up the source of every caller, which takes a minute where many modules are
    loaded, longer than a build may take: none would end in time. It needs the frames alone.
    """

    def stack() -> list[inspect.FrameInfo]:
        frames, frame = [], sys._getframe(1)
        while frame is not None:
            frames.append(inspect.FrameInfo(frame, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None, None))
            frame = frame.f_back  # type: ignore[assignment]
        return frames

    whole = inspect.stack
    inspect.stack = stack  # type: ignore[assignment]
    try:
        importlib.import_module("tvm.s_tir.tensor_intrin")
    finally:
        inspect.stack = whole


def search(workload: Workload, target: Target, trials: Sequence[int], limit: float = math.inf, seed: int = 0) -> list[Found]:
    """The best kernels after so many ``trials`` of one search, the most last; fewer where it took longer than ``limit`` seconds."""
    import_intrinsics()
    watch = _Watch(limit)
    callbacks = [*meta_schedule.MeasureCallback.create("default"), watch]
    described = tvm.target.Target({"kind": "llvm", "mcpu": target.mcpu, "num-cores": target.threads})
    logging.getLogger("tvm").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="mlc-metaschedule-") as folder,
        contextlib.redirect_stdout(io.StringIO()),
        watch.stopped(),
    ):
        meta_schedule.tune_tir(
            workload.function,
            described,
            str(pathlib.Path(folder)),
            trials[-1],
            num_trials_per_iter=_PER_ITERATION,
            builder=meta_schedule.builder.LocalBuilder(max_workers=target.threads, initializer=import_intrinsics),
            measure_callbacks=callbacks,
            num_tuning_cores=target.threads,
            seed=seed + 1,
        )
    found = []
    for count in sorted({min(count, len(watch.seen)) for count in trials}):
        seen = watch.seen[:count]
        elapsed = seen[-1][0]
        module = min(seen, key=lambda measured: measured[1])[2]
        found.append(Found(len(seen), elapsed, tvm.build(module, described), _arguments(module)))
    return found


def _arguments(module: Any) -> tuple[Any, ...]:
    """Random arrays of the shapes of the parameters, of which tuning may have laid out one anew."""
    function = module["main"]
    generator = np.random.default_rng(0)
    shapes = [tuple(int(extent) for extent in parameter.ty.shape) for parameter in function.params]
    return tuple(tvm.runtime.tensor(generator.standard_normal(shape, np.float32)) for shape in shapes)
