"""The division of an exported graph into stretches that mlc compiles and stretches that PyTorch runs.

Nodes are of three kinds (:class:`Kind`). A node's phase is the least number not below its producers' phases that is congruent to
its kind; the nodes of one phase are one segment. Segments are thereby maximal, free of cycles, and as few as the longest chain of
changing kinds demands. Random operations keep their order, so that PyTorch's generator yields the numbers it yields eagerly.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from .control_flow import import_of
from .conversion import tensor_type
from .dtypes import from_torch
from .export import weight_of
from .location import location_of, operation_name
from .registry import converter_of
from .unsupported import Unsupported, UnsupportedOps, remedy_for

aten = torch.ops.aten


class Kind(enum.IntEnum):
    """What runs a node: a program with static shapes, a program for sizes known only when it is called, or PyTorch."""

    STATIC = 0
    SIZED = 1
    TORCH = 2


_VIEWS = frozenset(
    {
        aten.alias.default,
        aten.detach.default,
        aten.view.default,
        aten.reshape.default,
        aten._unsafe_view.default,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.expand.default,
        aten.unsqueeze.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.slice.Tensor,
        aten.select.int,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.unbind.int,
        aten.chunk.default,
        aten.diagonal.default,
        aten.unfold.default,
        operator.getitem,
    }
)
"""Operations that cost PyTorch nothing but a new tensor header."""

_COPIES = frozenset({aten.clone.default, aten.contiguous.default, aten.lift_fresh_copy.default, aten._to_copy.default, aten.copy.default})

_CHECKS = frozenset({aten._assert_scalar.default, aten._assert_async.msg, aten._assert_async.default, aten.sym_constrain_range.default})
_CHECKS |= {aten.sym_constrain_range_for_size.default, aten._linalg_check_errors.default}
"""Operations for their effect only: they raise when an assumption of the graph does not hold."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the graph: its ``own`` nodes, and all ``nodes`` with those it shares with other segments (constants, sizes), both in
    order. ``inputs`` are values of other segments, arguments and weights; ``outputs`` what others or the caller need."""

    kind: Kind
    own: tuple[fx.Node, ...]
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Partition:
    """Segments in an order in which they can run, and the operations that PyTorch runs because mlc cannot."""

    segments: tuple[Segment, ...]
    fallback: UnsupportedOps


def partition(exported: ExportedProgram, refused: Mapping[str, str]) -> Partition:
    """``exported`` divided, with the nodes named in ``refused`` (why they cannot be compiled, by name) left to PyTorch."""
    return _Partitioner(exported, refused).run()


def has_unknown_sizes(exported: ExportedProgram) -> bool:
    """Whether sizes or numbers in the graph depend on the data of tensors."""
    return any(_unbacked(value) for node in exported.graph.nodes for value in _flat(node.meta.get("val")))


def has_symbolic_sizes(exported: ExportedProgram) -> bool:
    """Whether sizes in the graph are symbolic."""
    return any(_is_symbolic(value) for node in exported.graph.nodes for value in _flat(node.meta.get("val")))


def is_random(node: fx.Node) -> bool:
    """Whether the operation may draw from PyTorch's generator."""
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def has_effect(node: fx.Node) -> bool:
    """Whether the node must run although nothing uses its result: it draws random numbers, or raises when an assumption does not hold."""
    return node.target in _CHECKS or (node.is_impure() and node.target is not aten._assert_tensor_metadata.default)


def is_plumbing(node: fx.Node) -> bool:
    """Whether the node says nothing about what a segment computes: a view, a check, a size."""
    return node.target in _VIEWS or node.target in _CHECKS or _is_size(node)


def weights_of(exported: ExportedProgram) -> dict[fx.Node, torch.Tensor]:
    """The tensors of the model by their placeholders, those that a call changes left out."""
    mutated = {spec.target for spec in exported.graph_signature.output_specs if spec.kind is OutputKind.BUFFER_MUTATION}
    placeholders = exported.graph.find_nodes(op="placeholder")
    kinds = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    pairs = zip(placeholders, exported.graph_signature.input_specs, strict=True)
    return {node: weight_of(exported, spec) for node, spec in pairs if spec.kind in kinds and spec.target not in mutated}


