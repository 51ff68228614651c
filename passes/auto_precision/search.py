"""From sensitivities and predicted times to a mode for each layer whose error was measured, not only added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...codegen.precision import FP32, MODES, Mode, Precision
from ...ir import Graph
from ..base import Context
from .knapsack import Candidate, cheapest
from .layers import Layer, layers_of
from .rounding import Operand, distance, rounding_of
from .simulation import Changes, Simulation
from .timing import Seconds, predicted_seconds

GAIN = 0.95
"""A mode is worth trying where the layer then takes at most this share of its time in fp32."""
_SENSITIVE = 1
"""Samples by which sensitivities are measured, at most: each costs a run for each layer and mode."""
_JUDGES = 2
"""Samples that calibrate, and as many that are held out, by which the error of the whole is estimated, at most."""
_HOPELESS = 1.5
"""A mode is not tried whose error is expected to be this many times the tolerance."""
_ROUNDS = 8
"""How often the knapsack is solved again for a smaller budget before layers go back to fp32 one by one."""
_SHRINK = 0.9
"""The share of the budget that is left after an error above the tolerance, at most."""

Samples = Sequence[Sequence[np.ndarray]]
"""Inputs of the graph, for each sample."""


@dataclass(frozen=True)
class LayerChoice:
    """The mode of a layer, by its modules. ``error`` is the relative error of the whole model's results when only this layer has it;
    ``seconds`` and ``fp32_seconds`` are predicted; ``least_error`` is that of the most accurate mode that would be quicker (None: there is
    none)."""

    modules: tuple[str, ...]
    parameters: int
    mode: str
    error: float
    seconds: float
    fp32_seconds: float
    least_error: float | None = None


@dataclass(frozen=True)
class Assignment:
    """A mode for each layer, and the error of the whole model with them: the worst over all samples, calibrating and held out."""

    layers: tuple[LayerChoice, ...]
    error: float

    @property
    def lowered(self) -> tuple[LayerChoice, ...]:
        """The layers that do not compute in fp32."""
        return tuple(layer for layer in self.layers if layer.mode != FP32.name)

    @property
    def precision(self) -> Precision:
        """The modes by module. Every module is named, since a path stands for what is inside of it as well."""
        if not self.lowered:
            return Precision()
        return Precision(tuple((module, layer.mode) for layer in self.layers for module in layer.modules))

    def promoted(self) -> Assignment:
        """The same with the layer of the largest error back in fp32, in whose stead the error is not known yet."""
        worst = max(self.lowered, key=lambda layer: layer.error)
        layers = tuple(_in_fp32(layer) if layer is worst else layer for layer in self.layers)
        return Assignment(layers, math.nan)


@dataclass(frozen=True)
class Sensitivities:
    """What each layer may be lowered to, and the error and the time of that: all that a choice needs.

    ``changes`` are those of a layer's result in a mode, by the mode's name.
    """

    layers: tuple[Layer, ...]
    candidates: tuple[tuple[Candidate, ...], ...]
    changes: Mapping[tuple[Layer, str], Changes]
    simulation: Simulation | None

    def choose(self, tolerance: float) -> Assignment:
        """The modes of least predicted time with an error of at most ``tolerance``, estimated for all layers together.

        Where it is larger than the sum of squares says, the knapsack is solved for a smaller budget, and in the end layers go back to fp32,
        the worst first; should nothing hold, that is all of them.
        """
        budget = tolerance
        for _ in range(_ROUNDS):
            picked = cheapest(self.candidates, budget)
            assignment = Assignment(tuple(map(_choice, self.layers, self.candidates, picked)), math.nan)
            error = self._error(assignment)
            if error <= tolerance:
                return replace(assignment, error=error)
            # Errors added up to more than independent ones do: as much less is allowed of them.
            budget *= min(_SHRINK, tolerance / error)
        while error > tolerance:
            assignment = assignment.promoted()
            error = self._error(assignment)
        return replace(assignment, error=error)

    def _error(self, assignment: Assignment) -> float:
        """The error of the whole model, to first order."""
        pairs = zip(self.layers, assignment.layers, strict=True)
        changes = [self.changes[layer, choice.mode] for layer, choice in pairs if choice.mode != FP32.name]
        return self.simulation.error(changes) if changes and self.simulation is not None else 0.0


def sensitivities_of(
    graph: Graph,
    samples: Samples,
    held_out: Samples,
    ctx: Context,
    tolerance: float,
    *,
    seconds: Seconds | None = None,
) -> Sensitivities:
    """The errors of the layers of ``graph`` in modes that are predicted to be quicker, as far as they may stay within ``tolerance``.

    ``graph`` is one of simple operations, before layers are merged and modes applied. Sensitivities come from the first of ``samples``; the
    first few of them and of ``held_out`` judge assignments. ``seconds`` predicts times (None: for the context's target).
    """
    layers = layers_of(graph)
    predict = seconds or predicted_seconds(graph, ctx)
    quicker = {layer: _quicker(layer, predict) for layer in layers}
    lowered = [layer for layer, times in quicker.items() if times]
    judges = [*samples[:_JUDGES], *held_out[:_JUDGES]]
    simulation = Simulation(graph, lowered, judges, ctx) if lowered else None
    candidates: list[tuple[Candidate, ...]] = []
    changes: dict[tuple[Layer, str], Changes] = {}
    for layer, times in quicker.items():
        found = [Candidate(FP32.name, predict(layer, FP32), 0.0)]
        if simulation is not None:
            for trial, error, change in _tried(layer, _trials(layer, times, ctx), simulation, tolerance):
                found.append(Candidate(trial.mode.name, trial.seconds, error))
                if error <= tolerance:
                    changes[layer, trial.mode.name] = change
        candidates.append(tuple(found))
    return Sensitivities(layers, tuple(candidates), changes, simulation)


@dataclass(frozen=True)
class _Trial:
    """A mode worth running a layer in. ``distance`` is that of the rounded weights from those in fp32, relative."""

    mode: Mode
    seconds: float
    distance: float
    operands_rounded: bool
    """Whether more than the weights loses accuracy."""


def _tried(layer: Layer, trials: Iterable[_Trial], simulation: Simulation, tolerance: float) -> Iterator[tuple[_Trial, float, Changes]]:
    """The errors of the model with ``layer`` alone in the modes of ``trials``, but for those that are sure to be too large: as the error of
    rounded weights grows with their distance."""
    rate = 0.0
    for trial in trials:
        if rate * trial.distance > _HOPELESS * tolerance:
            continue
        change = simulation.changes(layer, trial.mode)
        if change is None:
            continue
        error = simulation.error([change], _SENSITIVE)
        if not trial.operands_rounded and trial.distance > 0.0:
            rate = error / trial.distance
        yield trial, error, change


def _quicker(layer: Layer, predict: Seconds) -> dict[Mode, float]:
    """The modes in which ``layer`` is quick enough to be worth it, and its seconds."""
    limit = GAIN * predict(layer, FP32)
    times = {mode: predict(layer, mode) for mode in MODES.values() if mode is not FP32}
    return {mode: seconds for mode, seconds in times.items() if seconds <= limit}


def _trials(layer: Layer, times: Mapping[Mode, float], ctx: Context) -> list[_Trial]:
    """What to run ``layer`` in: modes that do something to it, the weights nearest to fp32 first, without those that another one beats in
    both time and nearness."""
    trials: list[_Trial] = []
    for mode, seconds in times.items():
        roundings = {node: rounding for node in layer.nodes if (rounding := rounding_of(node, mode, ctx)) is not None}
        if roundings:
            farthest = max(distance(node, rounding) for node, rounding in roundings.items())
            operands_rounded = any(rounding.operand is not Operand.PLAIN for rounding in roundings.values())
            trials.append(_Trial(mode, seconds, farthest, operands_rounded))
    trials.sort(key=lambda trial: (trial.distance, trial.seconds))
    kept: list[_Trial] = []
    for trial in trials:
        plain = (other.seconds for other in kept if not other.operands_rounded)
        if trial.operands_rounded or trial.seconds < min(plain, default=math.inf):
            kept.append(trial)
    return kept


def _choice(layer: Layer, candidates: Sequence[Candidate], chosen: Candidate) -> LayerChoice:
    exact, *others = candidates
    least = min((candidate.error for candidate in others), default=None)
    return LayerChoice(layer.modules, layer.parameters, chosen.mode, chosen.error, chosen.seconds, exact.seconds, least)


def _in_fp32(layer: LayerChoice) -> LayerChoice:
    return replace(layer, mode=FP32.name, error=0.0, seconds=layer.fp32_seconds)
