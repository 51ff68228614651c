"""mlc: compiles PyTorch models to tuned native code.

Names are imported when they are first used, so that ``import mlc`` is quick and a process that only loads and runs programs imports
neither torch nor TVM.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .collection import collection_paused
from .errors import (
    ArtifactError,
    BuildError,
    CapacityError,
    DeviceUnavailableError,
    Error,
    ExportError,
    FallbackWarning,
    KernelError,
    LoweringError,
    PrecisionWarning,
    SignatureError,
    TargetError,
    UnsupportedOpError,
)

if TYPE_CHECKING:
    from .compression import compress
    from .driver import compile, estimate
    from .module import CompiledModel
    from .pruning import prune
    from .runtime import LoadedModel, load
    from .tuning import ModelToTune, TuningOptions, tune, tune_models

__version__ = "0.1.0"

_HOMES = {
    "CompiledModel": ".module",
    "LoadedModel": ".runtime",
    "ModelToTune": ".tuning",
    "TuningOptions": ".tuning",
    "compile": ".driver",
    "compress": ".compression",
    "estimate": ".driver",
    "load": ".runtime",
    "prune": ".pruning",
    "tune": ".tuning",
    "tune_models": ".tuning",
}
"""Public names and the modules they live in."""

__all__ = [
    "ArtifactError",
    "BuildError",
    "CapacityError",
    "CompiledModel",
    "DeviceUnavailableError",
    "Error",
    "ExportError",
    "FallbackWarning",
    "KernelError",
    "LoadedModel",
    "LoweringError",
    "ModelToTune",
    "PrecisionWarning",
    "SignatureError",
    "TargetError",
    "TuningOptions",
    "UnsupportedOpError",
    "__version__",
    "compile",
    "compress",
    "estimate",
    "load",
    "prune",
    "tune",
    "tune_models",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mlc' has no attribute '{name}'")
    with collection_paused():
        value = getattr(importlib.import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
