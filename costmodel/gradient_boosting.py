"""A gradient-boosted ranking of configs, with an ensemble for its uncertainty (Chen and Guestrin, "XGBoost", 2016).

Each member of the ensemble, grown on its own sample of the tasks, scores the configs of a task against each other, by two boosters: one
with a pairwise objective, and one that regresses the logarithm of how much faster than the task's mean a config is, which puts pairs far
apart in order more surely. Scores of different tasks mean nothing beside each other. One more booster regresses the logarithm of time over
roofline, for absolute times.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import CostModelError
from .boosters import Boosters, packed, unpacked
from .features import FEATURE_NAMES, feature_matrix
from .model import CostModel, Floats, Prediction, latest_by_task, read_json
from .roofline import roofline

VERSION = 3
_PAIRS = 32
"""Others of its task that a config is compared with in a round of the pairwise objective."""
_REGRESSION_WEIGHT = 4.0
"""Of a logarithm of speed beside a pairwise score: within a task the two then spread about alike."""


@dataclass(frozen=True)
class Hyperparameters:
    """Of each booster. ``members`` are pairs of boosters; ``task_share`` is the part of the tasks that one member of the ensemble sees."""

    members: int = 8
    rounds: int = 120
    depth: int = 4
    learning_rate: float = 0.12
    task_share: float = 0.7
    seed: int = 0


class GradientBoostedModel(CostModel):
    """Ranks configs of tasks that it never saw.

    ``trusted`` are the templates for which a held-out evaluation found it better than their defaults, and the revision of each
    that was measured: for kernels that have changed since, the evaluation says nothing.
    """

    def __init__(self, hyperparameters: Hyperparameters | None = None) -> None:
        self.hyperparameters = hyperparameters or Hyperparameters()
        self.trusted: dict[str, int] = {}
        self.notes: dict[str, Any] = {}
        """Where the model comes from: data, evaluation. Saved with it."""
        self._boosters: Boosters | None = None
        self._features: Sequence[str] = FEATURE_NAMES

    def fit(self, records: Sequence[Record], tasks: Mapping[str, Task]) -> None:
        """Trains from scratch; CostModelError when fewer than two tasks have two different configs measured."""
        groups = group_by_task(records, tasks)
        if len(groups) < 2:
            raise CostModelError(f"{len(groups)} tasks with several measured configs are too few to learn a ranking from; collect more")
        sizes = [len(group.configs) for group in groups]
        features = np.concatenate([group.features for group in groups])
        relative = np.concatenate([group.seconds.min() / group.seconds for group in groups])
        speed = np.concatenate([np.log(group.seconds).mean() - np.log(group.seconds) for group in groups])
        slowdown = np.concatenate([np.log(group.seconds / roofline(group.task).seconds) for group in groups])
        number = np.repeat(np.arange(len(groups)), sizes)
        generator = np.random.default_rng(self.hyperparameters.seed)
        rankers, speeds = [], []
        for member in range(self.hyperparameters.members):
            chosen = generator.permutation(len(groups))[: max(2, math.ceil(self.hyperparameters.task_share * len(groups)))]
            seen = np.isin(number, chosen)
            rankers.append(self._train(features[seen], relative[seen], member, number[seen]))
            speeds.append(self._train(features[seen], speed[seen], member, None))
        self._boosters = Boosters(tuple(rankers), tuple(speeds), self._train(features, slowdown, 0, None))
        self._features = FEATURE_NAMES

    def _train(self, features: Floats, labels: Floats, seed: int, groups: Any) -> str:
        """A booster as text of a file."""
        import xgboost

        data = xgboost.DMatrix(features, label=labels, qid=groups)
        options: dict[str, Any] = {
            "max_depth": self.hyperparameters.depth,
            "eta": self.hyperparameters.learning_rate,
            "subsample": 0.8,
            "colsample_bytree": 0.8,
            "seed": self.hyperparameters.seed + seed,
            "nthread": 1,
            "verbosity": 0,
        }
        if groups is None:
            options["objective"] = "reg:squarederror"
        else:
            # Labels are best time over time: pairs that differ more weigh more.
            options |= {"objective": "rank:pairwise", "lambdarank_pair_method": "mean", "lambdarank_num_pair_per_sample": _PAIRS}
        return packed(xgboost.train(options, data, self.hyperparameters.rounds).save_raw("ubj"))

    @property
    def fitted(self) -> bool:
        return self._boosters is not None

    def trusts(self, template: str, revision: int) -> bool:
        return self.fitted and self.trusted.get(template) == revision

    def predict(self, task: Task, configs: Sequence[Config]) -> Prediction:
        """See :meth:`CostModel.predict`; CostModelError before :meth:`fit` or :meth:`load`."""
        boosters = self._learned().grown
        columns = [FEATURE_NAMES.index(name) for name in self._features]
        data = feature_matrix(task, configs)[:, columns]
        members = zip(boosters.rankers, boosters.speeds, strict=True)
        scores = np.stack([ranker.predict(data) + _REGRESSION_WEIGHT * speed.predict(data) for ranker, speed in members])
        return Prediction(roofline(task).seconds * np.exp(boosters.slowdown.predict(data)), scores)

    def _learned(self) -> Boosters:
        if self._boosters is None:
            raise CostModelError("this cost model has learned nothing yet; fit it or load one")
        return self._boosters

    def save(self, path: pathlib.Path) -> None:
        """Writes boosters and notes as one JSON document; CostModelError before :meth:`fit` or :meth:`load`."""
        contents = {
            "format": "mlc-cost-model",
            "kind": "gradient-boosted",
            "version": VERSION,
            "trusted": self.trusted,
            "notes": self.notes,
            **self._learned().document(self._features),
        }
        path.write_text(json.dumps(contents, separators=(",", ":")))

    @staticmethod
    def load(path: pathlib.Path) -> GradientBoostedModel:
        """See :meth:`CostModel.load`."""
        contents = read_json(path, "gradient-boosted")
        features = contents.get("features")
        if contents.get("version") != VERSION:
            raise CostModelError(f"the cost model {path} has the form of version {contents.get('version')}, not {VERSION}; train it anew")
        if not isinstance(features, list) or not set(features) <= set(FEATURE_NAMES):
            raise CostModelError(f"the cost model {path} was trained for other features than this version computes; train it anew")
        model = GradientBoostedModel()
        try:
            model._boosters = Boosters.from_document(contents)
            model.trusted = {str(name): int(revision) for name, revision in contents["trusted"].items()}
            model.notes = dict(contents["notes"])
            model._features = tuple(features)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CostModelError(f"the cost model {path} is damaged: {error}; train it anew or delete the file") from error
        return model

    def explain(self) -> Mapping[str, float]:
        """Share of the total gain by feature of the boosters with a pairwise objective, averaged over them."""
        import xgboost

        total: dict[str, float] = {}
        for text in self._learned().rankers if self.fitted else ():
            ranker = xgboost.Booster()
            ranker.load_model(bytearray(unpacked(text)))
            for name, gain in ranker.get_score(importance_type="total_gain").items():
                feature = self._features[int(name.removeprefix("f"))]
                total[feature] = total.get(feature, 0.0) + float(gain)
        whole = sum(total.values()) or 1.0
        return {name: gain / whole for name, gain in sorted(total.items(), key=lambda item: -item[1])}


@dataclass(frozen=True)
class TaskGroup:
    """The measured configs of one task: features [configs, F] and median seconds [configs]."""

    task: Task
    configs: tuple[Config, ...]
    features: Floats
    seconds: Floats


def group_by_task(records: Sequence[Record], tasks: Mapping[str, Task]) -> list[TaskGroup]:
    """Successful records by task, one entry a config, tasks with a single config left out."""
    groups = []
    for key, by_config in latest_by_task(records, tasks).items():
        if len(by_config) > 1:
            configs = tuple(by_config)
            seconds = np.asarray([by_config[config].median for config in configs])
            groups.append(TaskGroup(tasks[key], configs, feature_matrix(tasks[key], configs), seconds))
    return groups
