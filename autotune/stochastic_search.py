"""Searchers that walk a space by chance: what model-guided search is compared with, and an evolutionary search guided by a model."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ..codegen.record import Record
from ..codegen.space import Config, Space
from ..codegen.task import Task
from ..costmodel import CostModel, RooflineModel
from .search import Searcher

_PARENTS = 8
_CHILDREN = 64
"""Tried for each batch, most of which are known or not allowed."""
_EXPLORED = 5
"""Of so many proposals, one is drawn from the whole space."""


class AnnealingSearcher(Searcher):
    """Simulated annealing (Kirkpatrick, Gelatt and Vecchi, "Optimization by simulated annealing", 1983).

    A walk over neighbours: a slower one is accepted with a probability that falls with the difference in log time over the temperature,
    which is ``temperature`` at first and is multiplied by ``cooling`` for every measurement.
    """

    def __init__(self, task: Task, space: Space, seed: int = 0, *, temperature: float = 0.5, cooling: float = 0.95) -> None:
        super().__init__(task, space)
        self._generator = random.Random(seed)
        self._temperature = temperature
        self._cooling = cooling
        self._current: Config | None = None

    def update(self, records: Sequence[Record]) -> None:
        """See :meth:`Searcher.update`; each measurement may also be the next step of the walk."""
        super().update(records)
        for record in records:
            if record.config in self.space and record.times and self._accepts(record.config):
                self._current = record.config
            self._temperature *= self._cooling

    def _accepts(self, config: Config) -> bool:
        if self._current is None:
            return True
        slower = math.log(self.measured[config] / self.measured[self._current])
        return slower <= 0 or self._generator.random() < math.exp(-slower / max(self._temperature, 1e-9))

    def rank(self, candidates: Sequence[Config]) -> list[Config]:
        """Neighbours of where the walk is, then anything."""
        shuffled = list(candidates)
        self._generator.shuffle(shuffled)
        near = set(self.space.neighbours(self._current)) if self._current is not None else set()
        return sorted(shuffled, key=lambda config: config not in near)


class EvolutionarySearcher(Searcher):
    """Evolution among the measured configs, whose children a cost model sorts (as in Zheng et al., "Ansor", 2020).

    Parents are the quickest configs so far; children take each knob from either and change another one. Of each batch a part is drawn
    from the whole space, so that nothing is out of reach.
    """

    def __init__(self, task: Task, space: Space, model: CostModel | None = None, seed: int = 0, *, seeds: Sequence[Config] = ()) -> None:
        super().__init__(task, space, seeds)
        self._generator = random.Random(seed)
        prediction = (model or RooflineModel()).predict(task, space.configs)
        self._score = dict(zip(space.configs, (float(score) for score in prediction.score), strict=True))

    def rank(self, candidates: Sequence[Config]) -> list[Config]:
        """Children and strangers in turn, then what the model thinks of the rest."""
        expected = self._children()
        # Of equals, the order must not depend on hashes, which differ from process to process.
        children = sorted((config for config in candidates if config in expected), key=lambda config: (expected[config], str(config)))
        strangers = self._generator.sample(list(candidates), min(len(candidates), 1 + len(children) // _EXPLORED))
        rest = sorted(candidates, key=lambda config: -self._score[config])
        mixed: list[Config] = []
        for place, child in enumerate(children):
            if strangers and place % _EXPLORED == _EXPLORED - 1:
                mixed.append(strangers.pop())
            mixed.append(child)
        return list(dict.fromkeys([*mixed, *rest]))

    def _children(self) -> dict[Config, float]:
        """Each child with the log time to be expected: a parent's measured one, and what the model thinks of the difference."""
        parents = sorted((config for config, seconds in self.measured.items() if math.isfinite(seconds)), key=self.measured.__getitem__)
        parents = parents[:_PARENTS]
        found: dict[Config, float] = {}
        for _ in range(_CHILDREN if parents else 0):
            parent = self._generator.choice(parents)
            child = self.space.mutated(self.space.crossed(parent, self._generator.choice(parents), self._generator), self._generator)
            expected = math.log(self.measured[parent]) + self._score[parent] - self._score[child]
            found[child] = min(expected, found.get(child, math.inf))
        return found
