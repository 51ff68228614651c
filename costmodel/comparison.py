"""Cost models side by side, on the tasks of a data set that none of them was trained on."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import DataSetError
from .dataset import DataSet, Kernel
from .evaluation import CLEAR, Judgement, pairwise
from .gradient_boosting import TaskGroup, group_by_task
from .model import CostModel, Floats, Prediction, RooflineModel
from .text_model import TextModel

TRAINED_ON = "trained_on"
"""The note of a model that lists the keys of the tasks it has seen."""
ALL = "all"


@dataclass(frozen=True)
class Figures:
    """How a model does on some tasks. A regret is the best time among its first 1 or 8 picks over the best measured, less 1: the geometric
    mean over tasks. ``errors`` are medians of how far predictions are off, as shares, by characteristic.
    """

    tasks: int
    kernels: int
    pairwise_accuracy: float
    regret_1: float
    regret_8: float
    errors: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Figures by model and template (:data:`ALL` for all of them), and the :func:`agreement` of the data with itself."""

    models: Mapping[str, Mapping[str, Figures]]
    agreement: float | None


def unseen(data: DataSet, models: Mapping[str, CostModel]) -> DataSet:
    """The part of ``data`` that no model has learned from; DataSetError when nothing is left to judge by.

    Nothing is known of the models that :func:`unaccountable` names.
    """
    left = data.without(key for model in models.values() for key in _notes(model).get(TRAINED_ON, ()))
    if not group_by_task(left.records, left.tasks):
        raise DataSetError(
            "the models have learned from every held-out task of the data set, or it has none with several configs; "
            "train without --all, collect more tasks, or hold out a family with --hold-out"
        )
    return left


def unaccountable(models: Mapping[str, CostModel]) -> list[str]:
    """The models that have learned and do not say from which tasks."""
    return [name for name, model in models.items() if not isinstance(model, RooflineModel) and TRAINED_ON not in _notes(model)]


def _notes(model: CostModel) -> Mapping[str, Sequence[str]]:
    return getattr(model, "notes", {})


def compare(models: Mapping[str, CostModel], data: DataSet) -> Comparison:
    """Judges every model by the tasks of ``data`` that have several configs."""
    groups = group_by_task(data.records, data.tasks)
    kernels = {(kernel.task.key, kernel.record.config): kernel for kernel in data.kernels}
    figures: dict[str, dict[str, Figures]] = {}
    for name, given in models.items():
        model = given.reading(_stored(kernels, given.text_of)) if isinstance(given, TextModel) else given
        judged = [(group, model.predict(group.task, group.configs)) for group in groups]
        by_template: dict[str, list[Judgement]] = {ALL: judged}
        for group, prediction in judged:
            by_template.setdefault(group.configs[0].template, []).append((group, prediction))
        figures[name] = {template: _figures(model, part, kernels) for template, part in by_template.items()}
    return Comparison(figures, agreement(data))


def agreement(data: DataSet) -> float | None:
    """Of the pairs of a task's kernels that differ clearly by every other round, the share that the rounds between put in the same order.

    What is missing to 1 is noise that no model can predict. None where no kernel has several rounds.
    """
    halves: dict[str, list[tuple[float, float]]] = {}
    for kernel in data.kernels:
        if len(kernel.record.times) > 1:
            pair = statistics.median(kernel.record.times[::2]), statistics.median(kernel.record.times[1::2])
            halves.setdefault(kernel.task.key, []).append(pair)
    same = [
        slow_again > fast_again
        for pairs in halves.values()
        for (slow, slow_again), (fast, fast_again) in itertools.permutations(pairs, 2)
        if slow > CLEAR * fast
    ]
    return statistics.fmean(same) if same else None


def _stored(kernels: Mapping[tuple[str, Config], Kernel], otherwise: Callable[[Task, Config], str]) -> Callable[[Task, Config], str]:
    """The loops as they were when they were measured, where they are known."""

    def text_of(task: Task, config: Config) -> str:
        kernel = kernels.get((task.key, config))
        return kernel.loops if kernel is not None and kernel.loops else otherwise(task, config)

    return text_of


def _figures(model: CostModel, judged: Sequence[Judgement], kernels: Mapping[tuple[str, Config], Kernel]) -> Figures:
    right, pairs = np.sum([pairwise(group.seconds, prediction.score) for group, prediction in judged], axis=0)
    regrets = {most: float(np.mean([_regret(*judgement, most) for judgement in judged])) for most in (1, 8)}
    off = [np.log(prediction.seconds / group.seconds) for group, prediction in judged]
    errors = {"seconds": _share(np.concatenate(off))}
    if isinstance(model, TextModel):
        errors |= _count_errors(model, judged, kernels)
    count = sum(len(group.configs) for group, _ in judged)
    accuracy = float(right / pairs) if pairs else 1.0
    return Figures(len(judged), count, accuracy, math.expm1(regrets[1]), math.expm1(regrets[8]), errors)


def _regret(group: TaskGroup, prediction: Prediction, most: int) -> float:
    """Logarithm of the best time among the first ``most`` picks over the best of all."""
    return math.log(group.seconds[prediction.order()[:most]].min() / group.seconds.min())


def _count_errors(model: TextModel, judged: Sequence[Judgement], kernels: Mapping[tuple[str, Config], Kernel]) -> dict[str, float]:
    """The errors of what the text model predicts besides time, over the kernels whose code is known."""
    off: dict[str, list[float]] = {}
    for group, _ in judged:
        predicted = model.characteristics(group.task, group.configs).values
        for position, config in enumerate(group.configs):
            facts = kernels[group.task.key, config].facts
            if facts is None:
                continue
            for name, count in (
                ("vector_instructions", facts.vector_instructions),
                ("spills", facts.spills),
                ("code_bytes", facts.code_bytes),
            ):
                off.setdefault(name, []).append(math.log((1 + predicted[name][position]) / (1 + count)))
    return {name: _share(np.asarray(values)) for name, values in off.items()}


def _share(logs: Floats) -> float:
    """The median of how far apart two values are, whichever is larger, from the logarithms of their quotients."""
    return float(np.expm1(np.median(np.abs(logs))))
