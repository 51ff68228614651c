"""Training cost models on a data set of kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..codegen.space import Config
from ..codegen.task import Task
from ..costmodel import CostModel, GradientBoostedModel, RooflineModel
from ..costmodel.comparison import TRAINED_ON
from ..costmodel.dataset import DataSet
from ..costmodel.evaluation import Evaluation, cross_validate, summarise
from ..costmodel.text_model import TextModel
from .tuning import template_space

ENOUGH = 10
"""Tasks of a template without which nothing is known about it."""


def train_ranker(data: DataSet) -> tuple[GradientBoostedModel, Mapping[str, Evaluation]]:
    """The ranking learned from ``data``, and how rankings do on tasks of it that they have not seen (five folds), over all and by template.

    It may overrule the defaults of those templates only where that beats the defaults in the folds.
    """
    from ..codegen.templates import template_named

    records, tasks = data.records, data.tasks
    default_of = _Defaults()
    makers: Mapping[str, Callable[[], CostModel]] = {"roofline": RooflineModel, "gradient boosting": GradientBoostedModel}
    results: dict[str, Evaluation] = {}
    model = GradientBoostedModel()
    for name, make in makers.items():
        judged = cross_validate(make, records, tasks, default_of)
        results[name] = summarise(judged, default_of)
        for template in sorted({group.configs[0].template for group, _ in judged}):
            part = summarise([(group, seen) for group, seen in judged if group.configs[0].template == template], default_of)
            results[f"{name}, {template}"] = part
            if make is GradientBoostedModel and part.chosen < part.default and part.tasks >= ENOUGH:
                model.trusted[template] = template_named(template).revision
    model.fit(records, tasks)
    model.notes = {**_origin(data), "evaluation": {name: str(result) for name, result in results.items()}}
    return model, results


def train_text(data: DataSet) -> TextModel:
    """The text model learned from ``data``."""
    model = TextModel()
    model.learn(data.samples())
    model.notes = {**_origin(data), "losses": model.losses}
    return model


def _origin(data: DataSet) -> dict[str, object]:
    """What a model file says of where its model comes from."""
    return {
        "records": len(data.kernels),
        "tasks": len(data.tasks),
        "targets": sorted({record.target for record in data.records}),
        "versions": sorted({record.versions for record in data.records if record.versions}),
        TRAINED_ON: sorted(data.tasks),
    }


class _Defaults:
    """The templates' default config of each task, remembered."""

    def __init__(self) -> None:
        self._known: dict[str, Config] = {}

    def __call__(self, task: Task) -> Config:
        if task.key not in self._known:
            space = template_space(task)
            self._known[task.key] = space.default if space is not None else Config("none")
        return self._known[task.key]
