"""Which executable runs a program: what its target names decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..ir.program import Program
from .executable import Executable


def executable_for(program: Program, library: str | Path, weights: Any = None, *, threads: int | None = None) -> Executable:
    """The executable of ``program``, see :class:`Executable`."""
    # The first word of a target's text; whatever is no device runs on the processor.
    if program.target.partition(" ")[0] == "cuda":
        from .cuda import CudaExecutable

        return CudaExecutable(program, library, weights, threads=threads)
    return Executable(program, library, weights, threads=threads)
