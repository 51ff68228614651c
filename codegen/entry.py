"""The entry of a program: a C function that runs its steps, kernel calls above all (see ``mlc_abi.h``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.program import Branch, BufferRef, ConditionalLoop, Copy, CountedLoop, KernelCall, Move, Space, Step, walk

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


def entry_source(steps: Sequence[Step], inputs: int, outputs: int, symbol: str = ENTRY, *, on_device: bool = False) -> str:
    """C source of the entry ``symbol`` that runs ``steps``; in ``io`` are ``inputs`` inputs, then ``outputs`` outputs, then states.

    With ``on_device`` all buffers are in the memory of a GPU, of which the host only knows the addresses.
    """
    calls = [step for step in walk(steps) if isinstance(step, KernelCall)]
    arity = {call.symbol: len(call.arguments) for call in calls}
    lines = [_HEAD, _DEVICE_HEAD] if on_device else [_HEAD]
    lines += [f"int32_t {name}({', '.join(['void*'] * count) or 'void'});" for name, count in arity.items()]
    lines += [
        "",
        f'__attribute__((visibility("default"))) int32_t {symbol}(const mlc_context* context, void* const* io, const int64_t* dims,',
        "                                                         void* arena) {",
        "  char* scratch = (char*)arena;",
        "  char* constants = (char*)context->constants;",
        "  const mlc_context* outer = mlc_current_context;",
        "  int32_t code = 0;",
        "  (void)io, (void)dims, (void)scratch, (void)constants;",
        "  mlc_current_context = context;",
    ]
    lines += StepWriter(inputs, outputs, on_device).block(steps, "  ")
    lines += ["done:" if calls or on_device else "", "  mlc_current_context = outer;", "  return code;", "}", ""]
    return "\n".join(lines)


class StepWriter:
    """Writes steps as C statements, numbering kernel calls as :attr:`Program.calls` does."""

    def __init__(self, inputs: int, outputs: int, on_device: bool = False) -> None:
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
                yield f"{indent}memcpy({self.pointer(step.target)}, {self.pointer(step.source)}, {step.target.nbytes});"
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
        arguments = ", ".join(self.pointer(argument) for argument in call.arguments)
        yield f"{indent}if (context->profile) context->profile(context, {self.calls}, 1);"
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
