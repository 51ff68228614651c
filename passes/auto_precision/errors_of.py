"""The error of a model's results against those in fp32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def relative_error(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The worst of all outputs: the norm of the difference over that of what is expected, or for integers and booleans the share of
    elements that differ. Infinite where a result is not finite and should be."""
    return max((_error(np.asarray(result), np.asarray(right)) for result, right in zip(results, expected, strict=True)), default=0.0)


def _error(result: np.ndarray, expected: np.ndarray) -> float:
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind in "biu":
        return float(np.mean(result != expected))
    wide, right = result.astype(np.float64), expected.astype(np.float64)
    same = (wide == right) | (np.isnan(wide) & np.isnan(right))
    # Elements that agree count as zero, so that infinities in the right places (masks) are no error.
    difference = _norm(np.where(same, 0.0, wide) - np.where(same, 0.0, right))
    if difference == 0.0:
        return 0.0
    size = _norm(np.where(np.isfinite(right), right, 0.0))
    error = difference / size if size > 0.0 else math.inf
    return error if math.isfinite(error) else math.inf


def _norm(array: np.ndarray) -> float:
    """Not by BLAS, whose threads would wait for each other on a busy machine."""
    return math.sqrt(float(np.square(array).sum()))
