"""N:M sparse weights of few bits as kernels read them: the codes that are kept, and which input of its group each belongs to.

After Mishra et al., "Accelerating sparse deep neural networks" (2021): of 4 consecutive inputs n are kept, each with a position of 2 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import LoweringError
from ..ir import Constant, EncodedConstant, Encoding
from ..ir.encoding import STORED
from ..ir.sparse import kept_of_groups
from .constant_layout import ConstantForm, register_form

LINE = 16
"""Words of a cache line, at whose multiples the parts of a stored weight start."""
FOUR = 4
"""Inputs of a group."""
CHUNK = 64
"""Inputs whose codes lie next to each other: those of a word of positions for each element that a group keeps."""
_WORD_BITS = 32


def selected_bits(encoding: Encoding, output_axis: int) -> int | None:
    """Bits of the codes of a weight in ``encoding``, N:M sparse along its inputs, if kernels read it so; else None.

    Codes of 4 bits have a scale for each chunk of inputs, of 8 bits one for each output.
    """
    given, values = dict(encoding.parameters), encoding.values
    if encoding.name != "nm_sparse" or given["m"] != FOUR or given["axis"] == output_axis:
        return None
    inner = dict(values.parameters)
    if "zero_point" in inner:
        return None
    match values.name:
        case "grouped":
            fits = (inner["storage"], inner["group"], inner["scale"]) == ("i4", CHUNK, "f16") and inner["axis"] != output_axis
            return 4 if fits else None
        case "affine":
            return 8 if (inner["storage"], inner["scale"], inner["axis"]) == ("i8", STORED, output_axis) else None
    return None


@register_form
@dataclass(frozen=True)
class SelectedWeight(ConstantForm):
    """Codes of ``bits`` bits, ``kept`` of each four inputs, in panels of ``width`` outputs.

    The weight is [outputs, inputs], with ``transposed`` the other way. Parts: int32 [panels, chunks, words, width], of each chunk first the
    words of positions, then those of codes, both lowest bits first; the scales, f16 [panels, chunks, width] or for codes of 8 bits f32
    [panels, width].
    """

    kind: ClassVar[str] = "selected"
    width: int
    kept: int
    bits: int
    transposed: bool = False

    def panels(self, outputs: int) -> int:
        return -(-outputs // self.width)

    def chunks(self, inputs: int) -> int:
        return -(-inputs // CHUNK)

    @property
    def chunk_words(self) -> int:
        """Words of an output in a chunk: those of positions are ``kept``."""
        return self.kept + self.kept * CHUNK // FOUR * self.bits // _WORD_BITS

    @property
    def scale_dtype(self) -> str:
        return "float16" if self.bits < 8 else "float32"

    def scales(self, outputs: int, inputs: int) -> int:
        """How many scales are stored."""
        return self.panels(outputs) * self.width * (self.chunks(inputs) if self.bits < 8 else 1)

    def scales_at(self, outputs: int, inputs: int) -> int:
        """Where the scales are stored."""
        return _lines(self.panels(outputs) * self.chunks(inputs) * self.chunk_words * self.width)

    def words(self, outputs: int, inputs: int) -> int:
        """The size of the stored array."""
        return self.scales_at(outputs, inputs) + _lines(-(-self.scales(outputs, inputs) * np.dtype(self.scale_dtype).itemsize // 4))

    def nbytes(self, constant: Constant) -> int:
        rows, columns = constant.type.static_shape
        return 4 * self.words(*((columns, rows) if self.transposed else (rows, columns)))

    def document(self) -> list[Any]:
        return [self.width, self.kept, self.bits, self.transposed]

    @classmethod
    def of(cls, document: list[Any]) -> SelectedWeight:
        width, kept, bits, transposed = document
        return cls(int(width), int(kept), int(bits), bool(transposed))

    def pack(self, constant: Constant) -> np.ndarray:
        """The stored array; LoweringError for a constant without codes."""
        if not isinstance(constant, EncodedConstant) or constant.scales is None:
            raise LoweringError(f"{constant!r} has no codes to pack; give the kernel a constant that is encoded")
        codes, scales = constant.codes, constant.scales
        if self.transposed:
            codes, scales = codes.T, scales.T
        outputs, inputs = codes.shape
        panels, chunks = self.panels(outputs), self.chunks(inputs)
        whole = np.pad(codes, ((0, panels * self.width - outputs), (0, chunks * CHUNK - inputs)))
        kept = kept_of_groups(whole, self.kept, FOUR)
        places = np.nonzero(kept.reshape(-1, FOUR))[1].reshape(panels, self.width, chunks, -1)
        chosen = whole[kept].reshape(panels, self.width, chunks, -1)
        words = np.concatenate([_in_words(places, 2), _in_words(chosen, self.bits)], axis=-1).transpose(0, 2, 3, 1)
        stored = np.zeros(self.words(outputs, inputs), np.int32)
        stored[: words.size] = np.ascontiguousarray(words).reshape(-1).view(np.int32)
        each = np.zeros((panels * self.width, chunks if self.bits < 8 else 1), self.scale_dtype)
        each[:outputs] = scales.reshape(outputs, -1)
        packed = np.ascontiguousarray(each.reshape(panels, self.width, -1).transpose(0, 2, 1)).reshape(-1).view(np.uint8)
        stored[self.scales_at(outputs, inputs) :].view(np.uint8)[: packed.size] = packed
        return stored

    def __str__(self) -> str:
        return f"{{panels of {self.width}, {self.kept} of {FOUR} codes of {self.bits} bits}}"


def _in_words(numbers: np.ndarray, bits: int) -> np.ndarray:
    """The lowest ``bits`` of numbers along the last axis in words of 32 bits, the first one lowest."""
    each = _WORD_BITS // bits
    digits = (numbers.astype(np.int64) & ((1 << bits) - 1)).reshape(*numbers.shape[:-1], -1, each)
    words: np.ndarray = (digits << (np.arange(each) * bits)).sum(axis=-1).astype(np.uint32)
    return words


def _lines(words: int) -> int:
    return -(-words // LINE) * LINE
