"""Operations that move or make elements without computing: views, concatenation, padding, generators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..types import Dim, DType, Kind, TensorType
from .attributes import DIM, NUMBER, POSITIVE
from .definition import REQUIRED, Attributes, Op, Trait, no_flops, normalise_axis, reads_what_it_writes, register, require
from .elementwise import broadcast_shapes

_VIEW = frozenset({Trait.VIEW})


def _infer_reshape(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    shape = attributes["shape"]
    if x.is_static and all(isinstance(dim, int) for dim in shape):
        require(
            math.prod(shape) == x.elements,
            "reshape",
            f"{list(x.shape)} has {x.elements} elements, {list(shape)} has {math.prod(shape)}",
        )
    return x.with_shape(shape)


register(
    Op(
        "reshape",
        ("x",),
        _infer_reshape,
        lambda inputs, attributes: inputs[0].reshape(attributes["shape"]),
        no_flops,
        {"shape": REQUIRED},
        _VIEW,
        doc="the same elements in logical row-major order under another shape (no -1)",
    )
)


def _infer_permute(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    order = attributes["order"]
    require(sorted(order) == list(range(x.rank)), "permute", f"{order} is not a permutation of the {x.rank} axes")
    return x.with_shape([x.shape[axis] for axis in order])


register(
    Op(
        "permute",
        ("x",),
        _infer_permute,
        lambda inputs, attributes: inputs[0].transpose(attributes["order"]),
        no_flops,
        {"order": REQUIRED},
        _VIEW,
        doc="axes in another order: result axis i is operand axis order[i]",
    )
)


def _infer_broadcast(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    shape = tuple(attributes["shape"])
    require(
        broadcast_shapes("broadcast_to", x.shape, shape) == shape,
        "broadcast_to",
        f"{list(x.shape)} does not broadcast to {list(shape)}",
    )
    return x.with_shape(shape)


register(
    Op(
        "broadcast_to",
        ("x",),
        _infer_broadcast,
        lambda inputs, attributes: np.broadcast_to(inputs[0], attributes["shape"]),
        no_flops,
        {"shape": REQUIRED},
        _VIEW,
        doc="x repeated along axes of extent 1 and new leading axes, as NumPy broadcasts",
    )
)


def slice_extent(start: Dim, stop: Dim, step: int) -> Dim:
    """Number of elements of range(start, stop, step); symbolic bounds must not cross."""
    if isinstance(start, int) and isinstance(stop, int):
        return max(0, -(-(stop - start) // step))
    return (stop - start + step - 1) // step


def _infer_slice(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    axis = normalise_axis("slice", attributes["axis"], x.rank)
    start, stop, step = attributes["start"], attributes["stop"], attributes["step"]
    extent = x.shape[axis]
    # Symbolic bounds are taken on trust.
    known = [bound for bound in (0, start, stop, extent) if isinstance(bound, int)]
    require(known == sorted(known), "slice", f"[{start}:{stop}] does not lie within extent {extent}")
    shape = list(x.shape)
    shape[axis] = slice_extent(start, stop, step)
    return x.with_shape(shape)


def _evaluate_slice(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    index: list[slice] = [slice(None)] * inputs[0].ndim
    index[attributes["axis"]] = slice(attributes["start"], attributes["stop"], attributes["step"])
    return inputs[0][tuple(index)]


register(
    Op(
        "slice",
        ("x",),
        _infer_slice,
        _evaluate_slice,
        no_flops,
        {"axis": REQUIRED, "start": 0, "stop": REQUIRED, "step": 1},
        _VIEW,
        kinds={"start": DIM, "stop": DIM, "step": POSITIVE},
        reads=reads_what_it_writes,
        doc="elements start, start + step, ... below stop along one axis; bounds are normalised (0 <= start <= stop <= extent)",
    )
)


def _infer_flip(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    axes = [normalise_axis("flip", axis, x.rank) for axis in attributes["axes"]]
    require(len(set(axes)) == len(axes), "flip", f"axes {attributes['axes']} repeat")
    return x.with_shape(x.shape)


register(
    Op(
        "flip",
        ("x",),
        _infer_flip,
        lambda inputs, attributes: np.flip(inputs[0], attributes["axes"]),
        no_flops,
        {"axes": REQUIRED},
        _VIEW,
        doc="x with the order along some axes reversed",
    )
)


def _infer_concat(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    require(len(inputs) > 0, "concat", "needs at least one operand")
    first = inputs[0]
    axis = normalise_axis("concat", attributes["axis"], first.rank)
    total = first.shape[axis]
    for type in inputs[1:]:
        require(
            type.dtype is first.dtype,
            "concat",
            f"operands have dtypes {first.dtype.text} and {type.dtype.text}; insert a cast",
        )
        fits = type.rank == first.rank and all(a == b for i, (a, b) in enumerate(zip(type.shape, first.shape, strict=False)) if i != axis)
        require(fits, "concat", f"{list(first.shape)} and {list(type.shape)} differ outside axis {axis}")
        total = total + type.shape[axis]
    shape = list(first.shape)
    shape[axis] = total
    return first.with_shape(shape)


register(
    Op(
        "concat",
        ("x*",),
        _infer_concat,
        lambda inputs, attributes: np.concatenate(list(inputs), attributes["axis"]),
        no_flops,
        {"axis": REQUIRED},
        doc="operands one after the other along an axis",
    )
)


def _check_representable(op: str, value: float, dtype: DType) -> None:
    """TypeInferenceError when ``value`` is a number that integers of ``dtype`` cannot hold."""
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        fits = math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max
        require(fits, op, f"{value} is not a number that {dtype.text} can hold")


def _infer_pad(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    pads = attributes["pads"]
    require(len(pads) == x.rank, "pad", f"{len(pads)} pairs of pads for rank {x.rank}")
    _check_representable("pad", attributes["value"], x.dtype)
    return x.with_shape([dim + low + high for dim, (low, high) in zip(x.shape, pads, strict=True)])


def _pad(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (x,) = inputs
    if x.ndim == 0:
        return x
    return np.pad(x, attributes["pads"], constant_values=attributes["value"])


register(
    Op(
        "pad",
        ("x",),
        _infer_pad,
        _pad,
        no_flops,
        {"pads": REQUIRED, "value": 0.0},
        doc="x surrounded by a constant: pads holds (low, high) for every axis",
    )
)

register(
    Op(
        "relayout",
        ("x",),
        lambda inputs, attributes: inputs[0].with_layout(None),
        lambda inputs, attributes: inputs[0],
        no_flops,
        {},
        doc="the logical identity; the result type's layout (given explicitly) says the new physical order",
    )
)


def _infer_iota(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    dtype = attributes["dtype"]
    require(dtype.kind in (Kind.INTEGER, Kind.FLOAT), "iota", f"does not make {dtype.text}")
    return TensorType(dtype, (attributes["size"],))


def _infer_full(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    _check_representable("full", attributes["value"], attributes["dtype"])
    return TensorType(attributes["dtype"], attributes["shape"])


register(
    Op(
        "iota",
        (),
        _infer_iota,
        lambda inputs, attributes: attributes["start"] + attributes["step"] * np.arange(attributes["size"]),
        no_flops,
        {"size": REQUIRED, "start": 0, "step": 1, "dtype": DType.INT64},
        frozenset({Trait.SOURCE}),
        kinds={"start": NUMBER, "step": NUMBER},
        doc="start, start + step, ...: size numbers",
    )
)

register(
    Op(
        "full",
        (),
        _infer_full,
        lambda inputs, attributes: np.full(attributes["shape"], attributes["value"]),
        no_flops,
        {"shape": REQUIRED, "value": REQUIRED, "dtype": REQUIRED},
        frozenset({Trait.SOURCE}),
        doc="a tensor of one value",
    )
)
