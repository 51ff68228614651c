"""From sensitivities and predicted times to a mode for each layer whose error was measured, not only added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...codegen.precision import FP32, MODES, Compute, Mode, Precision
from ...ir import Graph, Node
from ..base import Context
from .errors_of import relative_error
from .knapsack import Candidate, cheapest
from .layers import Layer, layers_of, weight_of
from .simulation import Effect, Simulation
from .timing import Seconds, predicted_seconds

GAIN = 0.95
"""A mode is worth trying where the layer then takes at most this share of its time in fp32."""
_SENSITIVE = 1
"""Samples by which sensitivities are measured, at most: each costs a run for each layer and mode. All of them judge the whole."""
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


def choose_modes(
    graph: Graph,
    samples: Samples,
    held_out: Samples,
    ctx: Context,
    tolerance: float,
    *,
    modes: Iterable[Mode] = MODES.values(),
    seconds: Seconds | None = None,
) -> Assignment:
    """The modes with which ``graph`` is predicted to take least time, its relative error being at most ``tolerance`` on all samples.

    ``graph`` is one of simple operations, before layers are merged and modes applied. Sensitivities and ranges come from ``samples``;
    the error of the whole is measured on ``held_out`` as well. Where it is too large, the knapsack is solved for a smaller budget, and in
    the end layers go back to fp32, the worst first; should nothing hold, that is all of them. ``seconds`` predicts times (None: for the
    context's target).
    """
    layers = layers_of(graph)
    predict = seconds or predicted_seconds(graph, ctx)
    quicker = {layer: _quicker(layer, modes, predict) for layer in layers}
    rounded = [layer for layer, times in quicker.items() if any(mode.compute is not Compute.FP32 for mode in times)]
    simulation = Simulation(graph, layers, samples, ctx, rounded)
    everything = [*samples, *held_out]
    expected = [[np.array(array) for array in simulation.outputs({}, sample)] for sample in everything]

    def error_of(effects: Mapping[Node, Effect], count: int) -> float:
        pairs = zip(everything[:count], expected[:count], strict=True)
        return max((relative_error(simulation.outputs_of(effects, sample), right) for sample, right in pairs), default=0.0)

    candidates = []
    for layer, times in quicker.items():
        found = [Candidate(FP32.name, predict(layer, FP32), 0.0)]
        too_far = math.inf
        for trial in _trials(layer, times, simulation):
            # A mode that rounds the same weights more than one whose error is too large can only be worse.
            if trial.distance >= too_far:
                continue
            error = error_of(trial.effects, min(len(samples), _SENSITIVE))
            found.append(Candidate(trial.mode.name, trial.seconds, error))
            if error > tolerance and not trial.operands_rounded:
                too_far = trial.distance
        candidates.append(found)
    budget = tolerance
    for _ in range(_ROUNDS):
        picked = cheapest(candidates, budget)
        assignment = Assignment(tuple(map(_choice, layers, candidates, picked)), math.nan)
        error = error_of(_effects(assignment, layers, simulation), len(everything)) if assignment.lowered else 0.0
        if error <= tolerance:
            return replace(assignment, error=error)
        # Errors added up to more than independent ones do: as much less is allowed of them.
        budget *= min(_SHRINK, tolerance / error)
    while error > tolerance:
        assignment = assignment.promoted()
        error = error_of(_effects(assignment, layers, simulation), len(everything)) if assignment.lowered else 0.0
    return replace(assignment, error=error)


@dataclass(frozen=True)
class _Trial:
    """A mode worth running a layer in. ``distance`` is that of the rounded weights from those in fp32, relative."""

    mode: Mode
    seconds: float
    effects: Mapping[Node, Effect]
    distance: float

    @property
    def operands_rounded(self) -> bool:
        """Whether more than the weights loses accuracy."""
        return any(effect.operand for effect in self.effects.values())


def _quicker(layer: Layer, modes: Iterable[Mode], predict: Seconds) -> dict[Mode, float]:
    """The modes in which ``layer`` is quick enough to be worth it, and its seconds."""
    limit = GAIN * predict(layer, FP32)
    times = {mode: predict(layer, mode) for mode in modes if mode is not FP32}
    return {mode: seconds for mode, seconds in times.items() if seconds <= limit}


def _trials(layer: Layer, times: Mapping[Mode, float], simulation: Simulation) -> list[_Trial]:
    """What to run ``layer`` in: modes that do something to it, the weights nearest to fp32 first, without those that another one beats in
    both time and nearness."""
    trials: list[_Trial] = []
    for mode, seconds in times.items():
        if effects := simulation.effects(layer, mode):
            distance = max(relative_error([effect.weight], [weight_of(node).array()]) for node, effect in effects.items())
            trials.append(_Trial(mode, seconds, effects, distance))
    trials.sort(key=lambda trial: (trial.distance, trial.seconds))
    kept: list[_Trial] = []
    for trial in trials:
        plain = (other.seconds for other in kept if not other.operands_rounded)
        if trial.operands_rounded or trial.seconds < min(plain, default=math.inf):
            kept.append(trial)
    return kept


def _effects(assignment: Assignment, layers: Sequence[Layer], simulation: Simulation) -> Mapping[Node, Effect]:
    """What the modes of ``assignment`` do to the nodes of all layers."""
    lowered = [(layer, MODES[choice.mode]) for layer, choice in zip(layers, assignment.layers, strict=True) if choice in assignment.lowered]
    return {node: effect for layer, mode in lowered for node, effect in simulation.effects(layer, mode).items()}


def _choice(layer: Layer, candidates: Sequence[Candidate], chosen: Candidate) -> LayerChoice:
    exact, *others = candidates
    least = min((candidate.error for candidate in others), default=None)
    return LayerChoice(layer.modules, layer.parameters, chosen.mode, chosen.error, chosen.seconds, exact.seconds, least)


def _in_fp32(layer: LayerChoice) -> LayerChoice:
    return replace(layer, mode=FP32.name, error=0.0, seconds=layer.fp32_seconds)
