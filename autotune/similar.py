"""What did well for similar tasks: where a search begins when the database knows others of the same kind."""

from __future__ import annotations

import math

from ..codegen.space import Config, Space
from ..codegen.task import Task
from ..costmodel.features import task_features
from .database import Database

NEIGHBOURS = 3
"""Tasks whose winners are taken over."""
_FAR = 4.0
"""Distance in features, most of which are binary logarithms of extents and bytes, beyond which tasks have little in common."""


class SimilarTasks:
    """The winners that ``database`` has now, by target and template."""

    def __init__(self, database: Database) -> None:
        tasks = database.tasks()
        self._winners: dict[tuple[str, str], list[tuple[Task, Config]]] = {}
        for record in database.winners():
            task = tasks.get(record.task)
            if task is not None and not task.is_symbolic:
                self._winners.setdefault((record.target, record.config.template), []).append((task, record.config))

    def configs(self, task: Task, space: Space) -> list[Config]:
        """Winners of the tasks nearest to ``task``, the nearest first, each as the nearest config of its ``space``.

        The task itself is left out, since its own records are used anyway.
        """
        if task.is_symbolic:
            return []
        mine = task_features(task)
        known = self._winners.get((str(task.target), space.template), ())
        near = sorted((math.dist(mine, task_features(other)), other.key, config) for other, config in known if other.key != task.key)
        found = (space.nearest(config) for distance, _, config in near[:NEIGHBOURS] if distance <= _FAR)
        return list(dict.fromkeys(config for config in found if config is not None))
