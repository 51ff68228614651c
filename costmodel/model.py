"""The interface of cost models, and the analytic one that needs no training."""

from __future__ import annotations

import json
import math
import pathlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import CostModelError
from .roofline import roofline
from .schedule import schedule

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What a model says about configs of one task.

    ``seconds`` [configs] are per call. ``scores`` [members, configs] rank the configs, higher is faster, one row for each member
    of an ensemble; only differences within a row mean anything.
    """

    seconds: Floats
    scores: Floats

    @property
    def score(self) -> Floats:
        """Mean score of each config."""
        return np.asarray(self.scores.mean(axis=0))

    @property
    def uncertainty(self) -> Floats:
        """Standard deviation over the members of each config's score; zero for a single model."""
        centred = self.scores - self.scores.mean(axis=1, keepdims=True)
        return np.asarray(centred.std(axis=0))

    def order(self) -> list[int]:
        """Indices of the configs, the one ranked fastest first; ties keep their order."""
        return [int(index) for index in np.argsort(-self.score, kind="stable")]

    def lead(self, config: int, other: int) -> tuple[float, float]:
        """Mean by which ``config`` is scored above ``other``, and the members' standard deviation about it."""
        margin = self.scores[:, config] - self.scores[:, other]
        return float(margin.mean()), float(margin.std())


class CostModel(ABC):
    """Predicts how fast configs are, and learns from records."""

    @abstractmethod
    def fit(self, records: Sequence[Record], tasks: Mapping[str, Task]) -> None:
        """Learns from ``records``; ``tasks`` gives the task of each record's key. Failed records and unknown tasks are left out."""

    @abstractmethod
    def predict(self, task: Task, configs: Sequence[Config]) -> Prediction:
        """Predictions for ``configs`` (at least one) of ``task``."""

    @abstractmethod
    def save(self, path: pathlib.Path) -> None:
        """Writes the model as JSON."""

    @staticmethod
    @abstractmethod
    def load(path: pathlib.Path) -> CostModel:
        """Reads what :meth:`save` wrote; CostModelError when it is missing, damaged or made for other features."""

    @abstractmethod
    def explain(self) -> Mapping[str, float]:
        """How much each feature contributes, the most important first; sums to one unless empty."""

    def trusts(self, template: str, revision: int) -> bool:
        """Whether the ranking may overrule the default config of that revision of a template."""
        return False


class RooflineModel(CostModel):
    """The roofline divided by a rough efficiency of the register tile: a floor for learned models, and the default."""

    def fit(self, records: Sequence[Record], tasks: Mapping[str, Task]) -> None:
        """Nothing to learn."""

    def predict(self, task: Task, configs: Sequence[Config]) -> Prediction:
        roof = roofline(task)
        rest = max(roof.l1, roof.l2, roof.l3, roof.memory)
        seconds = []
        for config in configs:
            plan = schedule(task, config)
            misses = math.sqrt(max(1.0, plan.panel_bytes / task.target.l1_bytes))
            seconds.append(max(roof.compute / max(plan.efficiency, 0.02) * misses, rest / max(plan.balance, 0.1)) + roof.launch)
        times = np.asarray(seconds)
        return Prediction(times, -np.log(times)[None, :])

    def save(self, path: pathlib.Path) -> None:
        path.write_text('{"format": "mlc-cost-model", "kind": "roofline"}\n')

    @staticmethod
    def load(path: pathlib.Path) -> RooflineModel:
        read_json(path, "roofline")
        return RooflineModel()

    def explain(self) -> Mapping[str, float]:
        return {}


def latest_by_task(records: Sequence[Record], tasks: Mapping[str, Task]) -> dict[str, dict[Config, Record]]:
    """The latest successful record of each config, by the keys of the tasks that are known."""
    latest: dict[str, dict[Config, Record]] = {}
    for record in sorted(records, key=lambda record: record.timestamp):
        if record.times and record.task in tasks:
            latest.setdefault(record.task, {})[record.config] = record
    return latest


_REMEDY = "train it anew or delete the file; compilation works without"


def read_json(path: pathlib.Path, kind: str) -> dict[str, Any]:
    """The contents of a model file of ``kind``; CostModelError when it is something else."""
    contents = _read_model(path)
    if contents["kind"] != kind:
        raise CostModelError(f"{path} is not a cost model of kind '{kind}'; {_REMEDY}")
    return contents


def kind_of(path: pathlib.Path) -> str:
    """The kind of model that a file holds; CostModelError when it is missing, damaged or no model."""
    return str(_read_model(path)["kind"])


def _read_model(path: pathlib.Path) -> dict[str, Any]:
    try:
        contents = json.loads(path.read_text())
    except OSError as error:
        raise CostModelError(f"the cost model {path} cannot be read: {error}; {_REMEDY}") from error
    except ValueError as error:
        raise CostModelError(f"the cost model {path} is damaged: {error}; {_REMEDY}") from error
    if not isinstance(contents, dict) or contents.get("format") != "mlc-cost-model" or "kind" not in contents:
        raise CostModelError(f"{path} is not a cost model; {_REMEDY}")
    return contents
