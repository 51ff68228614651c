"""Instructions that multiply several narrow numbers and add them up, by way of LLVM.

TIR's vectors do not fit the operands that LLVM's functions for them take (and bfloat16 it turns into integers first), so that small
functions over vectors of 32-bit words, which the code generator inlines, stand between.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from ..emit import Expr


@dataclass(frozen=True)
class LlvmFunction:
    """A function ``(sums, words, words) -> sums`` around the intrinsic ``stem.BITS`` over ``per_word`` elements of LLVM type ``element`` in
    each 32-bit word."""

    stem: str
    sum: str
    element: str
    per_word: int

    def name(self, lanes: int) -> str:
        """What code calls it for vectors of ``lanes`` words."""
        return f"mlc_{self.stem.rpartition('.')[2]}_{lanes}"

    def text(self, lanes: int) -> str:
        """Its definition."""
        sums, words = f"<{lanes} x {self.sum}>", f"<{lanes} x i32>"
        narrow = f"<{lanes * self.per_word} x {self.element}>"
        intrinsic = f"@{self.stem}.{32 * lanes}"
        return (
            f"declare {sums} {intrinsic}({sums}, {narrow}, {narrow})\n"
            f"define internal {sums} @{self.name(lanes)}({sums} %sums, {words} %a, {words} %b) alwaysinline nounwind readnone {{\n"
            f"  %x = bitcast {words} %a to {narrow}\n"
            f"  %y = bitcast {words} %b to {narrow}\n"
            f"  %r = call {sums} {intrinsic}({sums} %sums, {narrow} %x, {narrow} %y)\n"
            f"  ret {sums} %r\n}}\n"
        )


DOT_BF16 = LlvmFunction("llvm.x86.avx512bf16.dpbf16ps", "float", "bfloat", 2)
DOT_BYTES = LlvmFunction("llvm.x86.avx512.vpdpbusd", "i32", "i8", 4)
"""Of AVX512-VNNI and AVX-VNNI alike: LLVM picks the encoding that the target has."""

_PAIR_PRODUCTS = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}


_TWO_ONES = (1 << 16) + 1
"""Two ones of 16 bits, as a word."""


def sum_name(lanes: int) -> str:
    """What code calls the function of :func:`sum_text`."""
    return f"mlc_add_{lanes}"


def sum_text(lanes: int) -> str:
    """A function that adds vectors of ``lanes`` 32-bit integers by one instruction (of AVX2 or AVX-512) in the place where it is called.

    An addition that LLVM understands it reorders with those of other steps of a reduction, and then runs out of registers.
    """
    vector = f"<{lanes} x i32>"
    return (
        f"define internal {vector} @{sum_name(lanes)}({vector} %x, {vector} %y) alwaysinline nounwind readnone {{\n"
        f'  %r = call {vector} asm "vpaddd $2, $1, $0", "=v,v,v"({vector} %x, {vector} %y)\n'
        f"  ret {vector} %r\n}}\n"
    )


def short_sum_name(lanes: int, words: int) -> str:
    """What code calls the function of :func:`short_sum_text`."""
    return f"mlc_short_sum_{words}_{lanes}"


def short_sum_text(lanes: int, words: int) -> str:
    """A function ``(sums, a, b, ...) -> sums`` that multiplies ``words`` vectors of unsigned bytes with as many of signed ones.

    Products of neighbours are summed in 16 bits (vpmaddubsw of AVX2 or AVX-512), those of several words too, and only then widened. One
    block of instructions, as in :func:`sum_text`: LLVM would begin more of them than there are registers for.
    """
    vector = f"<{lanes} x i32>"
    operands = ["%sums", *(f"%{name}{number}" for number in range(words) for name in "ab")]
    # $0 is the new sum; then come the products, the old sum in the same register, ones, and the operands.
    products, ones = range(1, 1 + words), 2 + words
    code = [f"vpmaddubsw ${ones + 2 * number}, ${ones + 2 * number - 1}, ${number}" for number in products]
    code += [f"vpaddw ${product}, $1, $1" for product in products[1:]]
    code += [f"vpmaddwd ${ones}, $1, $1", "vpaddd $1, $0, $0"]
    results = "{ " + ", ".join([vector] * (1 + words)) + " }"
    constraints = ",".join(["=v", *["=&v"] * words, "0", *["v"] * (1 + 2 * words)])
    given = [f"{vector} %sums", f"{vector} <{', '.join([f'i32 {_TWO_ONES}'] * lanes)}>", *(f"{vector} {name}" for name in operands[1:])]
    return (
        f"define internal {vector} @{short_sum_name(lanes, words)}({', '.join(f'{vector} {name}' for name in operands)}) "
        "alwaysinline nounwind readnone {\n"
        f'  %r = call {results} asm "{"; ".join(code)}", "{constraints}"({", ".join(given)})\n'
        f"  %s = extractvalue {results} %r, 0\n"
        f"  ret {vector} %s\n}}\n"
    )


def pair_products(lanes: int, x: Expr, y: Expr) -> Expr:
    """For ``lanes`` pairs of 16-bit integers x0 * y0 + x1 * y1, as 32-bit integers."""
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", _PAIR_PRODUCTS[lanes], x, y)
