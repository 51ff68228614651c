"""Measuring on a Ray cluster: nodes on this machine, whose processes are killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import runpy
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as LocalCluster

from mlc.autotune.database import Database
from mlc.autotune.fleet import Fleet
from mlc.autotune.measure import Protocol
from mlc.autotune.places import measurer_at
from mlc.autotune.ray_cluster import Cluster, ClusterNodes
from mlc.autotune.tuning import Progress, tune_tasks
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.costmodel import RooflineModel
from mlc.errors import DeviceUnavailableError, OptionError, TargetError
from mlc.ir import DType, GraphBuilder, TensorType, canonicalise

Make = Callable[..., Task]
QUICK = Protocol(rounds=2, seconds=0.002)
HERE = Target.parse("cpu")
FOLDER = pathlib.Path(__file__).parent
ADDRESS = "127.0.0.2"
"""On the loopback interface; 127.0.0.1 is what Ray takes for the machine's outer address."""
LOOPBACK = {"node_ip_address": ADDRESS}


class NodeBuilder:
    """Builds planted kernels, and says for which process of Ray: in the place of software versions."""

    def __init__(self) -> None:
        self._planted = runpy.run_path(str(FOLDER / "planted.py"))["PlantedBuilder"]()

    def warm_up(self) -> None:
        pass

    def build(self, task: str, config: str, library: str) -> dict[str, Any]:
        title = pathlib.Path(f"/proc/{os.getppid()}/cmdline").read_text().rstrip("\0")
        document: dict[str, Any] = self._planted.build(task, config, library) | {"versions": title}
        return document


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two nodes with a core each, by Ray's count. A dead node is noticed within two seconds."""
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick, **LOOPBACK}
    local = LocalCluster(initialize_head=True, head_node_args=head)
    local.add_node(num_cpus=1, **LOOPBACK)
    ray.init(local.address, log_to_driver=False, _node_ip_address=ADDRESS)
    try:
        yield local
    finally:
        ray.shutdown()
        local.shutdown()


def nodes(target: Target = HERE, **options: Any) -> ClusterNodes:
    return ClusterNodes(Cluster(), target, protocol=QUICK, **options)


def kill_a_measuring_process() -> None:
    """Kills one of the actors that this test's cluster runs: a descendant of this process."""
    parents: dict[int, int] = {}
    actors = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            rest = (entry / "stat").read_text().rpartition(")")[2]
            parents[int(entry.name)] = int(rest.split()[1])
            if (entry / "cmdline").read_bytes().startswith(b"ray::NodeMeasurer"):
                actors.append(int(entry.name))

    def is_ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    os.kill(next(actor for actor in actors if is_ours(actor)), signal.SIGKILL)


def after(batch: int, action: Callable[[], object]) -> Callable[[Progress], None]:
    """Does something once, when so many batches were measured."""
    batches = itertools.count(1)
    return lambda state: action() if next(batches) == batch else None  # type: ignore[func-returns-value]


def test_processes_and_nodes_may_die(cluster: LocalCluster, tmp_path: pathlib.Path, make_task: Make) -> None:
    made = [make_task(8, 32, 16), make_task(8, 48, 16), make_task(16, 32, 8)]
    tasks = [Task(task.graph, task.constant_inputs, HERE, 1) for task in made]
    path = tmp_path / "tuning.db"
    with Fleet(nodes()) as fleet:
        assert fleet.capacity == 2
        kill_process = after(2, kill_a_measuring_process)
        result = tune_tasks(tasks, trials=2, database=path, model=RooflineModel(), progress=kill_process, measurer=fleet)
        assert result.failed == 0
        kill_node = after(1, lambda: cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False))
        more = tune_tasks(tasks, trials=4, database=path, model=RooflineModel(), progress=kill_node, measurer=fleet)
        assert more.failed == 0
    with Database(path) as database:
        for tuned in more.tasks:
            records = database.records(tuned.task.key, str(HERE))
            assert all(record.times and record.versions for record in records)
            assert {record.config for record in records} >= {tuned.default, tuned.best}


def test_builds_run_where_nothing_is_measured(cluster: LocalCluster) -> None:
    planted = runpy.run_path(str(FOLDER / "planted.py"))
    names = ("plain", "backwards", "kills_builder")
    configs = [Config.of("planted", {"kernel": planted["NAMES"].index(name)}) for name in names]
    type = TensorType(DType.FLOAT32, (planted["ELEMENTS"],))
    builder = GraphBuilder()
    task = Task(canonicalise(builder.finish([builder.call("add", builder.input(type), builder.input(type))])), frozenset(), HERE, 1)
    place = cluster.add_node(num_cpus=1, resources={"mlc_build": 1}, **LOOPBACK)
    with Fleet(nodes(builder=f"{__file__}:NodeBuilder")) as fleet:
        assert fleet.capacity == 1
        records = dict(zip(names, fleet.measure(task, configs), strict=True))
        assert {name for name, record in records.items() if record.times} == {"plain", "backwards"}, records
        assert records["plain"].versions == "ray::build"
        assert "SIGABRT" in records["kills_builder"].error
        # Without that node, the nodes that measure build as well.
        cluster.remove_node(place, allow_graceful=False)
        another = fleet.measure(task, [Config.of("planted", {"kernel": planted["NAMES"].index("slow")})])
        assert another[0].times
        assert another[0].versions == "ray::NodeMeasurer.measure"


def test_nodes_of_another_target_are_refused(cluster: LocalCluster) -> None:
    with pytest.raises(TargetError, match=r"no node of the cluster measures for 'cpu -mcpu=x86-64-v2 -threads=3': .* is '"):
        Fleet(nodes(Target.parse("cpu -mcpu=x86-64-v2 -threads=3")))


def test_a_cluster_that_does_not_answer_is_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DeviceUnavailableError, match=rf"at '127.0.0.1:{port}'.*'ray start --head'"):
        Cluster(f"127.0.0.1:{port}")


def test_a_cluster_is_named_as_it_should_be() -> None:
    with pytest.raises(OptionError, match="ray=ADDRESS"):
        measurer_at(HERE, cluster="spark")
    with pytest.raises(OptionError, match="leave out"):
        measurer_at(HERE, cluster="ray", rpc="127.0.0.1:9190", rpc_key="board")
