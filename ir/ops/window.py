"""Pooling and resampling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..types import Kind, TensorType
from .attributes import BOOL, COUNTS, NONZERO, POSITIVES, SCALES, choice
from .contraction import convolved_extent, require_window
from .definition import REQUIRED, Attributes, Op, Trait, elements_written, register, require


def _infer_window(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    window = attributes["window"]
    spatial = len(window)
    require(
        attributes["kind"] in ("max", "mean"),
        "window_reduce",
        f"unknown kind '{attributes['kind']}' (known: max, mean)",
    )
    require(
        x.rank == spatial + 2,
        "window_reduce",
        f"a window of {spatial} axes needs rank {spatial + 2}, got {list(x.shape)}",
    )
    mean = attributes["kind"] == "mean"
    require(
        x.dtype.kind in ((Kind.FLOAT,) if mean else (Kind.INTEGER, Kind.FLOAT)),
        "window_reduce",
        f"{attributes['kind']} does not take {x.dtype.text}",
    )
    uncounted = attributes["uncounted"]
    require(
        len(uncounted) in (0, spatial) and all(count <= high for count, (_, high) in zip(uncounted, attributes["padding"], strict=False)),
        "window_reduce",
        f"uncounted {uncounted} must give, for each of {spatial} axes, no more than the high padding {attributes['padding']}",
    )
    for name in ("stride", "padding", "dilation"):
        require(len(attributes[name]) == spatial, "window_reduce", f"{name} {attributes[name]} needs {spatial} entries")
    extents = [
        convolved_extent(x.shape[2 + i], window[i], attributes["stride"][i], attributes["padding"][i], attributes["dilation"][i])
        for i in range(spatial)
    ]
    require_window("window_reduce", x, extents, window)
    return x.with_shape((*x.shape[:2], *extents))


def _window_reduce(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (x,) = inputs
    window, stride, padding, dilation = (attributes[name] for name in ("window", "stride", "padding", "dilation"))
    largest = attributes["kind"] == "max"
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    pads = [(0, 0), (0, 0), *padding]
    padded = np.pad(x, pads, constant_values=lowest if largest else 0)
    # Positions that count in a mean: real ones, and padding up to the given counted amount.
    counted = [pad if attributes["count_include_pad"] else (0, 0) for pad in padding]
    ones = np.pad(np.ones(x.shape[2:]), counted, constant_values=1)
    ones = np.pad(ones, [(p[0] - c[0], p[1] - c[1]) for p, c in zip(padding, counted, strict=True)])
    if attributes["count_include_pad"] and attributes["uncounted"]:
        for axis, high in enumerate(attributes["uncounted"]):
            if high:
                index = [slice(None)] * len(window)
                index[axis] = slice(ones.shape[axis] - high, None)
                ones[tuple(index)] = 0
    extents = [int(convolved_extent(padded.shape[2 + i], window[i], stride[i], (0, 0), dilation[i])) for i in range(len(window))]
    result: np.ndarray | None = None
    count = np.zeros(extents)
    for offset in itertools.product(*(range(size) for size in window)):
        index = [slice(o * d, o * d + (e - 1) * s + 1, s) for o, d, e, s in zip(offset, dilation, extents, stride, strict=True)]
        part = padded[(slice(None), slice(None), *index)]
        count += ones[tuple(index)]
        result = part if result is None else np.maximum(result, part) if largest else result + part
    assert result is not None
    if largest:
        return result
    return result / (attributes["divisor"] or count)


register(
    Op(
        "window_reduce",
        ("x",),
        _infer_window,
        _window_reduce,
        lambda inputs, attributes, outputs: outputs[0].elements * math.prod(attributes["window"]),
        {
            "kind": REQUIRED,
            "window": REQUIRED,
            "stride": REQUIRED,
            "padding": REQUIRED,
            "dilation": REQUIRED,
            "count_include_pad": True,
            "uncounted": (),
            "divisor": None,
        },
        frozenset({Trait.REDUCTION}),
        kinds={"kind": choice("max", "mean"), "count_include_pad": BOOL, "uncounted": COUNTS, "divisor": NONZERO.or_none()},
        doc="max or mean over sliding windows of the spatial axes of x [N, C, spatial...]. Padding, a (low, high) pair per axis, never "
        "wins a max; a mean divides by `divisor`, else by the positions in the window that are real or, with count_include_pad, "
        "padding (`uncounted`: how many of the high padding positions per axis never count, as ceil_mode's overhang)",
    )
)


def _infer_resample(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    size = attributes["size"]
    require(
        attributes["kind"] in ("nearest", "linear"),
        "resample",
        f"unknown kind '{attributes['kind']}' (known: nearest, linear)",
    )
    require(
        len(size) >= 1 and x.rank == len(size) + 2,
        "resample",
        f"size {size} needs rank {len(size) + 2} and a spatial axis, got {list(x.shape)}",
    )
    require(
        len(attributes["scales"]) in (0, len(size)),
        "resample",
        f"scales {attributes['scales']} need {len(size)} entries, or none",
    )
    require(x.dtype.is_float or attributes["kind"] == "nearest", "resample", f"takes floats, got {x.dtype.text}")
    require(all(extent != 0 for extent in x.shape[2:]), "resample", f"{list(x.shape)} has no spatial elements to sample")
    return x.with_shape((*x.shape[:2], *size))


def source_scale(extent: int, size: int, align_corners: bool, scale: float | None) -> float:
    """Source positions per result position along an axis."""
    if align_corners:
        return (extent - 1) / (size - 1) if size > 1 else 0.0
    return 1 / scale if scale else extent / size


def _resample(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (x,) = inputs
    scales = attributes["scales"] or (None,) * len(attributes["size"])
    for i, size in enumerate(attributes["size"]):
        axis, extent = 2 + i, x.shape[2 + i]
        ratio = source_scale(extent, size, attributes["align_corners"], scales[i])
        position = np.arange(size)
        if attributes["kind"] == "nearest":
            # PyTorch computes the source index in float32.
            index = np.floor(position.astype(np.float32) * np.float32(ratio)).astype(np.int64)
            x = np.take(x, np.minimum(index, extent - 1), axis=axis)
            continue
        source = position * ratio if attributes["align_corners"] else np.maximum((position + 0.5) * ratio - 0.5, 0)
        low = np.minimum(np.floor(source).astype(np.int64), extent - 1)
        high = np.minimum(low + 1, extent - 1)
        weight = (source - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        x = np.take(x, low, axis=axis) * (1 - weight) + np.take(x, high, axis=axis) * weight
    return x


register(
    Op(
        "resample",
        ("x",),
        _infer_resample,
        _resample,
        elements_written,
        {"kind": REQUIRED, "size": REQUIRED, "align_corners": False, "scales": ()},
        kinds={"kind": choice("nearest", "linear"), "size": POSITIVES, "align_corners": BOOL, "scales": SCALES},
        doc="x [N, C, spatial...] at another spatial size, by the nearest or linearly interpolated source position",
    )
)
