"""Products of few rows with an encoded weight by the instructions for bytes, with activations in 24 bits (after the splitting of Ozaki,
Ogita, Oishi and Rump, "Error-free transformations of matrix multiplication by using fast routines of matrix multiplication", 2012).

The activations of a span are multiples of a unit, so large that the largest magnitude is a number of three signed bytes: each is off by
at most 2**-24 of that magnitude, which is what fp32 rounds a product by. Codes are unsigned bytes, after a mask and a shift for a vector of
them. With VNNI one instruction multiplies these by one byte of the activations and adds four neighbours to a sum of 32 bits; AVX2 adds two,
in 16 bits, to which only codes of few bits are sure to fit. All sums are exact. Those of the three bytes meet in fp32 at the end of a span.
That takes fewer instructions than products in fp32, which need each code as a float.
"""

from __future__ import annotations

from collections.abc import Iterator

from tvm import tirx

from ..emit import Expr, spread
from ..instruction_sets import multiplies_bytes
from ..target import Target
from ..weight_format import CHUNK, CodeKind, WeightFormat
from ..weight_packing import Arrangement, PanelBlock
from .encoded_product import EncodedProduct
from .encoded_registers import RegisterLowering, Sums
from .encoded_rows import RowPlan
from .wide_instructions import DOT_BYTES

BYTES = 3
"""Of an activation."""
_EVERY_BYTE = 0x01010101
_PAIRS = CHUNK // 2
"""Products of a chunk that are added in 16 bits."""


def can_multiply_bytes(target: Target, block: PanelBlock) -> bool:
    """Whether the target has the instructions, bytes hold whole codes, and no sum overflows."""
    form = block.format
    if form.kind is not CodeKind.INTEGER or 8 % form.bits or (_largest(form) << 7) * CHUNK * block.span * 257 >= 1 << 31:
        return False
    return multiplies_bytes(target) or (target.vector_lanes == 8 and "avx2" in target.features and (_largest(form) << 7) * _PAIRS < 1 << 15)


def _largest(form: WeightFormat) -> int:
    """The largest code."""
    return (1 << form.bits) - 1


class FixedLowering(RegisterLowering):
    """One kernel in the making; knobs ``rows`` and ``vectors``."""

    def _plan(self, problem: EncodedProduct, panel: int) -> RowPlan:
        return RowPlan(problem.rows, problem.block(panel), fixed=True)

    def _arrangement(self, problem: EncodedProduct) -> Arrangement:
        return Arrangement.BYTES

    def _open(self) -> None:
        """Nothing: codes are taken apart here."""

    def _opened_sums(self, rows: int, row: Expr, span: Expr) -> Sums:
        """A sum for each byte, which starts from what the zero point of the codes takes off."""
        sums = Sums(self.emitter, self.vectors, BYTES, rows, self.frame.count, "int32")
        for byte in range(BYTES):
            for step in range(rows):
                begin = self.rows.byte_start(row + step, span, byte) if self.plan.zero else spread(tirx.const(0, "int32"), self.frame.lanes)
                for vector in range(self.frame.count):
                    sums.store(byte, step, vector, begin)
        return sums

    def _chunk(self, sums: Sums, words: Expr, chunk: Expr, row: Expr, rows: int) -> None:
        if multiplies_bytes(self.target):
            self.frame.kernel.declare_functions({DOT_BYTES.name(self.vectors.lanes): DOT_BYTES.text(self.vectors.lanes)})
            for place, codes, activations in self._products_of(words, chunk, row, rows):
                sums.store(*place, self.vectors.quad_products_added(sums.load(*place), codes, activations))
            return
        vectors = self.vectors
        found: dict[tuple[int, int, int], Expr] = {}
        for place, codes, activations in self._products_of(words, chunk, row, rows):
            products = vectors.byte_products(vectors.reinterpreted(codes, "int8"), vectors.reinterpreted(activations, "int8"))
            found[place] = vectors.add(found[place], products) if place in found else products
        for place, shorts in found.items():
            sums.store(*place, vectors.add(sums.load(*place), vectors.neighbours_added(shorts)))

    def _products_of(self, words: Expr, chunk: Expr, row: Expr, rows: int) -> Iterator[tuple[tuple[int, int, int], Expr, Expr]]:
        """What a chunk multiplies: to which sum (byte, row, vector) it belongs, unsigned codes and signed bytes, four in a word."""
        vectors, count, bits = self.vectors, self.frame.count, self.frame.block.format.bits
        digits, mask = 8 // bits, _EVERY_BYTE * _largest(self.frame.block.format)
        for word in range(bits):
            held = [vectors.load(self.frame.words, words + (word * count + vector) * self.frame.lanes) for vector in range(count)]
            for digit in range(digits):
                codes = [vectors.masked(vectors.shifted(each, digit * bits), mask) if digits > 1 else each for each in held]
                k = chunk * CHUNK + (word * digits + digit) * 4
                for step in range(rows):
                    for byte in range(BYTES):
                        activations = self.rows.four(row + step, k, byte)
                        for vector, unsigned in enumerate(codes):
                            yield (byte, step, vector), unsigned, activations

    def _total(self, sums: Sums, step: int, vector: int, row: Expr, span: Expr) -> Expr:
        """What the sums of the bytes are together, times the unit."""
        vectors = self.vectors
        low, middle, high = (sums.load(byte, step, vector) for byte in range(BYTES))
        upper = vectors.converted(vectors.add(vectors.shifted(high, -8), middle))
        total = vectors.multiply_add(256.0, upper, vectors.converted(low))
        return vectors.times(total, self.rows.unit(row + step, span))
