"""Runs elementwise kernels over bit patterns of fp32 numbers and compares them with PyTorch in fp64."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from check import region, tensor
from harness import HOST, NativeKernel, aligned
from torch import Tensor

from mlc.codegen.task import Numerics, Task
from mlc.codegen.templates.elementwise import Elementwise

CHUNK = 1 << 15
"""Elements that one call computes; its arrays stay in the second-level cache."""

PATTERNS = 1 << 32
"""Bit patterns of fp32."""

Reference = Callable[[Tensor], Tensor]
Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(argument, result, exact result), all in fp64, to the error of each element; NaN where only one of the results is NaN."""


@dataclass(frozen=True)
class Worst:
    """The largest error, and an argument that has it."""

    error: float
    argument: float


def units(x: Tensor, result: Tensor, exact: Tensor) -> Tensor:
    """The error in units of the last place of the exact result rounded to fp32. Infinity counts as 2^128."""
    size = exact.float().view(torch.int32) & 0x7F800000
    # A unit of subnormal numbers is that of the smallest normal ones; beyond the largest number one of the largest.
    unit = size.clamp_(0x00800000, 0x7F000000).view(torch.float32).double().mul_(2.0**-23)
    return _difference(result.clamp(-(2.0**128), 2.0**128), exact.clamp(-(2.0**128), 2.0**128)).div_(unit)


def relative_to_argument(x: Tensor, result: Tensor, exact: Tensor) -> Tensor:
    """The absolute error over max(1, |x|). Results beyond fp32 count as 2^128."""
    difference = _difference(result.clamp(-(2.0**128), 2.0**128), exact.clamp(-(2.0**128), 2.0**128))
    return difference.div_(x.abs().clamp_(1.0, 2.0**128).nan_to_num_(1.0))


def _difference(result: Tensor, exact: Tensor) -> Tensor:
    """|result - exact|: 0 where both are NaN, infinity where one is."""
    difference = (result - exact).abs_()
    missing = result.isnan()
    difference.masked_fill_(missing, 0.0)
    return difference.masked_fill_(missing ^ exact.isnan(), math.inf)


class Sweep:
    """A kernel of one elementwise operation of fp32 numbers, compiled by the template that programs use.

    ``exact`` is the operation in fp64.
    """

    def __init__(self, op: str, exact: Reference, measure: Measure = units, **attributes: object) -> None:
        graph = region([tensor((CHUNK,))], lambda builder, x: builder.call(op, x, **attributes))
        template = Elementwise()
        task = Task(graph, frozenset(), HOST, 1, Numerics.STRICT)
        self._kernel = NativeKernel(template.lower(task, template.space(task).default).function)
        self._exact, self._measure = exact, measure

    def patterns(self, first: int, stop: int, threads: int = 2) -> Worst:
        """The worst error over the bit patterns in [first, stop), whose number is a multiple of CHUNK."""
        assert (stop - first) % CHUNK == 0
        bounds = np.linspace(first // CHUNK, stop // CHUNK, 8 * threads + 1).astype(int) * CHUNK + first % CHUNK
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                return max(pool.map(self._part, bounds[:-1], bounds[1:]), key=lambda worst: worst.error)
        finally:
            torch.set_num_threads(before)

    def sample(self, count: int) -> Worst:
        """The worst error over about ``count`` bit patterns, evenly spread with an odd step."""
        step = PATTERNS // count | 1
        return max((self._chunk(_wrapped(start, step)) for start in range(0, PATTERNS, step * CHUNK)), key=lambda worst: worst.error)

    def numbers(self, x: np.ndarray) -> Worst:
        """The worst error over the fp32 numbers of ``x``."""
        padded = np.resize(x.astype(np.float32), -(-x.size // CHUNK) * CHUNK).reshape(-1, CHUNK)
        return max((self._chunk(row.view(np.int32)) for row in padded), key=lambda worst: worst.error)

    def results(self, x: Tensor) -> Tensor:
        """The kernel's results for CHUNK numbers at most."""
        source, result = aligned((CHUNK,), np.float32, 0), aligned((CHUNK,), np.float32, 0xFF)
        source[: len(x)] = x.numpy()
        self._kernel(source, result)
        return torch.from_numpy(result[: len(x)])

    def _part(self, first: int, stop: int) -> Worst:
        starts = range(first, stop, CHUNK)
        return max((self._chunk(_wrapped(start, 1)) for start in starts), key=lambda worst: worst.error, default=Worst(0, 0))

    def _chunk(self, bits: np.ndarray) -> Worst:
        source, result = aligned((CHUNK,), np.float32), aligned((CHUNK,), np.float32, 0xFF)
        source[:] = bits.view(np.float32)
        self._kernel(source, result)
        x = torch.from_numpy(source).double()
        errors = self._measure(x, torch.from_numpy(result).double(), self._exact(x))
        worst = int(errors.argmax())
        return Worst(float(errors[worst]), float(source[worst]))


def _wrapped(start: int, step: int) -> np.ndarray:
    """CHUNK bit patterns from ``start`` on, modulo 2^32."""
    return np.arange(start, start + CHUNK * step, step, dtype=np.int64).astype(np.uint32).view(np.int32)
