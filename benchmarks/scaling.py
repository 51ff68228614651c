"""Candidates per minute with one and two workers: processes of this machine, devices of an RPC tracker, nodes of a Ray cluster.

``python -m mlc.benchmarks.scaling`` starts trackers, servers and nodes on the loopback interface. On one machine they share its
cores: the figures show what the back ends cost, not what further machines bring. Every cell starts with an empty kernel cache.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from ..autotune.build_pool import BuildPool
from ..autotune.building import BuiltKernel
from ..autotune.database import Database
from ..autotune.fleet import Fleet
from ..autotune.inputs import write_case
from ..autotune.measure import LocalMeasurer, Measurer
from ..autotune.ray_cluster import Cluster, ClusterNodes
from ..autotune.rpc_devices import RpcDevices
from ..autotune.rpc_tracker import Tracker
from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..codegen.templates import template_for
from ..ir import DType, GraphBuilder, TensorType, canonicalise

BATCH = 8
WORKERS = (1, 2)
LOOPBACK = "127.0.0.2"
"""Ray takes 127.0.0.1 for the machine's outer address."""

Start: TypeAlias = "Callable[[int], contextlib.AbstractContextManager[Measurer]]"


@dataclass(frozen=True)
class Kind:
    """Tasks that are alike: the ``number``-th is a linear layer of (rows, depth, columns)."""

    name: str
    shape: Callable[[int], tuple[int, int, int]]

    def task(self, number: int) -> Task:
        rows, depth, columns = self.shape(number)
        builder = GraphBuilder()
        x, weight = builder.input(TensorType(DType.FLOAT32, (rows, depth))), builder.input(TensorType(DType.FLOAT32, (columns, depth)))
        graph = canonicalise(builder.finish([builder.call("linear", x, weight)]))
        target = Target.parse("cpu")
        return Task(graph, frozenset({1}), target, target.threads)


KINDS = (
    Kind("build-bound", lambda number: (8 + number, 32, 16)),
    Kind("run-bound", lambda number: (512 + 8 * number, 1024, 1024)),
)


@dataclass(frozen=True)
class Cell:
    """Candidates per minute of a back end with so many workers, on tasks of a kind."""

    system: str
    workers: int
    kind: str
    rate: float
    failed: int


@dataclass(frozen=True)
class Parts:
    """What a candidate consists of, medians: seconds to build one in one worker, to verify and time it, bytes of its library, bytes of
    its task's inputs and references; and the records per second that the database takes in batches."""

    kind: str
    build_seconds: float
    measure_seconds: float
    library_bytes: float
    case_bytes: float
    records_per_second: float


@contextlib.contextmanager
def local(workers: int) -> Iterator[Measurer]:
    """This process' own measurer; ``workers`` build."""
    with LocalMeasurer(build_workers=workers) as measurer:
        measurer.start()
        yield measurer


@contextlib.contextmanager
def rpc(workers: int) -> Iterator[Measurer]:
    """A tracker and ``workers`` servers; as many workers build here."""
    tracker = Tracker("127.0.0.1", _free_port())
    with contextlib.ExitStack() as started:
        started.enter_context(_devices("tracker", "--port", str(tracker.port)))
        for _ in range(workers):
            started.enter_context(_devices("serve", "--tracker", str(tracker), "--key", "scaling", "--port", str(_free_port())))
        yield started.enter_context(Fleet(RpcDevices(tracker, "scaling", Target.parse("cpu"), build_workers=workers)))


@contextlib.contextmanager
def ray(workers: int) -> Iterator[Measurer]:
    """A cluster of ``workers`` nodes that measure what they build."""
    import ray
    from ray.cluster_utils import Cluster as LocalCluster

    node = {"num_cpus": 1, "node_ip_address": LOOPBACK}
    cluster = LocalCluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        for _ in range(workers - 1):
            cluster.add_node(**node)
        ray.init(cluster.address, log_to_driver=False, logging_level="error", _node_ip_address=LOOPBACK)
        with Fleet(ClusterNodes(Cluster(), Target.parse("cpu"))) as fleet:
            yield fleet
    finally:
        ray.shutdown()
        cluster.shutdown()


SYSTEMS: dict[str, Start] = {"local": local, "rpc": rpc, "ray": ray}


