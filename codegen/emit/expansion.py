"""Expansion of packed numbers: a vector whose lanes are consecutive elements of memory where bits say so, and zero elsewhere.

AVX-512 has an instruction for it. With AVX2 a table holds for each byte of bits which element goes to which lane (its permutation
takes the lowest three bits of an index), with the sign set in lanes that stay zero. TIR has neither: small functions in LLVM's language
are imported with the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..target import Kind, Target
from .emitter import Expr

_AVX2_LANES, _AVX512_LANES = 8, 16


def expansion_lanes(target: Target) -> int:
    """Lanes of the vectors that ``target`` expands to; 0 where it has no quick way to."""
    if target.kind is not Kind.CPU or "popcnt" not in target.features:
        return 0
    if "avx512f" in target.features and target.vector_lanes == _AVX512_LANES:
        return _AVX512_LANES
    return _AVX2_LANES if "avx2" in target.features and target.vector_lanes == _AVX2_LANES else 0


@dataclass(frozen=True)
class Expansion:
    """Expansion to vectors of ``lanes`` floats of elements of a ``dtype``: float32, or int8, which become floats.

    ``halved`` says that at most half of the bits are ever set, which takes fewer instructions.
    """

    lanes: int
    dtype: str = "float32"
    halved: bool = False

    def expanded(self, buffer: Any, first: Expr, bits: Expr) -> Expr:
        """The vector whose lanes with a bit in ``bits`` (int32) hold the elements of ``buffer`` from ``first`` on, in order.

        As many elements as there are lanes are read. The kernel needs :attr:`functions`.
        """
        place = tirx.address_of(tirx.BufferLoad(buffer, [first]))
        return tirx.call_pure_extern(f"float32x{self.lanes}", self._name, place, bits)

    @property
    def functions(self) -> dict[str, str]:
        """The function that :meth:`expanded` calls, by name, in LLVM's language."""
        if self.lanes == _AVX512_LANES:
            text = _AVX512.replace("LOAD", _AVX512_LOADS[self.dtype])
        elif self.dtype == "int8":
            text = _AVX2_BYTES.replace("ROWS", _rows(8, _AVX2_LANES, [_places(bits) for bits in range(1 << _AVX2_LANES)]))
        else:
            rows = _rows(8, 4 * _AVX2_LANES, [_bytes_of(bits, self.halved) for bits in range(1 << _AVX2_LANES)])
            text = (_AVX2_HALVED if self.halved else _AVX2).replace("ROWS", rows)
        return {self._name: text.replace("NAME", self._name)}

    @property
    def _name(self) -> str:
        return "mlc_expand_" + ("bytes" if self.dtype == "int8" else "half" if self.halved else "floats")


def _rows(bits: int, count: int, rows: Sequence[Sequence[int]]) -> str:
    """The rows of a table in LLVM's language."""
    return ",\n  ".join(f"<{count} x i{bits}> <{', '.join(f'i{bits} {number}' for number in row)}>" for row in rows)


def _places(bits: int) -> list[int]:
    """For each lane which element goes there; negative for none."""
    return [(bits & ((1 << lane) - 1)).bit_count() if bits >> lane & 1 else -128 for lane in range(_AVX2_LANES)]


def _bytes_of(bits: int, halved: bool) -> list[int]:
    """For each byte of a vector which byte of its half goes there; negative for none.

    The halves hold the elements that go there, each its own; with ``halved`` both hold the first four of all.
    """
    found: list[int] = []
    taken = 0
    for lane in range(_AVX2_LANES):
        if lane == _AVX2_LANES // 2 and not halved:
            taken = 0
        if bits >> lane & 1:
            found += range(4 * taken % 16, 4 * taken % 16 + 4)
            taken += 1
        else:
            found += [-128] * 4
    return found


