"""Rounding of whole vectors to bfloat16.

Where the processor has an instruction for it (vcvtneps2bf16 of AVX512-BF16; Intel's manual, volume 2) that is all there is; it takes
subnormal numbers for zero, as the instruction that multiplies such numbers does. Elsewhere it is integer arithmetic.
"""

from __future__ import annotations

from ..instruction_sets import rounds_bf16
from ..target import Target
from .vector_functions import VectorFunction


def _define(name: str, lanes: int, target: Target) -> dict[str, str]:
    return {name: _instruction(name, lanes) if rounds_bf16(target) else _integers(name, lanes)}


def _instruction(name: str, lanes: int) -> str:
    floats, halves, shorts, words = (f"<{lanes} x {element}>" for element in ("float", "bfloat", "i16", "i32"))
    return (
        f"define internal {floats} @{name}({floats} %x) alwaysinline nounwind readnone {{\n"
        f"  %h = fptrunc {floats} %x to {halves}\n"
        f"  %s = bitcast {halves} %h to {shorts}\n"
        f"  %w = zext {shorts} %s to {words}\n"
        f"  %b = shl {words} %w, splat (i32 16)\n"
        f"  %r = bitcast {words} %b to {floats}\n"
        f"  ret {floats} %r\n}}\n"
    )


def _integers(name: str, lanes: int) -> str:
    floats, words = f"<{lanes} x float>", f"<{lanes} x i32>"
    return (
        f"define internal {floats} @{name}({floats} %x) alwaysinline nounwind readnone {{\n"
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


ROUND_BF16 = VectorFunction("mlc_round_bf16", "float32", _define)
"""A vector of fp32 numbers rounded to bfloat16, still in fp32."""
