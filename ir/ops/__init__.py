"""The operations of the IR, each defined once; importing this package registers them all."""

from . import (
    bitcast,
    contraction,
    control,
    elementwise,
    grouped,
    indexing,
    movement,
    reduction,
    scatter,
    special,
    state,
    structure,
    structured,
    update,
    window,
)
from .definition import REQUIRED, Attributes, Cost, Op, Trait, lookup, register, registry
from .structure import FUSION

__all__ = [
    "FUSION",
    "REQUIRED",
    "Attributes",
    "Cost",
    "Op",
    "Trait",
    "bitcast",
    "contraction",
    "control",
    "elementwise",
    "grouped",
    "indexing",
    "lookup",
    "movement",
    "reduction",
    "register",
    "registry",
    "scatter",
    "special",
    "state",
    "structure",
    "structured",
    "update",
    "window",
]
