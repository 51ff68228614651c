"""How a register tile multiplies and adds: the elements of its operands, and the instructions for them.

The operands are made of *words* of 32 bits, as wide as what is summed up. A word holds ``per_word`` neighbouring steps of the reduction,
which one instruction multiplies and adds, so that a product of narrow numbers is one of words that is less deep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tvm import tirx

from ...ir import DType
from ..emit import Expr, ramp, spread
from ..target import Target
from .tiling import FUSED, Pace
from .wide_instructions import DOT_BF16, DOT_BYTES, LlvmFunction, pair_products, short_sum_name, short_sum_text, sum_name, sum_text


class Arithmetic(ABC):
    """Multiplies a word of ``a`` in all lanes with a vector of words of ``b``, and adds the products to sums.

    ``a_dtype`` is the TIR dtype of the elements of ``a`` as a tile reads them, ``b_dtype`` that of ``b`` where the kernel lays it out
    itself, ``b_bytes`` how many a word of ``b`` takes in memory, ``steps`` how many neighbouring words :meth:`add_steps` takes at once.
    ``interleaves`` says whether a tile of half the registers multiplies as quickly, so that what is done with the sums of another may stand
    between its multiply-adds (measured on Zen 5: not with vdpbf16ps, whose sums take longer). ``biased`` says that sums begin with a bias:
    of integers, which are not rounded, and where it need not stay in a register that multiply-adds lack.
    """

    per_word: ClassVar[int] = 1
    sums: ClassVar[DType] = DType.FLOAT32
    a_dtype: ClassVar[str] = "float32"
    b_dtype: str = "float32"
    b_bytes: int = 4
    steps: int = 1
    interleaves: bool = False
    biased: bool = False
    pace: Pace = FUSED

    def __init__(self, target: Target) -> None:
        self.lanes = target.vector_lanes

    @property
    def sums_dtype(self) -> str:
        """The TIR dtype of a sum."""
        return self.sums.numpy.name

    @property
    def functions(self) -> Mapping[str, str]:
        """Functions in LLVM's language, by name, that :meth:`multiply_add` calls."""
        return {}

    def temporaries(self, vectors: int) -> int:
        """The registers that a multiply-add of a row and so many vectors needs beside a word of each operand."""
        return 0

    def word(self, a: Any, offset: Expr) -> Expr:
        """The word of ``a`` at ``offset`` (in words), as a scalar of 32 bits."""
        if self.per_word == 1:
            return tirx.BufferLoad(a, [offset])
        return tirx.reinterpret("int32", tirx.BufferLoad(a, [ramp(_elements(offset, self.per_word), self.per_word)]))

    @abstractmethod
    def column(self, b: Any, offset: Expr) -> Expr:
        """A vector of words of ``b`` from ``offset`` (in words) on, in the form that :meth:`multiply_add` takes."""

    @abstractmethod
    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        """``total`` and the products of ``word`` with every lane of ``column``."""

    def add_steps(self, words: Sequence[Expr], columns: Sequence[Expr], total: Expr) -> Expr:
        """``total`` and the products of neighbouring ``words``, no more than ``steps``, each with every lane of its column."""
        for word, column in zip(words, columns, strict=True):
            total = self.multiply_add(word, column, total)
        return total

    def _vector(self, dtype: str, per_word: int = 1) -> str:
        count = self.lanes * per_word
        return f"{dtype}x{count}" if count > 1 else dtype


def multiply_add(target: Target, lanes: int, factor: Expr, other: Expr, total: Expr) -> Expr:
    """``factor * other + total`` of fp32 vectors, in one rounding where ``target`` has an instruction for it."""
    if "fma" not in target.features:
        return total + factor * other
    return tirx.call_llvm_pure_intrin(f"float32x{lanes}" if lanes > 1 else "float32", "llvm.fma", factor, other, total)


def bytes_as_floats(stored: Expr, lanes: int) -> Expr:
    """A vector of bytes as fp32 numbers, by way of integers of 32 bits."""
    count = f"x{lanes}" if lanes > 1 else ""
    return tirx.Cast(f"float32{count}", tirx.Cast(f"int32{count}", stored))


