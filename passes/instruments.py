"""Instruments: what watches a pipeline run from outside the passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import PassError, VerificationError
from ..ir import DType, Graph, TensorType, interpret, verify
from .base import Pass


class Instrument:
    """Called around every pass of a pipeline; does nothing by itself."""

    def before(self, position: int, step: Pass, graph: Graph) -> None:
        """Called with the graph that pass number ``position`` gets."""

    def after(self, position: int, step: Pass, graph: Graph, result: Graph) -> None:
        """Called with the graph the pass got and the one it gave; raises PassError when something is wrong with it."""


class Verify(Instrument):
    """Checks every result with the IR's verifier, and that the signature of the graph is unchanged."""

    def after(self, position: int, step: Pass, graph: Graph, result: Graph) -> None:
        try:
            verify(result)
        except VerificationError as error:
            raise PassError(f"pass {position} '{step}' gave an invalid graph: {error}") from error
        for what, old, new in (("inputs", graph.inputs, result.inputs), ("outputs", graph.outputs, result.outputs)):
            if [value.type for value in old] != [value.type for value in new]:
                raise PassError(
                    f"pass {position} '{step}' changed the types of the {what} from {[str(value.type) for value in old]} "
                    f"to {[str(value.type) for value in new]}"
                )


@dataclass
class Time(Instrument):
    """Measures passes: ``seconds`` holds (text form of the pass, seconds) in order."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    _start: float = 0.0

    def before(self, position: int, step: Pass, graph: Graph) -> None:
        self._start = time.perf_counter()

    def after(self, position: int, step: Pass, graph: Graph, result: Graph) -> None:
        self.seconds.append((str(step), time.perf_counter() - self._start))

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.seconds)


@dataclass
class Dump(Instrument):
    """Writes the graph before the first pass and after each one to numbered text files in ``directory``."""

    directory: Path

    def before(self, position: int, step: Pass, graph: Graph) -> None:
        if position == 0:
            self._write("00-input.mlc", graph)

    def after(self, position: int, step: Pass, graph: Graph, result: Graph) -> None:
        self._write(f"{position + 1:02d}-{step.name}.mlc", result)

    def _write(self, name: str, graph: Graph) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / name).write_text(str(graph))


@dataclass
class Compare(Instrument):
    """Runs the graph before and after each pass in the interpreter, in float64, on the same random inputs.

    PassError when an output differs by more than ``tolerance`` relative to its largest element, or when not the same elements are
    NaN or infinite. What a pass that rounds leaves is what the passes behind it must keep. ``bounds`` gives, by input name, the exclusive
    upper bound of integer inputs (default 2: fit to index anything).
    """

    tolerance: float = 1e-5
    seed: int = 0
    bounds: Mapping[str, int] = field(default_factory=dict)
    _expected: Sequence[np.ndarray] | None = None
    _inputs: Sequence[np.ndarray] = ()

    def before(self, position: int, step: Pass, graph: Graph) -> None:
        if self._expected is None or position == 0:
            self._inputs = random_inputs(graph, self.seed, self.bounds)
            self._expected = interpret(graph, self._inputs, wide=True)

    def after(self, position: int, step: Pass, graph: Graph, result: Graph) -> None:
        assert self._expected is not None
        results = interpret(result, self._inputs, wide=True)
        if step.rounds:
            self._expected = results
        for index, (expected, found) in enumerate(zip(self._expected, results, strict=True)):
            difference = relative_difference(expected, found)
            if difference > self.tolerance:
                raise PassError(
                    f"pass {position} '{step}' changed output {index}: relative difference {difference:.3g} exceeds {self.tolerance:.3g}"
                )


def random_inputs(graph: Graph, seed: int = 0, bounds: Mapping[str, int] | None = None) -> list[np.ndarray]:
    """One array for each input: normal floats, integers below their bound (by name, default 2), random booleans."""
    generator = np.random.default_rng(seed)
    return [_random(generator, value.tensor, (bounds or {}).get(value.name, 2)) for value in graph.inputs]


def _random(generator: np.random.Generator, type: TensorType, bound: int) -> np.ndarray:
    if type.dtype is DType.BOOL:
        return generator.integers(0, 2, type.static_shape).astype(np.bool_)
    if type.dtype.is_integer:
        return generator.integers(0, bound, type.static_shape).astype(type.dtype.numpy)
    return generator.standard_normal(type.static_shape).astype(type.dtype.numpy)


def relative_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference over the largest finite magnitude expected; infinite when shapes or non-finite elements differ."""
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind not in "fc":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)) or not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(np.abs(expected[finite]).max())
    return float(np.abs(expected[finite] - found[finite]).max()) / (scale or 1.0)


@dataclass
class Watch(Instrument):
    """Calls ``action`` with (position, pass, result) after every pass."""

    action: Callable[[int, Pass, Graph], None]

    def after(self, position: int, step: Pass, graph: Graph, result: Graph) -> None:
        self.action(position, step, result)
