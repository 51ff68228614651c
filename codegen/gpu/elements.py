"""Kernels that compute each element by itself: positions in memory shared among threads so that neighbours are read together."""

from __future__ import annotations

from collections.abc import Callable

from ...ir import TensorType
from ..emit import UNROLLED, Expr, unflatten
from ..emit.access import indices_of_physical
from ..space import Config, Space
from ..task import Task
from .kernel import GpuKernel

THREADS = (128, 256, 512)
PER_THREAD = (1, 2, 4, 8)


def element_space(template: str, task: Task, count: int, work: float = 1.0) -> Space:
    """Knobs ``threads`` of a block and results ``per_thread``. The default keeps several loads of a thread in flight once there are
    enough blocks to fill the device; ``work`` is how many loads a result takes."""
    wanted = 8 * task.target.threads
    per_thread = max((size for size in PER_THREAD if size * work <= 4 and count >= 256 * size * wanted), default=1)
    default = Config.of(template, {"per_thread": per_thread, "threads": 256})
    return Space(template, (("per_thread", PER_THREAD), ("threads", THREADS)), default)


def blocks_for(count: int, config: Config) -> int:
    """Blocks that ``count`` results take."""
    return max(-(-count // (config["threads"] * config["per_thread"])), 1)


def each_element(kernel: GpuKernel, count: int, per_thread: int, body: Callable[[Expr], None]) -> None:
    """Runs ``body(position)`` for positions below ``count``, ``per_thread`` in each thread; neighbouring threads take neighbours.

    The grid may be larger than it need be.
    """
    emitter = kernel.emitter
    with emitter.loop(per_thread, UNROLLED, "part") as part:
        position = (kernel.block * per_thread + part) * kernel.threads + kernel.thread
        if kernel.blocks * per_thread * kernel.threads == count:
            body(kernel.bounded(position, count, "position"))
            return
        with emitter.when(position < count):
            body(kernel.bounded(position, count, "position"))


def physical_indices(kernel: GpuKernel, type: TensorType, position: Expr) -> list[Expr]:
    """The logical indices of the element at ``position`` in the memory of an unblocked ``type``."""
    return indices_of_physical(kernel.emitter, type, unflatten(kernel.emitter, type.physical_shape, position))
