"""Programs as JSON-like data, and back with every field checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ArtifactError
from ..ir.program import (
    ALIGNMENT,
    Branch,
    BufferRef,
    ConditionalLoop,
    ConstantSlot,
    Copy,
    CountedLoop,
    Footprint,
    Form,
    KernelCall,
    Move,
    Program,
    Signature,
    Space,
    StateSpec,
    Step,
    SymbolSpec,
    TensorSpec,
    bodies,
)
from ..ir.program import buffers as buffers_of
from ..ir.size import Extent, Size
from ..ir.types import DType
from . import trees


def program_to_json(program: Program) -> dict[str, Any]:
    """All of a program but its blobs; :func:`program_from_json` gives an equal one back."""
    return {
        **{field.name: getattr(program, field.name) for field in dataclasses.fields(program)},
        "signature": _signature_to_json(program.signature),
        "slots": [_extent_to_json(size) for size in program.slots],
        "features": list(program.features),
        "states": [dataclasses.asdict(state) for state in program.states],
        "constants": [[slot.offset, slot.nbytes, slot.digest] for slot in program.constants],
        "steps": _steps_to_json(program.steps),
        "form": program.form.value,
        "footprint": None if program.footprint is None else dataclasses.asdict(program.footprint),
    }


_STEPS: dict[str, type[Any]] = {"call": KernelCall, "copy": Copy, "branch": Branch, "loop": CountedLoop, "while": ConditionalLoop}
_KINDS = {kind: name for name, kind in _STEPS.items()}


def _steps_to_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [
        {"step": _KINDS[type(step)]} | {field.name: _part_to_json(getattr(step, field.name)) for field in dataclasses.fields(step)}
        for step in steps
    ]


def _part_to_json(part: Any) -> Any:
    """A field of a step: text, a number, a size, a buffer, several of them, or steps."""
    if isinstance(part, BufferRef):
        return _ref_to_json(part)
    if isinstance(part, tuple) and part and isinstance(part[0], int | Size):
        return [_extent_to_json(extent) for extent in part]
    if isinstance(part, tuple):
        return [_ref_to_json(ref) for ref in part] if part and isinstance(part[0], BufferRef) else _steps_to_json(part)
    return _extent_to_json(part)


def _ref_to_json(ref: BufferRef) -> list[Any]:
    moved = ref.offset or ref.moves
    more = [ref.offset, [[move.loop, move.stride, move.period] for move in ref.moves]] if moved else []
    return [ref.space.value, ref.position, _extent_to_json(ref.nbytes), *more]


def _signature_to_json(signature: Signature) -> dict[str, Any]:
    def specs(side: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [dataclasses.asdict(spec) | {"shape": [_extent_to_json(extent) for extent in spec.shape]} for spec in side]

    return {
        "inputs": specs(signature.inputs),
        "outputs": specs(signature.outputs),
        "input_tree": signature.input_tree,
        "output_tree": signature.output_tree,
        "symbols": [dataclasses.asdict(symbol) for symbol in signature.symbols],
    }


def _extent_to_json(extent: Extent) -> Any:
    return list(extent.code) if isinstance(extent, Size) else extent


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
        "steps": _steps,
        "constants": lambda slots: tuple(ConstantSlot(_count(o), _count(n), _text(d)) for o, n, d in slots),
        "constant_bytes": _count,
        "arena_bytes": _count,
        "arena_lower_bound": _count,
        "target": _text,
        "features": lambda names: tuple(_text(name) for name in names),
        "threads": _count,
        "entry": _text,
        "states": lambda states: tuple(_state(state) for state in states),
        "form": lambda form: Form(form),
        "footprint": _footprint,
        "slots": lambda sizes: tuple(_extent(size) for size in sizes),
    }
    return Program(**{name: read(data[name]) for name, read in fields.items()})


def _footprint(data: Mapping[str, Any] | None) -> Footprint | None:
    if data is None:
        return None
    sizes = {field.name: _count(data[field.name]) for field in dataclasses.fields(Footprint) if field.name != "measured"}
    return Footprint(**sizes, measured=bool(data["measured"]))


def _signature(data: Mapping[str, Any]) -> Signature:
    inputs, outputs = (tuple(_spec(spec) for spec in data[side]) for side in ("inputs", "outputs"))
    symbols = tuple(_symbol(symbol) for symbol in data["symbols"])
    signature = Signature(inputs, outputs, dict(data["input_tree"]), dict(data["output_tree"]), symbols)
    tree = trees.input_tree(signature)
    trees.check(tree, len(inputs))
    if [item["kind"] for item in tree["items"]] != ["tuple", "dict"]:
        raise ValueError("the input tree is not (args, kwargs)")
    passed = trees.passed_places(tree)
    trees.check(trees.output_tree(signature), len(outputs) + len(passed))
    if any(not len(inputs) <= place < len(inputs) + len(passed) for place in passed):
        raise ValueError("the input tree passes on objects that do not exist")
    return signature


def _state(data: Mapping[str, Any]) -> StateSpec:
    spec, initial = _spec(data), data["initial"]
    return StateSpec(spec.name, spec.dtype, spec.static_shape, None if initial is None else _count(initial))


def _spec(data: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(_extent(extent) for extent in data["shape"])
    return TensorSpec(_text(data["name"]), DType.parse(_text(data["dtype"])).text, shape, bool(data.get("mutated", False)))


def _steps(data: Any) -> tuple[Step, ...]:
    return tuple(_step(step) for step in data)


def _step(data: Mapping[str, Any]) -> Step:
    kind = _STEPS[data["step"]]
    if kind is KernelCall:
        return _call(data)
    readers: dict[str, Callable[[Any], Any]] = {
        "number": _count,
        "trips": _count,
        "source": _ref,
        "target": _ref,
        "predicate": _ref,
    }
    read: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        reader: Callable[[Any], Any] = readers.get(field.name, _steps)
        read[field.name] = reader(data[field.name])
    make: Callable[..., Step] = kind
    return make(**read)


def _symbol(data: Mapping[str, Any]) -> SymbolSpec:
    upper = None if data["upper"] is None else _count(data["upper"])
    numbers = {name: _count(data[name]) for name in ("lower", "input", "axis", "factor")}
    if not isinstance(data["offset"], int) or numbers["factor"] == 0:
        raise ValueError("a symbol is told by a wrong extent")
    return SymbolSpec(_text(data["name"]), upper=upper, offset=data["offset"], **numbers)


def _extent(data: Any) -> Extent:
    if isinstance(data, int):
        return _count(data)
    return Size(tuple(item if isinstance(item, str) else _number(item) for item in data))


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a number, got {value!r}")
    return value


def _call(data: Mapping[str, Any]) -> KernelCall:
    texts = {name: _text(data[name]) for name in ("symbol", "label", "task", "config", "location")}
    texts["precision"] = _text(data.get("precision", ""))
    arguments = tuple(_ref(ref) for ref in data["arguments"])
    sizes = tuple(_extent(size) for size in data["sizes"])
    margin = None if data["margin"] is None else _number(data["margin"]) if isinstance(data["margin"], int) else _extent(data["margin"])
    flops, nbytes = _count(data["flops"]), _count(data["bytes"])
    return KernelCall(arguments=arguments, flops=flops, bytes=nbytes, sizes=sizes, margin=margin, **texts)


def _ref(data: Sequence[Any]) -> BufferRef:
    space, position, nbytes, *more = data
    offset, moves = more if more else (0, ())
    return BufferRef(
        Space(space),
        _count(position),
        _extent(nbytes),
        _integer(offset),
        tuple(Move(_count(loop), _integer(stride), _count(period)) for loop, stride, period in moves),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected a count, got {value!r}")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected an integer, got {value!r}")
    return value


def _check_consistency(program: Program) -> None:
    """Buffers lie inside what they refer to."""
    _check_symbols(program)
    _check_steps(program, program.steps, {})
    for state in program.states:
        size = math.prod(state.shape) * DType.parse(state.dtype).nbytes
        if state.initial is not None and state.initial + size > program.constant_bytes:
            raise ArtifactError(f"the first content of state '{state.name}' lies outside the weights; compile and save it again")
    for slot in program.constants:
        if slot.offset % ALIGNMENT or slot.offset + slot.nbytes > program.constant_bytes:
            raise ArtifactError(f"the constant at {slot.offset} lies outside the weights; compile and save it again")


def _check_steps(program: Program, steps: Sequence[Step], loops: Mapping[int, int]) -> None:
    """The buffers of ``steps`` inside ``loops``: rounds by the number of the loop, 0 where they are not counted."""
    for step in steps:
        inside = dict(loops)
        if isinstance(step, CountedLoop | ConditionalLoop):
            inside[step.number] = step.trips if isinstance(step, CountedLoop) else 0
        for ref in buffers_of(step):
            if not _lies_inside(program, ref, inside):
                name = f"kernel '{step.symbol}'" if isinstance(step, KernelCall) else f"a {_KINDS[type(step)]}"
                raise ArtifactError(f"{name} refers to {ref}, which is outside the program's memory; compile and save it again")
        for body in bodies(step):
            _check_steps(program, body, inside)


def _lies_inside(program: Program, ref: BufferRef, loops: Mapping[int, int]) -> bool:
    """Whether ``ref`` lies inside its space in every round."""
    least = most = ref.offset
    for move in ref.moves:
        if move.loop not in loops or not (move.period or loops[move.loop]):
            return False
        rounds = loops[move.loop] or move.period
        reach = move.stride * (min(rounds, move.period) if move.period else rounds) - move.stride
        least, most = least + min(reach, 0), most + max(reach, 0)
    specs: dict[Space, Sequence[TensorSpec | StateSpec]] = {
        Space.INPUT: program.signature.inputs,
        Space.OUTPUT: program.signature.outputs,
        Space.STATE: program.states,
    }
    if ref.space is Space.SLOT:
        return ref.position < len(program.slots) and least >= 0
    if ref.space in specs:
        if ref.position >= len(specs[ref.space]):
            return False
        if not (ref.offset or ref.moves):
            return True
        spec = specs[ref.space][ref.position]
        if not all(isinstance(extent, int) for extent in spec.shape):
            return False
        start, limit = 0, math.prod(extent for extent in spec.shape if isinstance(extent, int)) * DType.parse(spec.dtype).nbytes
    else:
        start, limit = ref.position, program.constant_bytes if ref.space is Space.CONSTANT else program.arena_bytes
        if start % ALIGNMENT:
            return False
    return isinstance(ref.nbytes, int) and start + least >= 0 and start + most + ref.nbytes <= limit


def _check_symbols(program: Program) -> None:
    """Sizes depend on symbols of the signature only, and each is told by an input."""
    signature = program.signature
    known = {symbol.name for symbol in signature.symbols}
    extents = [extent for spec in (*signature.inputs, *signature.outputs) for extent in spec.shape]
    extents += [*program.slots, *(size for call in program.calls for size in (*call.sizes, call.margin or 0))]
    if any(isinstance(extent, Size) and not extent.symbols <= known for extent in extents):
        raise ArtifactError("a size depends on a symbol that the signature does not have; compile and save it again")
    for symbol in signature.symbols:
        if symbol.input >= len(signature.inputs) or symbol.axis >= len(signature.inputs[symbol.input].shape):
            raise ArtifactError(f"no input tells the size {symbol.name}; compile and save it again")
