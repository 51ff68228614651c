"""The program around C99 kernels: a header, the entry, a plain function to call it with, and what the weights are called.

The packed weights themselves are put in where the program is written to files (``runtime/c_export.py``), so that an artifact holds
them once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...ir.program import BufferRef, Copy, KernelCall, Signature, Space, Step, TensorSpec, buffers, walk
from ..build import ABI_INCLUDE
from ..entry import StepWriter, comment
from .expressions import REINTERPRET
from .kernel import CKernel

PLACEHOLDER = "MLC_MODEL"
"""Stands in the sources and in their file names for the name that a program is exported under."""

CONSTANTS = "/* MLC_CONSTANTS */"
"""Stands in the source for the definitions of the weights."""

_TYPES = {
    "f32": "float",
    "f64": "double",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "u8": "uint8_t",
    "b1": "uint8_t",
}
_KEYWORDS = (
    "auto break case char const continue default do double else enum extern float for goto if inline int long register restrict return "
    "short signed sizeof static struct switch typedef union unsigned void volatile while arena io main"
)
"""Names that parameters may not have."""


@dataclass(frozen=True)
class PackedConstant:
    """Packed weights: the name and the element type that C knows them by, and where they lie in the weights blob (bytes)."""

    name: str
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class CSources:
    """The files of a program by name, with :data:`PLACEHOLDER` for its name and :data:`CONSTANTS` for the weights."""

    files: Mapping[str, str]
    constants: tuple[PackedConstant, ...]

    def encode(self) -> bytes:
        """What an artifact holds in the place of a native library: JSON."""
        constants = [[each.name, each.type, each.offset, each.nbytes] for each in self.constants]
        return json.dumps({"placeholder": PLACEHOLDER, "marker": CONSTANTS, "files": dict(self.files), "constants": constants}).encode()


def program_sources(steps: Sequence[Step], kernels: Mapping[str, CKernel], arena_bytes: int, signature: Signature, target: str) -> CSources:
    """The sources of a program. ``kernels`` are those that the steps call, by symbol."""
    inputs, outputs = _tensors(signature)
    constants = _constants(steps, kernels)
    files = {
        f"{PLACEHOLDER}.h": _header(inputs, outputs, arena_bytes, target),
        f"{PLACEHOLDER}.c": _source(steps, kernels, constants, arena_bytes, inputs, outputs),
        "mlc_abi.h": (ABI_INCLUDE / "mlc_abi.h").read_text(),
    }
    return CSources(files, tuple(constants.values()))


@dataclass(frozen=True)
class _Tensor:
    """An input or output as C sees it."""

    name: str
    type: str
    spec: TensorSpec

    @property
    def macro(self) -> str:
        return f"{PLACEHOLDER}_{self.name.upper()}_ELEMENTS"

    def define(self) -> str:
        shape = ",".join(map(str, self.spec.shape))
        return f"/* {self.name}: {self.spec.dtype}[{shape}], row-major */\n#define {self.macro} {math.prod(self.spec.static_shape)}"


def _tensors(signature: Signature) -> tuple[list[_Tensor], list[_Tensor]]:
    taken = set(_KEYWORDS.split())

    def named(spec: TensorSpec, fallback: str) -> _Tensor:
        name = re.sub(r"\W", "_", spec.name, flags=re.ASCII) or fallback
        name = f"{fallback}_{name}" if name[0].isdigit() else name
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        return _Tensor(name, _TYPES[spec.dtype], spec)

    return [named(spec, "in") for spec in signature.inputs], [named(spec, "out") for spec in signature.outputs]


def _constants(steps: Sequence[Step], kernels: Mapping[str, CKernel]) -> dict[int, PackedConstant]:
    """Every packed constant that steps read, by its offset. What is only copied is bytes to C."""
    found: dict[int, tuple[str, int]] = {}
    for step in walk(steps):
        types = kernels[step.symbol].parameters if isinstance(step, KernelCall) else ("uint8_t",) * len(buffers(step))
        for buffer, type in zip(buffers(step), types, strict=True):
            if buffer.space is Space.CONSTANT:
                known, nbytes = found.get(buffer.position, ("uint8_t", 0))
                found[buffer.position] = (type if known == "uint8_t" else known, max(nbytes, buffer.static_nbytes))
    return {
        offset: PackedConstant(f"constant{number}", type, offset, nbytes)
        for number, (offset, (type, nbytes)) in enumerate(sorted(found.items()))
    }


def _run_parameters(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> str:
    pointers = [*(f"const {each.type}* {each.name}" for each in inputs), *(f"{each.type}* {each.name}" for each in outputs)]
    return ", ".join(pointers) or "void"


def _header(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor], arena_bytes: int, target: str) -> str:
    lines = [
        f"/* A model compiled for '{target}' by mlc: C99, no heap, no standard input or output; <math.h> is all it links. */",
        f"#ifndef {PLACEHOLDER}_H",
        f"#define {PLACEHOLDER}_H",
        "",
        '#include "mlc_abi.h"',
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        *(each.define() for each in (*inputs, *outputs)),
        "",
        "/* Bytes of scratch memory that a call needs. */",
        f"#define {PLACEHOLDER}_ARENA_BYTES {arena_bytes}",
        "",
        "/* Runs the model on an arena in static memory, one call at a time. Returns 0, or the code of the kernel that failed.",
        " * Outputs overlap neither each other nor an input. */",
        f"int32_t {PLACEHOLDER}_run({_run_parameters(inputs, outputs)});",
        "",
        "/* The same for callers with arenas of their own, aligned to 8 bytes, and for profiling; see mlc_abi.h. context may be NULL. */",
        f"int32_t {PLACEHOLDER}_entry(const mlc_context* context, void* const* io, const int64_t* dims, void* arena);",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _source(
    steps: Sequence[Step],
    kernels: Mapping[str, CKernel],
    constants: Mapping[int, PackedConstant],
    arena_bytes: int,
    inputs: Sequence[_Tensor],
    outputs: Sequence[_Tensor],
) -> str:
    labels = {step.symbol: step.label for step in walk(steps) if isinstance(step, KernelCall)}
    short = {symbol: f"kernel{number}" for number, symbol in enumerate(labels)}
    in_place = {step.symbol for step in walk(steps) if isinstance(step, KernelCall) and _overlap(step.arguments)}
    copies = any(isinstance(step, Copy) for step in walk(steps))
    lines = [f'#include "{PLACEHOLDER}.h"', "", "#include <math.h>", "#include <stddef.h>"]
    lines += ["#include <string.h>", ""] if copies else [""]
    lines += [_helper(name) for name in sorted({name for symbol in labels for name in kernels[symbol].helpers})]
    lines += [CONSTANTS, ""]
    for symbol, label in labels.items():
        text = kernels[symbol].text.replace(symbol, short[symbol], 1)
        if symbol in in_place:
            text = text.replace("* restrict ", "* ")
        lines += [f"/* {comment(label)} */", text, ""]
    writer = _Writer(len(inputs), len(outputs), kernels, short, {offset: constant.name for offset, constant in constants.items()})
    lines += [
        f"int32_t {PLACEHOLDER}_entry(const mlc_context* context, void* const* io, const int64_t* dims, void* arena) {{",
        "  char* const scratch = (char*)arena;",
        "  int32_t code = 0;",
        "  (void)context, (void)io, (void)dims, (void)scratch;",
        *writer.block(steps, "  "),
        "  return code;",
        "}",
        "",
        *_run(inputs, outputs, arena_bytes),
    ]
    return "\n".join(lines)


def _overlap(arguments: Sequence[BufferRef]) -> bool:
    """Whether some of a kernel's arguments may share memory, as those of a kernel that updates an operand in place do."""
    for number, one in enumerate(arguments):
        for other in arguments[number + 1 :]:
            apart = one.position + one.static_nbytes <= other.position or other.position + other.static_nbytes <= one.position
            same = one.position == other.position if one.space is not Space.ARENA else not apart or bool(one.moves or other.moves)
            if one.space is other.space and one.space is not Space.CONSTANT and same:
                return True
    return False


