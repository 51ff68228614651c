"""Tuning: search over spaces, measurement in worker processes, the database of results, and the choice of a config from it.

Names are loaded when they are first used: a worker process that only runs kernels must start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .choose import Choice, Source, choice_for, choose_config, chooser, open_database
    from .database import Database, ImportResult, Statistics
    from .measure import Caches, Limits, LocalMeasurer, Measurer, Protocol
    from .scheduler import TaskScheduler, WeightedTask
    from .search import GridSearcher, ModelSearcher, RandomSearcher, Searcher
    from .stochastic_search import AnnealingSearcher, EvolutionarySearcher
    from .tuning import Progress, TaskResult, TuningResult, tune_tasks

_MODULES = {
    "choose": ("Choice", "Source", "choice_for", "choose_config", "chooser", "open_database"),
    "database": ("Database", "ImportResult", "Statistics"),
    "measure": ("Caches", "Limits", "LocalMeasurer", "Measurer", "Protocol"),
    "scheduler": ("TaskScheduler", "WeightedTask"),
    "search": ("GridSearcher", "ModelSearcher", "RandomSearcher", "Searcher"),
    "stochastic_search": ("AnnealingSearcher", "EvolutionarySearcher"),
    "tuning": ("Progress", "TaskResult", "TuningResult", "tune_tasks"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AnnealingSearcher",
    "Caches",
    "Choice",
    "Database",
    "EvolutionarySearcher",
    "GridSearcher",
    "ImportResult",
    "Limits",
    "LocalMeasurer",
    "Measurer",
    "ModelSearcher",
    "Progress",
    "Protocol",
    "RandomSearcher",
    "Searcher",
    "Source",
    "Statistics",
    "TaskResult",
    "TaskScheduler",
    "TuningResult",
    "WeightedTask",
    "choice_for",
    "choose_config",
    "chooser",
    "open_database",
    "tune_tasks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
