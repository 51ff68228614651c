"""Measures on several devices at once, any of which may be lost at any moment.

A device is a machine, or a board, that takes one batch at a time. What devices have in common is here: which of them gets a batch,
what happens to the batch of one that is lost, when there are too few. How to reach them is a back end's (:mod:`.rpc_devices`,
:mod:`.ray_cluster`).
"""

from __future__ import annotations

import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import DeviceUnavailableError, Error
from .measure import Measurer, failed_record

ATTEMPTS = 2
"""Devices that a batch may lose before its configs are tried one by one."""

_MOST_DEVICES = 4096
_LOOK_SECONDS = 10.0
"""How often devices in place of lost ones are looked for while others work."""


class DeviceLost(Error):
    """A device went away with a batch; nothing is known about the batch's configs."""


class Device(ABC):
    """What measures one batch at a time. ``name`` tells people which it is."""

    name: str

    @abstractmethod
    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """As :meth:`~.measure.Measurer.measure`; DeviceLost when the device goes away, after which it is of no more use."""

    @abstractmethod
    def close(self) -> None:
        """Lets the device go, also while another thread measures on it: that gets DeviceLost."""


class DeviceSource(ABC):
    """Where devices come from."""

    @property
    @abstractmethod
    def mismatches(self) -> Sequence[str]:
        """The devices that :meth:`acquire` refused for their target, each with what it is."""

    @abstractmethod
    def acquire(self, patience: float) -> list[Device]:
        """Devices that are free and fit the job, other than those acquired already. If there is none now, waits ``patience`` seconds
        for those that others use."""

    @abstractmethod
    def unavailable(self) -> Error:
        """Why the last :meth:`acquire` gave none, and what to do: a TargetError when the devices are of another target, else a
        DeviceUnavailableError."""

    @abstractmethod
    def stop(self) -> None:
        """Gives up what goes on for devices in other threads, building above all; they hear of it by an error."""

    @abstractmethod
    def close(self) -> None:
        """Ends what the devices share, once nothing goes on any more."""


