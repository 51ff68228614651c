"""Encoded weights of matrix products as kernels read them: panels of columns, each one block of memory that is read from start to end.

A block holds the codes of a panel along its depth, :data:`CHUNK` at a time. Behind those of each group stand its scales, then its zero
points, so that a block is one stream; where columns have one scale each, these stand behind all codes. The codes of a chunk are ``bits``
words of 32 bits for each column, in one of these arrangements:

- digits: a word holds as many whole codes as fit, the first one lowest; what is left of the words of a chunk holds the rest of its codes.
  Where codes fill the words, the highest bit is inverted: words are signed to a processor that converts them.
- indices: the same with the bits as they are.
- nibbles: 8 columns with 8 codes of 4 bits each are 32 bytes, in which two columns of 4 stand one behind the other in the two halves of a
  register: byte 16 h + 4 k + c holds codes k and k + 4 of column 4 h + c, the first one in the lower half of the byte.
- halves: pairs of codes of 8 bits as numbers of 16 bits, the first one lowest.
- bytes: the same, but that the codes of a byte are four apart: code 4 d + i of a word is digit d of byte i.
- planes: word b holds bit b of every code of the chunk, the first one lowest.

A table of codes stands before the first block; with nibbles as byte 0 of all its numbers, then byte 1 and so on, each twice.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ..errors import LoweringError
from ..ir import Constant, EncodedConstant, TensorType
from ..ir.encodings.scheme import CODES, SCALES
from .constant_layout import ConstantForm, register_form
from .weight_format import CHUNK, WeightFormat, weight_format

LINE = 16
"""Words of 32 bits in a cache line, to which every part of a block is rounded up."""
TABLE_WORDS = LINE
BYTE_TABLE_WORDS = 2 * LINE
NIBBLE_ENTRIES = 16
NIBBLE_COLUMNS = 8
_SPAN = 8
_ONE = 127
"""The e8m0 code of the scale 1."""
_SCALE_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "e8m0": 1}
_ZERO_BYTES = {"f32": 4, "u8": 1}


class Arrangement(enum.Enum):
    """How the codes of a chunk lie in its words."""

    DIGITS = "digits"
    INDICES = "indices"
    NIBBLES = "nibbles"
    HALVES = "halves"
    BYTES = "bytes"
    PLANES = "planes"


@register_form
@dataclass(frozen=True)
class PackedWeight(ConstantForm):
    """The encoded weight of a product, whose axis ``columns_axis`` is its columns, in panels of ``panel`` columns; words (int32)."""

    kind: ClassVar[str] = "panels"
    columns_axis: int
    panel: int
    arrangement: Arrangement

    def format(self, type: TensorType) -> WeightFormat:
        """How the codes of a weight of ``type`` become numbers; LoweringError where kernels cannot read them."""
        found = weight_format(type, self.columns_axis)
        if found is None:
            raise LoweringError(f"no kernel reads the codes of {type} with its columns along axis {self.columns_axis}")
        return found

    def block(self, type: TensorType) -> PanelBlock:
        """Where the parts of a panel's block lie."""
        return PanelBlock(self.format(type), self.panel, type.static_shape[1 - self.columns_axis])

    def panels(self, type: TensorType) -> int:
        return -(-type.static_shape[self.columns_axis] // self.panel)

    def header(self, type: TensorType) -> int:
        """Words before the first block."""
        if not self.format(type).tabulated:
            return 0
        return BYTE_TABLE_WORDS if self.arrangement is Arrangement.NIBBLES else TABLE_WORDS

    def words(self, type: TensorType) -> int:
        """Words of a whole weight."""
        return self.header(type) + self.panels(type) * self.block(type).words

    def nbytes(self, constant: Constant) -> int:
        return 4 * self.words(constant.type)

    def pack(self, constant: Constant) -> np.ndarray:
        """LoweringError where ``constant`` is not held as codes."""
        if not isinstance(constant, EncodedConstant):
            raise LoweringError(f"{constant!r} has no codes to pack; give the kernel a constant that is encoded")
        return _Packing(self, constant).words()

    def document(self) -> list[Any]:
        return [self.columns_axis, self.panel, self.arrangement.value]

    @classmethod
    def of(cls, document: list[Any]) -> Self:
        columns_axis, panel, arrangement = document
        return cls(int(columns_axis), int(panel), Arrangement(arrangement))

    def __str__(self) -> str:
        return f"{{{self.arrangement.value} panel {self.panel}}}"


class _Packing:
    """One weight on its way into panels."""

    def __init__(self, form: PackedWeight, constant: EncodedConstant) -> None:
        self.form = form
        self.constant = constant
        self.format = form.format(constant.type)
        self.block = form.block(constant.type)
        self.panels = form.panels(constant.type)
        self.columns = constant.type.static_shape[form.columns_axis]

    def words(self) -> np.ndarray:
        form, block = self.format, self.block
        codes = np.moveaxis(self.constant.codes, self.form.columns_axis, 0)
        unsigned = np.zeros((self.panels * self.form.panel, block.chunks * CHUNK), np.uint8)
        unsigned[: self.columns, : block.depth] = self._unsigned(codes)
        chunks = unsigned.reshape(self.panels, self.form.panel, block.chunks, CHUNK).transpose(0, 2, 3, 1)
        stored = np.zeros((self.panels, block.groups, block.part_words), np.uint32)
        for number in range(self.panels):
            words = arranged(chunks[number], form, self.form.arrangement).reshape(block.groups, -1)
            stored[number, :, : words.shape[1]] = words
        self._store(stored, block.scales_at, self._scales())
        if form.zero is None:
            zeros = self.constant.zero_points
            assert zeros is not None
            kept = np.float32 if form.zero_storage == "f32" else np.uint8
            self._store(stored, block.zeros_at, (zeros.astype(np.int64) - form.least).astype(kept))
        return np.concatenate([self._table(), stored.reshape(-1)]).view(np.int32)

    def _unsigned(self, codes: np.ndarray) -> np.ndarray:
        """The ``u`` of every code, uint8."""
        storage = dict(self.constant.type.encoding.parameters).get("storage")
        if storage in ("e2m3", "e3m2"):
            return np.take(_widened(str(storage)), codes)
        return (codes.astype(np.int16) - self.format.least).astype(np.uint8)

    def _scales(self) -> np.ndarray:
        if self.constant.scales is not None:
            return self.constant.scales
        return np.array(dict(self.constant.type.encoding.parameters)["scale"], np.float32)

    def _store(self, stored: np.ndarray, at: int, values: np.ndarray) -> None:
        """Puts values of each group, of each column, or of all into the blocks, from word ``at`` of a part on."""
        columns = self.columns
        each = np.moveaxis(values, self.form.columns_axis, 0) if values.ndim == 2 else np.broadcast_to(values.reshape(-1, 1), (columns, 1))
        padded = np.zeros((self.panels * self.form.panel, each.shape[1]), each.dtype)
        padded[:columns] = each
        panels = np.ascontiguousarray(padded.reshape(self.panels, self.form.panel, -1).transpose(0, 2, 1))
        stored.view(np.uint8)[:, :, 4 * at : 4 * at + panels.shape[2] * panels.itemsize] = panels.view(np.uint8)

    def _table(self) -> np.ndarray:
        entries = self.format.tabulated
        if not entries:
            return np.zeros(0, np.uint32)
        numbers = self.constant.table
        if numbers is None:
            shape = (1, -1) if self.form.columns_axis == 0 else (-1, 1)
            parts = {CODES: np.arange(entries, dtype=np.uint8).reshape(shape), SCALES: np.full((1, 1), _ONE, np.uint8)}
            numbers = self.constant.scheme.decode(parts).reshape(-1)
        if self.form.arrangement is Arrangement.NIBBLES:
            planes = np.resize(numbers, NIBBLE_ENTRIES).astype(np.float32).view(np.uint8).reshape(NIBBLE_ENTRIES, 4).T
            return np.ascontiguousarray(np.repeat(planes[:, None], 2, axis=1)).reshape(-1).view(np.uint32)
        # Twice, if there is room: an instruction that looks among 16 entries does not mind the bit above an index of 3.
        return np.resize(numbers, TABLE_WORDS).astype(np.float32).view(np.uint32)


@dataclass(frozen=True)
class PanelBlock:
    """The block of a panel of ``panel`` columns and ``depth`` weights each; places count words."""

    format: WeightFormat
    panel: int
    depth: int

    @property
    def span(self) -> int:
        """Chunks whose products are summed up alone: a group, or of a column with one scale a few, since long sums lose digits."""
        if self.format.group is not None:
            return self.format.group // CHUNK
        chunks = -(-self.depth // CHUNK)
        return -(-chunks // -(-chunks // _SPAN))

    @property
    def spans(self) -> int:
        return -(-self.depth // (self.span * CHUNK))

    @property
    def groups(self) -> int:
        """Scales of a column."""
        return 1 if self.format.group is None else self.spans

    @property
    def chunks(self) -> int:
        """Along the padded depth: whole spans."""
        return self.spans * self.span

    @property
    def chunk_words(self) -> int:
        return self.format.bits * self.panel

    @property
    def scales_at(self) -> int:
        """In a part: all that belongs to a group."""
        return _lines(4 * self.chunks // self.groups * self.chunk_words)

    @property
    def zeros_at(self) -> int:
        return self.scales_at + _lines(self.panel * _SCALE_BYTES[self.format.scale])

    @property
    def part_words(self) -> int:
        zeros = self.panel * _ZERO_BYTES[self.format.zero_storage] if self.format.zero is None else 0
        return self.zeros_at + _lines(zeros)

    @property
    def span_words(self) -> int:
        """From the codes of a span to those of the next."""
        return self.part_words if self.groups > 1 else self.span * self.chunk_words

    @property
    def words(self) -> int:
        return self.groups * self.part_words


def _lines(nbytes: int) -> int:
    """Words of the cache lines that hold so many bytes."""
    return -(-nbytes // (4 * LINE)) * LINE


def _widened(storage: str) -> np.ndarray:
    """For each code of 6 bits the code of 8 bits that stands for the same number."""
    import ml_dtypes

    narrow = np.dtype(getattr(ml_dtypes, f"float6_{storage}fn"))
    numbers = np.arange(64, dtype=np.uint8).view(narrow).astype(np.float32)
    return np.asarray(numbers.astype(ml_dtypes.float8_e4m3fn).view(np.uint8))


def digits_per_word(bits: int) -> int:
    """Whole codes in a word of digits."""
    return 32 // bits


def arranged(chunks: np.ndarray, form: WeightFormat, arrangement: Arrangement) -> np.ndarray:
    """The words of codes ``u``, uint8 [chunks, CHUNK, panel], in the order of a block."""
    arrange = {
        Arrangement.DIGITS: _digits,
        Arrangement.INDICES: _indices,
        Arrangement.NIBBLES: _nibbles,
        Arrangement.HALVES: _halves,
        Arrangement.BYTES: _bytes,
        Arrangement.PLANES: _planes,
    }[arrangement]
    return arrange(chunks, form)


def _digits(chunks: np.ndarray, form: WeightFormat) -> np.ndarray:
    words = _indices(chunks, form)
    return words if 32 % form.bits else words ^ np.uint32(1 << 31)


def _indices(chunks: np.ndarray, form: WeightFormat) -> np.ndarray:
    """Of codes [chunks, CHUNK, panel] words [chunks, bits, panel]."""
    bits, count = form.bits, digits_per_word(form.bits)
    words = np.zeros((len(chunks), bits, chunks.shape[2]), np.uint32)
    for digit in range(count):
        words |= chunks[:, digit : bits * count : count].astype(np.uint32) << np.uint32(bits * digit)
    left = 32 - bits * count
    if left:
        rest = np.zeros((len(chunks), chunks.shape[2]), np.uint32)
        for number in range(CHUNK - bits * count):
            rest |= chunks[:, bits * count + number].astype(np.uint32) << np.uint32(bits * number)
        for word in range(bits):
            words[:, word] |= (rest >> np.uint32(left * word) & np.uint32((1 << left) - 1)) << np.uint32(bits * count)
    return words


def _nibbles(chunks: np.ndarray, form: WeightFormat) -> np.ndarray:
    count, _, panel = chunks.shape
    # [chunk, step of 8 codes, half of the byte, code, vector, half of the register, column]
    split = chunks.reshape(count, CHUNK // 8, 2, 4, panel // NIBBLE_COLUMNS, 2, NIBBLE_COLUMNS // 2)
    both = split[:, :, 0] | split[:, :, 1] << np.uint8(4)
    return np.ascontiguousarray(both.transpose(0, 1, 3, 4, 2, 5)).reshape(-1).view(np.uint32)


def _halves(chunks: np.ndarray, form: WeightFormat) -> np.ndarray:
    pairs = chunks[:, 0::2].astype(np.uint16) | chunks[:, 1::2].astype(np.uint16) << np.uint16(8)
    return np.ascontiguousarray(pairs).reshape(-1).view(np.uint32)


def _bytes(chunks: np.ndarray, form: WeightFormat) -> np.ndarray:
    """Of codes whose bits divide 8: words [chunks, bits, panel]."""
    count, _, panel = chunks.shape
    split = chunks.reshape(count, form.bits, 8 // form.bits, 4, panel).astype(np.uint32)
    digits = np.arange(8 // form.bits, dtype=np.uint32)[:, None, None] * np.uint32(form.bits)
    places = np.arange(4, dtype=np.uint32)[:, None] * np.uint32(8)
    return np.asarray(np.bitwise_or.reduce(split << digits << places, axis=(2, 3)))


def _planes(chunks: np.ndarray, form: WeightFormat) -> np.ndarray:
    codes = plane_codes(chunks, form)
    words = np.zeros((len(chunks), form.bits, chunks.shape[2]), np.uint32)
    for bit in range(form.bits):
        for position in range(CHUNK):
            words[:, bit] |= (codes[:, position].astype(np.uint32) >> np.uint32(bit) & np.uint32(1)) << np.uint32(position)
    return words


def plane_codes(unsigned: np.ndarray, form: WeightFormat) -> np.ndarray:
    """The codes whose bits are the planes of ``form``, of which ``unsigned`` are the ``u``: two's complement, or for ternary numbers a bit
    for +1 and one for -1."""
    if form.storage == "ternary":
        return np.take(np.array([2, 0, 1, 0], np.uint8), unsigned)
    return (unsigned.astype(np.int16) + form.least).astype(np.uint8)