@contextlib.contextmanager
def _devices(*arguments: str) -> Iterator[None]:
    """``mlc devices ...``, once it serves."""
    with subprocess.Popen([sys.executable, "-m", "mlc.cli", "devices", *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """Kernels go to a new cache, of the processes started meanwhile too."""
    before = os.environ.get("MLC_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="mlc-scaling-", ignore_cleanup_errors=True) as folder:
        os.environ["MLC_CACHE_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["MLC_CACHE_DIR"]
            else:
                os.environ["MLC_CACHE_DIR"] = before


def measure_rate(measurer: Measurer, kind: Kind, first: int, seconds: float) -> tuple[float, int]:
    """Candidates per minute, and how many failed, over batches of new tasks that are begun within ``seconds``."""
    begin, done, failed = time.perf_counter(), 0, 0
    flying: set[Future[list[Record]]] = set()
    for number in itertools.count(first):
        if time.perf_counter() - begin < seconds:
            flying.add(measurer.submit(task := kind.task(number), _configs(task)))
        elif not flying:
            return 60.0 * done / (time.perf_counter() - begin), failed
        if len(flying) >= measurer.capacity or time.perf_counter() - begin >= seconds:
            finished, flying = wait(flying, return_when=FIRST_COMPLETED)
            for future in finished:
                done += len(future.result())
                failed += sum(not record.times for record in future.result())
    raise AssertionError("unreachable")


def _configs(task: Task) -> Sequence[Config]:
    template = template_for(task.graph)
    assert template is not None
    return template.space(task).configs[:BATCH]


def measure_parts(kind: Kind) -> Parts:
    """Takes apart one batch."""
    task = kind.task(0)
    configs = _configs(task)
    with _empty_cache(), tempfile.TemporaryDirectory(prefix="mlc-scaling-") as name, LocalMeasurer(build_workers=1) as measurer:
        folder = pathlib.Path(name)
        case = write_case(task, folder / "case").parent
        pool = BuildPool(folder, workers=1)
        try:
            warm = kind.task(1)
            measurer.measure_built(warm, _configs(warm)[:1], pool.build(warm, _configs(warm)[:1]))
            begin = time.perf_counter()
            built = pool.build(task, configs)
            build = (time.perf_counter() - begin) / len(configs)
            begin = time.perf_counter()
            records = measurer.measure_built(task, configs, built, case / "case.json")
            measured = (time.perf_counter() - begin) / len(configs)
        finally:
            pool.close()
        libraries = [kernel.library.stat().st_size for kernel in built.values() if isinstance(kernel, BuiltKernel)]
        size = sum(path.stat().st_size for path in case.iterdir())
        return Parts(kind.name, build, measured, statistics.median(libraries), size, _database_rate(folder / "records.db", task, records))


def _database_rate(path: pathlib.Path, task: Task, records: Sequence[Record], seconds: float = 1.0) -> float:
    """Records per second that a database takes, a batch at a time, each committed."""
    with Database(path) as database:
        begin, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begin) < seconds:
            fresh = [Record(r.task, r.target, r.config, r.times, r.versions, count + i, r.error) for i, r in enumerate(records)]
            count += database.add(fresh, [task])
        return count / elapsed


def _parts_table(parts: Sequence[Parts]) -> Table:
    table = Table(box=None, pad_edge=False, title="a candidate", title_justify="left")
    table.add_column("tasks")
    for heading in ("build, ms", "verify and time, ms", "library, KiB", "inputs, KiB", "database, records/s"):
        table.add_column(heading, justify="right")
    for part in parts:
        times = (f"{seconds * 1e3:.0f}" for seconds in (part.build_seconds, part.measure_seconds))
        sizes = (f"{size / 1024:.0f}" for size in (part.library_bytes, part.case_bytes))
        table.add_row(part.kind, *times, *sizes, f"{part.records_per_second:.0f}")
    return table


def _cells_table(cells: Sequence[Cell]) -> Table:
    table = Table(box=None, pad_edge=False, title="candidates per minute", title_justify="left")
    table.add_column("measured by")
    table.add_column("workers", justify="right")
    for kind in KINDS:
        table.add_column(kind.name, justify="right")
    rates = {(cell.system, cell.workers, cell.kind): cell.rate for cell in cells}
    for system, workers in dict.fromkeys((cell.system, cell.workers) for cell in cells):
        table.add_row(system, str(workers), *(f"{rates[system, workers, kind.name]:.0f}" for kind in KINDS))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlc.benchmarks.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of batches, for each cell")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="with commas between")
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    options = parser.parse_args(arguments)
    parts = [measure_parts(kind) for kind in KINDS]
    cells = []
    for system, workers in itertools.product(options.systems.split(","), WORKERS):
        with _empty_cache(), SYSTEMS[system](workers) as measurer:
            for kind in KINDS:
                warm = [measurer.submit(task := kind.task(number), _configs(task)[:1]) for number in range(workers)]
                wait(warm)  # what workers import and compile first
                cells.append(Cell(system, workers, kind.name, *measure_rate(measurer, kind, 10, options.seconds)))
    if options.json:
        options.json.write_text(
            json.dumps({"parts": [asdict(part) for part in parts], "cells": [asdict(cell) for cell in cells]}, indent=1)
        )
    Console().print(_parts_table(parts), _cells_table(cells))
    return 1 if any(cell.failed for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
