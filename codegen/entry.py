"""The entry of a program: a C function that runs its steps, kernel calls above all (see ``mlc_abi.h``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.program import ALIGNMENT, Branch, BufferRef, ConditionalLoop, Copy, CountedLoop, KernelCall, Move, Space, Step, walk
from ..ir.size import Extent, Size
from .sizes import SymbolicSizes

ENTRY = "mlc_entry"

_HEAD = """\
#include "mlc_abi.h"
#include <string.h>

extern __thread const mlc_context* mlc_current_context;
"""


_DEVICE_HEAD = """\
int32_t mlc_cuda_copy(void* target, const void* source, uint64_t bytes);
int32_t mlc_cuda_flag(const void* flag);
"""


_SIZES = """
extern __thread int32_t mlc_serial;

static inline int64_t mlc_floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a % b < 0) != (b < 0)); }
static inline int64_t mlc_floor_mod(int64_t a, int64_t b) { return a - mlc_floor_div(a, b) * b; }
static inline int64_t mlc_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t mlc_min(int64_t a, int64_t b) { return a < b ? a : b; }

/* For tensors whose offsets would not fit 32 bits. */
static int32_t mlc_too_large(const mlc_context* context) {
  const char* text = "with these sizes a tensor has 2**31 elements or more, which kernels cannot address: call it with less at a time";
  if (context->error) {
    int32_t i = 0;
    for (; text[i] && i < MLC_ERROR_BYTES - 1; ++i) context->error[i] = text[i];
    context->error[i] = 0;
  }
  return 1;
}
"""


def entry_source(
    steps: Sequence[Step],
    inputs: int,
    outputs: int,
    *,
    on_device: bool = False,
    sizes: SymbolicSizes | None = None,
) -> str:
    """C source of the entry that runs ``steps``; in ``io`` are ``inputs`` inputs, then ``outputs`` outputs, then states.

    With ``on_device`` all buffers are in the memory of a GPU, of which the host only knows the addresses. ``sizes`` says what depends on
    symbolic dimensions, if any do.
    """
    calls = [step for step in walk(steps) if isinstance(step, KernelCall)]
    signatures = {call.symbol: ["void*"] * len(call.arguments) + ["int32_t"] * len(call.sizes) for call in calls}
    lines = [_HEAD, *([_DEVICE_HEAD] if on_device else []), *([_SIZES] if sizes is not None else [])]
    lines += [f"int32_t {name}({', '.join(types) or 'void'});" for name, types in signatures.items()]
    lines += [
        "",
        f'__attribute__((visibility("default"))) int32_t {ENTRY}(const mlc_context* context, void* const* io, const int64_t* dims,',
        "                                                         void* arena) {",
        "  char* scratch = (char*)arena;",
        "  char* constants = (char*)context->constants;",
        "  const mlc_context* outer = mlc_current_context;",
        "  int32_t code = 0;",
        "  (void)io, (void)dims, (void)scratch, (void)constants;",
    ]
    if sizes is not None:
        lines += _size_lines(sizes)
    lines.append("  mlc_current_context = context;")
    lines += StepWriter(inputs, outputs, on_device, sizes).block(steps, "  ")
    lines += ["done:" if calls or on_device else ""]
    if sizes is not None:
        lines.append("  mlc_serial = 0;")
    lines += ["  mlc_current_context = outer;", "  return code;", "}", ""]
    return "\n".join(lines)


def _size_lines(sizes: SymbolicSizes) -> Iterator[str]:
    """The values of the symbols, checks of what they make too large, and where the slots of the arena begin: they follow each other."""
    for position, name in enumerate(sizes.symbols):
        yield f"  const int64_t dim_{name} = dims[{position}];"
        yield f"  (void)dim_{name};"
    for count in sizes.counts:
        yield f"  if ({count.to_c()} > INT32_MAX) return mlc_too_large(context);"
    before = "0"
    for number, size in enumerate(sizes.slots):
        yield f"  const int64_t slot{number} = {before};"
        before = f"slot{number} + ({_value(size)} + {ALIGNMENT - 1}) / {ALIGNMENT} * {ALIGNMENT}"


def _value(extent: Extent) -> str:
    return f"({extent.to_c()})" if isinstance(extent, Size) else str(extent)


class StepWriter:
    """Writes steps as C statements, numbering kernel calls as :attr:`Program.calls` does."""

    def __init__(self, inputs: int, outputs: int, on_device: bool = False, sizes: SymbolicSizes | None = None) -> None:
        self.sizes = sizes
        self.inputs = inputs
        self.outputs = outputs
        self.on_device = on_device
        self.calls = 0

    def block(self, steps: Sequence[Step], indent: str) -> Iterator[str]:
        for step in steps:
            yield from self.step(step, indent)

    def step(self, step: Step, indent: str) -> Iterator[str]:
        inner = indent + "  "
        match step:
            case KernelCall():
                yield from self.call(step, indent)
                self.calls += 1
            case Copy() if self.on_device:
                copy = f"mlc_cuda_copy({self.pointer(step.target)}, {self.pointer(step.source)}, {step.target.nbytes})"
                yield f"{indent}if ((code = {copy})) goto done;"
            case Copy():
                yield f"{indent}memcpy({self.pointer(step.target)}, {self.pointer(step.source)}, {_value(step.target.nbytes)});"
            case Branch():
                yield f"{indent}if ({self.flag(step.predicate)}) {{"
                yield from self.block(step.then, inner)
                yield f"{indent}}} else {{"
                yield from self.block(step.otherwise, inner)
                yield f"{indent}}}"
            case CountedLoop():
                counter = _counter(step.number)
                yield f"{indent}for (int64_t {counter} = 0; {counter} < {step.trips}; ++{counter}) {{"
                yield from self.block(step.body, inner)
                yield f"{indent}}}"
            case ConditionalLoop():
                counter = _counter(step.number)
                yield f"{indent}for (int64_t {counter} = 0;; ++{counter}) {{"
                yield from self.block(step.condition, inner)
                yield f"{inner}if (!{self.flag(step.predicate)}) {{"
                yield from self.block(step.finish, inner + "  ")
                yield f"{inner}  break;"
                yield f"{inner}}}"
                yield from self.block(step.body, inner)
                yield f"{indent}}}"

    def call(self, call: KernelCall, indent: str) -> Iterator[str]:
        arguments = ", ".join([*map(self.pointer, call.arguments), *(f"(int32_t){_value(size)}" for size in call.sizes)])
        yield f"{indent}if (context->profile) context->profile(context, {self.calls}, 1);"
        if self.sizes is not None:
            yield f"{indent}mlc_serial = {0 if call.margin is None else f'{_value(call.margin)} < 0'};"
        yield f"{indent}if ((code = {call.symbol}({arguments}))) goto done;  /* {comment(call.label)} */"
        yield f"{indent}if (context->profile) context->profile(context, {self.calls}, 0);"

    def flag(self, buffer: BufferRef) -> str:
        if self.on_device:
            return f"mlc_cuda_flag({self.pointer(buffer)})"
        return f"*(const uint8_t*)({self.pointer(buffer)})"

    def pointer(self, buffer: BufferRef) -> str:
        match buffer.space:
            case Space.INPUT:
                base = f"io[{buffer.position}]"
            case Space.OUTPUT:
                base = f"io[{self.inputs + buffer.position}]"
            case Space.STATE:
                base = f"io[{self.inputs + self.outputs + buffer.position}]"
            case Space.CONSTANT:
                base = self.constant(buffer.position)
            case Space.ARENA:
                base = f"scratch + {buffer.position}"
            case Space.SLOT:
                base = f"scratch + slot{buffer.position}"
        terms = [str(buffer.offset)] if buffer.offset else []
        terms += [_moved(move) for move in buffer.moves]
        if terms and buffer.space in (Space.INPUT, Space.OUTPUT, Space.STATE):
            base = f"(char*){base}"
        return " + ".join([base, *terms])

    def constant(self, position: int) -> str:
        """The address, as a ``char*``, of the packed constant at ``position``."""
        return f"constants + {position}"


def _moved(move: Move) -> str:
    counter = _counter(move.loop)
    return f"{counter} * {move.stride}" if not move.period else f"{counter} % {move.period} * {move.stride}"


def _counter(loop: int) -> str:
    return f"i{loop}"


def comment(text: str) -> str:
    """``text`` as it may stand in a comment of C."""
    return text.replace("*/", "* /").replace("/*", "/ *")
