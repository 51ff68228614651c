"""Rounding of whole vectors to bfloat16, by functions in LLVM's language.

Where the processor has an instruction for it (vcvtneps2bf16 of AVX512-BF16; Intel's manual, volume 2) that is all there is; it takes
subnormal numbers for zero, as the instruction that multiplies such numbers does. Elsewhere it is integer arithmetic. A kernel names the
functions that it calls in an attribute, since only who builds it knows for which processor.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tvm import tirx

from .emitter import Expr
from .llvm_functions import with_functions

_ATTRIBUTE = "mlc_rounds_bf16"
"""Of a TIR function: the numbers of lanes that it calls with."""


def call(vector: Expr, lanes: int) -> Expr:
    """A vector of fp32 numbers rounded to bfloat16, still in fp32."""
    return tirx.call_pure_extern(f"float32x{lanes}", _name(lanes), vector)


def marked(function: Any, widths: Collection[int]) -> Any:
    """``function``, which calls with these numbers of lanes."""
    return function.with_attr(_ATTRIBUTE, sorted(widths)) if widths else function


def completed(function: Any, *, by_instruction: bool) -> Any:
    """``function`` together with what it calls."""
    widths = [int(lanes) for lanes in (function.attrs or {}).get(_ATTRIBUTE, ())]
    if not widths:
        return function
    text = _instruction if by_instruction else _integers
    return function.with_body(with_functions(function.body, {_name(lanes): text(lanes) for lanes in widths}))


def _name(lanes: int) -> str:
    return f"mlc_round_bf16_{lanes}"


def _instruction(lanes: int) -> str:
    floats, halves, shorts, words = (f"<{lanes} x {element}>" for element in ("float", "bfloat", "i16", "i32"))
    return (
        f"define internal {floats} @{_name(lanes)}({floats} %x) alwaysinline nounwind readnone {{\n"
        f"  %h = fptrunc {floats} %x to {halves}\n"
        f"  %s = bitcast {halves} %h to {shorts}\n"
        f"  %w = zext {shorts} %s to {words}\n"
        f"  %b = shl {words} %w, splat (i32 16)\n"
        f"  %r = bitcast {words} %b to {floats}\n"
        f"  ret {floats} %r\n}}\n"
    )


def _integers(lanes: int) -> str:
    floats, words = f"<{lanes} x float>", f"<{lanes} x i32>"
    return (
        f"define internal {floats} @{_name(lanes)}({floats} %x) alwaysinline nounwind readnone {{\n"
        f"  %b = bitcast {floats} %x to {words}\n"
        f"  %s = lshr {words} %b, splat (i32 16)\n"
        f"  %o = and {words} %s, splat (i32 1)\n"
        # Just below half a unit, or half where the last digit kept is odd, carries into it where it is to be rounded up.
        f"  %h = add {words} %o, splat (i32 32767)\n"
        f"  %u = add {words} %b, %h\n"
        f"  %k = and {words} %u, splat (i32 -65536)\n"
        f"  %n = fcmp uno {floats} %x, %x\n"
        f"  %c = select <{lanes} x i1> %n, {words} splat (i32 2143289344), {words} %k\n"
        f"  %r = bitcast {words} %c to {floats}\n"
        f"  ret {floats} %r\n}}\n"
    )
