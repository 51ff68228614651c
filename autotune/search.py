"""Search over a space: which configs of a task to measure next.

Searchers share one interface, so that they can be compared at equal numbers of measurements. Spaces are small and enumerable:
a model-guided searcher looks at every point.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ..codegen.record import Record
from ..codegen.space import Config, Space
from ..codegen.task import Task
from ..costmodel import CostModel, RooflineModel
from .gaussian_process import GaussianProcess

SearcherFactory: TypeAlias = "Callable[[Task, Space], Searcher]"


class Searcher(ABC):
    """Proposes configs of one task's space and hears how they did. The template's default always comes first, then the ``seeds``: what did
    well for similar tasks."""

    def __init__(self, task: Task, space: Space, seeds: Sequence[Config] = ()) -> None:
        self.task = task
        self.space = space
        self.first = tuple(dict.fromkeys([space.default, *(config for config in seeds if config in space)]))
        self.measured: dict[Config, float] = {}
        """Seconds of each measured config; infinity for one that failed."""

    @abstractmethod
    def rank(self, candidates: Sequence[Config]) -> list[Config]:
        """``candidates``, not yet measured, the one most worth measuring first."""

    def propose(self, count: int) -> list[Config]:
        """Up to ``count`` configs that are not measured yet; none when the space is exhausted or nothing is to be gained."""
        first = [config for config in self.first if config not in self.measured]
        remaining = [config for config in self.space.configs if config not in self.measured and config not in first]
        return first[:count] if len(first) >= count else [*first, *self.rank(remaining)][:count]

    def update(self, records: Sequence[Record]) -> None:
        """Takes in measurements of this task; those of other spaces' configs are ignored."""
        for record in records:
            if record.config in self.space:
                self.measured[record.config] = record.median

    @property
    def best(self) -> Config | None:
        """The fastest measured config; None when none succeeded."""
        config = min(self.measured, key=lambda config: self.measured[config], default=None)
        return config if config is not None and math.isfinite(self.measured[config]) else None

    @property
    def best_seconds(self) -> float:
        return self.measured[self.best] if self.best is not None else math.inf

    @property
    def remaining(self) -> int:
        return len(self.space) - len(self.measured)

    def expected_gain(self) -> float:
        """Seconds per call that the next measurement may be expected to save; a guess that shrinks with every measurement."""
        if not self.remaining or self.best is None:
            return 0.0
        return 0.3 * self.best_seconds / (1 + len(self.measured))


class GridSearcher(Searcher):
    """Every point in the order of enumeration."""

    def rank(self, candidates: Sequence[Config]) -> list[Config]:
        return list(candidates)


class RandomSearcher(Searcher):
    """Every point in a random order that ``seed`` fixes."""

    def __init__(self, task: Task, space: Space, seed: int = 0) -> None:
        super().__init__(task, space)
        shuffled = list(space.configs)
        random.Random(seed).shuffle(shuffled)
        self._place = {config: place for place, config in enumerate(shuffled)}

    def rank(self, candidates: Sequence[Config]) -> list[Config]:
        return sorted(candidates, key=lambda config: self._place[config])


class ModelSearcher(Searcher):
    """Bayesian optimisation around a cost model (Jones, Schonlau and Welch, "Efficient global optimization", 1998).

    The logarithm of time is the model's prediction plus a Gaussian process over the knobs, which learns from the measurements where
    the model is wrong, also by how much its range is too wide or too narrow. Candidates are ranked by the improvement to be
    expected, so that doubt counts as well as promise. ``doubt`` is the standard deviation of the model's error in log time before
    anything is measured. The search gives up when ``patience`` of relative improvement is not to be expected any more.
    """

    def __init__(
        self,
        task: Task,
        space: Space,
        model: CostModel | None = None,
        *,
        seeds: Sequence[Config] = (),
        doubt: float = 0.25,
        patience: float = 0.002,
    ) -> None:
        super().__init__(task, space, seeds)
        prediction = (model or RooflineModel()).predict(task, space.configs)
        self._patience = patience
        self._doubt = doubt
        self._prior = dict(zip(space.configs, _log_seconds(prediction.seconds, prediction.score), strict=True))
        self._place = {config: _coordinates(space, config) for config in space.configs}

    def rank(self, candidates: Sequence[Config]) -> list[Config]:
        if not candidates:
            return []
        if self.best is None:
            return sorted(candidates, key=lambda config: self._prior[config])
        gains = self._gains(candidates)
        if gains.max() < self._patience:
            return []
        return [candidates[index] for index in np.argsort(-gains, kind="stable")]

    def expected_gain(self) -> float:
        """The largest expected improvement of any unmeasured config, in seconds per call."""
        candidates = [config for config in self.space.configs if config not in self.measured]
        if not candidates or self.best is None:
            return 0.0
        gain = float(self._gains(candidates).max())
        return gain * self.best_seconds if gain >= self._patience else 0.0

    def _gains(self, candidates: Sequence[Config]) -> np.ndarray:
        """Expected improvement over the best time, relative to it."""
        known = [config for config, seconds in self.measured.items() if math.isfinite(seconds)]
        prior, error = self._priors(known), np.asarray([math.log(self.measured[config]) - self._prior[config] for config in known])
        process = GaussianProcess(self._places(known), prior, error, self._doubt)
        mean, deviation = process.predict(self._places(candidates), self._priors(candidates))
        mean = mean + self._priors(candidates)
        return expected_improvement(math.log(self.best_seconds), mean, deviation)

    def _priors(self, configs: Sequence[Config]) -> np.ndarray:
        return np.asarray([self._prior[config] for config in configs])

    def _places(self, configs: Sequence[Config]) -> np.ndarray:
        return np.asarray([self._place[config] for config in configs])


_WORST = 1.5
"""A model's word that a config is slower than its best by more than this, in log time, is not taken."""


def _log_seconds(seconds: np.ndarray, score: np.ndarray) -> list[float]:
    """Log times in the order of the ranking, which is the better judge of order: sorted predictions dealt out by score."""
    values = np.sort(np.log(seconds))
    values = np.minimum(values, values[0] + _WORST)
    logs = np.empty_like(values)
    logs[np.argsort(-score, kind="stable")] = values
    return [float(value) for value in logs]


def _coordinates(space: Space, config: Config) -> list[float]:
    """A config as a point: for each knob the place of its value among the choices, from 0 to 1."""
    knobs = dict(config.knobs)
    point = []
    for name, values in space.choices:
        ordered = sorted(values)
        place = ordered.index(knobs[name]) if knobs.get(name) in ordered else 0
        point.append(place / max(len(ordered) - 1, 1))
    return point


def expected_improvement(best: float, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Expected decrease below ``best`` of normal variables, zero where they are above."""
    deviation = np.maximum(deviation, 1e-9)
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    below = np.asarray([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    return np.asarray(deviation * (z * below + density))
