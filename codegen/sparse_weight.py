"""How sparse kernels want a weight stored: one array of 4-byte words that holds counts, places and the elements that are not zero.

The forms are those of :mod:`mlc.ir.sparse`. Where the outputs are shared among threads, the boundaries of their shares are stored
as well: each gets about as many elements. A weight is [outputs, inputs, 1...], or with ``transposed`` [inputs, outputs]. Of a weight that
is held as codes these are stored in the place of the elements, with a scale for each output behind them (:class:`StoredValues`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import LoweringError
from ..ir import Constant, EncodedConstant, Encoding
from ..ir.encoding import STORED
from ..ir.sparse import Panels, kept_of_groups, pack_bitmap, pack_panels
from .constant_layout import ConstantForm, register_form

LINE = 16
"""Words of a cache line, at whose multiples the parts of a stored weight start."""


class StoredValues(enum.Enum):
    """How the elements that are not left out are stored; the value names it in files."""

    FLOATS = "f32"
    """As they are."""
    BYTES = "i8"
    """As codes of 8 bits, each output with a scale."""

    @staticmethod
    def of(encoding: Encoding, output_axis: int) -> StoredValues | None:
        """What kernels read of numbers in the dense ``encoding``, of a weight with its outputs along an axis; None where they do not."""
        if encoding.is_dense:
            return StoredValues.FLOATS
        given = dict(encoding.parameters)
        fits = given.get("storage") == "i8" and given.get("scale") == STORED and "zero_point" not in given and given["axis"] == output_axis
        return StoredValues.BYTES if encoding.name == "affine" and fits else None

    @property
    def dtype(self) -> str:
        """Of an element."""
        return "float32" if self is StoredValues.FLOATS else "int8"

    @property
    def nbytes(self) -> int:
        """Of an element."""
        return np.dtype(self.dtype).itemsize

    def words(self, elements: int) -> int:
        """The size of so many elements, in whole lines."""
        return _lines(-(-elements * self.nbytes // 4))

    def scale_words(self, outputs: int) -> int:
        """The size of the scales, in whole lines."""
        return 0 if self is StoredValues.FLOATS else _lines(outputs)

    def elements(self, constant: Constant) -> np.ndarray:
        """The array whose elements are stored, zero where the weight is; LoweringError for a constant without codes."""
        return constant.array() if self is StoredValues.FLOATS else _encoded(constant).codes

    def scales(self, constant: Constant, outputs: int) -> np.ndarray:
        """The scales of the weight's outputs, and 0 for what is beyond them up to ``outputs``."""
        scales = _encoded(constant).scales
        assert scales is not None
        return np.pad(scales.reshape(-1), (0, outputs - scales.size))


def _encoded(constant: Constant) -> EncodedConstant:
    if not isinstance(constant, EncodedConstant):
        raise LoweringError(f"{constant!r} has no codes to pack; give the kernel a constant that is encoded")
    return constant