class Fleet(Measurer):
    """The devices of ``source`` as one measurer that takes a batch for each of them.

    Batches are not divided: times are compared within a batch, and devices of one target may differ by their clocks or their cooling.
    Instead every device has a batch of another task, with that task's incumbent in it (see :func:`~.tuning.run`). A device keeps
    the inputs of a task for a while, so the one that had the task last is preferred.

    The batch of a device that is lost is measured on another. After ``ATTEMPTS`` losses each of its configs is tried alone: those that
    lose devices again fail, and cost nobody else. When all devices are gone, new ones may come for ``patience`` seconds;
    then DeviceUnavailableError ends the job.
    """

    def __init__(self, source: DeviceSource, *, patience: float = 30.0) -> None:
        self._source = source
        self._patience = patience
        self._changed = threading.Condition()
        self._devices: list[Device] = []
        self._idle: list[Device] = []
        self._last_task: dict[Device, str] = {}
        self._most = 0
        self._looked, self._looking = 0.0, False
        self._last_loss = ""
        self._closed = False
        self._threads = ThreadPoolExecutor(_MOST_DEVICES, thread_name_prefix="mlc-device")
        try:
            self._look(patience)
            if not self._devices:
                raise source.unavailable()
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> int:
        return max(1, len(self._devices))

    @property
    def names(self) -> tuple[str, ...]:
        """The devices that measure now."""
        return tuple(device.name for device in self._devices)

    def submit(self, task: Task, configs: Sequence[Config]) -> Future[list[Record]]:
        """See :meth:`Measurer.submit`; measured by a thread that waits for a device."""
        return self._threads.submit(self.measure, task, configs)

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """See :meth:`Measurer.measure`. DeviceUnavailableError when no device is left."""
        distinct = list(dict.fromkeys(configs))
        found = self._measure_somewhere(task, distinct)
        if isinstance(found, DeviceLost) and len(distinct) > 1:
            found = self._measure_apart(task, distinct)
        if isinstance(found, DeviceLost):
            reason = f"{ATTEMPTS} devices were lost while it was measured; the last: {found}"
            found = [failed_record(task, config, reason) for config in distinct]
        by_config = {record.config: record for record in found}
        return [by_config[config] for config in configs]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            devices, self._devices, self._idle = self._devices, [], []
            self._changed.notify_all()
        for device in devices:
            device.close()
        self._source.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._source.close()

    def _measure_somewhere(self, task: Task, configs: Sequence[Config]) -> list[Record] | DeviceLost:
        """Records of ``configs`` from one device, or how the last of ``ATTEMPTS`` devices was lost."""
        for attempt in range(1, ATTEMPTS + 1):
            device = self._take(task)
            try:
                records = device.measure(task, configs)
            except DeviceLost as lost:
                self._forget(device)
                self._last_loss = str(lost)
                if attempt == ATTEMPTS:
                    return lost
            except BaseException:
                self._give_back(device, task)
                raise
            else:
                self._give_back(device, task)
                return records
        raise AssertionError("unreachable")

    def _measure_apart(self, task: Task, configs: Sequence[Config]) -> list[Record] | DeviceLost:
        """Measures each config alone, then those that lost no device once more together, comparably."""
        alone = {config: self.measure(task, [config])[0] for config in configs}
        survivors = [config for config, record in alone.items() if record.times]
        together = self._measure_somewhere(task, survivors) if survivors else []
        if isinstance(together, DeviceLost):
            return together
        return list((alone | {record.config: record for record in together}).values())

    def _take(self, task: Task) -> Device:
        """An idle device, which is then not idle; waits for one."""
        deadline = time.monotonic() + self._patience
        while (device := self._idle_device(task)) is None:
            if self._devices:
                deadline = time.monotonic() + self._patience
            elif time.monotonic() > deadline:
                raise self._none_left()
            if self._begin_look():
                self._look()
            else:
                with self._changed:
                    self._changed.wait(0.5)
        return device

    def _idle_device(self, task: Task) -> Device | None:
        with self._changed:
            if self._closed:
                raise DeviceUnavailableError("the devices were let go before the batch was measured")
            if not self._idle:
                return None
            device = next((idle for idle in self._idle if self._last_task.get(idle) == task.key), self._idle[0])
            self._idle.remove(device)
            self._last_task[device] = task.key
            return device

    def _give_back(self, device: Device, task: Task) -> None:
        with self._changed:
            if device in self._devices:
                self._idle.append(device)
            self._changed.notify_all()

    def _forget(self, device: Device) -> None:
        device.close()
        with self._changed:
            if device in self._devices:
                self._devices.remove(device)
            self._last_task.pop(device, None)
            self._changed.notify_all()

    def _begin_look(self) -> bool:
        """Whether the caller is to look for devices in place of lost ones: not too often, and no two threads at once."""
        with self._changed:
            pause = _LOOK_SECONDS if self._devices else 1.0
            if self._looking or len(self._devices) >= self._most or time.monotonic() - self._looked < pause:
                return False
            self._looking = True
            return True

    def _look(self, patience: float = 0.0) -> None:
        """Takes in the devices that are free; others work meanwhile."""
        found: list[Device] = []
        try:
            found = self._source.acquire(patience)
        finally:
            with self._changed:
                self._devices += found
                self._idle += found
                self._most = max(self._most, len(self._devices))
                self._looked, self._looking = time.monotonic(), False
                late = found if self._closed else []
                self._changed.notify_all()
            for device in late:
                device.close()
        if found and self._source.mismatches:
            refused = "; ".join(self._source.mismatches)
            warnings.warn(f"some devices do not measure, since their target is not the job's: {refused}", RuntimeWarning, stacklevel=2)

    def _none_left(self) -> Error:
        reason = self._source.unavailable()
        return type(reason)(f"all devices were lost (the last: {self._last_loss}), and {reason}")
