"""What a graph should compute, and how far a correct implementation may be from it.

The truth is a float64 interpretation. A correct fp32 implementation rounds after every operation, in an order of its own; what such
rounding does to the results depends on the graph (differences of large numbers, steep functions, comparisons of nearly equal numbers).
So the graph is interpreted several times more with every rounding operation's results multiplied by 1 + e, |e| <= 2^-22: how far these
lie from the truth, times a factor, is what is allowed, after Higham ("Accuracy and Stability of Numerical Algorithms", 2002), who calls
an algorithm stable when its error is of the size that perturbed data would cause. Elements that such noise changes beyond recognition (a
comparison that flips) are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ir import Graph, Interpreter, Node, Trait, Value, interpret, lookup

FACTOR = 24.0
"""Error allowed, in units of what noise of 2 units in the last place does; 10 times PyTorch's error is the project's measure."""

FLOOR = 1e-5
"""Norm-wise relative error that is always allowed."""

_NOISE = 2.0**-22
_SAMPLES = 4
_EXACT = frozenset(
    {"abs", "neg", "relu", "clamp", "maximum", "minimum", "where", "sign", "floor", "ceil", "round", "trunc", "cast", "sort"}
)
_FAR = 1e-3


@dataclass(frozen=True)
class Reference:
    """The truth for some inputs, and results under noise, each a tuple with an array for every output; ``finite`` when no value of the
    graph is infinite or NaN, which is where fast numerics promise PyTorch's results."""

    graph: Graph
    truth: tuple[np.ndarray, ...]
    noisy: tuple[tuple[np.ndarray, ...], ...]
    finite: bool

    def problem(self, results: Sequence[np.ndarray], what: str) -> str | None:
        """What is wrong with ``results``, of the graph's outputs; None when nothing is."""
        if len(results) != len(self.truth):
            return f"{what} gave {len(results)} outputs instead of {len(self.truth)}"
        for position, (value, result) in enumerate(zip(self.graph.outputs, results, strict=True)):
            noisy = [sample[position] for sample in self.noisy]
            found = difference(np.asarray(result), self.truth[position], noisy, value)
            if found is not None:
                return f"{what}: output {position} (%{value.name}: {value.type}) {found}"
        return None


def reference_of(graph: Graph, inputs: Sequence[np.ndarray]) -> Reference:
    """The reference of ``graph`` on ``inputs``. Raises what the interpreter does where an operation is undefined."""
    truth = interpret(graph, inputs, wide=True)
    rounded = interpret(graph, inputs)
    interpreters = [_Noisy.of(graph, seed) for seed in range(_SAMPLES)]
    noisy = [each.run(_wide(graph, inputs)) for each in interpreters]
    finite = all(_all_finite(array) for array in (*inputs, *rounded)) and not any(each.overflows for each in interpreters)
    return Reference(graph, truth, (rounded, *noisy), finite)


def _all_finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def difference(result: np.ndarray, truth: np.ndarray, noisy: Sequence[np.ndarray], value: Value) -> str | None:
    """How ``result`` differs from ``truth`` by more than noise explains; None when it does not."""
    if result.shape != truth.shape:
        return f"has shape {list(result.shape)} instead of {list(truth.shape)}"
    if not value.tensor.dtype.is_float:
        stable = np.ones(truth.shape, bool)
        for sample in noisy:
            stable &= np.asarray(sample == truth)
        wrong = np.asarray(result != truth.astype(result.dtype)) & stable
        return _where(wrong, result, truth, "differs") if wrong.any() else None
    return _float_difference(result.astype(np.float64), truth.astype(np.float64), [sample.astype(np.float64) for sample in noisy])


def _float_difference(result: np.ndarray, truth: np.ndarray, noisy: Sequence[np.ndarray]) -> str | None:
    # A float64 truth may be finite where fp32 overflows: only what all interpretations agree on counts.
    kinds = [_kind(array) for array in (truth, *noisy)]
    agreed = np.asarray(np.logical_and.reduce([kind == kinds[0] for kind in kinds]))
    wrong = agreed & (_kind(result) != kinds[0])
    if wrong.any():
        return _where(wrong, result, truth, "is not finite, or NaN, where it should be otherwise,")
    finite = agreed & (kinds[0] == 0)
    with np.errstate(all="ignore"):
        scale = float(np.max(np.abs(truth), where=finite, initial=0.0))
        steady = finite.copy()
        for sample in noisy:
            steady &= np.abs(sample - truth) <= _FAR * np.maximum(np.abs(truth), 1e-3 * scale)
        if not steady.any():
            return None
        size = float(np.linalg.norm(truth[steady]))
        allowed = max(float(np.linalg.norm((sample - truth)[steady])) for sample in noisy)
        error = float(np.linalg.norm((result - truth)[steady]))
    if error <= max(FACTOR * allowed, FLOOR * size, 1e-30):
        return None
    off = np.where(steady, np.abs(result - truth), 0.0)
    worst = np.unravel_index(int(np.argmax(off)), truth.shape)
    return (
        f"is off by {error / max(size, 1e-300):.1e} (noise does {allowed / max(size, 1e-300):.1e}); worst at {list(map(int, worst))}: "
        f"{result[worst]!r} instead of {truth[worst]!r}"
    )


def _kind(array: np.ndarray) -> np.ndarray:
    """0 for finite numbers, 1 and -1 for infinities, 2 for NaN."""
    return np.where(np.isnan(array), 2, np.where(np.isinf(array), np.sign(array), 0))


def _where(wrong: np.ndarray, result: np.ndarray, truth: np.ndarray, verb: str) -> str:
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{verb} in {int(wrong.sum())} of {wrong.size} elements, first at {list(place)}: {result[place]!r} instead of {truth[place]!r}"


def _wide(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [
        np.asarray(array, np.float64) if value.tensor.dtype.is_float else array for value, array in zip(graph.inputs, inputs, strict=True)
    ]


class _Noisy(Interpreter):
    """Interprets in float64, with noise on the results of every operation that rounds."""

    generator: np.random.Generator
    overflows: bool = False

    @classmethod
    def of(cls, graph: Graph, seed: int) -> _Noisy:
        noisy = cls(graph, wide=True)
        noisy.generator = np.random.default_rng(seed)
        return noisy

    def node(self, node: Node, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        results = super().node(node, inputs)
        self.overflows |= not all(_all_finite(np.asarray(array)) for array in results)
        if not _rounds(node):
            return results
        return [self._disturbed(array, value) for array, value in zip(results, node.outputs, strict=True)]

    def region(self, region: Graph, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        inner = type(self)(region, wide=True)
        inner.generator = self.generator
        results = inner.run(inputs)
        self.overflows |= inner.overflows
        return results

    def _disturbed(self, array: np.ndarray, value: Value) -> np.ndarray:
        if not value.tensor.dtype.is_float:
            return array
        noise = self.generator.uniform(-_NOISE, _NOISE, np.shape(array))
        with np.errstate(all="ignore"):
            return np.asarray(array * (1.0 + noise))


def _rounds(node: Node) -> bool:
    """Whether fp32 hardware would round the results, given fp32 operands."""
    if node.op in ("constant", "fusion", "cond", "loop", "while") or node.op in _EXACT:
        return False
    return not lookup(node.op).has(Trait.VIEW) and any(value.tensor.dtype.is_float for value in node.inputs)
