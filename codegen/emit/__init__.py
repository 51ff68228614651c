"""Emission of loop nests as TIR: statements, index arithmetic, vector mathematics, and the evaluator for fused operations."""

from .access import flatten, layout_offset, physical_offset, unflatten
from .emitter import CACHE_LINE, INDEX, PARALLEL, SERIAL, UNROLLED, VECTORIZED, Emitter, Expr, bytes_of, index, ramp, spread
from .evaluate import Evaluator, Substitute, pulls
from .extent import extent_of, is_dim
from .kernel import Kernel, compute_dtype, computes, from_storage, storage_dtype, to_storage

__all__ = [
    "CACHE_LINE",
    "INDEX",
    "PARALLEL",
    "SERIAL",
    "UNROLLED",
    "VECTORIZED",
    "Emitter",
    "Evaluator",
    "Expr",
    "Kernel",
    "Substitute",
    "bytes_of",
    "compute_dtype",
    "computes",
    "extent_of",
    "flatten",
    "from_storage",
    "index",
    "is_dim",
    "layout_offset",
    "physical_offset",
    "pulls",
    "ramp",
    "spread",
    "storage_dtype",
    "to_storage",
    "unflatten",
]