class _Partitioner:
    """State of one partition."""

    def __init__(self, exported: ExportedProgram, refused: Mapping[str, str]) -> None:
        self.refused = refused
        self.graph = exported.graph
        self.results = list(exported.graph.output_node().all_input_nodes)
        self.weights = weights_of(exported)
        self.nodes = [node for node in self.graph.nodes if node.op == "call_function" and (node.users or has_effect(node))]
        self.order = {node: index for index, node in enumerate(self.graph.nodes)}
        self.shared: set[fx.Node] = set()
        self.kinds: dict[fx.Node, Kind] = {}
        self.fallback = UnsupportedOps()

    def run(self) -> Partition:
        self.classify()
        while True:
            self.sink_views()
            groups = self.groups()
            idle = [nodes for (_, kind), nodes in groups.items() if kind is not Kind.TORCH and all(map(_is_idle, nodes))]
            if not idle:
                break
            self.kinds.update((node, Kind.TORCH) for nodes in idle for node in nodes)
        segments = []
        for (_, kind), nodes in sorted(groups.items()):
            # Parts that do not touch each other would be compiled for every combination of their sizes.
            parts = _connected(nodes) if kind is Kind.SIZED else [nodes]
            segments += [self.segment(kind, part) for part in parts]
        return Partition(tuple(segments), self.fallback)

    # Kinds

    def classify(self) -> None:
        """Finds the kind of every node, and the nodes that segments share: functions of weights only, and of sizes only."""
        results = set(self.results)
        for node in self.nodes:
            if node.target is operator.getitem:
                producer = node.args[0]
                assert isinstance(producer, fx.Node)
                if producer in self.shared:
                    self.shared.add(node)
                else:
                    self.kinds[node] = self.kinds[producer]
                continue
            reason = self.reason(node)
            constant = all(argument in self.weights or argument in self.shared for argument in _operands(node))
            if node not in results and not has_effect(node) and (_is_size(node) or (reason is None and constant and _is_static(node))):
                self.shared.add(node)
            elif reason is None:
                self.kinds[node] = Kind.STATIC if _is_static(node) else Kind.SIZED
            else:
                self.kinds[node] = Kind.TORCH
                if reason:
                    self.fallback.add(operation_name(node), location_of(node), reason)
        # What several results come from must not be shared in part.
        for node in reversed(self.nodes):
            if node in self.shared and any(user in results for user in node.users if user.target is operator.getitem):
                self.shared -= {node, *node.users}
                self.kinds.update((each, Kind.STATIC) for each in (node, *node.users) if each.op != "output")

    def reason(self, node: fx.Node) -> str | None:
        """Why PyTorch must run the node: '' when that needs no mention; None when mlc can."""
        if node.name in self.refused:
            return self.refused[node.name]
        if node.target in _CHECKS or _is_size(node):
            return ""
        values = [*_flat(node.meta.get("val")), *(value for each in _operands(node) for value in _flat(each.meta.get("val")))]
        if not _converts(node):
            return remedy_for(operation_name(node))
        for value in values:
            if isinstance(value, torch.Tensor):
                try:
                    _ = tensor_type(value) if _is_static_value(value) else from_torch(value.dtype)
                except Unsupported as reason:
                    return str(reason)
        known = {symbol for each in _operands(node) for value in _flat(each.meta.get("val")) for symbol in _unbacked(value)}
        if any(symbol not in known for value in _flat(node.meta.get("val")) for symbol in _unbacked(value)):
            return "the size of the result depends on the data: use torch.where or masks of a fixed shape instead"
        numbers = any(isinstance(each.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool) for each in _operands(node))
        if numbers and all(_is_static_value(value) for value in values if isinstance(value, torch.Tensor)):
            return "a number found in the data of tensors is computed with: keep it a tensor (leave out .item())"
        return None

    def sink_views(self) -> None:
        """Leaves views that only PyTorch reads to it, so that what they view is passed on and no copy made."""
        for node in reversed(self.nodes):
            if node.target not in _VIEWS or self.kinds.get(node, Kind.TORCH) is Kind.TORCH or node.target is operator.getitem:
                continue
            if node not in self.results and all(self.kinds.get(user) is Kind.TORCH for user in self.readers(node)):
                self.kinds[node] = Kind.TORCH
                self.kinds.update((user, Kind.TORCH) for user in node.users if user.target is operator.getitem)

    def readers(self, node: fx.Node) -> Iterator[fx.Node]:
        """The nodes that read a value, or the items of a tuple of values; shared ones (sizes) left out."""
        for user in node.users:
            if user.target is operator.getitem and isinstance(node.meta.get("val"), list | tuple):
                yield from self.readers(user)
            elif user.op != "output" and user not in self.shared and user in self.kinds:
                yield user

    # Segments

    def producers(self, node: fx.Node) -> Iterator[fx.Node]:
        """The nodes of segments that a node reads, directly or through shared ones."""
        for operand in _operands(node):
            if operand in self.kinds:
                yield operand
            elif operand in self.shared:
                yield from self.producers(operand)

    def groups(self) -> dict[tuple[int, Kind], list[fx.Node]]:
        """The nodes by phase and kind."""
        phases: dict[fx.Node, int] = {}
        groups: dict[tuple[int, Kind], list[fx.Node]] = {}
        last_random = 0
        for node in self.nodes:
            kind = self.kinds.get(node)
            if kind is None:
                continue
            least = max((phases[producer] for producer in self.producers(node)), default=0)
            ordered = kind is Kind.TORCH and (is_random(node) or has_effect(node))
            phase = max(least, last_random) if ordered else least
            phase += (kind - phase) % len(Kind)
            if ordered:
                last_random = phase
            phases[node] = phase
            groups.setdefault((phase, kind), []).append(node)
        return groups

    def segment(self, kind: Kind, own: Sequence[fx.Node]) -> Segment:
        """The segment of the nodes ``own``, with the shared ones it needs."""
        members = set(own)
        inputs: dict[fx.Node, None] = {}
        pending = list(own)
        while pending:
            for operand in pending.pop().all_input_nodes:
                if operand in members:
                    continue
                if operand in self.shared or operand.op == "get_attr":
                    members.add(operand)
                    pending.append(operand)
                else:
                    inputs[operand] = None
        results = set(self.results)
        outputs = [node for node in own if node in results or any(self.leaves(user, members) for user in node.users)]
        ordered = sorted(members, key=self.order.__getitem__)
        return Segment(kind, tuple(own), tuple(ordered), tuple(sorted(inputs, key=self.order.__getitem__)), tuple(outputs))

    def leaves(self, user: fx.Node, members: set[fx.Node]) -> bool:
        """Whether a use of a value is outside a segment: by a node of another one, directly or through shared nodes."""
        if user in self.kinds:
            return user not in members
        return user in self.shared and any(self.leaves(each, members) for each in user.users)