def _helper(name: str) -> str:
    result, argument = next((result, argument) for function, result, argument in REINTERPRET.values() if function == name)
    return (
        f"static inline {result} {name}({argument} value) {{\n"
        f"  union {{\n    {argument} from;\n    {result} to;\n  }} both;\n"
        "  both.from = value;\n  return both.to;\n}\n"
    )


class _Writer(StepWriter):
    """Writes steps as calls of static functions with typed pointers."""

    def __init__(
        self, inputs: int, outputs: int, kernels: Mapping[str, CKernel], short: Mapping[str, str], constants: Mapping[int, str]
    ) -> None:
        super().__init__(inputs, outputs)
        self._kernels = kernels
        self._short = short
        self._constants = constants

    def call(self, call: KernelCall, indent: str) -> Iterator[str]:
        types = self._kernels[call.symbol].parameters
        arguments = ", ".join(self._typed(argument, type) for argument, type in zip(call.arguments, types, strict=True))
        yield f"{indent}/* {comment(call.label)} ({comment(call.location)}) */"
        yield f"{indent}if (context != NULL && context->profile != NULL) context->profile(context, {self.calls}, 1);"
        yield f"{indent}code = {self._short[call.symbol]}({arguments});"
        yield f"{indent}if (context != NULL && context->profile != NULL) context->profile(context, {self.calls}, 0);"
        yield f"{indent}if (code != 0) return code;"

    def _typed(self, buffer: BufferRef, type: str) -> str:
        moved = buffer.offset or buffer.moves
        if buffer.space is Space.CONSTANT:
            return f"(const {type}*)(const void*)({self.pointer(buffer)})" if moved else self._constants[buffer.position]
        const = "const " if buffer.space is Space.INPUT else ""
        element = "void" if type == "char" else type
        if buffer.space is Space.ARENA or moved:
            return f"({const}{element}*)(void*)({self.pointer(buffer)})"
        return f"({const}{element}*){self.pointer(buffer)}"

    def constant(self, position: int) -> str:
        return f"(const char*){self._constants[position]}"


def _run(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor], arena_bytes: int) -> list[str]:
    tensors = (*inputs, *outputs)
    lines = [f"int32_t {PLACEHOLDER}_run({_run_parameters(inputs, outputs)}) {{"]
    if arena_bytes:
        lines.append(f"  static uint64_t arena[{-(-arena_bytes // 8)}];")
    if tensors:
        lines.append(f"  void* io[{len(tensors)}];")
        lines += [f"  io[{position}] = (void*){each.name};" for position, each in enumerate(tensors)]
    arena = "arena" if arena_bytes else "NULL"
    return [*lines, f"  return {PLACEHOLDER}_entry(NULL, {'io' if tensors else 'NULL'}, NULL, {arena});", "}", ""]
