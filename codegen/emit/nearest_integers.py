"""Whole vectors of fp32 numbers as the integers nearest to them, by the instruction of x86 (cvtps2dq; Intel's manual, volume 2)."""

from __future__ import annotations

from ..target import Target
from .vector_functions import VectorFunction

_INSTRUCTIONS = {
    4: ("llvm.x86.sse2.cvtps2dq", "", ""),
    8: ("llvm.x86.avx.cvt.ps2dq.256", "", ""),
    16: ("llvm.x86.avx512.mask.cvtps2dq.512", ", <16 x i32>, i16, i32", ", <16 x i32> zeroinitializer, i16 -1, i32 4"),
}
"""By lanes: the intrinsic, and what it takes besides numbers: others for lanes that a mask leaves out, the mask, the current rounding."""


def _define(name: str, lanes: int, target: Target) -> dict[str, str]:
    """Registers of the least width that holds all lanes, or of the widest, one by one; lanes that fill up the last are undefined."""
    width = next(width for width in _INSTRUCTIONS if width >= min(lanes, target.vector_lanes))
    intrinsic, types, rest = _INSTRUCTIONS[width]
    count = -(-lanes // width)
    floats, words = f"<{width} x float>", f"<{width} x i32>"
    all_floats, all_words = f"<{count * width} x float>", f"<{count * width} x i32>"
    take, put = f"llvm.vector.extract.v{width}f32.v{count * width}f32", f"llvm.vector.insert.v{count * width}i32.v{width}i32"
    lines = [f"  %x = {_resized('float', lanes, count * width, '%given')}"]
    made = "poison"
    for part in range(count):
        place = f"i64 {part * width}"
        lines += [
            f"  %f{part} = call {floats} @{take}({all_floats} %x, {place})",
            f"  %i{part} = call {words} @{intrinsic}({floats} %f{part}{rest})",
            f"  %made{part} = call {all_words} @{put}({all_words} {made}, {words} %i{part}, {place})",
        ]
        made = f"%made{part}"
    lines.append(f"  %result = {_resized('i32', count * width, lanes, made)}")
    given, result = f"<{lanes} x float>", f"<{lanes} x i32>"
    body = "\n".join([*lines, f"  ret {result} %result"])
    return {
        intrinsic: f"declare {words} @{intrinsic}({floats}{types})\n",
        take: f"declare {floats} @{take}({all_floats}, i64)\n",
        put: f"declare {all_words} @{put}({all_words}, {words}, i64)\n",
        name: f"define internal {result} @{name}({given} %given) alwaysinline nounwind readnone {{\n{body}\n}}\n",
    }


def _resized(element: str, lanes: int, wanted: int, vector: str) -> str:
    """The first ``wanted`` lanes of a vector, undefined ones behind those that there are."""
    places = ", ".join(f"i32 {lane}" if lane < lanes else "i32 poison" for lane in range(wanted))
    return f"shufflevector <{lanes} x {element}> {vector}, <{lanes} x {element}> poison, <{wanted} x i32> <{places}>"


NEAREST = VectorFunction("mlc_nearest", "int32", _define)
"""The integer nearest to each number, ties to even; -2**31 for NaN and what is out of range, on either side."""
