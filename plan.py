"""From a divided model to the steps that run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind

from .division import Division
from .errors import ExportError
from .frontend.export import Exported, weight_of
from .frontend.extraction import as_program, in_pytorch, specialised
from .frontend.location import location_of, operation_name
from .frontend.partition import Kind, Segment, is_plumbing, weights_of
from .frontend.signature import call_signature
from .runtime import Executable
from .runtime.executable import Callee
from .segments import NativeStretch, Plan, SegmentedExecutable, SizedStretch, Step, Stretch, TorchStretch, Values, WholeStretch


def segmented(
    exported: Exported, division: Division[Executable], compile_again: Callable[[Exported], Callee], *, name: str, target: str
) -> SegmentedExecutable:
    """The divided model as something to call. ``compile_again`` compiles a part whose sizes have become known."""
    program = exported.program
    plan = _Planner(exported, division, compile_again).plan()
    mutated = [spec.target for spec in program.graph_signature.output_specs if spec.kind is OutputKind.BUFFER_MUTATION]
    changes = [str(name).removeprefix(exported.prefix) for name in mutated]
    return SegmentedExecutable(name, call_signature(program), plan, target=target, changes=changes, fallback=division.fallback)


class _Planner:
    """State of the planning of one model."""

    def __init__(self, exported: Exported, division: Division[Executable], compile_again: Callable[[Exported], Callee]) -> None:
        self.exported = exported.program
        self.returned = exported.returned
        self.division = division
        self.compile_again = compile_again
        self.weights = weights_of(exported.program)
        self.slots: dict[fx.Node, int] = {}

    def plan(self) -> Plan:
        placeholders = dict(zip(self.exported.graph.find_nodes(op="placeholder"), self.exported.graph_signature.input_specs, strict=True))
        given = [node for node, spec in placeholders.items() if spec.kind is InputKind.USER_INPUT]
        arguments = [node for node in given if isinstance(node.meta.get("val"), torch.Tensor)]
        results, mutations = self.results(placeholders)
        segments = self.division.partition.segments
        needed = {node for node in results if isinstance(node, fx.Node)}
        needed |= {node for pair in mutations for node in pair if isinstance(node, fx.Node)}
        steps = []
        for position, segment in enumerate(segments):
            later = needed.union(*(each.inputs for each in segments[position + 1 :]))
            inputs = [node for node in segment.inputs if segment.kind is not Kind.STATIC or node not in self.weights]
            passing = {node for node in (*segment.inputs, *segment.outputs) if node.op != "placeholder" or node in arguments}
            steps.append(
                Step(
                    self.stretch(segment),
                    tuple(map(self.slot, inputs)),
                    tuple(map(self.slot, segment.outputs)),
                    tuple(self.slot(node) for node in passing if node not in later),
                )
            )
        found = tuple(self.slot(node) if isinstance(node, fx.Node) else (node,) for node in results)
        changed = tuple((self.slot(target) if isinstance(target, fx.Node) else target, self.slot(source)) for target, source in mutations)
        given_slots = tuple(map(self.slot, arguments))
        constants = {
            self.slots[node]: weight_of(self.exported, spec).detach()
            for node, spec in placeholders.items()
            if node in self.slots and spec.kind is not InputKind.USER_INPUT
        }
        return Plan(given_slots, constants, tuple(steps), found, changed, len(self.slots))

    def slot(self, node: fx.Node) -> int:
        return self.slots.setdefault(node, len(self.slots))

    def results(self, placeholders: dict[fx.Node, Any]) -> tuple[list[Any], list[tuple[Any, fx.Node]]]:
        """The results of the call (nodes or constants), and what is to be copied where at its end."""
        results: list[Any] = []
        mutations: list[tuple[Any, fx.Node]] = []
        values = self.exported.graph.output_node().args[0]
        by_name = {node.name: node for node in placeholders}
        by_target = {spec.target: spec for spec in placeholders.values()}
        for value, spec in zip(values, self.exported.graph_signature.output_specs, strict=True):
            if spec.kind is OutputKind.USER_OUTPUT:
                # An argument that was changed in place is returned as itself.
                own = self.returned.get(len(results))
                results.append(value if own is None else by_name[own])
            elif spec.kind is OutputKind.USER_INPUT_MUTATION:
                mutations.append((by_name[str(spec.target)], value))
            elif spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
                mutations.append((weight_of(self.exported, by_target[spec.target]).detach(), value))
            else:
                kind = spec.kind.name.lower().replace("_", " ")
                raise ExportError(f"the exported program returns a {kind}: compile the forward pass only")
        return results, mutations

    def stretch(self, segment: Segment) -> Stretch:
        """What runs a segment."""
        if segment.kind is Kind.STATIC:
            return NativeStretch(self.division.made[segment])
        module = self.exported.graph_module
        work = [_short(node) for node in segment.own if not (is_plumbing(node) or isinstance(node.meta.get("val"), torch.SymBool | bool))]
        label = "+".join(dict.fromkeys(work)) or "sizes"
        eager = TorchStretch(in_pytorch(module, segment), label, str(location_of(segment.own[0])))
        if segment.kind is Kind.TORCH:
            return eager
        program = as_program(module, segment, self.weights)
        arguments = tuple(position for position, node in enumerate(segment.inputs) if node not in self.weights)

        def compile_sized(values: Values) -> Stretch:
            made = self.compile_again(Exported(specialised(program, values), {}))
            return NativeStretch(made) if isinstance(made, Executable) else WholeStretch(made)

        return SizedStretch(compile_sized, eager, arguments)


def _short(node: fx.Node) -> str:
    """``nonzero`` for aten.nonzero.default."""
    parts = operation_name(node).split(".")
    return parts[1] if len(parts) == 3 else parts[0]
