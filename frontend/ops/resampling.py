"""Resampling of images and signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch._ops import OpOverload

from ...ir import Value
from ..conversion import Conversion, static
from ..registry import converts
from .pooling import apply_along

aten = torch.ops.aten


def _resample(c: Conversion, x: Value, kind: str, align_corners: bool, scales: Sequence[float | None] | None) -> Value:
    known = tuple(None if scale is None else float(scale) for scale in scales or ())
    size = c.shape[2:]
    return c.call("resample", x, kind=kind, size=size, align_corners=align_corners, scales=known if any(known) else ())


def _nearest_by_factors(c: Conversion, x: Value, size: Sequence[int] | None, factors: Sequence[float] | None) -> Value:
    return _resample(c, x, "nearest", False, factors)


def _nearest_by_size(c: Conversion, x: Value, size: Sequence[int], *scales: float | None) -> Value:
    return _resample(c, x, "nearest", False, scales)


def _linear_by_factors(c: Conversion, x: Value, size: Sequence[int] | None, align_corners: bool, factors: Sequence[float] | None) -> Value:
    return _resample(c, x, "linear", align_corners, factors)


def _linear_by_size(c: Conversion, x: Value, size: Sequence[int], align_corners: bool, *scales: float | None) -> Value:
    return _resample(c, x, "linear", align_corners, scales)


for _packet in (aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d):
    converts(_packet.vec)(_nearest_by_factors)
    converts(_packet.default)(_nearest_by_size)
for _packet in (aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_trilinear3d):
    converts(_packet.vec)(_linear_by_factors)
    converts(_packet.default)(_linear_by_size)


def _separable(operation: OpOverload) -> Callable[..., Value]:
    """A resampling whose weights are fixed and separable: one matrix for each axis, read off PyTorch's own ``operation``."""

    def convert(c: Conversion, x: Value, size: Sequence[int] | None, align_corners: bool, factors: Sequence[float] | None) -> Value:
        for axis in (2, 3):
            extent = static(x.tensor.shape[axis], "a resampled axis")
            count = static(c.shape[axis], "a resampled axis")
            scale = factors[axis - 2] if factors else None
            # Resampling the identity matrix along its second axis only gives the transposed weights.
            unit = torch.eye(extent, dtype=torch.float64)[None, None]
            weights = operation(unit, [extent, count], align_corners, None, scale)[0, 0].T.numpy()
            x = apply_along(c, x, axis, np.ascontiguousarray(weights.astype(c.dtype.numpy)))
        return x

    return convert


converts(aten.upsample_bicubic2d.vec)(_separable(aten.upsample_bicubic2d.default))
converts(aten._upsample_bicubic2d_aa.vec)(_separable(aten._upsample_bicubic2d_aa.default))
converts(aten._upsample_bilinear2d_aa.vec)(_separable(aten._upsample_bilinear2d_aa.default))
