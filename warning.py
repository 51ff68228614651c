"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from .errors import FallbackWarning
from .runtime.report import FallbackReport

_OURS = __name__.rpartition(".")[0]


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns about the innermost line that is neither mlc's nor torch's."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (_OURS, "torch", "contextlib"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def warn_fallback(name: str, fallback: Sequence[FallbackReport]) -> None:
    """Lists what PyTorch runs of a model."""
    text = "these operations of the model run in PyTorch, between the parts that are compiled; strict=True makes that an error"
    warn("\n".join([f"{name}: {text}:", *(f"  {line}" for each in fallback for line in str(each).splitlines())]), FallbackWarning)
