"""Searchers on a synthetic space with one best point."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mlc.autotune.gaussian_process import GaussianProcess
from mlc.autotune.search import GridSearcher, ModelSearcher, RandomSearcher, Searcher, expected_improvement
from mlc.autotune.stochastic_search import AnnealingSearcher, EvolutionarySearcher
from mlc.codegen.record import Record
from mlc.codegen.space import Config, Space
from mlc.codegen.task import Task
from mlc.costmodel import CostModel, Prediction, RooflineModel

Cost = Callable[[Config], float]


class Misled(RooflineModel):
    """Ranks every config by the wrong knob."""

    def predict(self, task: Task, configs: Sequence[Config]) -> Prediction:
        seconds = np.asarray([1e-5 * (1 + 0.1 * config["unroll"]) for config in configs])
        return Prediction(seconds, -np.log(seconds)[None, :])


def search(searcher: Searcher, cost: Cost, trials: int, batch: int = 4) -> int:
    """Runs a search with exact times; the number of measurements made."""
    made = 0
    while made < trials and (configs := searcher.propose(min(batch, trials - made))):
        searcher.update([Record("t", "cpu", config, (cost(config),), "v", time.time()) for config in configs])
        made += len(configs)
    return made


@pytest.mark.parametrize(
    "make", [GridSearcher, RandomSearcher, AnnealingSearcher, EvolutionarySearcher], ids=["grid", "random", "annealing", "evolutionary"]
)
def test_exhaustive_searchers_visit_everything_once(make: Callable[[Task, Space], Searcher], task: Task, space: Space, cost: Cost) -> None:
    searcher = make(task, space)
    assert searcher.propose(3)[0] == space.default
    assert search(searcher, cost, 10_000) == len(space)
    assert searcher.propose(1) == []
    assert searcher.best == Config.of("synthetic", {"rows": 6, "unroll": 4, "vectors": 3})


@pytest.mark.parametrize("model", [RooflineModel(), Misled()], ids=["roofline", "misled"])
def test_the_model_searcher_finds_the_best_in_a_quarter_of_the_space(model: CostModel, task: Task, space: Space, cost: Cost) -> None:
    searcher = ModelSearcher(task, space, model)
    search(searcher, cost, len(space) // 4)
    assert searcher.best_seconds <= 1.05 * min(cost(config) for config in space.configs)


@pytest.mark.parametrize("seed", range(3))
def test_evolution_and_annealing_find_more_than_chance(seed: int, task: Task, space: Space, cost: Cost) -> None:
    """In a third of the space, although the model of one knows the wrong knob only, whose best value costs 14%."""
    best = min(cost(config) for config in space.configs)
    evolved = EvolutionarySearcher(task, space, Misled(), seed)
    search(evolved, cost, len(space) // 3)
    assert evolved.best_seconds <= 1.15 * best
    annealed = AnnealingSearcher(task, space, seed)
    search(annealed, cost, len(space) // 3, batch=2)
    assert annealed.best_seconds <= 1.25 * best


def test_searchers_repeat_themselves_for_a_seed(task: Task, space: Space, cost: Cost) -> None:
    for make in (RandomSearcher, AnnealingSearcher, lambda task, space, seed: EvolutionarySearcher(task, space, seed=seed)):
        orders = []
        for seed in (1, 1, 2):
            searcher = make(task, space, seed)
            search(searcher, cost, 20)
            orders.append(list(searcher.measured))
        assert orders[0] == orders[1] != orders[2]


def test_seeds_come_right_after_the_default(task: Task, space: Space) -> None:
    seeds = [Config.of("synthetic", {"rows": 6, "unroll": 2, "vectors": 2}), Config.of("other", {"rows": 6})]
    searcher = ModelSearcher(task, space, seeds=[*seeds, space.default])
    assert searcher.propose(4)[:2] == [space.default, seeds[0]]
    assert len(set(searcher.propose(4))) == 4


def test_the_model_searcher_gives_up_when_nothing_is_to_be_gained(task: Task, space: Space) -> None:
    searcher = ModelSearcher(task, space)

    def flat(config: Config) -> float:
        return 1e-5 if config == space.default else 4e-5

    assert search(searcher, flat, len(space)) < len(space)
    assert searcher.expected_gain() == 0.0


def test_failed_configs_are_not_proposed_again(task: Task, space: Space) -> None:
    searcher = ModelSearcher(task, space)
    seen: list[Config] = []
    for _ in range(5):
        configs = searcher.propose(4)
        seen += configs
        searcher.update([Record("t", "cpu", config, (), "v", 0.0, "crashed") for config in configs])
    assert len(set(seen)) == 20
    assert searcher.best is None


def test_records_of_another_space_are_ignored(task: Task, space: Space) -> None:
    searcher = GridSearcher(task, space)
    searcher.update([Record("t", "cpu", Config.of("synthetic", {"rows": 5, "unroll": 1, "vectors": 1}), (1e-9,), "v", 0.0)])
    assert searcher.best is None


def test_the_gaussian_process_interpolates_and_doubts_far_away() -> None:
    points = np.linspace(0, 1, 6)[:, None]
    process = GaussianProcess(points, np.zeros(6), np.sin(3 * points[:, 0]), prior_deviation=0.5)
    mean, deviation = process.predict(np.array([[0.5], [4.0]]), np.zeros(2))
    assert mean[0] == pytest.approx(np.sin(1.5), abs=0.1)
    assert deviation[0] < 0.1 < deviation[1]


def test_the_gaussian_process_follows_a_trend() -> None:
    trend = np.array([-1.0, 0.0, 0.5, 2.0])
    process = GaussianProcess(np.zeros((4, 1)), trend, -0.6 * trend, prior_deviation=0.1)
    mean, _ = process.predict(np.zeros((1, 1)), np.array([3.0]))
    assert mean[0] == pytest.approx(-1.8, abs=0.2)


def test_expected_improvement_grows_with_promise_and_with_doubt() -> None:
    gains = expected_improvement(0.0, np.array([0.5, 0.1, -0.5, 0.5]), np.array([0.1, 0.1, 0.1, 1.0]))
    assert gains[0] < gains[1] < gains[2]
    assert gains[0] < gains[3]
    assert gains[2] == pytest.approx(0.5, abs=1e-3)
