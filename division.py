"""The division of a model between mlc and PyTorch: whole if mlc can compile all of it, else in stretches as long as can be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import fx
from torch.export import ExportedProgram

from .errors import Error, LoweringError, UnsupportedOpError
from .frontend import Exported, Imported, import_exported
from .frontend.extraction import as_program
from .frontend.folding import fold_weights
from .frontend.importer import UnsupportedNodesError
from .frontend.location import location_of
from .frontend.partition import Kind, Partition, Segment, has_symbolic_sizes, has_unknown_sizes, partition, weights_of
from .frontend.unsupported import UnsupportedOps
from .runtime.report import FallbackReport

T = TypeVar("T")


@dataclass(frozen=True)
class Division(Generic[T]):
    """A divided model: what was made of each native segment of static shapes, and what PyTorch runs and why."""

    partition: Partition
    made: Mapping[Segment, T]
    fallback: tuple[FallbackReport, ...]


def divide(exported: Exported, make: Callable[[Imported], T], *, strict: bool = False) -> T | Division[T]:
    """What ``make`` (code generation, say) gives for the whole of ``exported``, or for its parts.

    ``make`` raises an Error, with the locations of the operations where it knows them, for what it cannot compile; those operations are
    then left to PyTorch. What depends on weights alone is computed now, and ``exported`` changed accordingly. With ``strict`` the model
    is whole, or UnsupportedOpError lists every operation that stands in the way.
    """
    program = exported.program
    state = _Division(program, make)
    cause: Error | None = None
    while not has_unknown_sizes(program):
        try:
            return make(import_exported(exported))
        except Error as error:
            cause = error
            if isinstance(error, UnsupportedOpError) or has_symbolic_sizes(program):
                state.refuse(error, program.graph.nodes)
            elif not state.refuse(error, program.graph.nodes):
                if strict:
                    raise
                state.give_up(error, program.graph.nodes)
        if not fold_weights(program, state.refused):
            break
    if strict:
        fallback = partition(program, state.refused).fallback
        if cause is not None and not fallback:
            raise cause
        raise UnsupportedOpError("\n".join(["mlc cannot compile these operations of the model:", *fallback.lines()])) from cause
    return state.run()


class _Division(Generic[T]):
    """State of one division."""

    def __init__(self, exported: ExportedProgram, make: Callable[[Imported], T]) -> None:
        self.exported = exported
        self.make = make
        self.refused: dict[str, str] = {}
        """Why PyTorch must run a node, by the node's name; '' where a fault of the whole stretch says it."""
        self.faults: list[FallbackReport] = []

    def run(self) -> Division[T]:
        """Divides, and leaves more to PyTorch until the rest can be compiled."""
        made: dict[Segment, T] = {}
        while True:
            weights = weights_of(self.exported)
            divided = partition(self.exported, self.refused)
            complete = True
            for segment in divided.segments:
                if segment.kind is not Kind.STATIC or segment in made:
                    continue
                try:
                    part = as_program(self.exported.graph_module, segment, weights)
                    made[segment] = self.make(import_exported(Exported(part, {})))
                except Error as error:
                    complete = False
                    if not self.refuse(error, segment.nodes):
                        self.give_up(error, segment.own)
            if complete:
                kept = {segment: made[segment] for segment in divided.segments if segment in made}
                return Division(divided, kept, (*_reports(divided.fallback), *self.faults))
            fold_weights(self.exported, self.refused)

    def refuse(self, error: Error, nodes: Iterable[fx.Node]) -> bool:
        """Leaves the nodes that ``error`` is about to PyTorch; whether there were further ones."""
        if isinstance(error, UnsupportedNodesError):
            found = error.reasons
        else:
            places = set(error.locations)
            reason = "mlc has no kernel for this use of it" if isinstance(error, LoweringError) else _first_line(error)
            found = {node.name: reason for node in nodes if places and not places.isdisjoint(self.locations(node))}
        found = {self.computing(name): reason for name, reason in found.items()}
        new = {name: reason for name, reason in found.items() if name not in self.refused}
        self.refused |= new
        return bool(new)

    def give_up(self, error: Error, nodes: Collection[fx.Node]) -> None:
        """Leaves all of ``nodes`` to PyTorch."""
        self.refused |= {node.name: "" for node in nodes if node.op == "call_function" and node.name not in self.refused}
        count = sum(node.op == "call_function" for node in nodes)
        self.faults.append(FallbackReport("a stretch of operations", count, "", "", f"code generation failed: {_first_line(error)}"))

    def locations(self, node: fx.Node) -> set[object]:
        """Where a node comes from; for control flow, where the nodes of its branches and bodies come from as well."""
        if node.op != "call_function":
            return set()
        found: set[object] = {location_of(node)}
        for operand in node.all_input_nodes:
            body = getattr(operand.graph.owning_module, str(operand.target), None) if operand.op == "get_attr" else None
            if isinstance(body, fx.GraphModule):
                found |= {location_of(inner) for inner in body.graph.nodes if inner.op == "call_function"}
        return found

    def computing(self, name: str) -> str:
        """The name of the node that computes a result, for a node that only picks it."""
        node = next((node for node in self.exported.graph.nodes if node.name == name), None)
        while node is not None and getattr(node.target, "__name__", "") == "getitem":
            name = str(node.args[0])
            node = node.args[0] if isinstance(node.args[0], fx.Node) else None
        return name


def _reports(fallback: UnsupportedOps) -> list[FallbackReport]:
    return [FallbackReport(op, len(places), places[0].module, places[0].source, reason) for (op, reason), places in fallback.uses.items()]


def _first_line(error: Error) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
