"""Which executable runs a program: what its target names decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..ir.program import Program
from .cuda import CudaExecutable
from .executable import Executable

_BY_KIND: dict[str, type[Executable]] = {"cuda": CudaExecutable}
"""By the first word of a target's text; others run on the processor."""


def executable_for(program: Program, library: str | Path, weights: Any = None, *, threads: int | None = None) -> Executable:
    """The executable of ``program``, see :class:`Executable`."""
    return _BY_KIND.get(program.target.partition(" ")[0], Executable)(program, library, weights, threads=threads)
