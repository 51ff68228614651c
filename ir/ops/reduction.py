"""Reductions, scans and the normalisations built on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..types import Dim, DType, Kind, TensorType
from .attributes import POSITIVE, choice
from .definition import REQUIRED, Attributes, Op, Trait, normalise_axis, register, require
from .elementwise import TRANSCENDENTAL_FLOPS

if TYPE_CHECKING:
    from ..graph import GraphBuilder, Value

REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.sum,
    "mean": np.mean,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "any": np.any,
    "all": np.all,
    "argmax": np.argmax,
    "argmin": np.argmin,
}


def reduced_shape(type: TensorType, axes: Sequence[int], keepdims: bool) -> list[Dim]:
    """The shape left when ``axes`` (normalised) are reduced."""
    if keepdims:
        return [1 if axis in axes else dim for axis, dim in enumerate(type.shape)]
    return [dim for axis, dim in enumerate(type.shape) if axis not in axes]


def _infer_reduce(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    kind, axes = attributes["kind"], attributes["axes"]
    require(kind in REDUCTIONS, "reduce", f"unknown kind '{kind}' (known: {', '.join(REDUCTIONS)})")
    normalised = [normalise_axis("reduce", axis, x.rank) for axis in axes]
    require(len(set(normalised)) == len(axes), "reduce", f"axes {axes} repeat")
    require(not kind.startswith("arg") or len(axes) == 1, "reduce", f"{kind} reduces one axis, got {axes}")
    require(kind not in ("mean",) or x.dtype.is_float, "reduce", f"mean of {x.dtype.text} is not defined; insert a cast")
    require(
        kind not in ("sum", "prod", "argmax", "argmin") or x.dtype.kind in (Kind.INTEGER, Kind.FLOAT),
        "reduce",
        f"{kind} of {x.dtype.text} is not defined; insert a cast",
    )
    require(
        kind not in ("max", "min", "argmax", "argmin") or all(x.shape[axis] != 0 for axis in normalised),
        "reduce",
        f"{kind} over no elements (axes {axes} of {list(x.shape)}) is not defined",
    )
    dtype = DType.INT64 if kind.startswith("arg") else DType.BOOL if kind in ("any", "all") else x.dtype
    result = x.with_shape(reduced_shape(x, normalised, attributes["keepdims"]))
    return result.with_dtype(dtype)


def _evaluate_reduce(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (x,) = inputs
    kind, axes, keepdims = attributes["kind"], attributes["axes"], attributes["keepdims"]
    if kind.startswith("arg"):
        return np.asarray(REDUCTIONS[kind](x, axis=axes[0], keepdims=keepdims))
    if kind == "mean":
        # Not np.mean, which warns where there is nothing to average: that gives NaN.
        return np.asarray(x.sum(axis=tuple(axes), keepdims=keepdims) / np.float64(math.prod(x.shape[axis] for axis in axes)))
    if kind in ("sum", "prod") and x.dtype.kind in "iu":
        return np.asarray(REDUCTIONS[kind](x, axis=tuple(axes), keepdims=keepdims, dtype=x.dtype))
    return np.asarray(REDUCTIONS[kind](x, axis=tuple(axes), keepdims=keepdims))


register(
    Op(
        "reduce",
        ("x",),
        _infer_reduce,
        _evaluate_reduce,
        lambda inputs, attributes, outputs: inputs[0].elements,
        {"kind": REQUIRED, "axes": REQUIRED, "keepdims": False},
        frozenset({Trait.REDUCTION}),
        kinds={"kind": choice(*REDUCTIONS)},
        doc="sum, mean, prod, max, min, any, all, argmax or argmin over axes (normalised); NaN wins max and min",
    )
)


def _accumulated(function: np.ufunc) -> Callable[..., np.ndarray]:
    return lambda x, axis, dtype: np.asarray(function.accumulate(x, axis=axis, dtype=dtype))


_SCANS: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.cumsum,
    "prod": np.cumprod,
    "max": _accumulated(np.maximum),
    "min": _accumulated(np.minimum),
    "logsumexp": _accumulated(np.logaddexp),
}


def _infer_scan(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    require(attributes["kind"] in _SCANS, "scan", f"unknown kind '{attributes['kind']}' (known: {', '.join(_SCANS)})")
    taken = (Kind.FLOAT,) if attributes["kind"] == "logsumexp" else (Kind.INTEGER, Kind.FLOAT)
    require(x.dtype.kind in taken, "scan", f"{attributes['kind']} does not take {x.dtype.text}; insert a cast")
    normalise_axis("scan", attributes["axis"], x.rank)
    return x.with_shape(x.shape)


register(
    Op(
        "scan",
        ("x",),
        _infer_scan,
        lambda inputs, attributes: _SCANS[attributes["kind"]](inputs[0], axis=attributes["axis"], dtype=inputs[0].dtype),
        lambda inputs, attributes, outputs: inputs[0].elements,
        {"kind": "sum", "axis": REQUIRED},
        frozenset({Trait.REDUCTION}),
        kinds={"kind": choice(*_SCANS)},
        doc="inclusive running sum, product, maximum, minimum (NaN wins) or log(sum(exp(x))) along an axis",
    )
)

_NORMALISATION = frozenset({Trait.NORMALISATION})


def _same_as_first(op: str) -> Callable[[Sequence[TensorType], Attributes], TensorType]:
    def infer(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
        x = inputs[0]
        require(x.dtype.is_float, op, f"takes floats, got {x.dtype.text}")
        if "axis" in attributes:
            normalise_axis(op, attributes["axis"], x.rank)
        for other in inputs[1:]:
            require(other.dtype is x.dtype, op, f"operands have dtypes {x.dtype.text} and {other.dtype.text}; insert a cast")
        return x

    return infer


def _softmax(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (x,) = inputs
    shifted = np.exp(x - x.max(axis=attributes["axis"], keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=attributes["axis"], keepdims=True))


def _log_softmax(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (x,) = inputs
    shifted = x - x.max(axis=attributes["axis"], keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=attributes["axis"], keepdims=True)))


def _softmax_parts(builder: GraphBuilder, x: Value, axis: int) -> tuple[Value, Value, Value]:
    """x less its maximum, the exponentials of that, and their sum."""
    highest = builder.call("reduce", x, kind="max", axes=(axis,), keepdims=True)
    shifted = builder.call("sub", x, highest)
    exponentials = builder.call("exp", shifted)
    return shifted, exponentials, builder.call("reduce", exponentials, kind="sum", axes=(axis,), keepdims=True)


def _decompose_softmax(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    if inputs[0].tensor.shape[attributes["axis"]] == 0:
        return inputs[0]  # nothing has no maximum, and there is nothing to compute
    _, exponentials, total = _softmax_parts(builder, inputs[0], attributes["axis"])
    return builder.call("div", exponentials, total)


def _decompose_log_softmax(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    if inputs[0].tensor.shape[attributes["axis"]] == 0:
        return inputs[0]
    shifted, _, total = _softmax_parts(builder, inputs[0], attributes["axis"])
    return builder.call("sub", shifted, builder.call("log", total))


register(
    Op(
        "softmax",
        ("x",),
        _same_as_first("softmax"),
        _softmax,
        lambda inputs, attributes, outputs: (TRANSCENDENTAL_FLOPS + 4) * inputs[0].elements,
        {"axis": REQUIRED},
        _NORMALISATION,
        _decompose_softmax,
        doc="exp(x) / sum(exp(x)) along an axis, computed without overflow",
    )
)
register(
    Op(
        "log_softmax",
        ("x",),
        _same_as_first("log_softmax"),
        _log_softmax,
        lambda inputs, attributes, outputs: (TRANSCENDENTAL_FLOPS + 4) * inputs[0].elements,
        {"axis": REQUIRED},
        _NORMALISATION,
        _decompose_log_softmax,
        doc="the logarithm of softmax",
    )
)


def _scaled(x: np.ndarray, parameters: Sequence[np.ndarray]) -> np.ndarray:
    """x times the first parameter (if any) plus the second (if any)."""
    if len(parameters) > 0:
        x = x * parameters[0]
    if len(parameters) > 1:
        x = x + parameters[1]
    return x


def _mean(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean with kept axes; NaN, without a warning, of nothing."""
    return np.asarray(x.sum(axis=axes, keepdims=True) / np.float64(math.prod(x.shape[axis] for axis in axes)))


