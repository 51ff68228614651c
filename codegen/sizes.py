"""What of a program depends on symbolic dimensions, for its entry to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir import Dim, Extent, Size, SymbolRange, size_of
from .build import CompiledKernel
from .kernels import KernelNode
from .space import Config

MOST_ELEMENTS = 2**31
"""A tensor must have less: kernels compute offsets as 32-bit integers."""


@dataclass(frozen=True)
class SymbolicSizes:
    """``symbols`` in the order of ``dims``; bytes of the ``slots`` of the arena; ``counts`` of elements that must be looked at before
    the call."""

    symbols: tuple[str, ...]
    slots: tuple[Extent, ...] = ()
    counts: tuple[Size, ...] = ()


def parallel_margin(kernel: KernelNode) -> Extent | None:
    """What is negative when a call of a kernel of symbolic size has too little to do for several threads: its results, less as many as
    take that long, scaled from the typical sizes. None: the kernel decides that itself."""
    from .templates.loops import estimated_seconds
    from .templates.tiling import PARALLEL_SECONDS

    task = kernel.task
    if not task.is_symbolic or task.threads == 1:
        return None
    elements: Dim = sum(value.tensor.size for value in kernel.node.outputs)
    typical = sum(value.tensor.elements for value in task.representative.graph.outputs)
    threshold = typical * PARALLEL_SECONDS / max(estimated_seconds(task.representative.graph, task.target), 1e-12)
    return size_of(elements - max(int(min(threshold, 2**62)), 1))


def uncertain_counts(
    kernels: Sequence[KernelNode], compiled: Mapping[str, tuple[Config, CompiledKernel]], symbols: Mapping[str, SymbolRange]
) -> tuple[Size, ...]:
    """Numbers of elements that kernels could not address for the largest sizes."""
    most = {name: bounds.upper for name, bounds in symbols.items()}
    found: dict[Size, None] = {}
    for kernel in kernels:
        workspace = kernel.renamed(compiled[kernel.task.key][1].workspace_bytes)
        dims = [value.tensor.size for value in (*kernel.node.inputs, *kernel.node.outputs)]
        for dim in (*dims, workspace // 4):
            size = size_of(dim)
            if isinstance(size, Size) and not _surely_addressable(size, most):
                found[size] = None
    return tuple(found)


def _surely_addressable(size: Size, most: Mapping[str, int | None]) -> bool:
    bounds = {name: most[name] for name in size.symbols}
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    return len(known) == len(bounds) and size.evaluate(known) < MOST_ELEMENTS
