"""Operations that move or make elements without computing: views, concatenation, padding, generators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..types import DType, TensorType
from .definition import REQUIRED, Attributes, Op, Trait, no_flops, normalise_axis, register, require
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


def slice_extent(start: int, stop: int, step: int) -> int:
    """Number of elements of range(start, stop, step)."""
    return max(0, -(-(stop - start) // step))


def _infer_slice(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    axis = normalise_axis("slice", attributes["axis"], x.rank)
    start, stop, step = attributes["start"], attributes["stop"], attributes["step"]
    extent = x.shape[axis]
    require(step >= 1, "slice", f"the step is {step}, it must be at least 1")
    require(
        not isinstance(extent, int) or 0 <= start <= stop <= extent,
        "slice",
        f"[{start}:{stop}] does not lie within extent {extent}",
    )
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
        doc="elements start, start + step, ... below stop along one axis; bounds are normalised (0 <= start <= stop <= extent)",
    )
)

register(
    Op(
        "flip",
        ("x",),
        lambda inputs, attributes: inputs[0].with_shape(inputs[0].shape),
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


def _infer_pad(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    pads = attributes["pads"]
    require(len(pads) == x.rank, "pad", f"{len(pads)} pairs of pads for rank {x.rank}")
    require(all(low >= 0 and high >= 0 for low, high in pads), "pad", f"pads {pads} must not be negative; use slice to crop")
    return x.with_shape([dim + low + high for dim, (low, high) in zip(x.shape, pads, strict=True)])


register(
    Op(
        "pad",
        ("x",),
        _infer_pad,
        lambda inputs, attributes: np.pad(inputs[0], attributes["pads"], constant_values=attributes["value"]),
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

register(
    Op(
        "iota",
        (),
        lambda inputs, attributes: TensorType(attributes["dtype"], (attributes["size"],)),
        lambda inputs, attributes: attributes["start"] + attributes["step"] * np.arange(attributes["size"]),
        no_flops,
        {"size": REQUIRED, "start": 0, "step": 1, "dtype": DType.INT64},
        frozenset({Trait.SOURCE}),
        doc="start, start + step, ...: size numbers",
    )
)

register(
    Op(
        "full",
        (),
        lambda inputs, attributes: TensorType(attributes["dtype"], tuple(attributes["shape"])),
        lambda inputs, attributes: np.full(attributes["shape"], attributes["value"]),
        no_flops,
        {"shape": REQUIRED, "value": REQUIRED, "dtype": REQUIRED},
        frozenset({Trait.SOURCE}),
        doc="a tensor of one value",
    )
)
