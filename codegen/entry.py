"""The entry of a program: a C function that calls the kernels in order (see ``mlc_abi.h``)."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.program import BufferRef, KernelCall, Space

ENTRY = "mlc_entry"

_HEAD = """\
#include "mlc_abi.h"

extern __thread const mlc_context* mlc_current_context;
"""


def entry_source(calls: Sequence[KernelCall], inputs: int, symbol: str = ENTRY) -> str:
    """C source of the entry ``symbol`` for ``calls``; outputs follow the ``inputs`` inputs in ``io``."""
    lines = [_HEAD]
    arity = {call.symbol: len(call.arguments) for call in calls}
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
    for index, call in enumerate(calls):
        arguments = ", ".join(_pointer(argument, inputs) for argument in call.arguments)
        lines += [
            f"  if (context->profile) context->profile(context, {index}, 1);",
            f"  if ((code = {call.symbol}({arguments}))) goto done;  /* {_comment(call.label)} */",
            f"  if (context->profile) context->profile(context, {index}, 0);",
        ]
    lines += ["done:" if calls else "", "  mlc_current_context = outer;", "  return code;", "}", ""]
    return "\n".join(lines)


def _pointer(buffer: BufferRef, inputs: int) -> str:
    match buffer.space:
        case Space.INPUT:
            return f"io[{buffer.position}]"
        case Space.OUTPUT:
            return f"io[{inputs + buffer.position}]"
        case Space.CONSTANT:
            return f"constants + {buffer.position}"
        case Space.ARENA:
            return f"scratch + {buffer.position}"


def _comment(text: str) -> str:
    return text.replace("*/", "* /")