def _connected(nodes: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """The connected components of the graph that ``nodes`` span, each in order."""
    parts: list[list[fx.Node]] = []
    part_of: dict[fx.Node, list[fx.Node]] = {}
    for node in nodes:
        merged = [node]
        for part in {id(part): part for operand in node.all_input_nodes if (part := part_of.get(operand)) is not None}.values():
            merged = part + merged
            parts.remove(part)
        parts.append(merged)
        part_of.update((each, merged) for each in merged)
    position = {node: index for index, node in enumerate(nodes)}
    return [sorted(part, key=position.__getitem__) for part in parts]


def _operands(node: fx.Node) -> list[fx.Node]:
    return [operand for operand in node.all_input_nodes if operand.op != "get_attr"]


def _flat(value: object) -> Iterable[object]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield value


def _is_symbolic(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return not _is_static_value(value)
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)


def _is_static_value(value: object) -> bool:
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return True
    return all(isinstance(extent, int) for extent in value.shape)


def _is_static(node: fx.Node) -> bool:
    """Whether neither the results nor the operands have symbolic sizes."""
    return all(_is_static_value(value) for each in (node, *_operands(node)) for value in _flat(each.meta.get("val")))


def _unbacked(value: object) -> Iterable[object]:
    return free_unbacked_symbols(value) if _is_symbolic(value) else ()


def _is_size(node: fx.Node) -> bool:
    """Whether the node computes a number from sizes and other numbers, in Python."""
    if node.op != "call_function" or node.target is aten._local_scalar_dense.default:
        return False
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool | bool | int | float) and not isinstance(
        node.target, torch._ops.HigherOrderOperator
    )


def _converts(node: fx.Node) -> bool:
    """Whether there is a converter for the operation at all."""
    return converter_of(node.target) is not None or import_of(node.target) is not None


def _is_idle(node: fx.Node) -> bool:
    """Whether the node moves data or fills memory at most."""
    return node.target in _VIEWS or node.target in _COPIES or all(map(_is_size, _operands(node)))
