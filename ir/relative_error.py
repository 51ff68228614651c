"""The one measure of how far results are from what is expected, wherever a tolerance or a report speaks of a relative error."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def relative_error(results: Iterable[np.ndarray], expected: Iterable[np.ndarray]) -> float:
    """The worst of all outputs: ``|result - expected| / |expected|`` in the Euclidean norm, computed in float64.

    Of integers and booleans it is the share of elements that differ. Infinities and NaN where they are expected are no error; anywhere
    else they are an infinite one, and so is anything but zero where all that is expected is zero. ValueError unless there are as many
    results as are expected.
    """
    return max((_error(np.asarray(result), np.asarray(right)) for result, right in zip(results, expected, strict=True)), default=0.0)


def _error(result: np.ndarray, expected: np.ndarray) -> float:
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind in "biu":
        return float(np.mean(result != expected))
    dtype = np.complex128 if expected.dtype.kind == "c" else np.float64
    wide, right = result.astype(dtype), expected.astype(dtype)
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
    return math.sqrt(float(np.square(np.abs(array)).sum()))
