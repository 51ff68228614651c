"""What the tests of the tuner share: a small task, a synthetic space, and a measurer that needs no machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import pytest

from mlc.autotune.measure import Measurer
from mlc.codegen.record import Record
from mlc.codegen.space import Config, Space
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.ir import DType, GraphBuilder, TensorType, canonicalise

CHOICES = (("rows", (1, 2, 3, 4, 6, 8, 12, 14)), ("unroll", (1, 2, 4, 8)), ("vectors", (1, 2, 3, 4)))


def seconds_of(config: Config) -> float:
    """A smooth cost with one best point, rows=6, vectors=3, unroll=4, at 10 microseconds."""
    off = abs(math.log(config["rows"] / 6)) + 0.8 * abs(math.log(config["vectors"] / 3)) + 0.2 * abs(math.log(config["unroll"] / 4))
    return 1e-5 * (1 + off)


class SyntheticMeasurer(Measurer):
    """Gives :func:`seconds_of` times, scaled for each task, and counts what it measured."""

    def __init__(self, scale: Callable[[Task], float] = lambda task: 1.0) -> None:
        self.scale = scale
        self.measured: list[tuple[str, Config]] = []

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        self.measured += [(task.key, config) for config in configs]
        return [
            Record(task.key, str(task.target), config, (self.scale(task) * seconds_of(config),) * 3, "synthetic", time.time())
            for config in configs
        ]

    def close(self) -> None:
        pass


def linear_task(rows: int = 64, depth: int = 64, columns: int = 64) -> Task:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (rows, depth)))
    weight = builder.input(TensorType(DType.FLOAT32, (columns, depth)))
    graph = canonicalise(builder.finish([builder.call("linear", x, weight)]))
    return Task(graph, frozenset({1}), Target.parse("cpu -mcpu=x86-64-v4 -threads=2"), 2)


@pytest.fixture
def make_task() -> Callable[..., Task]:
    return linear_task


@pytest.fixture
def task() -> Task:
    return linear_task()


@pytest.fixture
def space() -> Space:
    return Space("synthetic", CHOICES, Config.of("synthetic", {"rows": 1, "unroll": 1, "vectors": 1}))


@pytest.fixture
def make_measurer() -> Callable[..., SyntheticMeasurer]:
    return SyntheticMeasurer


@pytest.fixture
def cost() -> Callable[[Config], float]:
    return seconds_of