@register_form
@dataclass(frozen=True)
class PanelWeight(ConstantForm):
    """A weight in panels of ``width`` outputs, at most ``capacity`` entries in all.

    Parts: the first entry of each panel and the end of the last; the first panel of each of ``shares`` and the end; the columns of the
    entries, in 16 bits where there are few enough inputs; their values; the scales of the outputs. With ``places``, a number for each axis
    of the inputs (of a convolution's weight also those of its window), the columns are sums of indices times these, in ascending order.
    """

    kind: ClassVar[str] = "sparse_panels"
    width: int
    capacity: int
    shares: int = 1
    transposed: bool = False
    values: StoredValues = StoredValues.FLOATS
    places: tuple[int, ...] = ()

    def panels(self, outputs: int) -> int:
        return -(-outputs // self.width)

    def bounds_at(self, outputs: int) -> int:
        """Where the boundaries of shares are stored."""
        return _lines(self.panels(outputs) + 1)

    def columns_at(self, outputs: int) -> int:
        """Where the columns of the entries are stored."""
        return self.bounds_at(outputs) + _lines(self.shares + 1)

    def column_dtype(self, inputs: int) -> str:
        """How a column is stored."""
        return "uint16" if inputs <= 1 << 16 and not self.places else "int32"

    def values_at(self, outputs: int, inputs: int) -> int:
        """Where the values of the entries are stored."""
        words = -(-self.capacity * np.dtype(self.column_dtype(inputs)).itemsize // 4)
        return self.columns_at(outputs) + _lines(words)

    def scales_at(self, outputs: int, inputs: int) -> int:
        """Where the scales of the outputs are stored, if there are any."""
        return self.values_at(outputs, inputs) + self.values.words(self.capacity * self.width)

    def words(self, outputs: int, inputs: int) -> int:
        """The size of the stored array."""
        return self.scales_at(outputs, inputs) + self.values.scale_words(self.panels(outputs) * self.width)

    def nbytes(self, constant: Constant) -> int:
        return 4 * self.words(*_matrix_shape(constant.type.static_shape, self.transposed))

    def document(self) -> list[Any]:
        return [self.width, self.capacity, self.shares, self.transposed, self.values.value, list(self.places)]

    @classmethod
    def of(cls, document: list[Any]) -> PanelWeight:
        width, capacity, shares, transposed, values, places = document
        each = tuple(int(place) for place in places)
        return cls(int(width), int(capacity), int(shares), bool(transposed), StoredValues(values), each)

    def pack(self, constant: Constant) -> np.ndarray:
        """The stored array; LoweringError when there are more entries than ``capacity``."""
        matrix = _matrix(self.values.elements(constant), self.transposed)
        packed = self._placed(pack_panels(matrix, self.width), constant.type.static_shape[1:])
        if len(packed.columns) > self.capacity:
            raise LoweringError(f"a sparse weight of {len(packed.columns)} entries does not fit the {self.capacity} of its type")
        outputs, inputs = matrix.shape
        words = np.zeros(self.words(outputs, inputs), np.int32)
        _put(words, 0, packed.starts)
        _put(words, self.bounds_at(outputs), equal_shares(packed.starts, self.shares))
        _put(words, self.columns_at(outputs), packed.columns.astype(self.column_dtype(inputs)))
        _put(words, self.values_at(outputs, inputs), packed.values)
        if self.values is StoredValues.BYTES:
            _put(words, self.scales_at(outputs, inputs), self.values.scales(constant, self.panels(outputs) * self.width))
        return words

    def _placed(self, panels: Panels, inputs: Sequence[int]) -> Panels:
        """``panels`` with what is stored in the place of their columns."""
        if not self.places:
            return panels
        columns = np.tensordot(self.places, np.unravel_index(panels.columns, tuple(inputs)), 1).astype(np.int32)
        order = np.lexsort((columns, np.repeat(np.arange(len(panels.starts) - 1), np.diff(panels.starts))))
        return Panels(panels.starts, columns[order], panels.values[order])

    def __str__(self) -> str:
        return f"{{panels of {self.width}, {self.capacity} {self.values.value} entries, {self.shares} shares}}"


@register_form
@dataclass(frozen=True)
class BitmapWeight(ConstantForm):
    """A weight as a bitmap, at most ``capacity`` elements in all: ``rows`` outputs together, ``lanes`` inputs of each at a time.

    Parts: the first element of each group of outputs and the end of the last; the first group of each of ``shares`` and the end; the bits
    [groups, inputs / lanes, rows, lanes]; the elements in that order; the scales of the outputs. With ``kept`` = (n, m) exactly n of each m
    consecutive ones are stored, zeros among them if need be.
    """

    kind: ClassVar[str] = "bitmap"
    rows: int
    lanes: int
    capacity: int
    shares: int = 1
    kept: tuple[int, int] | None = None
    transposed: bool = False
    values: StoredValues = StoredValues.FLOATS

    def groups(self, outputs: int) -> int:
        return -(-outputs // self.rows)

    def steps(self, inputs: int) -> int:
        """Times ``lanes`` that the inputs are."""
        return -(-inputs // self.lanes)

    def bounds_at(self, outputs: int) -> int:
        """Where the boundaries of shares are stored."""
        return _lines(self.groups(outputs) + 1)

    def bits_at(self, outputs: int) -> int:
        """Where the bits are stored."""
        return self.bounds_at(outputs) + _lines(self.shares + 1)

    def values_at(self, outputs: int, inputs: int) -> int:
        """Where the elements are stored."""
        return self.bits_at(outputs) + _lines(-(-self.groups(outputs) * self.rows * self.steps(inputs) * self.lanes // 32))

    def stored(self, outputs: int, inputs: int) -> int:
        """Elements that there is room for."""
        if self.kept is None:
            return self.capacity
        n, m = self.kept
        return self.groups(outputs) * self.rows * self.steps(inputs) * self.lanes // m * n

    def scales_at(self, outputs: int, inputs: int) -> int:
        """Where the scales of the outputs are stored, if there are any."""
        # A whole vector is read from the last element on.
        return self.values_at(outputs, inputs) + self.values.words(self.stored(outputs, inputs) + self.lanes)

    def words(self, outputs: int, inputs: int) -> int:
        """The size of the stored array."""
        return self.scales_at(outputs, inputs) + self.values.scale_words(self.groups(outputs) * self.rows)

    def nbytes(self, constant: Constant) -> int:
        return 4 * self.words(*_matrix_shape(constant.type.static_shape, self.transposed))

    def document(self) -> list[Any]:
        kept = None if self.kept is None else list(self.kept)
        return [self.rows, self.lanes, self.capacity, self.shares, kept, self.transposed, self.values.value]

    @classmethod
    def of(cls, document: list[Any]) -> BitmapWeight:
        rows, lanes, capacity, shares, kept, transposed, values = document
        pair = None if kept is None else (int(kept[0]), int(kept[1]))
        return cls(int(rows), int(lanes), int(capacity), int(shares), pair, bool(transposed), StoredValues(values))

    def pack(self, constant: Constant) -> np.ndarray:
        """The stored array; LoweringError when there are more elements than ``capacity``."""
        matrix = _matrix(self.values.elements(constant), self.transposed)
        outputs, inputs = matrix.shape
        groups, steps = self.groups(outputs), self.steps(inputs)
        whole = np.pad(matrix, ((0, groups * self.rows - outputs), (0, steps * self.lanes - inputs)))
        kept = whole != 0 if self.kept is None else kept_of_groups(whole, *self.kept)

        def ordered(each: np.ndarray) -> np.ndarray:
            return each.reshape(groups, self.rows, steps, self.lanes).transpose(0, 2, 1, 3)

        bitmap = pack_bitmap(ordered(whole), ordered(kept))
        if len(bitmap.values) > self.stored(outputs, inputs):
            raise LoweringError(f"a sparse weight of {len(bitmap.values)} elements does not fit the {self.capacity} of its type")
        starts = np.zeros(groups + 1, np.int32)
        np.cumsum(np.count_nonzero(kept.reshape(groups, -1), axis=1), out=starts[1:])
        words = np.zeros(self.words(outputs, inputs), np.int32)
        _put(words, 0, starts)
        _put(words, self.bounds_at(outputs), equal_shares(starts, self.shares))
        _put(words, self.bits_at(outputs), bitmap.bits)
        _put(words, self.values_at(outputs, inputs), bitmap.values)
        if self.values is StoredValues.BYTES:
            _put(words, self.scales_at(outputs, inputs), self.values.scales(constant, groups * self.rows))
        return words

    def __str__(self) -> str:
        kept = "" if self.kept is None else f", {self.kept[0]} of {self.kept[1]}"
        return f"{{bitmap of {self.rows} x {self.lanes}, {self.capacity} {self.values.value} elements{kept}, {self.shares} shares}}"


def equal_shares(starts: np.ndarray, shares: int) -> np.ndarray:
    """Boundaries, in panels, of ``shares`` consecutive shares of about as many entries each. A panel without entries counts a little."""
    weights = np.diff(starts).astype(np.float64)
    before = np.concatenate([[0.0], np.cumsum(weights + max(weights.mean(), 1.0) / 16)])
    wanted = before[-1] * np.arange(1, shares) / shares
    inner = np.searchsorted(before, wanted)
    # The nearer of the two boundaries around each.
    lower = np.maximum(inner - 1, 0)
    inner = np.where(wanted - before[lower] < before[inner] - wanted, lower, inner)
    return np.concatenate([[0], inner, [len(weights)]]).astype(np.int32)


def _lines(words: int) -> int:
    return -(-words // LINE) * LINE


def _put(words: np.ndarray, start: int, part: np.ndarray) -> None:
    stored = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    words[start:].view(np.uint8)[: stored.size] = stored


def _matrix_shape(shape: Sequence[int], transposed: bool) -> tuple[int, int]:
    rows, columns = shape[0], math.prod(shape[1:])
    return (columns, rows) if transposed else (rows, columns)


def _matrix(array: np.ndarray, transposed: bool) -> np.ndarray:
    matrix = array.reshape(array.shape[0], -1)
    return np.ascontiguousarray(matrix.T) if transposed else matrix
