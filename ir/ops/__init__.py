"""The operations of the IR, each defined once; importing this package registers them all."""

from . import contraction, elementwise, indexing, movement, reduction, structure, window
from .definition import REQUIRED, Cost, Op, Trait, lookup, register, registry
from .structure import FUSION

__all__ = [
    "FUSION",
    "REQUIRED",
    "Cost",
    "Op",
    "Trait",
    "contraction",
    "elementwise",
    "indexing",
    "lookup",
    "movement",
    "reduction",
    "register",
    "registry",
    "structure",
    "window",
]
