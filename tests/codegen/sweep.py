"""Runs elementwise kernels over bit patterns of fp32 numbers and compares them with PyTorch in fp64."""

from __future__ import annotations

import ctypes
import enum
import functools
import pathlib
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from check import region, tensor
from harness import HOST, NativeKernel, aligned
from torch import Tensor

from mlc.codegen.build import link_library
from mlc.codegen.task import Numerics, Task
from mlc.codegen.templates.elementwise import Elementwise

CHUNK = 1 << 14
"""Elements that one call computes; its arrays stay in the second-level cache."""

PATTERNS = 1 << 32
"""Bit patterns of fp32."""

Exact = Callable[..., object]
"""The operation in fp64, as PyTorch's functions are called: (argument, out=result)."""


class Measure(enum.Enum):
    """What an error is counted in: units in the last place of the exact result, or the larger of 1 and the argument's magnitude.

    A NaN where none is due, or none where one is, is an infinite error; infinity counts as 2^128.
    """

    UNITS = "sweep_units"
    RELATIVE_TO_ARGUMENT = "sweep_relative_to_argument"


@dataclass(frozen=True)
class Worst:
    """The largest error, and an argument that has it."""

    error: float
    argument: float


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="mlc-test-") as folder:
        path = pathlib.Path(folder) / "sweep.so"
        functions = [*(measure.value for measure in Measure), "sweep_patterns"]
        link_library([], {"sweep.c": pathlib.Path(__file__).with_name("sweep.c").read_text()}, functions, path)
        library = ctypes.CDLL(str(path))
    for measure in Measure:
        getattr(library, measure.value).restype = ctypes.c_double
    return library


class _Arrays:
    """Argument, result and exact result of a chunk, in memory that is used again and again."""

    def __init__(self) -> None:
        self.x, self.result = aligned((CHUNK,), np.float32, 0), aligned((CHUNK,), np.float32, 0)
        self.wide, self.exact = torch.empty(CHUNK, dtype=torch.float64), torch.empty(CHUNK, dtype=torch.float64)


class Sweep:
    """A kernel of one elementwise operation of fp32 numbers, compiled by the template that programs use."""

    def __init__(self, op: str, exact: Exact, measure: Measure = Measure.UNITS, **attributes: object) -> None:
        graph = region([tensor((CHUNK,))], lambda builder, x: builder.call(op, x, **attributes))
        template = Elementwise()
        task = Task(graph, frozenset(), HOST, 1, Numerics.STRICT)
        self._kernel = NativeKernel(template.lower(task, template.space(task).default).function)
        self._exact, self._measure = exact, getattr(_library(), measure.value)

    def patterns(self, first: int, stop: int, threads: int = 2) -> Worst:
        """The worst error over the bit patterns in [first, stop), both multiples of CHUNK."""
        bounds = [first + (stop - first) // CHUNK * part // (16 * threads) * CHUNK for part in range(16 * threads + 1)]
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                return max(pool.map(self._part, bounds[:-1], bounds[1:]), key=lambda worst: worst.error)
        finally:
            torch.set_num_threads(before)

    def sample(self, count: int) -> Worst:
        """The worst error over about ``count`` bit patterns, evenly spread with an odd step."""
        return self._part(0, PATTERNS, PATTERNS // count | 1)

    def numbers(self, x: np.ndarray) -> Worst:
        """The worst error over the fp32 numbers of ``x``."""
        arrays, worst = _Arrays(), Worst(-1.0, 0.0)
        for row in np.resize(x.astype(np.float32), (-(-x.size // CHUNK), CHUNK)):
            arrays.x[:] = row
            worst = max(worst, self._chunk(arrays), key=lambda worst: worst.error)
        return worst

    def results(self, x: Tensor) -> Tensor:
        """The kernel's results for CHUNK numbers at most."""
        arrays = _Arrays()
        arrays.x[: len(x)] = x.numpy()
        self._kernel(arrays.x, arrays.result)
        return torch.from_numpy(arrays.result[: len(x)])

    def _part(self, first: int, stop: int, step: int = 1) -> Worst:
        arrays, worst, patterns = _Arrays(), Worst(-1.0, 0.0), _library().sweep_patterns
        for start in range(first, stop, step * CHUNK):
            patterns(ctypes.c_uint32(start), ctypes.c_uint32(step), CHUNK, ctypes.c_void_p(arrays.x.ctypes.data))
            worst = max(worst, self._chunk(arrays), key=lambda worst: worst.error)
        return worst

    def _chunk(self, arrays: _Arrays) -> Worst:
        self._kernel(arrays.x, arrays.result)
        arrays.wide.copy_(torch.from_numpy(arrays.x))
        self._exact(arrays.wide, out=arrays.exact)
        pointers = (arrays.x.ctypes.data, arrays.result.ctypes.data, arrays.exact.data_ptr())
        where = ctypes.c_int32()
        error = self._measure(*(ctypes.c_void_p(pointer) for pointer in pointers), CHUNK, ctypes.byref(where))
        return Worst(error, float(arrays.x[where.value]))
