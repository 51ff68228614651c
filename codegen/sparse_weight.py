"""How sparse kernels want a weight stored: one array of 4-byte words that holds counts, places and the elements that are not zero.

The forms are those of :mod:`mlc.ir.sparse`. Where the outputs are shared among threads, the boundaries of their shares are stored
as well: each gets about as many elements. A weight is [outputs, inputs, 1...], or with ``transposed`` [inputs, outputs].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import LoweringError
from ..ir import Constant
from ..ir.sparse import kept_of_groups, pack_bitmap, pack_panels
from .constant_layout import ConstantForm, register_form

LINE = 16
"""Words of a cache line, at whose multiples the parts of a stored weight start."""


@register_form
@dataclass(frozen=True)
class PanelWeight(ConstantForm):
    """A weight in panels of ``width`` outputs, at most ``capacity`` entries in all.

    Parts: the first entry of each panel and the end of the last; the first panel of each of ``shares`` and the end; the columns of the
    entries, in 16 bits where there are few enough inputs, and their values.
    """

    kind: ClassVar[str] = "sparse_panels"
    width: int
    capacity: int
    shares: int = 1
    transposed: bool = False

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
        return "uint16" if inputs <= 1 << 16 else "int32"

    def values_at(self, outputs: int, inputs: int) -> int:
        """Where the values of the entries are stored."""
        words = -(-self.capacity * np.dtype(self.column_dtype(inputs)).itemsize // 4)
        return self.columns_at(outputs) + _lines(words)

    def words(self, outputs: int, inputs: int) -> int:
        """The size of the stored array."""
        return self.values_at(outputs, inputs) + _lines(self.capacity * self.width)

    def nbytes(self, constant: Constant) -> int:
        return 4 * self.words(*_matrix_shape(constant.type.static_shape, self.transposed))

    def document(self) -> list[Any]:
        return [self.width, self.capacity, self.shares, self.transposed]

    @classmethod
    def of(cls, document: list[Any]) -> PanelWeight:
        width, capacity, shares, transposed = document
        return cls(int(width), int(capacity), int(shares), bool(transposed))

    def pack(self, constant: Constant) -> np.ndarray:
        """The stored array; LoweringError when there are more entries than ``capacity``."""
        matrix = _matrix(constant.array(), self.transposed)
        packed = pack_panels(matrix, self.width)
        if len(packed.columns) > self.capacity:
            raise LoweringError(f"a sparse weight of {len(packed.columns)} entries does not fit the {self.capacity} of its type")
        outputs, inputs = matrix.shape
        words = np.zeros(self.words(outputs, inputs), np.int32)
        _put(words, 0, packed.starts)
        _put(words, self.bounds_at(outputs), equal_shares(packed.starts, self.shares))
        _put(words, self.columns_at(outputs), packed.columns.astype(self.column_dtype(inputs)))
        _put(words, self.values_at(outputs, inputs), packed.values)
        return words

    def __str__(self) -> str:
        return f"{{panels of {self.width}, {self.capacity} entries, {self.shares} shares}}"


@register_form
@dataclass(frozen=True)
class BitmapWeight(ConstantForm):
    """A weight as a bitmap, at most ``capacity`` elements in all: ``rows`` outputs together, ``lanes`` inputs of each at a time.

    Parts: the first element of each group of outputs and the end of the last; the first group of each of ``shares`` and the end; the bits
    [groups, inputs / lanes, rows, lanes]; the elements in that order. With ``kept`` = (n, m) exactly n of each m consecutive ones are
    stored, zeros among them if need be.
    """

    kind: ClassVar[str] = "bitmap"
    rows: int
    lanes: int
    capacity: int
    shares: int = 1
    kept: tuple[int, int] | None = None
    transposed: bool = False

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

    def words(self, outputs: int, inputs: int) -> int:
        """The size of the stored array."""
        # A whole vector is read from the last element on.
        return self.values_at(outputs, inputs) + _lines(self.stored(outputs, inputs) + self.lanes)

    def nbytes(self, constant: Constant) -> int:
        return 4 * self.words(*_matrix_shape(constant.type.static_shape, self.transposed))

    def document(self) -> list[Any]:
        kept = None if self.kept is None else list(self.kept)
        return [self.rows, self.lanes, self.capacity, self.shares, kept, self.transposed]

    @classmethod
    def of(cls, document: list[Any]) -> BitmapWeight:
        rows, lanes, capacity, shares, kept, transposed = document
        pair = None if kept is None else (int(kept[0]), int(kept[1]))
        return cls(int(rows), int(lanes), int(capacity), int(shares), pair, bool(transposed))

    def pack(self, constant: Constant) -> np.ndarray:
        """The stored array; LoweringError when there are more elements than ``capacity``."""
        matrix = _matrix(constant.array(), self.transposed)
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
        return words

    def __str__(self) -> str:
        kept = "" if self.kept is None else f", {self.kept[0]} of {self.kept[1]}"
        return f"{{bitmap of {self.rows} x {self.lanes}, {self.capacity} elements{kept}, {self.shares} shares}}"


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
