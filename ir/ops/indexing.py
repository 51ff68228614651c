"""Operations whose addresses are data: gathers, sorting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import DType, TensorType
from .attributes import BOOL, COUNT
from .definition import REQUIRED, Attributes, Op, no_flops, normalise_axis, reads_what_it_writes, register, require


def _check_indices(op: str, indices: TensorType) -> None:
    require(indices.dtype.is_integer, op, f"indices are {indices.dtype.text}, integers are needed")


def _infer_take(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, indices = inputs
    _check_indices("take", indices)
    axis = normalise_axis("take", attributes["axis"], x.rank)
    return x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


register(
    Op(
        "take",
        ("x", "indices"),
        _infer_take,
        lambda inputs, attributes: np.take(inputs[0], inputs[1], axis=attributes["axis"]),
        no_flops,
        {"axis": 0},
        doc="slices of x at `indices` along one axis, whose place the shape of indices takes; indices from -extent to extent - 1; "
        "an embedding is a take along axis 0",
        reads=reads_what_it_writes,
    )
)


def _infer_take_along(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, indices = inputs
    _check_indices("take_along", indices)
    axis = normalise_axis("take_along", attributes["axis"], x.rank)
    require(
        x.rank == indices.rank,
        "take_along",
        f"operand {list(x.shape)} and indices {list(indices.shape)} need the same rank",
    )
    for position, (extent, wanted) in enumerate(zip(x.shape, indices.shape, strict=True)):
        inside = position == axis or not isinstance(extent, int) or not isinstance(wanted, int) or wanted <= extent
        require(inside, "take_along", f"indices {list(indices.shape)} exceed the operand {list(x.shape)} on axis {position}")
    return x.with_shape(indices.shape)


def _take_along(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, indices = inputs
    crop = tuple(slice(None) if axis == attributes["axis"] else slice(extent) for axis, extent in enumerate(indices.shape))
    return np.take_along_axis(x[crop], indices.astype(np.int64), axis=attributes["axis"])


register(
    Op(
        "take_along",
        ("x", "indices"),
        _infer_take_along,
        _take_along,
        no_flops,
        {"axis": REQUIRED},
        doc="for each position of indices the element of x at that position but with the index along one axis (torch.gather)",
        reads=reads_what_it_writes,
    )
)


def _infer_take_nd(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, indices = inputs
    _check_indices("take_nd", indices)
    count = indices.shape[-1] if indices.rank else 0
    require(isinstance(count, int), "take_nd", f"the last extent of indices {list(indices.shape)} must be a number")
    assert isinstance(count, int)
    require(1 <= count <= x.rank, "take_nd", f"index vectors of length {count} do not fit rank {x.rank}")
    return x.with_shape((*indices.shape[:-1], *x.shape[count:]))


register(
    Op(
        "take_nd",
        ("x", "indices"),
        _infer_take_nd,
        lambda inputs, attributes: inputs[0][tuple(np.moveaxis(inputs[1], -1, 0))],
        no_flops,
        {},
        doc="slices of x at index vectors [..., n] over its first n axes (advanced indexing by several tensors)",
        reads=reads_what_it_writes,
    )
)


def _infer_sort(inputs: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    (x,) = inputs
    axis = normalise_axis("sort", attributes["axis"], x.rank)
    count = attributes["count"]
    extent = x.shape[axis]
    require(
        count is None or not isinstance(extent, int) or 0 <= count <= extent,
        "sort",
        f"count {count} exceeds extent {extent}",
    )
    shape = list(x.shape)
    shape[axis] = extent if count is None else count
    return x.with_shape(shape), x.with_shape(shape).with_dtype(DType.INT64)


def _sort(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    axis, count = attributes["axis"], attributes["count"]
    if attributes["descending"]:
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    if count is not None:
        order = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(x, order, axis=axis), order


register(
    Op(
        "sort",
        ("x",),
        _infer_sort,
        _sort,
        lambda inputs, attributes, outputs: inputs[0].elements * 8,
        {"axis": REQUIRED, "descending": False, "count": None},
        kinds={"descending": BOOL, "count": COUNT.or_none()},
        doc="values and indices of x in stable order along an axis, the first `count` only if given (top-k)",
    )
)
