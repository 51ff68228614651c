"""Measuring on devices of an RPC tracker: two servers on this machine, some of which die."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlc.autotune.database import Database
from mlc.autotune.fleet import Fleet
from mlc.autotune.measure import Limits, Protocol
from mlc.autotune.rpc_devices import RpcDevices
from mlc.autotune.rpc_tracker import Tracker
from mlc.autotune.tuning import Progress, tune_tasks
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.costmodel import RooflineModel
from mlc.errors import DeviceUnavailableError, OptionError, TargetError
from mlc.ir import DType, GraphBuilder, TensorType, canonicalise

Make = Callable[..., Task]
QUICK = Protocol(rounds=2, seconds=0.002)
HERE = Target.parse("cpu")
FOLDER = pathlib.Path(__file__).parent
PLANTED = runpy.run_path(str(FOLDER / "planted.py"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``mlc devices ...``, once it says that it serves; killed at the end."""
    command = [sys.executable, "-m", "mlc.cli", "devices", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def tracker() -> Iterator[Tracker]:
    port = free_port()
    with started("tracker", "--port", str(port)):
        yield Tracker("127.0.0.1", port)


def server(tracker: Tracker, key: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return started("serve", "--tracker", str(tracker), "--key", key, "--port", str(free_port()))


@pytest.fixture(scope="module")
def board(tracker: Tracker) -> Iterator[subprocess.Popen[str]]:
    """One device under the key ``board``."""
    with server(tracker, "board") as process:
        yield process


def devices(tracker: Tracker, key: str, **options: Any) -> RpcDevices:
    return RpcDevices(tracker, key, options.pop("target", HERE), protocol=QUICK, build_workers=1, **options)


def wait_for_devices(tracker: Tracker, key: str, count: int) -> None:
    """Servers announce themselves some time after they begin to listen."""
    deadline = time.monotonic() + 30
    while tracker.free(key) < count:
        assert time.monotonic() < deadline, f"the tracker does not know {count} devices: {tracker.servers()}"
        time.sleep(0.05)


def here(task: Task) -> Task:
    """The task on this machine's target, for one thread."""
    return Task(task.graph, task.constant_inputs, HERE, 1)


def test_devices_may_die_until_none_is_left(tracker: Tracker, tmp_path: pathlib.Path, make_task: Make) -> None:
    tasks = [here(make_task(8, 32, 16)), here(make_task(8, 48, 16)), here(make_task(16, 32, 8))]
    path = tmp_path / "tuning.db"
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(server(tracker, "pair")) for _ in range(2))
        wait_for_devices(tracker, "pair", 2)
        fleet = stack.enter_context(Fleet(devices(tracker, "pair"), patience=2.0))
        assert fleet.capacity == 2

        def kill(process: subprocess.Popen[str], after: int) -> Callable[[Progress], None]:
            batches = itertools.count(1)
            return lambda state: process.kill() if next(batches) == after else None

        result = tune_tasks(tasks, trials=2, database=path, model=RooflineModel(), progress=kill(first, after=2), measurer=fleet)
        assert fleet.capacity == 1
        assert result.failed == 0
        with Database(path) as database:
            for tuned in result.tasks:
                records = database.records(tuned.task.key, str(HERE))
                assert all(record.times and record.versions for record in records)
                assert {record.config for record in records} >= {tuned.default, tuned.best}
            known = len(database)

        with pytest.raises(DeviceUnavailableError, match=r"all devices were lost .* mlc devices serve --tracker"):
            tune_tasks(tasks, trials=4, database=path, model=RooflineModel(), progress=kill(second, after=1), measurer=fleet)
        with Database(path) as database:
            assert len(database) > known  # what was measured before the end


def test_a_candidate_that_crashes_or_hangs_costs_only_itself(tracker: Tracker, board: subprocess.Popen[str]) -> None:
    names = ("plain", "crash", "hang", "backwards", "constant", "unbuildable")
    configs = [Config.of("planted", {"kernel": PLANTED["NAMES"].index(name)}) for name in names]
    type = TensorType(DType.FLOAT32, (PLANTED["ELEMENTS"],))
    builder = GraphBuilder()
    task = Task(canonicalise(builder.finish([builder.call("add", builder.input(type), builder.input(type))])), frozenset(), HERE, 1)
    source = devices(tracker, "board", builder=f"{FOLDER / 'planted.py'}:PlantedBuilder", limits=Limits(build=20, run=1.0))
    with Fleet(source) as fleet:
        records = dict(zip(names, fleet.measure(task, configs), strict=True))
        assert fleet.capacity == 1
    assert {name for name, record in records.items() if record.times} == {"plain", "backwards"}
    reasons = {"crash": "SIGSEGV", "hang": "timed out", "constant": "relative error", "unbuildable": "build: "}
    assert all(reason in records[name].error for name, reason in reasons.items()), records


def test_a_device_whose_session_dies_serves_on(tracker: Tracker, board: subprocess.Popen[str], make_task: Make) -> None:
    task = here(make_task(8, 32, 16))
    template = template_for(task.graph)
    assert template is not None
    configs = template.space(task).configs[:2]
    with Fleet(devices(tracker, "board")) as fleet:
        children = pathlib.Path(f"/proc/{board.pid}/task").glob("*/children")
        (session,) = (int(child) for listed in children for child in listed.read_text().split())
        os.kill(session, signal.SIGKILL)
        assert all(record.times for record in fleet.measure(task, configs))


def test_devices_that_do_not_fit_are_refused(tracker: Tracker, board: subprocess.Popen[str]) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"no device with key 'bord' \(it has .*board.*mlc devices serve"):
        Fleet(devices(tracker, "bord"))
    other = Target.parse("cpu -mcpu=x86-64-v2 -threads=3")
    with pytest.raises(TargetError, match=r"measures for 'cpu -mcpu=x86-64-v2 -threads=3': .* is '"):
        Fleet(devices(tracker, "board", target=other))
    in_use = pytest.raises(DeviceUnavailableError, match=r"all 1 devices with key 'board' .* in use")
    with Fleet(devices(tracker, "board")), in_use:  # the refused device is free again, and in use now
        Fleet(devices(tracker, "board"), patience=0.5)


def test_addresses_are_checked() -> None:
    with pytest.raises(OptionError, match="HOST:PORT"):
        Tracker.parse("somewhere")
    with pytest.raises(DeviceUnavailableError, match="mlc devices tracker"):
        Tracker("127.0.0.1", free_port()).servers()
