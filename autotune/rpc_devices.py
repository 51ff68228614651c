"""Devices that are reached through TVM's RPC tracker. Candidates are built on this machine, verified and timed there."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..errors import DeviceUnavailableError, Error, MeasurementError, TargetError
from .build_pool import BUILDER, BuildPool, Builds
from .building import BuiltKernel
from .fleet import Device, DeviceLost, DeviceSource
from .measure import Limits, Protocol, failed_record, run_seconds
from .record_lines import record_of
from .rpc_server import protocol_text
from .rpc_tracker import Tracker
from .workers import Worker

CONNECT_SECONDS = 60.0
"""For a session to open: its process imports TVM first."""

_TRANSFER_SECONDS = 120.0
"""For what a batch uploads."""


class RpcDevice(Device):
    """A device with a session open, and the builds that it gets its candidates from."""

    def __init__(self, name: str, session: Worker, builds: Builds, protocol: Protocol, limits: Limits) -> None:
        self.name = name
        self._session = session
        self._builds = builds
        self._protocol = protocol
        self._limits = limits

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """See :meth:`Device.measure`."""
        built = self._builds.build(task, configs)
        if all(isinstance(kernel, str) for kernel in built.values()):
            return [failed_record(task, config, str(built[config])) for config in configs]
        try:
            found = self._session.request(
                "measure",
                self._patience(task, len(built)),
                task=task.text,
                built=[(str(config), kernel.document() if isinstance(kernel, BuiltKernel) else kernel) for config, kernel in built.items()],
                protocol=protocol_text(self._protocol),
                limits=json.dumps(asdict(self._limits)),
            )
        except (MeasurementError, OSError, ValueError) as error:  # the latter two when it is closed meanwhile
            raise DeviceLost(f"{self.name}: {error}") from error
        if isinstance(found, str):
            return [failed_record(task, config, found) for config in configs]
        return [record_of(fields) for fields in found]

    def close(self) -> None:
        self._session.close()

    def _patience(self, task: Task, count: int) -> float:
        """Seconds after which the device counts as lost, with every candidate of a batch hanging."""
        each = run_seconds(task, self._limits) + 2 * self._protocol.most_seconds
        return _TRANSFER_SECONDS + count * (2 * each + 10.0)


class RpcDevices(DeviceSource):
    """The servers with ``key`` at a tracker whose machine is ``target``. They are held until this is closed.

    ``build_workers`` build on this machine: unless given one for each core, since nothing is timed here.
    """

    def __init__(
        self,
        tracker: Tracker,
        key: str,
        target: Target,
        *,
        protocol: Protocol | None = None,
        limits: Limits | None = None,
        build_workers: int | None = None,
        builder: str = BUILDER,
        seed: int = 0,
    ) -> None:
        self._tracker = tracker
        self._key = key
        self._target = target
        self._protocol = protocol or Protocol()
        self._limits = limits or Limits()
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-tune-")
        self._builds = BuildPool(
            pathlib.Path(self._folder.name),
            factory=builder,
            workers=build_workers or len(os.sched_getaffinity(0)),
            seconds=self._limits.build,
            memory_bytes=self._limits.memory_bytes,
        )
        self._mismatches: list[str] = []
        self._failures: list[str] = []

    def acquire(self, patience: float) -> list[Device]:
        """See :meth:`DeviceSource.acquire`."""
        self._builds.start()
        deadline = time.monotonic() + patience
        while not (free := self._tracker.free(self._key)) and self._key in self._tracker.servers() and time.monotonic() < deadline:
            time.sleep(0.2)
        sessions = [Worker("mlc.autotune.rpc_session:session", folder=pathlib.Path(self._folder.name)) for _ in range(free)]
        for session in sessions:
            session.start()  # all of them import TVM at once
        self._mismatches, self._failures = [], []
        return [device for session in sessions if (device := self._connected(session)) is not None]

    @property
    def mismatches(self) -> Sequence[str]:
        """See :attr:`DeviceSource.mismatches`."""
        return self._mismatches

    def unavailable(self) -> Error:
        """See :meth:`DeviceSource.unavailable`."""
        if self._mismatches:
            return TargetError(
                f"no device with key '{self._key}' measures for '{self._target}': {'; '.join(self._mismatches)}. "
                "Name the devices' target with --target, or serve devices of different targets under different keys"
            )
        if self._failures:
            return DeviceUnavailableError(f"no device with key '{self._key}' can be used: {'; '.join(self._failures)}")
        servers = self._tracker.servers()
        if self._key in servers:
            return DeviceUnavailableError(
                f"all {len(servers[self._key])} devices with key '{self._key}' at {self._tracker} are in use; wait for them or start more"
            )
        known = f"it has {', '.join(sorted(servers))}" if servers else "it has none at all"
        return DeviceUnavailableError(
            f"the tracker at {self._tracker} has no device with key '{self._key}' ({known}); on a device run: "
            f"mlc devices serve --tracker {self._tracker} --key {self._key}"
        )

    def stop(self) -> None:
        self._builds.close()

    def close(self) -> None:
        self._folder.cleanup()

    def _connected(self, session: Worker) -> RpcDevice | None:
        """The device that the tracker gives for the session; None, with its reason kept, when it does not fit."""
        try:
            host, port, session_key = self._tracker.request(self._key)
        except DeviceUnavailableError:  # another job was quicker
            session.close()
            return None
        name = f"{host}:{port}"
        try:
            found = session.request("connect", CONNECT_SECONDS, host=host, port=port, key=session_key, seed=self._seed)
        except MeasurementError as error:
            self._failures.append(f"{name}: {error}")
            session.close()
            return None
        if found["target"] != str(self._target):
            self._mismatches.append(f"{name} is '{found['target']}'")
            session.close()
            return None
        return RpcDevice(f"{found['host']} ({name})", session, self._builds, self._protocol, self._limits)
