"""Programs as JSON-like data, and back with every field checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ArtifactError
from ..ir.program import ALIGNMENT, BufferRef, ConstantSlot, KernelCall, Program, Signature, Space, TensorSpec
from ..ir.types import DType
from . import trees


def program_to_json(program: Program) -> dict[str, Any]:
    """All of a program but its blobs; :func:`program_from_json` gives an equal one back."""
    return {
        **{field.name: getattr(program, field.name) for field in dataclasses.fields(program)},
        "signature": dataclasses.asdict(program.signature),
        "features": list(program.features),
        "constants": [[slot.offset, slot.nbytes, slot.digest] for slot in program.constants],
        "calls": [
            {
                **{field.name: getattr(call, field.name) for field in dataclasses.fields(call)},
                "arguments": [[ref.space.value, ref.position, ref.nbytes] for ref in call.arguments],
            }
            for call in program.calls
        ],
    }


def program_from_json(data: Any) -> Program:
    """The program of a manifest; ArtifactError when a field is missing, of a wrong type or inconsistent."""
    try:
        program = _program(data)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the manifest describes a program wrongly ({type(error).__name__}: {error}); compile and save it again"
        ) from error
    _check_consistency(program)
    return program


def _program(data: Mapping[str, Any]) -> Program:
    fields: dict[str, Callable[[Any], Any]] = {
        "name": _text,
        "signature": _signature,
        "calls": lambda calls: tuple(_call(call) for call in calls),
        "constants": lambda slots: tuple(ConstantSlot(_count(o), _count(n), _text(d)) for o, n, d in slots),
        "constant_bytes": _count,
        "arena_bytes": _count,
        "arena_lower_bound": _count,
        "target": _text,
        "features": lambda names: tuple(_text(name) for name in names),
        "threads": _count,
        "entry": _text,
    }
    return Program(**{name: read(data[name]) for name, read in fields.items()})


def _signature(data: Mapping[str, Any]) -> Signature:
    inputs, outputs = (tuple(_spec(spec) for spec in data[side]) for side in ("inputs", "outputs"))
    signature = Signature(inputs, outputs, dict(data["input_tree"]), dict(data["output_tree"]))
    tree = trees.input_tree(signature)
    trees.check(tree, len(inputs))
    if [item["kind"] for item in tree["items"]] != ["tuple", "dict"]:
        raise ValueError("the input tree is not (args, kwargs)")
    trees.check(trees.output_tree(signature), len(outputs))
    return signature


def _spec(data: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(_text(data["name"]), DType.parse(_text(data["dtype"])).text, tuple(_count(extent) for extent in data["shape"]))


def _call(data: Mapping[str, Any]) -> KernelCall:
    texts = {name: _text(data[name]) for name in ("symbol", "label", "task", "config", "location")}
    arguments = tuple(BufferRef(Space(space), _count(position), _count(nbytes)) for space, position, nbytes in data["arguments"])
    return KernelCall(arguments=arguments, flops=_count(data["flops"]), bytes=_count(data["bytes"]), **texts)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected a count, got {value!r}")
    return value


def _check_consistency(program: Program) -> None:
    """Buffers lie inside what they refer to."""
    limits = {Space.CONSTANT: program.constant_bytes, Space.ARENA: program.arena_bytes}
    counts = {Space.INPUT: len(program.signature.inputs), Space.OUTPUT: len(program.signature.outputs)}
    for call in program.calls:
        for ref in call.arguments:
            inside = (
                ref.position < counts[ref.space]
                if ref.space in counts
                else ref.position + ref.nbytes <= limits[ref.space] and ref.position % ALIGNMENT == 0
            )
            if not inside:
                raise ArtifactError(
                    f"kernel '{call.symbol}' refers to {ref}, which is outside the program's memory; compile and save it again"
                )
    for slot in program.constants:
        if slot.offset % ALIGNMENT or slot.offset + slot.nbytes > program.constant_bytes:
            raise ArtifactError(f"the constant at {slot.offset} lies outside the weights; compile and save it again")