class Fp32(Arithmetic):
    """Single-precision numbers, ``lanes`` of them in a vector: as many as the target's have, or fewer."""

    def __init__(self, target: Target, lanes: int | None = None) -> None:
        super().__init__(target)
        self.lanes = lanes or self.lanes
        self._target = target

    def column(self, b: Any, offset: Expr) -> Expr:
        return tirx.BufferLoad(b, [ramp(offset, self.lanes)])

    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        return self._multiply_add(spread(word, self.lanes), column, total)

    def _multiply_add(self, factor: Expr, column: Expr, total: Expr) -> Expr:
        return multiply_add(self._target, self.lanes, factor, column, total)


class LaneByLane(Fp32):
    """Single-precision numbers of which each lane has its own in ``a`` as well, so that lanes are products of their own."""

    def word(self, a: Any, offset: Expr) -> Expr:
        return tirx.BufferLoad(a, [ramp(offset, self.lanes)])

    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        return self._multiply_add(word, column, total)


class WidenedHalves(Fp32):
    """``b`` of 16-bit floats, which become single-precision in registers: half the bytes, the same instructions and one more a vector."""

    b_bytes = 2

    def __init__(self, target: Target, half: DType) -> None:
        super().__init__(target)
        self._half = half
        self.b_dtype = {DType.FLOAT16: "float16", DType.BFLOAT16: "uint16"}[half]

    def column(self, b: Any, offset: Expr) -> Expr:
        stored = tirx.BufferLoad(b, [ramp(offset, self.lanes)])
        if self._half is DType.FLOAT16:
            return tirx.Cast(self._vector("float32"), stored)
        # The upper half of the bits of an fp32 number.
        bits = tirx.shift_left(tirx.Cast(self._vector("int32"), stored), spread(tirx.const(16, "int32"), self.lanes))
        return tirx.reinterpret(self._vector("float32"), bits)


class BytesAsFloats(Fp32):
    """``b`` of signed bytes, which become single-precision in registers."""

    b_dtype = "int8"
    b_bytes = 1

    def column(self, b: Any, offset: Expr) -> Expr:
        return bytes_as_floats(tirx.BufferLoad(b, [ramp(offset, self.lanes)]), self.lanes)


class PairsOfBf16(Arithmetic):
    """bfloat16 operands, in pairs (vdpbf16ps of AVX512-BF16; Intel's manual, volume 2)."""

    per_word = 2
    a_dtype = "uint16"
    b_dtype = "uint16"

    @property
    def functions(self) -> Mapping[str, str]:
        return {DOT_BF16.name(self.lanes): DOT_BF16.text(self.lanes)}

    def column(self, b: Any, offset: Expr) -> Expr:
        return tirx.reinterpret(self._vector("int32"), tirx.BufferLoad(b, [ramp(_elements(offset, 2), 2 * self.lanes)]))

    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        return _call(DOT_BF16, self.lanes, self._vector("float32"), total, spread(word, self.lanes), column)


class QuadsOfBytes(Arithmetic):
    """Unsigned bytes times signed ones, four at a time, without saturation (vpdpbusd of VNNI)."""

    per_word = 4
    sums = DType.INT32
    a_dtype = "uint8"
    b_dtype = "int8"
    interleaves = True
    biased = True

    @property
    def functions(self) -> Mapping[str, str]:
        return {DOT_BYTES.name(self.lanes): DOT_BYTES.text(self.lanes)}

    def column(self, b: Any, offset: Expr) -> Expr:
        return tirx.reinterpret(self._vector("int32"), tirx.BufferLoad(b, [ramp(_elements(offset, 4), 4 * self.lanes)]))

    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        return _call(DOT_BYTES, self.lanes, self._vector("int32"), total, spread(word, self.lanes), column)


