"""Types of values: element type, shape, physical layout, encoding.

A :class:`TensorType` says everything a kernel must know about a tensor. ``shape`` is always the *logical* shape, the one PyTorch
shows; ``layout`` says in which order its elements lie in memory and ``encoding`` how an element is represented.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import ml_dtypes
import numpy as np

from ..errors import TypeInferenceError
from .layout import Layout

if TYPE_CHECKING:
    import sympy

Dim: TypeAlias = "int | sympy.Expr"
"""A dimension: a number, or an expression over the graph's symbols."""

Shape: TypeAlias = "tuple[Dim, ...]"


class Kind(enum.Enum):
    """What family of numbers a dtype belongs to, in the order of type promotion."""

    BOOL = 0
    INTEGER = 1
    FLOAT = 2
    COMPLEX = 3


class DType(enum.Enum):
    """Element types. The value is ``(text form, bits, kind, NumPy dtype)``."""

    BOOL = ("b1", 8, Kind.BOOL, np.dtype(np.bool_))
    UINT8 = ("u8", 8, Kind.INTEGER, np.dtype(np.uint8))
    INT8 = ("i8", 8, Kind.INTEGER, np.dtype(np.int8))
    INT16 = ("i16", 16, Kind.INTEGER, np.dtype(np.int16))
    INT32 = ("i32", 32, Kind.INTEGER, np.dtype(np.int32))
    INT64 = ("i64", 64, Kind.INTEGER, np.dtype(np.int64))
    FLOAT16 = ("f16", 16, Kind.FLOAT, np.dtype(np.float16))
    BFLOAT16 = ("bf16", 16, Kind.FLOAT, np.dtype(ml_dtypes.bfloat16))
    FLOAT32 = ("f32", 32, Kind.FLOAT, np.dtype(np.float32))
    FLOAT64 = ("f64", 64, Kind.FLOAT, np.dtype(np.float64))
    COMPLEX64 = ("c64", 64, Kind.COMPLEX, np.dtype(np.complex64))

    text: str
    bits: int
    kind: Kind
    numpy: np.dtype[np.generic]

    def __init__(self, text: str, bits: int, kind: Kind, numpy: np.dtype[np.generic]) -> None:
        self.text = text
        self.bits = bits
        self.kind = kind
        self.numpy = numpy

    @property
    def nbytes(self) -> int:
        """Bytes one element takes in memory."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind is Kind.FLOAT

    @property
    def is_integer(self) -> bool:
        return self.kind is Kind.INTEGER

    @staticmethod
    def parse(text: str) -> DType:
        """The dtype of a text form such as ``f32``; ValueError if there is none."""
        try:
            return _BY_TEXT[text]
        except KeyError:
            raise ValueError(f"no dtype is called '{text}' (known: {', '.join(_BY_TEXT)})") from None

    @staticmethod
    def from_numpy(dtype: np.dtype[np.generic]) -> DType:
        """The dtype of a NumPy dtype; ValueError if mlc has no such type."""
        try:
            return _BY_NUMPY[np.dtype(dtype)]
        except KeyError:
            raise ValueError(f"mlc has no element type for NumPy's {dtype}") from None

    def __repr__(self) -> str:
        return f"DType.{self.name}"


_BY_TEXT = {dtype.text: dtype for dtype in DType}
_BY_NUMPY = {dtype.numpy: dtype for dtype in DType}


@dataclass(frozen=True)
class Encoding:
    """How the elements of a tensor are represented; the base class of all encodings.

    ``name`` and ``parameters`` are the text form. The dense encoding (an element is its dtype's bits) is the only one that this
    version computes with; the others travel through types, text and verifier so that passes can introduce them.
    """

    name: str = "dense"
    parameters: tuple[tuple[str, int | str], ...] = ()

    @property
    def is_dense(self) -> bool:
        return self.name == "dense"

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={value}" for key, value in self.parameters)
        return f"{self.name}({inner})" if inner else self.name


DENSE = Encoding()


@dataclass(frozen=True)
class TensorType:
    """The type of a tensor value.

    ``layout`` defaults to row-major over the logical shape.
    """

    dtype: DType
    shape: Shape
    layout: Layout = field(default=None)  # type: ignore[assignment]  # filled in below
    encoding: Encoding = DENSE

    def __post_init__(self) -> None:
        if self.layout is None:
            object.__setattr__(self, "layout", Layout.row_major(len(self.shape)))
        if self.layout.rank != len(self.shape):
            raise TypeInferenceError(f"layout {self.layout} has rank {self.layout.rank}, the shape {self.shape} has {len(self.shape)}")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dimension is a number."""
        return all(isinstance(dim, int) for dim in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; TypeInferenceError when a dimension is symbolic."""
        if not self.is_static:
            raise TypeInferenceError(f"{self} has symbolic dimensions where a static shape is needed")
        return tuple(int(dim) for dim in self.shape)

    @property
    def elements(self) -> int:
        """Number of logical elements (static shapes only)."""
        return math.prod(self.static_shape)

    @property
    def physical_shape(self) -> tuple[int, ...]:
        """Extents of the stored array, outermost first, padded lanes included (static shapes only)."""
        return self.layout.physical_shape(self.static_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored array (static shapes only)."""
        return math.prod(self.physical_shape) * self.dtype.nbytes

    def with_shape(self, shape: Sequence[Dim]) -> TensorType:
        """Same dtype and encoding, row-major, with another shape."""
        return TensorType(self.dtype, tuple(shape), encoding=self.encoding)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape, self.layout, self.encoding)

    def with_layout(self, layout: Layout | None) -> TensorType:
        """Same logical tensor in another physical order (None: row-major)."""
        return TensorType(self.dtype, self.shape, layout, self.encoding)  # type: ignore[arg-type]

    def same_logical(self, other: TensorType) -> bool:
        """Whether both describe the same logical tensor, whatever the layout."""
        return (self.dtype, self.shape, self.encoding) == (other.dtype, other.shape, other.encoding)

    def __str__(self) -> str:
        text = f"{self.dtype.text}[{','.join(str(dim).replace(' ', '') for dim in self.shape)}]"
        if not self.layout.is_row_major:
            text += str(self.layout)
        if not self.encoding.is_dense:
            text += f" as {self.encoding}"
        return text


@dataclass(frozen=True)
class TokenType:
    """The type of a state token: it orders the reads and writes of one mutable buffer."""

    def __str__(self) -> str:
        return "token"


Type: TypeAlias = TensorType | TokenType


@dataclass(frozen=True)
class SymbolRange:
    """Inclusive bounds of a symbolic dimension; ``upper`` None means unbounded."""

    lower: int = 1
    upper: int | None = None


Symbols: TypeAlias = Mapping[str, SymbolRange]
