"""The cases of a job on disk: inputs and references of the tasks that were measured last."""

from __future__ import annotations

import os
import pathlib
import shutil
import threading

from ..codegen.task import Task
from ..errors import Error, MeasurementError
from .inputs import write_case

KEPT_CASES = 4
"""Tasks whose inputs and references stay on disk: weights take space."""


class Cases:
    """Writes cases into ``folder`` as they are asked for, and keeps the latest :data:`KEPT_CASES`. ``seed`` fixes the inputs."""

    def __init__(self, folder: pathlib.Path, seed: int = 0) -> None:
        self.seed = seed
        self._folder = folder
        self._lock = threading.Lock()
        folder.mkdir()

    def manifest(self, task: Task) -> pathlib.Path:
        """The manifest of the task's case, see :func:`~.inputs.write_case`. MeasurementError when it cannot be interpreted."""
        with self._lock:
            path = self._folder / task.key / "case.json"
            if path.exists():
                os.utime(path.parent)
            else:
                self._make_room()
                try:
                    write_case(task, path.parent, self.seed)
                except (Error, ValueError, MemoryError, OSError, NotImplementedError) as error:
                    raise MeasurementError(f"no reference: {type(error).__name__}: {error}") from error
            return path

    def _make_room(self) -> None:
        for old in sorted(self._folder.iterdir(), key=lambda kept: kept.stat().st_mtime)[: 1 - KEPT_CASES]:
            shutil.rmtree(old, ignore_errors=True)