class ShortSums(QuadsOfBytes):
    """Unsigned bytes times signed ones of a weight whose sums of products fit 16 bits over ``words`` words (see :mod:`...ir.short_sums`):
    vpmaddubsw, ``together`` of them added, widened by vpmaddwd with ones.
    """

    def __init__(self, target: Target, words: int, together: int) -> None:
        super().__init__(target)
        self.words = words
        self.steps = together
        self.interleaves = self.biased = False
        # A multiplication for each word, and one that widens. What loads cost was measured on Zen 3.
        self.pace = Pace(multiplications=1 + 1 / together, latency=1, loads=2.2)

    def temporaries(self, vectors: int) -> int:
        # The other words of both operands; a product of each, and ones.
        return (self.steps - 1) * (vectors + 1) + self.steps + 1

    @property
    def functions(self) -> Mapping[str, str]:
        return {short_sum_name(self.lanes, words): short_sum_text(self.lanes, words) for words in range(1, self.steps + 1)}

    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        return self.add_steps([word], [column], total)

    def add_steps(self, words: Sequence[Expr], columns: Sequence[Expr], total: Expr) -> Expr:
        operands = [operand for word, column in zip(words, columns, strict=True) for operand in (spread(word, self.lanes), column)]
        return tirx.call_pure_extern(self._vector("int32"), short_sum_name(self.lanes, len(words)), total, *operands)


class PairsOfInt16(Arithmetic):
    """Bytes of any signs as 16-bit numbers, in pairs (vpmaddwd): exact, as products of unsigned and signed bytes that saturate are not.

    ``b`` is stored widened, or with ``narrow`` as bytes that are widened in registers: what is read once is better read quickly.
    """

    per_word = 2
    sums = DType.INT32
    a_dtype = "int16"

    def __init__(self, target: Target, stored: DType, *, narrow: bool) -> None:
        super().__init__(target)
        # LLVM makes one instruction of both steps where there is one.
        self._adds_apart = "avx2" in target.features and "avx512_vnni" not in target.features
        self.narrow = narrow
        self._registers = target.vector_registers
        self.b_dtype = stored.numpy.name if narrow else "int16"
        self.b_bytes = 2 if narrow else 4

    def temporaries(self, vectors: int) -> int:
        # A product waits for its addition; where there are twice as many registers LLVM interleaves more.
        return max(self._registers // 16, 1)

    def column(self, b: Any, offset: Expr) -> Expr:
        pairs = self._vector("int16", 2)
        if self.narrow:
            return tirx.Cast(pairs, tirx.BufferLoad(b, [ramp(_elements(offset, 2), 2 * self.lanes)]))
        if str(b.dtype) == "int16":
            return tirx.BufferLoad(b, [ramp(_elements(offset, 2), 2 * self.lanes)])
        # A constant: 16-bit numbers in a buffer of bytes.
        return tirx.reinterpret(pairs, tirx.BufferLoad(b, [ramp(_elements(offset, 4), 4 * self.lanes)]))

    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        factor = tirx.reinterpret(self._vector("int16", 2), spread(word, self.lanes))
        products = pair_products(self.lanes, factor, column)
        if not self._adds_apart:
            return total + products
        return tirx.call_pure_extern(self._vector("int32"), sum_name(self.lanes), total, products)

    @property
    def functions(self) -> Mapping[str, str]:
        return {sum_name(self.lanes): sum_text(self.lanes)} if self._adds_apart else {}


class WidenedBytes(Arithmetic):
    """Bytes of any signs as 32-bit numbers, one at a time: for targets without instructions for several."""

    sums = DType.INT32
    a_dtype = "int32"
    b_bytes = 1

    def __init__(self, target: Target, stored: DType) -> None:
        super().__init__(target)
        self.b_dtype = stored.numpy.name

    def column(self, b: Any, offset: Expr) -> Expr:
        return tirx.Cast(self._vector("int32"), tirx.BufferLoad(b, [ramp(offset, self.lanes)]))

    def multiply_add(self, word: Expr, column: Expr, total: Expr) -> Expr:
        return total + spread(word, self.lanes) * column


def _elements(words: Expr, per_word: int) -> Expr:
    """Where the element of word ``words`` is, with a constant distance apart: LLVM would lose what it knows of the sum while it multiplies
    that out itself, and compute an address for each word in place of distances from one."""
    apart = 0
    while isinstance(words, tirx.Add) and isinstance(words.b, tirx.IntImm):
        apart += int(words.b.value)
        words = words.a
    return words * per_word + apart * per_word


def _call(function: LlvmFunction, lanes: int, dtype: str, *operands: Expr) -> Expr:
    return tirx.call_pure_extern(dtype, function.name(lanes), *operands)
