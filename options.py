"""How a model is to be compiled: the arguments of :func:`mlc.compile` and its kin, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .calibration import Samples
from .codegen.precision import FP32_THROUGHOUT, Precision
from .codegen.target import Target
from .codegen.task import Numerics
from .errors import OptionError

if TYPE_CHECKING:
    from .autotune.choose import Records
    from .codegen.assembly import Progress
    from .passes import Pipeline
    from .passes.instruments import Instrument


@dataclass(frozen=True)
class Options:
    """How a model is to be compiled, after the arguments of :func:`mlc.compile` were checked.

    ``strict`` makes operations that PyTorch would have to run an error. ``pipeline`` None is the target's default one. ``instruments``
    watch every pass. ``sparsity`` leaves out zeros in weights where that pays.
    """

    target: Target
    threads: int
    numerics: Numerics = Numerics.FAST
    precision: Precision = FP32_THROUGHOUT
    calibration: Samples = ()
    database: Path | Records | None = None
    strict: bool = False
    pipeline: Pipeline | None = None
    instruments: tuple[Instrument, ...] = ()
    progress: Progress | None = None
    sparsity: bool = True


def check_options(
    *,
    target: str | Target = "cpu",
    threads: int | None = None,
    nonfinite: str = "fast",
    database: str | os.PathLike[str] | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    precision: str | Mapping[str, str] = "fp32",
    calibration: Samples = (),
    sparsity: str | None = "auto",
) -> Options:
    """The options of a compilation; OptionError or TargetError for a value that makes no sense."""
    facts = target if isinstance(target, Target) else Target.parse(target)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise OptionError(f"threads={threads!r}: give a whole number of at least 1, or leave it out to use all {facts.threads} cores")
    try:
        numerics = Numerics(nonfinite)
    except ValueError:
        raise OptionError(f"nonfinite={nonfinite!r} is unknown; use 'fast' or 'strict'") from None
    if sparsity not in ("auto", "off", None):
        raise OptionError(f"sparsity={sparsity!r} is unknown; use 'auto', or 'off' (None) to compute with zeros as with other numbers")
    return Options(
        facts,
        threads or facts.threads,
        numerics,
        Precision.of(precision),
        calibration,
        Path(database) if database is not None else None,
        strict,
        progress=progress,
        sparsity=sparsity == "auto",
    )