def _standardised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    """x less its mean, over its standard deviation."""
    centred = x - _mean(x, axes)
    return np.asarray(centred / np.sqrt(_mean(centred**2, axes) + eps))


def _layer_norm(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x = inputs[0]
    axes = tuple(range(x.ndim - attributes["axes"], x.ndim))
    return _scaled(_standardised(x, axes, attributes["eps"]), inputs[1:])


def _rms_norm(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x = inputs[0]
    return _scaled(x / np.sqrt(_mean(x**2, (x.ndim - 1,)) + attributes["eps"]), inputs[1:])


def _group_norm(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x = inputs[0]
    groups = attributes["groups"]
    grouped = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    normal = _standardised(grouped, tuple(range(2, grouped.ndim)), attributes["eps"])
    channel = (-1,) + (1,) * (x.ndim - 2)
    return _scaled(normal.reshape(x.shape), [parameter.reshape(channel) for parameter in inputs[1:]])


def _batch_norm(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x = inputs[0]
    channel = (-1,) + (1,) * (x.ndim - 2)
    mean, variance, *parameters = (parameter.reshape(channel) for parameter in inputs[1:])
    return _scaled((x - mean) / np.sqrt(variance + attributes["eps"]), parameters)


def _infer_layer_norm(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x = _same_as_first("layer_norm")(inputs, attributes)
    count = attributes["axes"]
    require(1 <= count <= x.rank, "layer_norm", f"normalises {count} trailing axes of rank {x.rank}")
    for parameter in inputs[1:]:
        require(
            parameter.shape == x.shape[-count:],
            "layer_norm",
            f"parameter shape {list(parameter.shape)} is not {list(x.shape[-count:])}",
        )
    return x


def _infer_rms_norm(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x = _same_as_first("rms_norm")(inputs, attributes)
    require(x.rank >= 1, "rms_norm", "needs a last axis, the operand is a scalar")
    for parameter in inputs[1:]:
        require(
            parameter.shape == x.shape[-1:],
            "rms_norm",
            f"weight shape {list(parameter.shape)} is not {list(x.shape[-1:])}",
        )
    return x


def _infer_channel_norm(op: str) -> Callable[[Sequence[TensorType], Attributes], TensorType]:
    def infer(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
        x = _same_as_first(op)(inputs, attributes)
        require(x.rank >= 2, op, f"needs a channel axis, the operand has rank {x.rank}")
        for parameter in inputs[1:]:
            require(parameter.shape == (x.shape[1],), op, f"parameter shape {list(parameter.shape)} is not [{x.shape[1]}]")
        groups = attributes.get("groups", 1)
        channels = x.shape[1]
        require(
            not isinstance(channels, int) or channels % groups == 0,
            op,
            f"{channels} channels do not divide into {groups} groups",
        )
        return x

    return infer


def _norm_flops(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    return 8 * inputs[0].elements


def _affine(builder: GraphBuilder, x: Value, parameters: Sequence[Value], shape: tuple[Dim, ...] | None = None) -> Value:
    for op, parameter in zip(("mul", "add"), parameters, strict=False):
        x = builder.call(op, x, parameter if shape is None else builder.call("reshape", parameter, shape=shape))
    return x


def _scalar(builder: GraphBuilder, value: float, like: Value) -> Value:
    return builder.call("full", shape=(), value=value, dtype=like.tensor.dtype)


def _normalised(builder: GraphBuilder, x: Value, axes: tuple[int, ...], eps: float, centre: bool = True) -> Value:
    if centre:
        x = builder.call("sub", x, builder.call("reduce", x, kind="mean", axes=axes, keepdims=True))
    variance = builder.call("reduce", builder.call("square", x), kind="mean", axes=axes, keepdims=True)
    return builder.call("mul", x, builder.call("rsqrt", builder.call("add", variance, _scalar(builder, eps, x))))


def _decompose_layer_norm(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    rank = inputs[0].tensor.rank
    axes = tuple(range(rank - attributes["axes"], rank))
    return _affine(builder, _normalised(builder, inputs[0], axes, attributes["eps"]), inputs[1:])


def _decompose_rms_norm(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    axes = (inputs[0].tensor.rank - 1,)
    return _affine(builder, _normalised(builder, inputs[0], axes, attributes["eps"], centre=False), inputs[1:])


def _decompose_group_norm(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    batch, channels, *positions = inputs[0].tensor.shape
    groups = attributes["groups"]
    grouped = builder.call("reshape", inputs[0], shape=(batch, groups, channels // groups, *positions))
    normal = _normalised(builder, grouped, tuple(range(2, grouped.tensor.rank)), attributes["eps"])
    normal = builder.call("reshape", normal, shape=(batch, channels, *positions))
    return _affine(builder, normal, inputs[1:], (channels,) + (1,) * len(positions))


def _decompose_batch_norm(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    x, mean, variance, *parameters = inputs
    shape = (x.tensor.shape[1],) + (1,) * (x.tensor.rank - 2)
    centred = builder.call("sub", x, builder.call("reshape", mean, shape=shape))
    scale = builder.call("rsqrt", builder.call("add", variance, _scalar(builder, attributes["eps"], x)))
    return _affine(builder, builder.call("mul", centred, builder.call("reshape", scale, shape=shape)), parameters, shape)


register(
    Op(
        "layer_norm",
        ("x", "weight?", "bias?"),
        _infer_layer_norm,
        _layer_norm,
        _norm_flops,
        {"axes": 1, "eps": 1e-5},
        _NORMALISATION,
        _decompose_layer_norm,
        kinds={"axes": POSITIVE},
        doc="zero mean and unit variance over the last `axes` axes, then weight and bias (Ba et al. 2016)",
    )
)
register(
    Op(
        "rms_norm",
        ("x", "weight?"),
        _infer_rms_norm,
        _rms_norm,
        _norm_flops,
        {"eps": 1e-6},
        _NORMALISATION,
        _decompose_rms_norm,
        doc="x / sqrt(mean(x^2) + eps) over the last axis, then weight (Zhang and Sennrich 2019)",
    )
)
register(
    Op(
        "group_norm",
        ("x", "weight?", "bias?"),
        _infer_channel_norm("group_norm"),
        _group_norm,
        _norm_flops,
        {"groups": REQUIRED, "eps": 1e-5},
        _NORMALISATION,
        _decompose_group_norm,
        doc="zero mean and unit variance over each group of channels and all positions (Wu and He 2018)",
    )
)
register(
    Op(
        "batch_norm",
        ("x", "mean", "variance", "weight?", "bias?"),
        _infer_channel_norm("batch_norm"),
        _batch_norm,
        _norm_flops,
        {"eps": 1e-5},
        _NORMALISATION,
        _decompose_batch_norm,
        doc="inference-mode batch normalisation with given statistics per channel (Ioffe and Szegedy 2015)",
    )
)
