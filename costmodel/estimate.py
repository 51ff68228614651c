"""Estimates for whole graphs without compiling them: latency, memory, and what limits each operation."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..codegen.target import Target
from ..errors import TargetError
from ..ir import Graph, Node, TensorType, Trait, Value, control_walk, is_control, lookup
from ..ir.stored_size import stored_bytes
from .roofline import LAUNCH_SECONDS, Bound, Rates, Roofline, roofs
from .workload import Workload, workload


@dataclass(frozen=True)
class OperationEstimate:
    """One top-level operation: seconds, what bounds it, its arithmetic and bytes, and where it comes from."""

    name: str
    location: str
    seconds: float
    bound: Bound
    operations: float
    nbytes: int


@dataclass(frozen=True)
class Estimate:
    """What a graph needs on a target. Seconds are a roofline: a good implementation comes within some tens of per cent.

    ``activation_bytes`` is the most that is alive at once, constants and the graph's own inputs and outputs left out.
    """

    target: str
    threads: int
    operations: tuple[OperationEstimate, ...]
    constant_bytes: int
    activation_bytes: int
    io_bytes: int

    @cached_property
    def seconds(self) -> float:
        """Latency of one call."""
        return sum(operation.seconds for operation in self.operations)

    @property
    def memory_bytes(self) -> int:
        return self.constant_bytes + self.activation_bytes + self.io_bytes

    @cached_property
    def by_bound(self) -> Mapping[Bound, float]:
        """Seconds by what limits them, the largest first."""
        total: dict[Bound, float] = {}
        for operation in self.operations:
            total[operation.bound] = total.get(operation.bound, 0.0) + operation.seconds
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def json(self) -> str:
        """The estimate as a JSON document."""
        return json.dumps(
            {
                "target": self.target,
                "threads": self.threads,
                "seconds": self.seconds,
                "constant_bytes": self.constant_bytes,
                "activation_bytes": self.activation_bytes,
                "io_bytes": self.io_bytes,
                "operations": [
                    {
                        "name": operation.name,
                        "location": operation.location,
                        "seconds": operation.seconds,
                        "bound": operation.bound.value,
                        "operations": operation.operations,
                        "bytes": operation.nbytes,
                    }
                    for operation in self.operations
                ],
            }
        )

    def __str__(self) -> str:
        """A table of the ten longest operations and the totals."""
        lines = [f"estimate for '{self.target}' on {self.threads} threads: {1e3 * self.seconds:.3f} ms"]
        lines.append(
            f"memory: {_mebibytes(self.constant_bytes)} constants, {_mebibytes(self.activation_bytes)} activations, "
            f"{_mebibytes(self.io_bytes)} inputs and outputs"
        )
        shares = (f"{bound.value} {100 * part / max(self.seconds, 1e-30):.0f}%" for bound, part in self.by_bound.items())
        lines.append("limited by: " + ", ".join(shares))
        lines.append(f"{'ms':>9} {'GFLOP':>8} {'MiB':>8}  {'limited by':<17} operation")
        for operation in sorted(self.operations, key=lambda operation: -operation.seconds)[:10]:
            lines.append(
                f"{1e3 * operation.seconds:9.3f} {operation.operations / 1e9:8.3f} {operation.nbytes / 2**20:8.2f}  "
                f"{operation.bound.value:<17} {operation.name} {operation.location}".rstrip()
            )
        return "\n".join(lines)


def estimate(graph: Graph, target: Target, threads: int | None = None) -> Estimate:
    """What ``graph`` (statically shaped) needs on ``target``, whether or not that device is present.

    Elementwise operations and views whose operand is computed by the node before them cost no memory traffic of their own: they
    will be fused. Constants come from the level of the hierarchy that holds all of them. The operations of a loop count once for each
    round, those of a branch or of a loop whose rounds are not known once. TargetError for a target without rates.
    """
    count = threads or target.threads
    rates = Rates.sustained(target, count)
    if min(rates.operations, rates.memory) <= 0:
        raise TargetError(f"the target '{target}' has no peak rates, which estimates need")
    constants = {node.output: math.ceil(stored_bytes(node.output.tensor)) for node in control_walk(graph) if node.op == "constant"}
    total_constants = sum(constants.values())
    cold = total_constants > rates.capacity[2]
    rows = []
    for owner, node, times in _operations(graph):
        fused = _fuses(owner, node)
        work = _work_of(node, fused=fused)
        cold_bytes = sum(constants.get(value, 0) for value in dict.fromkeys(node.inputs)) if cold else 0
        roof = roofs(work, rates, cold_bytes=min(cold_bytes, work.nbytes), launch=0.0 if fused else LAUNCH_SECONDS)
        rows.append(_row(node, work, roof, times))
    ends = {value: value.tensor.nbytes for value in (*graph.inputs, *graph.outputs) if isinstance(value.type, TensorType)}
    return Estimate(str(target), count, tuple(rows), total_constants, _peak_activations(graph), sum(ends.values()))


def _operations(graph: Graph, times: int = 1) -> Iterator[tuple[Graph, Node, int]]:
    """What computes something, with the graph it stands in and how often it runs."""
    for node in graph.nodes:
        if is_control(node):
            trips = node.attributes.get("trips", 1)
            for region in node.regions:
                yield from _operations(region, times * trips if isinstance(trips, int) else times)
        elif node.op != "constant" and not lookup(node.op).has(Trait.VIEW):
            yield graph, node, times


def _row(node: Node, work: Workload, roof: Roofline, times: int) -> OperationEstimate:
    name = node.op
    if node.op == "fusion":
        name = "+".join(inner.op for inner in node.regions[0].nodes if not lookup(inner.op).has(Trait.VIEW)) or "fusion"
    name = name if times == 1 else f"{times} x {name}"
    return OperationEstimate(name, node.location.module, times * roof.seconds, roof.bound, times * work.operations, times * work.nbytes)


def _fuses(graph: Graph, node: Node) -> bool:
    """Whether ``node`` will probably be computed together with the producer of its first computed operand."""
    if not lookup(node.op).has(Trait.ELEMENTWISE):
        return False
    return any(value.node is not None and value.op != "constant" and len(graph.users.get(value, ())) == 1 for value in node.inputs)


def _work_of(node: Node, fused: bool) -> Workload:
    if node.op == "fusion":
        return workload(node.regions[0])
    inputs = tuple(Value(value.type, f"p{position}", None, position) for position, value in enumerate(node.inputs))
    alone = Node(node.op, inputs, node.attributes, [value.type for value in node.outputs])
    work = workload(Graph(inputs, (alone,), alone.outputs))
    if not fused:
        return work
    return Workload(work.anchor, work.operations, 0, 0, 0, work.transcendental, work.nodes, work.inner)


def _peak_activations(graph: Graph) -> int:
    """The largest sum of intermediate values alive at once; a reshape shares its operand's memory."""
    owner: dict[Value, Value] = {}
    last_use: dict[Value, int] = {}
    for position, node in enumerate(graph.nodes):
        for value in node.inputs:
            last_use[owner.get(value, value)] = position
        for value in node.outputs:
            owner[value] = owner.get(node.inputs[0], node.inputs[0]) if node.op == "reshape" else value
    outputs = {owner.get(value, value) for value in graph.outputs}
    change = [0] * (len(graph.nodes) + 1)
    for position, node in enumerate(graph.nodes):
        for value in node.outputs:
            if node.op == "constant" or owner[value] is not value or value in outputs or not isinstance(value.type, TensorType):
                continue
            change[position] += value.tensor.nbytes
            change[last_use.get(value, position) + 1] -= value.tensor.nbytes
    return max(itertools.accumulate(change), default=0)


def _mebibytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