_AVX2 = """
@NAME_table = internal unnamed_addr constant [256 x <32 x i8>] [
  ROWS], align 64
declare <32 x i8> @llvm.x86.avx2.pshuf.b(<32 x i8>, <32 x i8>)
declare i32 @llvm.ctpop.i32(i32)
define internal <8 x float> @NAME(ptr %place, i32 %bits) alwaysinline nounwind {
  %row = zext i32 %bits to i64
  %at = getelementptr inbounds [256 x <32 x i8>], ptr @NAME_table, i64 0, i64 %row
  %bytes = load <32 x i8>, ptr %at, align 32
  %lowbits = and i32 %bits, 15
  %count = call i32 @llvm.ctpop.i32(i32 %lowbits)
  %offset = zext i32 %count to i64
  %upper = getelementptr inbounds float, ptr %place, i64 %offset
  %low = load <4 x float>, ptr %place, align 4
  %high = load <4 x float>, ptr %upper, align 4
  %packed = shufflevector <4 x float> %low, <4 x float> %high, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  %moved = bitcast <8 x float> %packed to <32 x i8>
  %all = call <32 x i8> @llvm.x86.avx2.pshuf.b(<32 x i8> %moved, <32 x i8> %bytes)
  %result = bitcast <32 x i8> %all to <8 x float>
  ret <8 x float> %result
}
"""

_AVX2_HALVED = """
@NAME_table = internal unnamed_addr constant [256 x <32 x i8>] [
  ROWS], align 64
declare <32 x i8> @llvm.x86.avx2.pshuf.b(<32 x i8>, <32 x i8>)
define internal <8 x float> @NAME(ptr %place, i32 %bits) alwaysinline nounwind {
  %row = zext i32 %bits to i64
  %at = getelementptr inbounds [256 x <32 x i8>], ptr @NAME_table, i64 0, i64 %row
  %bytes = load <32 x i8>, ptr %at, align 32
  %packed = load <4 x float>, ptr %place, align 4
  %twice = shufflevector <4 x float> %packed, <4 x float> poison, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 0, i32 1, i32 2, i32 3>
  %moved = bitcast <8 x float> %twice to <32 x i8>
  %all = call <32 x i8> @llvm.x86.avx2.pshuf.b(<32 x i8> %moved, <32 x i8> %bytes)
  %result = bitcast <32 x i8> %all to <8 x float>
  ret <8 x float> %result
}
"""

_AVX2_BYTES = """
@NAME_table = internal unnamed_addr constant [256 x <8 x i8>] [
  ROWS], align 64
declare <16 x i8> @llvm.x86.ssse3.pshuf.b.128(<16 x i8>, <16 x i8>)
define internal <8 x float> @NAME(ptr %place, i32 %bits) alwaysinline nounwind {
  %row = zext i32 %bits to i64
  %at = getelementptr inbounds [256 x <8 x i8>], ptr @NAME_table, i64 0, i64 %row
  %bytes = load <8 x i8>, ptr %at, align 8
  %packed = load <8 x i8>, ptr %place, align 1
  %from = shufflevector <8 x i8> %packed, <8 x i8> poison, <16 x i32> WIDE
  %to = shufflevector <8 x i8> %bytes, <8 x i8> poison, <16 x i32> WIDE
  %all = call <16 x i8> @llvm.x86.ssse3.pshuf.b.128(<16 x i8> %from, <16 x i8> %to)
  %low = shufflevector <16 x i8> %all, <16 x i8> poison, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  %wide = sext <8 x i8> %low to <8 x i32>
  %result = sitofp <8 x i32> %wide to <8 x float>
  ret <8 x float> %result
}
""".replace("WIDE", f"<{', '.join(f'i32 {lane}' for lane in (*range(8), *range(8)))}>")

_AVX512 = """
declare <16 x float> @llvm.x86.avx512.mask.expand.v16f32(<16 x float>, <16 x float>, <16 x i1>)
define internal <16 x float> @NAME(ptr %place, i32 %bits) alwaysinline nounwind {
  %narrow = trunc i32 %bits to i16
  %mask = bitcast i16 %narrow to <16 x i1>
  LOAD
  %result = call <16 x float> @llvm.x86.avx512.mask.expand.v16f32(<16 x float> %packed, <16 x float> zeroinitializer, <16 x i1> %mask)
  ret <16 x float> %result
}
"""

_AVX512_LOADS = {
    # The empty instruction keeps the load apart: Zen 5 expands from memory by microcode, with which kernels took 2.7 times as long.
    "float32": """%loaded = load <16 x float>, ptr %place, align 4
  %packed = call <16 x float> asm "", "=v,0"(<16 x float> %loaded)""",
    "int8": """%bytes = load <16 x i8>, ptr %place, align 1
  %wide = sext <16 x i8> %bytes to <16 x i32>
  %packed = sitofp <16 x i32> %wide to <16 x float>""",
}
