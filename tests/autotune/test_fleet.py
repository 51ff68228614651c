"""Several devices as one measurer, any of which may be lost: devices without a machine, whose losses are scripted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mlc.autotune.database import Database
from mlc.autotune.fleet import Device, DeviceLost, DeviceSource, Fleet
from mlc.autotune.scheduler import WeightedTask
from mlc.autotune.search import GridSearcher
from mlc.autotune.tuning import Job, Progress, run
from mlc.codegen.record import Record
from mlc.codegen.space import Config, Space
from mlc.codegen.task import Task
from mlc.errors import DeviceUnavailableError, Error, TargetError

Make = Callable[..., Any]
Batch = tuple[str, tuple[Config, ...]]


class ScriptedDevice(Device):
    """Measures with a synthetic measurer; lost whenever ``loses`` says so of a batch."""

    def __init__(self, name: str, measurer: Any, loses: Callable[[Sequence[Config]], bool], entered: Callable[[], None]) -> None:
        self.name = name
        self.closed = False
        self.batches: list[Batch] = []
        self._measurer = measurer
        self._loses = loses
        self._entered = entered

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        self._entered()
        self.batches.append((task.key, tuple(configs)))
        if self._loses(configs):
            raise DeviceLost(f"{self.name} is gone")
        records: list[Record] = self._measurer.measure(task, configs)
        return records

    def close(self) -> None:
        self.closed = True


class ScriptedSource(DeviceSource):
    """``first`` devices at once, and ``spare`` ones, one at a time, in place of lost ones."""

    def __init__(
        self,
        make_measurer: Make,
        first: int,
        spare: int = 0,
        loses: Callable[[Sequence[Config]], bool] = lambda configs: False,
        entered: Callable[[], None] = lambda: None,
    ) -> None:
        self.devices = [ScriptedDevice(f"device {number}", make_measurer(), loses, entered) for number in range(first + spare)]
        self.closed = False
        self._left = list(self.devices)
        self._first = first

    def acquire(self, patience: float) -> list[Device]:
        count, self._first = self._first or 1, 0
        given, self._left = self._left[:count], self._left[count:]
        return list(given)

    @property
    def mismatches(self) -> Sequence[str]:
        return ()

    def unavailable(self) -> Error:
        return TargetError("bring more")

    def stop(self) -> None:
        assert all(device.closed for device in self.devices[: len(self.devices) - len(self._left)])

    def close(self) -> None:
        self.closed = True


def test_every_device_has_a_batch_of_another_task(tmp_path: Any, space: Space, make_task: Make, make_measurer: Make) -> None:
    both = threading.Barrier(2, timeout=20)
    meetings: list[int] = []

    def meet() -> None:
        if len(meetings) < 2:  # the first batches: neither is done before the other has begun
            meetings.append(both.wait())

    source = ScriptedSource(make_measurer, 2, entered=meet)
    tasks = [WeightedTask(make_task(8)), WeightedTask(make_task(16)), WeightedTask(make_task(32))]
    with Database(tmp_path / "tuning.db") as database, Fleet(source) as fleet:
        result = run(Job(fleet, lambda task: space, GridSearcher), tasks, trials=20, seconds=None, database=database)
        assert result.failed == 0
        assert len(database) == sum(len(configs) for device in source.devices for _, configs in device.batches)
    assert all(device.batches for device in source.devices)
    assert source.closed
    assert all(device.closed for device in source.devices)
    assert len({device.batches[0][0] for device in source.devices}) == 2


def test_the_batch_of_a_lost_device_is_measured_on_another(task: Task, space: Space, make_measurer: Make) -> None:
    times = iter([True])
    source = ScriptedSource(make_measurer, 2, loses=lambda configs: next(times, False))
    with Fleet(source) as fleet:
        records = fleet.measure(task, space.configs[:5])
        assert [record.config for record in records] == list(space.configs[:5])
        assert all(record.times for record in records)
        assert fleet.capacity == 1
        assert fleet.names == ("device 1",)


def test_a_config_that_takes_devices_down_costs_only_itself(task: Task, space: Space, make_measurer: Make) -> None:
    killer = space.configs[2]
    source = ScriptedSource(make_measurer, 3, spare=3, loses=lambda configs: killer in configs)
    with Fleet(source) as fleet:
        records = {record.config: record for record in fleet.measure(task, space.configs[:5])}
    assert not records[killer].times
    assert "2 devices were lost" in records[killer].error
    assert all(record.times for config, record in records.items() if config != killer)
    # The others were timed together at last, side by side.
    assert tuple(config for config in space.configs[:5] if config != killer) in {
        configs for device in source.devices for _, configs in device.batches
    }


def test_without_devices_the_reason_of_their_source_is_given(task: Task, space: Space, make_measurer: Make) -> None:
    with pytest.raises(TargetError, match="bring more"):
        Fleet(ScriptedSource(make_measurer, 0))
    ends = pytest.raises(TargetError, match=r"all devices were lost \(the last: device 0 is gone\), and bring more")
    with Fleet(ScriptedSource(make_measurer, 1, loses=lambda configs: True), patience=0.1) as fleet, ends:
        fleet.measure(task, space.configs[:2])


def test_a_task_goes_to_the_device_that_has_its_inputs(make_task: Make, space: Space, make_measurer: Make) -> None:
    source = ScriptedSource(make_measurer, 2)
    with Fleet(source) as fleet:
        for rows in (8, 16, 16, 8, 8, 16):
            fleet.measure(make_task(rows), space.configs[:1])
    assert [{key for key, _ in device.batches} for device in source.devices] == [{make_task(8).key}, {make_task(16).key}]


def test_an_interruption_keeps_what_was_measured_and_lets_the_devices_go(
    tmp_path: Any, space: Space, make_task: Make, make_measurer: Make
) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    source = ScriptedSource(make_measurer, 2)
    tasks = [WeightedTask(make_task(8)), WeightedTask(make_task(16))]
    with Database(tmp_path / "tuning.db") as database:
        with Fleet(source) as fleet:
            job = Job(fleet, lambda task: space, GridSearcher, on_progress=interrupt)
            result = run(job, tasks, trials=20, seconds=None, database=database)
        assert result.interrupted
        assert len(database) >= 2
    with pytest.raises(DeviceUnavailableError, match="let go"):
        fleet.measure(make_task(8), space.configs[:1])
