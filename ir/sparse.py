"""How sparse matrices are stored: by panels of rows, or by a bit for each element. Pure NumPy, the reference of every kernel.

The encodings ``block_sparse``, ``bitmap`` and ``nm_sparse`` say of a constant that it can be stored so; its numbers are those of the array.

Both forms keep every element that is not zero bit for bit (NaN and infinities are not zero, -0.0 is), and may keep zeros among them.
Matrices are [rows, columns]: of a linear layer outputs by inputs, of a pointwise convolution output channels by input channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import TypeInferenceError
from .encoding import Encoding


@dataclass(frozen=True)
class Panels:
    """Panels of ``width`` consecutive rows: the columns in which a panel has numbers, and these columns.

    Panel ``p`` has entries ``starts[p]`` to ``starts[p + 1]`` of ``columns``, int32 and ascending in a panel, and of ``values``
    [entries, width]. Rows beyond the last are zero. With a width of 1 this is the form called CSR, with more that of blocks ``width`` x 1.
    """

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @property
    def width(self) -> int:
        return int(self.values.shape[1])


def pack_panels(array: np.ndarray, width: int) -> Panels:
    """The panels of a matrix."""
    rows, columns = array.shape
    count = -(-rows // width)
    whole = np.pad(array, ((0, count * width - rows), (0, 0))).reshape(count, width, columns)
    kept = np.any(whole != 0, axis=1)
    starts = np.zeros(count + 1, np.int32)
    np.cumsum(np.count_nonzero(kept, axis=1), out=starts[1:])
    panel, column = np.nonzero(kept)
    return Panels(starts, column.astype(np.int32), np.ascontiguousarray(whole[panel, :, column]))


def unpack_panels(panels: Panels, shape: Sequence[int]) -> np.ndarray:
    """The matrix of ``shape``: the inverse of :func:`pack_panels`."""
    rows, columns = shape
    count = len(panels.starts) - 1
    whole = np.zeros((count, panels.width, columns), panels.values.dtype)
    panel = np.repeat(np.arange(count), np.diff(panels.starts))
    whole[panel, :, panels.columns] = panels.values
    return whole.reshape(count * panels.width, columns)[:rows]


def panel_entries(array: np.ndarray, width: int) -> int:
    """How many columns of panels :func:`pack_panels` would keep."""
    rows, columns = array.shape
    nonzero = array != 0
    whole = rows // width * width
    count = np.count_nonzero(nonzero[:whole].reshape(-1, width, columns).any(axis=1)) if whole else 0
    return int(count) + (int(np.count_nonzero(nonzero[whole:].any(axis=0))) if whole < rows else 0)


@dataclass(frozen=True)
class Bitmap:
    """The kept elements of an array in row-major order, and a bit for each of all elements that says whether it is kept.

    ``bits`` are bytes whose lowest bit stands for the first element; the number of elements is padded to a multiple of 8.
    """

    bits: np.ndarray
    values: np.ndarray


def pack_bitmap(array: np.ndarray, kept: np.ndarray | None = None) -> Bitmap:
    """The bitmap of an array; ``kept`` (default: what is not zero) must hold wherever the array is not zero."""
    flat = array.reshape(-1)
    chosen = flat != 0 if kept is None else kept.reshape(-1)
    return Bitmap(np.packbits(chosen, bitorder="little"), flat[chosen])


def unpack_bitmap(bitmap: Bitmap, shape: Sequence[int]) -> np.ndarray:
    """The array of ``shape``: the inverse of :func:`pack_bitmap`."""
    count = int(np.prod(shape))
    kept = np.unpackbits(bitmap.bits, count=count, bitorder="little").astype(bool)
    flat = np.zeros(count, bitmap.values.dtype)
    flat[kept] = bitmap.values
    return flat.reshape(tuple(shape))


def is_nm_sparse(array: np.ndarray, n: int, m: int) -> bool:
    """Whether of every ``m`` consecutive elements of a row at most ``n`` are not zero."""
    rows, columns = array.shape
    if columns % m:
        return False
    return bool(np.all(np.count_nonzero(array.reshape(rows, columns // m, m), axis=-1) <= n))


def kept_of_groups(array: np.ndarray, n: int, m: int) -> np.ndarray:
    """Which elements to keep so that of every ``m`` consecutive ones of a row it is ``n``: all that are not zero, and the first zeros.

    TypeInferenceError where a group has more than ``n`` numbers.
    """
    if not is_nm_sparse(array, n, m):
        raise TypeInferenceError(f"a matrix of shape {list(array.shape)} is not {n}:{m} sparse along its rows")
    groups = (array != 0).reshape(-1, m)
    first = np.argsort(~groups, axis=1, kind="stable")[:, :n]
    kept = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(kept, first, True, axis=1)
    return kept.reshape(array.shape)


def fitted(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """``array``, with zeros where it has more numbers than a sparse ``encoding`` has room for: random data for a type."""
    given = dict(encoding.parameters)
    axis, most = given.get("axis", 0), given.get("entries", given.get("elements", 0))
    assert isinstance(axis, int)
    assert isinstance(most, int)
    if encoding.name == "nm_sparse":
        n, m = given["n"], given["m"]
        assert isinstance(n, int)
        assert isinstance(m, int)
        last = np.moveaxis(array, axis, -1)
        groups = last.reshape(-1, m)
        order = np.argsort(np.abs(groups), axis=1, kind="stable")
        kept = np.zeros(groups.shape, bool)
        np.put_along_axis(kept, order[:, m - n :], True, axis=1)
        return np.ascontiguousarray(np.moveaxis(np.where(kept, groups, 0).reshape(last.shape), -1, axis).astype(array.dtype))
    width = given.get("width", 1)
    assert isinstance(width, int)
    first = np.moveaxis(array, axis, 0)
    matrix = first.reshape(first.shape[0], -1)
    panels = -(-matrix.shape[0] // width)
    padded = np.pad(matrix, ((0, panels * width - matrix.shape[0]), (0, 0))).reshape(panels, width, -1)
    taken = np.any(padded != 0, axis=1)
    if np.count_nonzero(taken) <= most:
        return array
    places = np.flatnonzero(taken)
    dropped = np.random.default_rng(0).permutation(places)[most:]
    taken.flat[dropped] = False
    result = np.where(taken[:, None, :], padded, 0).reshape(panels * width, -1)[: matrix.shape[0]]
    return np.moveaxis(result.reshape(first.shape), 0, axis).astype(array.dtype)
