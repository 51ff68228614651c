"""Measurement: every planted wrong kernel is refused, every right one is timed, and workers that die are replaced."""

from __future__ import annotations

import math
import pathlib
import runpy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from mlc.autotune.build_pool import BUILDER
from mlc.autotune.inputs import example_inputs
from mlc.autotune.measure import Caches, Limits, LocalMeasurer, Protocol
from mlc.autotune.running import Memory, difference
from mlc.autotune.workers import Worker, WorkerLost
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.costmodel import lower_bound
from mlc.errors import MeasurementError
from mlc.ir import DType, GraphBuilder, TensorType, canonicalise

HERE = pathlib.Path(__file__).parent
PLANTED = runpy.run_path(str(HERE / "planted.py"))
QUICK = Protocol(rounds=3, seconds=0.002)


def addition(elements: int) -> Task:
    builder = GraphBuilder()
    type = TensorType(DType.FLOAT32, (elements,))
    graph = canonicalise(builder.finish([builder.call("add", builder.input(type), builder.input(type))]))
    return Task(graph, frozenset(), Target.parse("cpu"), 1)


@pytest.fixture(scope="module")
def planted() -> dict[str, Record]:
    """Records of all planted kernels, measured in one batch."""
    names = list(PLANTED["NAMES"])
    configs = [Config.of("planted", {"kernel": number}) for number in range(len(names))]
    limits = Limits(build=20, run=1.5)
    with LocalMeasurer(builder=f"{HERE / 'planted.py'}:PlantedBuilder", protocol=QUICK, limits=limits) as measurer:
        return dict(zip(names, measurer.measure(addition(PLANTED["ELEMENTS"]), configs), strict=True))


def test_wrong_kernels_are_refused_and_right_ones_accepted(planted: dict[str, Record]) -> None:
    accepted = {name for name, record in planted.items() if record.times}
    right = set(PLANTED["RIGHT"])
    print(f"precision {len(accepted & right) / max(len(accepted), 1):.2f}, recall {len(accepted & right) / len(right):.2f}")
    assert accepted == right, {name: record.error for name, record in planted.items()}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash", "SIGSEGV"),
        ("hang", "timed out"),
        ("unwritten", "not finite"),
        ("constant", "relative error"),
        ("cached", "on inputs 1"),
        ("beyond", "outside its outputs"),
        ("code", "error code 3"),
        ("inputs", "wrote to its inputs"),
        ("one_element", "worst element"),
        ("unbuildable", "build: "),
        ("kills_builder", "SIGABRT"),
    ],
)
def test_the_reason_is_recorded(planted: dict[str, Record], name: str, reason: str) -> None:
    assert reason in planted[name].error
    assert planted[name].median == math.inf


def test_slower_kernels_take_longer(planted: dict[str, Record]) -> None:
    assert planted["slow"].median > 2 * planted["plain"].median


def test_kernels_far_behind_are_given_up_early(planted: dict[str, Record]) -> None:
    best = min((planted[name] for name in PLANTED["RIGHT"]), key=lambda record: min(record.times))
    assert (len(best.times), len(planted["slow"].times)) == (QUICK.rounds, 2)


