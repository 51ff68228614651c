"""Writing at addresses that are data: scatters, with what happens where several updates meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..types import TensorType
from .attributes import choice
from .definition import REQUIRED, Attributes, Op, normalise_axis, register, require, tensor_bytes


def _assign(x: np.ndarray, places: tuple[np.ndarray, ...], updates: np.ndarray) -> None:
    # NumPy assigns in order: the last of several values stays.
    x[places] = updates


REDUCTIONS: Mapping[str, Callable[[np.ndarray, tuple[np.ndarray, ...], np.ndarray], None]] = {
    "assign": _assign,
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}
"""How an update meets the element at its place. Of truth values add is "or" and mul is "and"."""


def _check(op: str, inputs: Sequence[TensorType]) -> None:
    x, indices, updates = inputs
    require(indices.dtype.is_integer, op, f"indices are {indices.dtype.text}, integers are needed")
    require(x.dtype is updates.dtype, op, f"operand {x.dtype.text} and updates {updates.dtype.text} have different dtypes; insert a cast")


def _infer_along(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, indices, updates = inputs
    _check("scatter_along", inputs)
    axis = normalise_axis("scatter_along", attributes["axis"], x.rank)
    require(
        indices.shape == updates.shape and indices.rank == x.rank,
        "scatter_along",
        f"indices {list(indices.shape)} and updates {list(updates.shape)} need one shape, of the rank of the operand {list(x.shape)}",
    )
    for position, (extent, given) in enumerate(zip(x.shape, indices.shape, strict=True)):
        inside = position == axis or not isinstance(extent, int) or not isinstance(given, int) or given <= extent
        require(inside, "scatter_along", f"indices {list(indices.shape)} exceed the operand {list(x.shape)} on axis {position}")
    return x.with_shape(x.shape)


def _along(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, indices, updates = inputs
    places = list(np.indices(indices.shape, sparse=False))
    places[attributes["axis"]] = indices.astype(np.int64)
    return _scattered(x, [place.reshape(-1) for place in places], updates.reshape(-1), attributes)


def _scattered(x: np.ndarray, places: Sequence[np.ndarray], updates: np.ndarray, attributes: Attributes) -> np.ndarray:
    """``updates`` [count, ...] at ``places`` (one array [count] for each of the leading axes); those outside are dropped."""
    result = x.copy()
    wrapped = [np.where(place < 0, place + extent, place) for place, extent in zip(places, x.shape, strict=False)]
    inside = np.ones(len(updates), dtype=bool)
    for place, extent in zip(wrapped, x.shape, strict=False):
        inside &= (place >= 0) & (place < extent)
    REDUCTIONS[attributes["reduction"]](result, tuple(place[inside] for place in wrapped), updates[inside])
    return result


def _flops(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    return 0 if attributes["reduction"] == "assign" else inputs[2].elements


_DOC = (
    "x with updates {where}, one after the other in row-major order: the last stays (assign), or each is combined with what is there; "
    "indices from -extent to extent - 1, updates elsewhere are dropped"
)

register(
    Op(
        "scatter_along",
        ("x", "indices", "updates"),
        _infer_along,
        _along,
        _flops,
        {"axis": REQUIRED, "reduction": "assign"},
        kinds={"reduction": choice(*REDUCTIONS)},
        doc=_DOC.format(where="at their own positions but with the index along one axis (torch.scatter)"),
        reads=lambda inputs, attributes, outputs: tensor_bytes(inputs),
    )
)


def _infer_nd(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, indices, updates = inputs
    _check("scatter_nd", inputs)
    count = indices.shape[-1] if indices.rank else 0
    require(isinstance(count, int), "scatter_nd", f"the last extent of indices {list(indices.shape)} must be a number")
    assert isinstance(count, int)
    require(1 <= count <= x.rank, "scatter_nd", f"index vectors of length {count} do not fit rank {x.rank}")
    expected = (*indices.shape[:-1], *x.shape[count:])
    require(updates.shape == expected, "scatter_nd", f"updates {list(updates.shape)} should have the shape {list(expected)}")
    return x.with_shape(x.shape)


def _nd(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, indices, updates = inputs
    count = indices.shape[-1]
    vectors = indices.astype(np.int64).reshape(math.prod(indices.shape[:-1]), count)
    slices = updates.reshape(len(vectors), *x.shape[count:])
    return _scattered(x, list(vectors.T), slices, attributes)


register(
    Op(
        "scatter_nd",
        ("x", "indices", "updates"),
        _infer_nd,
        _nd,
        _flops,
        {"reduction": "assign"},
        kinds={"reduction": choice(*REDUCTIONS)},
        doc=_DOC.format(where="in place of the slices at index vectors [..., n] over its first n axes (assignment to advanced indices)"),
    )
)
