"""A Ray cluster as a source of devices: every node whose machine is the job's target measures, all others build.

A measuring node is held by one actor that Ray gives all of the node's cores, so that nothing else that Ray runs disturbs the times, and
two jobs never measure on one machine. While there are nodes that do not measure, candidates are built there, as Ray tasks for one core
each; else every measuring node builds its own candidates between measurements. Nodes with a resource ``mlc_build`` never measure:
``ray start --address=... --resources='{"mlc_build": 1}'``.
"""

from __future__ import annotations

import logging
import pathlib
import socket
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from ..codegen.build import versions
from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..errors import DeviceUnavailableError, Error, OptionError, TargetError
from .build_pool import BUILDER, Builds, Built
from .building import BuiltKernel
from .fleet import Device, DeviceLost, DeviceSource
from .measure import Limits, Protocol, run_seconds
from .ray_nodes import NodeFacts, NodeMeasurer, build, packed, unpacked

BUILD_ONLY = "mlc_build"
"""The resource of nodes that only build."""

_START_SECONDS = 60.0
"""For the first actor to start: its process imports TVM."""

_STRAGGLER_SECONDS = 15.0
"""For the others, after it."""


class NoBuilders(Error):
    """There is no node left that builds."""


class Cluster:
    """A connection to a Ray cluster, and its nodes that are alive. ``address`` as Ray takes it; None: the cluster that $RAY_ADDRESS
    names, else one that this machine belongs to. A process that is connected to a cluster already stays with it."""

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise OptionError(f"measuring on a cluster needs Ray ({error}); install it with: pip install 'mlc[ray]'") from error
        self.ray = ray
        if address is not None and "://" not in address:
            _require_answer(address)
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(address or "auto", log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise _no_cluster(address, error) from error

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Ray's facts about each node that is alive and has cores, by its id."""
        return {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1}

    def close(self) -> None:
        if self._ours:
            self.ray.shutdown()


def _require_answer(address: str) -> None:
    """Fails at once where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OptionError(f"'{address}' is no address of a cluster; give HOST:PORT, as 'ray start --head' prints it")
    try:
        socket.create_connection((host, int(port)), 5.0).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> DeviceUnavailableError:
    where = f"at '{address}'" if address else "here"
    return DeviceUnavailableError(
        f"no Ray cluster answers {where}: {error}; start one with 'ray start --head' and nodes with 'ray start --address=...'"
    )


class NodeBuilds(Builds):
    """Builds as Ray tasks, on nodes that do not measure. Libraries are kept in ``folder`` on this machine."""

    def __init__(self, cluster: Cluster, measuring: set[str], folder: pathlib.Path, builder: str, limits: Limits) -> None:
        self._cluster = cluster
        self._measuring = measuring
        self._folder = folder
        self._builder = builder
        self._limits = limits
        # A node that dies costs its tasks a retry; a candidate that kills its worker dies in a child of Ray's process.
        self._task = cluster.ray.remote(num_cpus=1, max_retries=3)(build)
        self._built: dict[tuple[str, Config], BuiltKernel] = {}
        self._closed = False

    @property
    def possible(self) -> bool:
        """Whether there is a node to build on."""
        return bool(self._cluster.nodes().keys() - self._measuring)

    def build(self, task: Task, configs: Sequence[Config]) -> Built:
        """See :meth:`Builds.build`. NoBuilders when the last node that builds is gone."""
        started = {
            config: self._task.remote(task.text, str(config), self._builder, self._limits)
            for config in configs
            if (task.key, config) not in self._built
        }
        built: dict[Config, BuiltKernel | str] = {}
        for config in configs:
            kernel = self._built.get((task.key, config)) or self._fetch(started[config])
            if isinstance(kernel, BuiltKernel):
                self._built[task.key, config] = kernel
            built[config] = kernel
        return built

    def close(self) -> None:
        self._closed = True

    def _fetch(self, reference: Any) -> BuiltKernel | str:
        ray = self._cluster.ray
        while not ray.wait([reference], timeout=1.0)[0]:
            if self._closed or not self.possible:
                ray.cancel(reference, force=True)
                raise NoBuilders("no node is left that builds")
        try:
            return unpacked(ray.get(reference), self._folder)
        except ray.exceptions.RayError as error:
            return f"build: {type(error).__name__}: {str(error).splitlines()[0]}"


class NodeDevice(Device):
    """A node and the actor that holds it."""

    def __init__(self, name: str, cluster: Cluster, node: str, actor: Any, builds: NodeBuilds, protocol: Protocol, limits: Limits) -> None:
        self.name = name
        self.node = node
        self.closed = False
        self._cluster = cluster
        self._actor = actor
        self._builds = builds
        self._protocol = protocol
        self._limits = limits
        self._busy = threading.Lock()

    def measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        """See :meth:`Device.measure`."""
        with self._busy:
            try:
                return self._measure(task, configs)
            except self._cluster.ray.exceptions.RayError as error:
                raise DeviceLost(f"{self.name}: {type(error).__name__}: {str(error).strip().splitlines()[-1]}") from error

    def _measure(self, task: Task, configs: Sequence[Config]) -> list[Record]:
        ray = self._cluster.ray
        each = 2 * run_seconds(task, self._limits) + 2 * self._protocol.most_seconds + 10.0
        patience = 120.0 + len(configs) * each
        if self._builds.possible:
            try:
                built = self._builds.build(task, configs)
            except NoBuilders:
                pass
            else:
                shipped = [(str(config), packed(kernel)) for config, kernel in built.items()]
                found: list[Record] = ray.get(self._actor.measure_built.remote(task.text, shipped), timeout=patience)
                return found
        patience += len(configs) * self._limits.build
        found = ray.get(self._actor.measure.remote(task.text, [str(config) for config in configs]), timeout=patience)
        return found

    def close(self) -> None:
        ray, self.closed = self._cluster.ray, True
        if self._busy.acquire(blocking=False):  # else the actor is in the middle of a batch: it ends with its process
            try:
                ray.get(self._actor.close.remote(), timeout=5.0)
            except ray.exceptions.RayError:
                pass
            finally:
                self._busy.release()
        ray.kill(self._actor)


class ClusterNodes(DeviceSource):
    """The nodes of ``cluster`` that measure for ``target``."""

    def __init__(
        self,
        cluster: Cluster,
        target: Target,
        *,
        protocol: Protocol | None = None,
        limits: Limits | None = None,
        builder: str = BUILDER,
        seed: int = 0,
    ) -> None:
        self._cluster = cluster
        self._target = target
        self._protocol = protocol or Protocol()
        self._limits = limits or Limits()
        self._failures: list[str] = []
        self._refused: dict[str, str] = {}
        self._devices: list[NodeDevice] = []
        self._measuring: set[str] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-tune-")
        self._builds = NodeBuilds(cluster, self._measuring, pathlib.Path(self._folder.name), builder, self._limits)
        self._actor = cluster.ray.remote(NodeMeasurer)
        self._arguments = (builder, self._protocol, self._limits, seed)

    def acquire(self, patience: float) -> list[Device]:
        """See :meth:`DeviceSource.acquire`."""
        self._devices = [device for device in self._devices if not device.closed]
        self._measuring.clear()
        self._measuring.update(device.node for device in self._devices)
        nodes = self._cluster.nodes()
        free = {node: facts for node, facts in nodes.items() if self._may_measure(node, facts["Resources"])}
        self._measuring.update(free)
        actors = {node: self._start(node, facts["Resources"]["CPU"]) for node, facts in free.items()}
        found = {node: device for node, device in self._ready(actors, nodes, patience).items() if device is not None}
        self._measuring -= free.keys() - found.keys()
        self._devices += found.values()
        return list(found.values())

    @property
    def mismatches(self) -> Sequence[str]:
        """See :class:`DeviceSource`."""
        return list(self._refused.values())

    def unavailable(self) -> Error:
        """See :meth:`DeviceSource.unavailable`."""
        if self._refused:
            return TargetError(
                f"no node of the cluster measures for '{self._target}': {'; '.join(self._refused.values())}. "
                "Name the nodes' target with --target, or start Ray on machines of that target"
            )
        if self._failures:
            return DeviceUnavailableError(f"no node of the cluster can measure: {'; '.join(self._failures)}")
        return DeviceUnavailableError(
            f"the cluster has no node that measures; add machines with: ray start --address=... (without the resource '{BUILD_ONLY}')"
        )

    def stop(self) -> None:
        self._builds.close()

    def close(self) -> None:
        self._folder.cleanup()
        self._cluster.close()

    def _may_measure(self, node: str, resources: dict[str, float]) -> bool:
        return node not in self._measuring and node not in self._refused and BUILD_ONLY not in resources

    def _start(self, node: str, cores: float) -> Any:
        """An actor on ``node`` that holds all of its cores, once they are free."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(node, soft=False)
        return self._actor.options(num_cpus=cores, scheduling_strategy=where).remote(*self._arguments)

    def _ready(self, actors: dict[str, Any], nodes: dict[str, Any], patience: float) -> dict[str, NodeDevice | None]:
        """A device for each of the nodes whose actor starts in time and fits; the reasons of the others are kept."""
        ray = self._cluster.ray
        asked = {node: actor.describe.remote() for node, actor in actors.items()}
        if asked:  # the first may have to import what the others find in the page cache
            ray.wait(list(asked.values()), timeout=_START_SECONDS + patience)
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=_STRAGGLER_SECONDS)
        self._failures = []
        devices: dict[str, NodeDevice | None] = {}
        for node, reference in asked.items():
            name = f"{nodes[node]['NodeManagerHostname']} ({node[:8]})"
            try:
                facts: NodeFacts = ray.get(reference, timeout=0)
            except ray.exceptions.GetTimeoutError:
                self._failures.append(f"{name} did not start in time: its cores are in use, or it is gone")
            except ray.exceptions.RayError as error:
                self._failures.append(f"{name}: {str(error).strip().splitlines()[-1]}")
            else:
                if facts.target != str(self._target):
                    self._refused[node] = f"{name} is '{facts.target}'"
                elif facts.versions != versions():
                    self._failures.append(f"{name} runs {facts.versions}, this machine {versions()}: install the same mlc on both")
                else:
                    devices[node] = NodeDevice(name, self._cluster, node, actors[node], self._builds, self._protocol, self._limits)
            if devices.setdefault(node, None) is None:
                ray.kill(actors[node])
        return devices
