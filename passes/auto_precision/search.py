"""From sensitivities and predicted times to a mode for each layer whose error was measured, not only added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...codegen.precision import FP32, MODES, Mode, Precision
from ...ir import Graph, Node
from ..base import Context
from .errors_of import relative_error
from .knapsack import Candidate, cheapest
from .layers import Layer, layers_of
from .simulation import Effect, Simulation
from .timing import Seconds, predicted_seconds

GAIN = 0.95
"""A mode is worth trying where the layer then takes at most this share of its time in fp32."""
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
    simulation = Simulation(graph, layers, samples, ctx)
    everything = [*samples, *held_out]
    expected = [[np.array(array) for array in simulation.outputs({}, sample)] for sample in everything]

    def error_of(effects: Mapping[Node, Effect], count: int) -> float:
        pairs = zip(everything[:count], expected[:count], strict=True)
        return max((relative_error(simulation.outputs_of(effects, sample), right) for sample, right in pairs), default=0.0)

    candidates = []
    for layer in layers:
        exact = Candidate(FP32.name, predict(layer, FP32), 0.0)
        found = [exact]
        for mode in modes:
            time = predict(layer, mode) if mode is not FP32 else exact.seconds
            if time <= GAIN * exact.seconds and (effects := simulation.effects(layer, mode)):
                found.append(Candidate(mode.name, time, error_of(effects, len(samples))))
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
