"""Which config a compilation takes: a measured one, else the model's when it is sure, else the template's default."""

from __future__ import annotations

import enum
import os
import warnings
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

from ..codegen.record import Record
from ..codegen.space import Config, Space
from ..codegen.task import Task
from ..codegen.template import Template
from ..costmodel import CostModel, pretrained
from ..costmodel.evaluation import pick_when_sure
from ..errors import DatabaseError, Error
from .database import Database
from .record_lines import RecordFile, holds_lines


class Source(enum.Enum):
    """Where a chosen config comes from."""

    MEASURED = "measured"
    RANKED = "ranked"
    DEFAULT = "default"


class Records(Protocol):
    """What a compilation asks for measured configs: a tuning database, or a file of records."""

    def best(self, task: str, target: str, among: Container[Config] | None = None) -> Record | None:
        """The fastest record of a task key on a target, of the configs ``among`` them; DatabaseError when it cannot be read."""


@dataclass(frozen=True)
class Choice:
    """A config, where it comes from, and its seconds per call where a measurement or the model says so."""

    config: Config
    source: Source
    seconds: float | None = None


def choice_for(task: Task, template: Template, space: Space, database: Records | None = None, model: CostModel | None = None) -> Choice:
    """The config to compile ``task`` with, of the ``space`` that ``template`` gives for it.

    Never fails: a database or model that does gives a warning and is passed over.
    """
    if database is not None:
        try:
            record = database.best(task.key, str(task.target), space)
            if record is not None:
                return Choice(record.config, Source.MEASURED, record.median)
        except DatabaseError as error:
            warnings.warn(f"{error}. Compiling without the tuning database", RuntimeWarning, stacklevel=2)
    if model is not None and model.trusts(template.name, template.revision) and len(space) > 1:
        try:
            if (choice := _ranked(task, space, model)) is not None:
                return choice
        except Error as error:
            warnings.warn(f"{error}. Compiling with default schedules", RuntimeWarning, stacklevel=2)
    return Choice(space.default, Source.DEFAULT)


def _ranked(task: Task, space: Space, model: CostModel) -> Choice | None:
    """The model's first choice, if its members agree that it beats the default."""
    configs = space.configs
    prediction = model.predict(task, configs)
    default = configs.index(space.default)
    chosen = pick_when_sure(prediction, default)
    return None if chosen == default else Choice(configs[chosen], Source.RANKED, float(prediction.seconds[chosen]))


def choose_config(task: Task, template: Template, space: Space, database: Records | None, model: CostModel | None) -> Config:
    """The config of :func:`choice_for`."""
    return choice_for(task, template, space, database, model).config


def open_database(database: str | os.PathLike[str] | Records | None) -> Records | None:
    """The tuning records for a compilation, from a database or a file of JSON lines.

    None, with a warning that says why, when it cannot be used; lines that are no records are passed over, with a warning as well.
    """
    if database is None or not isinstance(database, str | os.PathLike):
        return database
    try:
        if not holds_lines(database):
            return Database(database, create=False)
        records = RecordFile(database)
    except DatabaseError as error:
        warnings.warn(f"{error}. Compiling without it", RuntimeWarning, stacklevel=2)
        return None
    if records.refused:
        count, first = len(records.refused), records.refused[0]
        warnings.warn(f"{database}: {count} lines are no tuning records and count for nothing ({first})", RuntimeWarning, stacklevel=2)
    return records


def chooser(database: str | os.PathLike[str] | Records | None) -> Callable[[Task, Template, Space], Config]:
    """:func:`choose_config` with records (None: none) and the model that ships for the task's target.

    Records that cannot be used give a warning and are left out.
    """
    opened = open_database(database)

    def choose(task: Task, template: Template, space: Space) -> Config:
        return choose_config(task, template, space, opened, pretrained(task.target))

    return choose