def test_a_measured_kernel_does_not_beat_the_bound_and_is_compared_thoroughly(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = GraphBuilder()
    x, weight = builder.input(TensorType(DType.FLOAT32, (48, 80))), builder.input(TensorType(DType.FLOAT32, (72, 80)))
    graph = canonicalise(builder.finish([builder.call("relu", builder.call("linear", x, weight))]))
    task = Task(graph, frozenset({1}), Target.parse("cpu"), 2)
    template = template_for(task.graph)
    assert template is not None
    configs = template.space(task).configs[:3]
    protocol = Protocol(rounds=3, seconds=0.002, caches=Caches.WARM)
    arrangements, ask = [], Worker.request

    def noted(worker: Worker, method: str, timeout: float, **arguments: Any) -> Any:
        arrangements.extend([arguments["arrangement"]] if method == "arrange" else [])
        return ask(worker, method, timeout, **arguments)

    monkeypatch.setattr(Worker, "request", noted)
    with LocalMeasurer(protocol=protocol, build_workers=1) as measurer:
        first, second = measurer.measure(task, configs), measurer.measure(task, configs)
    for records, rounds in ((first, protocol.rounds), (second, protocol.rounds * protocol.thorough)):
        assert max(len(record.times) for record in records) == rounds
    for record in (*first, *second):
        assert not record.error
        assert len(record.times) >= 2  # two where it is far behind the best
        assert record.median >= lower_bound(task).seconds
    assert arrangements == [1, 2, 3]


def test_arrays_lie_elsewhere_in_each_arrangement() -> None:
    def places(arrangement: int) -> list[int]:
        Memory.arrange(arrangement)
        return [Memory((100, 1000), np.dtype(np.float32)).address % (1 << 16) for _ in range(3)]

    first = places(1)
    assert len(set(first)) == 3
    assert not set(first) & set(places(2))
    assert all(place % 64 == 0 for place in first)


def test_a_worker_survives_errors_and_replaces_itself_after_a_crash() -> None:
    with Worker("collections:Counter") as worker:
        assert worker.request("total", 20.0) == 0
        with pytest.raises(MeasurementError, match="AttributeError"):
            worker.request("no_such_method", 20.0)
        assert worker.generation == 1
    with Worker(f"{HERE / 'planted.py'}:PlantedBuilder") as worker:
        with pytest.raises(WorkerLost, match="SIGABRT"):
            worker.request("build", 20.0, task="", config=f"planted{{kernel={PLANTED['NAMES'].index('kills_builder')}}}", library="")
        worker.request("warm_up", 20.0)
        assert worker.generation == 2


def test_a_build_worker_does_not_wait_for_torch() -> None:
    check = (
        f"import sys; from mlc.autotune.worker import resolve; resolve('{BUILDER}')().warm_up()\n"
        "print(sys.modules['torch'], 'tvm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["None", "True"]


def test_inputs_are_seeded_and_indices_stay_in_range() -> None:
    builder = GraphBuilder()
    table = builder.input(TensorType(DType.FLOAT32, (7, 4)))
    indices = builder.input(TensorType(DType.INT64, (50,)))
    task = Task(canonicalise(builder.finish([builder.call("take", table, indices, axis=0)])), frozenset({0}), Target.parse("cpu"), 1)
    first, again, other = example_inputs(task, 0), example_inputs(task, 0), example_inputs(task, 1)
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(first[0], other[0])  # constants do not vary
    assert (first[1] != other[1]).any()
    assert first[1].min() >= 0
    assert first[1].max() == 6


def test_numbers_rounded_to_bf16_may_take_their_neighbours_place_rarely() -> None:
    step, wanted = 2.0**-7, np.ones(10000)
    other, many, far = wanted.copy(), wanted.copy(), wanted.copy()
    other[:50] += step
    many[::2] += step
    far[0] += 2 * step + 5e-3
    assert difference(other.astype(np.float32), wanted, rounding=step) == ""
    assert difference(other.astype(np.float32), wanted) != ""
    assert difference(many.astype(np.float32), wanted, rounding=step) != ""
    assert difference(far.astype(np.float32), wanted, rounding=step) != ""


def test_kernels_in_bf16_pass_and_are_timed() -> None:
    builder = GraphBuilder()
    x, weight = (builder.input(TensorType(DType.FLOAT32, shape)) for shape in ((512, 256), (384, 256)))
    narrow = [builder.call("cast", value, dtype=DType.BFLOAT16) for value in (x, weight)]
    result = builder.call("cast", builder.call("relu", builder.call("linear", *narrow, dtype=DType.FLOAT32)), dtype=DType.BFLOAT16)
    task = Task(canonicalise(builder.finish([result])), frozenset({1}), Target.parse("cpu"), 1)
    template = template_for(task.graph)
    assert template is not None
    with LocalMeasurer(protocol=Protocol(rounds=1, seconds=0.001)) as measurer:
        records = measurer.measure(task, template.space(task).configs[:6])
    assert [record.error for record in records] == [""] * len(records) and all(record.times for record in records)


def test_difference_compares_infinities_and_integers_exactly() -> None:
    wanted = np.array([1.0, np.inf, np.nan])
    assert difference(np.array([1, np.inf, np.nan], np.float32), wanted) == ""
    assert difference(np.array([1, -np.inf, np.nan], np.float32), wanted) != ""
    assert difference(np.array([1, np.inf, 0], np.float32), wanted) != ""
    assert difference(np.array([1, 2], np.int64), np.array([1, 2])) == ""
    assert difference(np.array([1, 3], np.int64), np.array([1, 2])) != ""
    assert difference(np.array([1, 3], np.int64), np.array([1, 2]), np.array([True, False])) == ""
