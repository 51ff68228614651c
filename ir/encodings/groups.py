"""Groups of elements along an axis, the last of which may be shorter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_CHUNK = 1 << 16
"""Elements that are worked on at a time, so that they stay in the cache."""


def group_count(extent: int, size: int) -> int:
    """Groups of ``size`` that an axis of ``extent`` has."""
    return -(-extent // size)


def group_shape(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    """The shape of what there is once for each group: ``shape`` with the number of groups along ``axis``."""
    return tuple(group_count(extent, size) if position == axis else extent for position, extent in enumerate(shape))


def split(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """[groups of the whole array, size], in the order of :func:`group_shape` with ``axis`` last; zeros complete groups."""
    moved = np.moveaxis(array, axis, -1)
    missing = group_count(moved.shape[-1], size) * size - moved.shape[-1]
    if missing:
        moved = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(moved).reshape(-1, size)


def joined(groups: np.ndarray, shape: Sequence[int], axis: int, size: int) -> np.ndarray:
    """The array of ``shape`` of which :func:`split` made ``groups``."""
    others = [extent for position, extent in enumerate(shape) if position != axis]
    rows = groups.reshape(*others, group_count(shape[axis], size) * size)[..., : shape[axis]]
    return np.ascontiguousarray(np.moveaxis(rows, -1, axis))


def per_group(values: np.ndarray, shape: Sequence[int], axis: int, size: int) -> np.ndarray:
    """One value for each row of :func:`split`, as an array of :func:`group_shape`."""
    return joined(values, group_shape(shape, axis, size), axis, 1)


def spread(values: np.ndarray, extent: int, axis: int, size: int) -> np.ndarray:
    """For each element the value of its group."""
    repeated = np.repeat(values, size, axis=axis)
    return repeated[(slice(None),) * axis + (slice(extent),)]


def in_chunks(work: Callable[..., tuple[np.ndarray, ...]], groups: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """``work`` on a few groups (and as many rows of ``others``) at a time; its results one after the other."""
    step = max(_CHUNK // groups.shape[1], 1)
    starts = range(0, max(len(groups), 1), step)
    done = [work(*(array[start : start + step] for array in (groups, *others))) for start in starts]
    return tuple(np.concatenate(results) for results in zip(*done, strict=True))


def along(values: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    """One value, or one for each index of ``axis``, to be broadcast with a tensor of ``rank``."""
    return values if values.ndim == 0 else values.reshape([-1 if position == axis else 1 for position in range(rank)])


def axes_but(axis: int | None, rank: int) -> tuple[int, ...]:
    """All axes of a tensor of ``rank`` but one (None: all)."""
    return tuple(position for position in range(rank) if position != axis)
