"""Assignment to some positions of a tensor: caches, slices. Functional here; done in place where the old tensor is not read any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..types import TensorType
from .definition import REQUIRED, Attributes, Cost, Op, no_flops, register, require, tensor_bytes

if TYPE_CHECKING:
    from ..types import Dim


class _Put(Op):
    """Done in place it writes what it is given and leaves the rest alone: its cost is that, not the whole tensor's."""

    def cost(self, inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> Cost:
        return Cost(0, tensor_bytes(inputs[1:]), tensor_bytes(inputs[1:2]))


def _infer_put(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, values, *indices = inputs
    axes = attributes["axes"]
    require(len(axes) == len(indices), "put", f"{len(indices)} tensors of indices for the axes {list(axes)}")
    require(len(set(axes)) == len(axes), "put", f"axes {list(axes)} repeat an axis")
    require(all(axis < x.rank for axis in axes), "put", f"axes {list(axes)} are out of range for rank {x.rank}")
    require(values.dtype is x.dtype, "put", f"values are {values.dtype.text}, the tensor is {x.dtype.text}; cast them first")
    shape: list[Dim] = list(x.shape)
    for axis, positions in zip(axes, indices, strict=True):
        require(positions.dtype.is_integer and positions.rank == 1, "put", f"indices must be integers of rank 1, got {positions}")
        shape[axis] = positions.shape[0]
    require(values.shape == tuple(shape), "put", f"values of shape {list(values.shape)} do not fill {shape}")
    return x


def _put(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, values, *indices = inputs
    places: list[np.ndarray] = [np.arange(extent) for extent in x.shape]
    for axis, positions in zip(attributes["axes"], indices, strict=True):
        places[axis] = positions
    result = x.copy()
    result[np.ix_(*places) if places else ()] = values
    return result


register(
    _Put(
        "put",
        ("x", "values", "indices*"),
        _infer_put,
        _put,
        no_flops,
        {"axes": REQUIRED},
        doc="x with `values` at the positions that `indices` (one tensor [n] for each of `axes`, from -extent to extent - 1) select along "
        "those axes, each combined with each; where positions repeat, one of their values stands",
    )
)
