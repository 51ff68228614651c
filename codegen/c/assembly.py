"""From the steps of a program and its kernels to the C sources that stand in the place of a native library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ir.program import Footprint, Signature, Step
from ..build import CompiledKernel
from ..target import Target
from ..template import LoweredKernel
from .footprint import footprint, require_capacity
from .kernel import CKernel, kernel_source
from .program import program_sources


def compile_source(lowered: LoweredKernel, symbol: str) -> CompiledKernel:
    """The kernel as C, in the place of an object file."""
    source = kernel_source(lowered.function, symbol, lowered.workspace_bytes)
    return CompiledKernel(symbol, source.encode(), dict(lowered.constant_layouts), source.workspace_bytes)


def assemble_sources(
    steps: Sequence[Step], kernels: Mapping[str, CompiledKernel], arena_bytes: int, signature: Signature, target: Target
) -> tuple[bytes, Footprint]:
    """The encoded sources of the program, and what it takes up; CapacityError when that is more than ``target`` has."""
    decoded = {symbol: CKernel.decode(kernel.object) for symbol, kernel in kernels.items()}
    sources = program_sources(steps, decoded, arena_bytes, signature, str(target))
    needed = footprint(sources, decoded, arena_bytes, signature, target)
    require_capacity(needed, target)
    return sources.encode(), needed
