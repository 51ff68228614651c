"""What numbers each activation takes, found by running the graph on samples: their range, and the mean of each channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir import Graph, TensorType, Value
from .base import Evaluator
from .common_subexpressions import without_dead_code

_KEPT = 1 << 15
"""Numbers of a tensor of one sample by which its range is judged."""
_SHRUNK = tuple(np.linspace(1.0, 0.2, 33))
"""Shares of the whole range that are tried."""
STEPS = 255
"""Steps between the lowest and the highest code of a byte."""


@dataclass(frozen=True)
class Range:
    """The numbers that codes stand for, zero among them."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """What a step stands for."""
        return max((self.high - self.low) / STEPS, float(np.finfo(np.float32).tiny))

    @property
    def zero_point(self) -> int:
        """The unsigned code of zero."""
        return int(np.clip(np.rint(-self.low / self.scale), 0, STEPS))


@dataclass(frozen=True)
class Observation:
    """What is known of an activation: the range of its numbers, and by axis (the second and the last) the mean at each index."""

    range: Range
    means: Mapping[int, np.ndarray]


def observe(
    graph: Graph, values: Iterable[Value], samples: Sequence[Sequence[np.ndarray]], evaluate: Evaluator
) -> dict[Value, Observation]:
    """What each of ``values`` of ``graph``, which are float tensors, takes over ``samples`` of its inputs.

    A few extreme numbers are cut off of a range where that makes the squared error of all of them least.
    """
    wanted = [value for value in dict.fromkeys(values) if isinstance(value.type, TensorType)]
    inner = [value for value in wanted if value.node is not None]
    observed = without_dead_code(Graph(graph.inputs, graph.nodes, tuple(inner), graph.name, graph.symbols)) if inner else None
    found: dict[Value, list[np.ndarray]] = {value: [] for value in wanted}
    means: dict[Value, list[dict[int, np.ndarray]]] = {value: [] for value in wanted}
    for sample in samples:
        results = evaluate(observed, sample) if observed is not None else ()
        arrays = dict(zip(inner, results, strict=True)) | dict(zip(graph.inputs, sample, strict=True))
        for value, kept in found.items():
            array = np.asarray(arrays[value], np.float32)
            kept.append(_representatives(array))
            means[value].append({axis: _means(array, axis) for axis in {1, array.ndim - 1} if 0 <= axis < array.ndim})
    return {value: Observation(best_range(np.concatenate(kept)), _averaged(means[value])) for value, kept in found.items()}


def best_range(numbers: np.ndarray) -> Range:
    """The range in which quantising ``numbers`` to bytes has the least squared error."""
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    low, high = float(min(finite.min(initial=0.0), 0.0)), float(max(finite.max(initial=0.0), 0.0))
    candidates = [Range(low * share, high * share) for share in _SHRUNK]
    return min(candidates, key=lambda candidate: _squared_error(finite, candidate))


def _squared_error(numbers: np.ndarray, candidate: Range) -> float:
    codes = np.clip(np.rint(numbers / candidate.scale) + candidate.zero_point, 0, STEPS)
    return float(np.square((codes - candidate.zero_point) * candidate.scale - numbers).sum())


def _averaged(means: Sequence[Mapping[int, np.ndarray]]) -> Mapping[int, np.ndarray]:
    """The means over all samples, of those of each."""
    return {axis: np.mean([each[axis] for each in means], axis=0) for axis in means[0]}


def _means(array: np.ndarray, axis: int) -> np.ndarray:
    """The mean at each index of ``axis``."""
    return np.asarray(array.mean(axis=tuple(other for other in range(array.ndim) if other != axis), dtype=np.float64))


def _representatives(array: np.ndarray) -> np.ndarray:
    """Some of the numbers, evenly spread, and the extreme ones."""
    flat = array.reshape(-1)
    if flat.size <= _KEPT:
        return flat
    # An odd distance, so that not always the same channel is met.
    return np.concatenate([flat[:: (flat.size // _KEPT) | 1], [flat.min(), flat.max()]])
