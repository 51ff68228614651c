"""Types of values: element type, shape, physical layout, encoding.

A :class:`TensorType` says everything a kernel must know about a tensor. ``shape`` is always the *logical* shape, the one PyTorch
shows; ``layout`` says in which order its elements lie in memory and ``encoding`` how an element is represented.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import TypeInferenceError
from .encoding import DENSE, Encoding
from .layout import Layout

if TYPE_CHECKING:
    import sympy

__all__ = ["DENSE", "DType", "Dim", "Encoding", "Kind", "Shape", "SymbolRange", "Symbols", "TensorType", "TokenType", "Type", "symbol"]

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
    """Element types. The value is ``(text form, bits, kind, name of the NumPy dtype)``."""

    BOOL = ("b1", 8, Kind.BOOL, "bool")
    UINT8 = ("u8", 8, Kind.INTEGER, "uint8")
    INT8 = ("i8", 8, Kind.INTEGER, "int8")
    INT16 = ("i16", 16, Kind.INTEGER, "int16")
    INT32 = ("i32", 32, Kind.INTEGER, "int32")
    INT64 = ("i64", 64, Kind.INTEGER, "int64")
    FLOAT8_E4M3 = ("f8e4m3", 8, Kind.FLOAT, "float8_e4m3fn")
    FLOAT8_E5M2 = ("f8e5m2", 8, Kind.FLOAT, "float8_e5m2")
    FLOAT16 = ("f16", 16, Kind.FLOAT, "float16")
    BFLOAT16 = ("bf16", 16, Kind.FLOAT, "bfloat16")
    FLOAT32 = ("f32", 32, Kind.FLOAT, "float32")
    FLOAT64 = ("f64", 64, Kind.FLOAT, "float64")
    COMPLEX64 = ("c64", 64, Kind.COMPLEX, "complex64")

    text: str
    bits: int
    kind: Kind

    def __init__(self, text: str, bits: int, kind: Kind, numpy_name: str) -> None:
        self.text = text
        self.bits = bits
        self.kind = kind
        self._numpy_name = numpy_name

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype. Those of bfloat16 and of 8 bits come from ml_dtypes, imported only when they are asked for."""
        if self in (DType.BFLOAT16, DType.FLOAT8_E4M3, DType.FLOAT8_E5M2):
            import ml_dtypes

            narrow: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self._numpy_name))
            return narrow
        return np.dtype(self._numpy_name)

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """``array`` in this dtype. As in PyTorch numbers beyond f8e4m3, which has no infinity, become its largest."""
        if self is DType.FLOAT8_E4M3:
            array = np.clip(array.astype(np.float64), -_LARGEST_E4M3, _LARGEST_E4M3)
        return array.astype(self.numpy)

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
            return _BY_NUMPY[_native_name(np.dtype(dtype))]
        except KeyError:
            raise ValueError(f"mlc has no element type for NumPy's {dtype}") from None

    def __repr__(self) -> str:
        return f"DType.{self.name}"


_LARGEST_E4M3 = 448.0
_BY_TEXT = {dtype.text: dtype for dtype in DType}
_BY_NUMPY = {dtype._numpy_name: dtype for dtype in DType}


def _native_name(dtype: np.dtype[Any]) -> str:
    """The name of ``dtype``, with a mark that matches nothing when its bytes are swapped."""
    return dtype.name if dtype.isnative else f"swapped {dtype.name}"


@cache
def symbol(name: str) -> sympy.Symbol:
    """The symbolic dimension called ``name``. Every symbol of a graph is made here, so that equal names are equal symbols."""
    import sympy

    return sympy.Symbol(name, integer=True, positive=True)


def _normalise_dim(dim: Any) -> Dim:
    """``dim`` as an int or as an expression with symbols; TypeInferenceError for anything else or a negative number."""
    if getattr(dim, "is_number", False) and not getattr(dim, "is_integer", False):
        raise TypeInferenceError(f"a dimension cannot be {dim}; dimensions are integers")
    if getattr(dim, "free_symbols", None):
        if not getattr(dim, "is_Boolean", False) and dim.is_integer is not False:
            expression: Dim = dim
            return expression
        raise TypeInferenceError(f"a dimension cannot be {dim}; dimensions are integers")
    try:
        number = operator.index(dim)
    except TypeError:
        raise TypeInferenceError(f"a dimension cannot be {dim!r}; dimensions are integers or symbolic expressions") from None
    if number < 0:
        raise TypeInferenceError(f"a dimension cannot be {number}; dimensions are at least 0")
    return number


@dataclass(frozen=True)
class TensorType:
    """The type of a tensor value.

    ``layout`` defaults to row-major over the logical shape. TypeInferenceError when a dimension is negative or no integer, or when
    layout or encoding do not fit dtype and shape.
    """

    dtype: DType
    shape: Shape
    layout: Layout = field(default=None)  # type: ignore[assignment]  # filled in below
    encoding: Encoding = DENSE

    def __post_init__(self) -> None:
        if type(self.shape) is not tuple or any(type(dim) is not int or dim < 0 for dim in self.shape):
            object.__setattr__(self, "shape", tuple(_normalise_dim(dim) for dim in self.shape))
        if self.layout is None:
            object.__setattr__(self, "layout", Layout.row_major(len(self.shape)))
        if self.layout.rank != len(self.shape):
            raise TypeInferenceError(f"layout {self.layout} has rank {self.layout.rank}, the shape {self.shape} has {len(self.shape)}")
        if self.encoding is not DENSE:
            self.encoding.check(self.dtype.text, self.shape)

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
    def size(self) -> Dim:
        """Number of logical elements, an expression when the shape is symbolic."""
        return math.prod(self.shape)

    @property
    def is_empty(self) -> bool:
        """Whether a dimension is 0, whatever the symbolic ones are."""
        return 0 in self.shape

    @property
    def physical_shape(self) -> tuple[int, ...]:
        """Extents of the stored array, outermost first, padded lanes included (static shapes only)."""
        return self.layout.physical_shape(self.static_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array stored densely (static shapes), as it is for everything that does not know its encoding."""
        return math.prod(self.physical_shape) * self.dtype.nbytes

    def with_shape(self, shape: Sequence[Dim]) -> TensorType:
        """Same dtype and encoding, row-major, with another shape."""
        return TensorType(self.dtype, tuple(shape), encoding=self.encoding)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape, self.layout, self.encoding)

    def with_layout(self, layout: Layout | None) -> TensorType:
        """Same logical tensor in another physical order (None: row-major)."""
        return TensorType(self.dtype, self.shape, layout, self.encoding)  # type: ignore[arg-type]

    def with_encoding(self, encoding: Encoding) -> TensorType:
        """Same logical tensor in the same order, its elements represented otherwise."""
        return TensorType(self.dtype, self.shape, self.layout, encoding)

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
    """The type of a state token: one version of a mutable buffer that holds a ``buffer`` tensor.

    A token is consumed at most once, so the chain of its reads and writes is their order. Without a buffer it only orders.
    """

    buffer: TensorType | None = None

    def __str__(self) -> str:
        return "token" if self.buffer is None else f"token({self.buffer})"


Type: TypeAlias = TensorType | TokenType


@dataclass(frozen=True)
class SymbolRange:
    """Inclusive bounds of a symbolic dimension; ``upper`` None means unbounded."""

    lower: int = 1
    upper: int | None = None

    def __post_init__(self) -> None:
        if self.lower < 0 or (self.upper is not None and self.upper < self.lower):
            raise TypeInferenceError(f"the range {self.lower}..{self.upper} of a symbol is empty or negative")

    @property
    def typical(self) -> int:
        """A number in the range for which to choose schedules: the geometric middle; 32 where nothing bounds it from above."""
        lower = max(self.lower, 1)
        if self.upper is None:
            return max(lower, 32)
        return min(max(round(math.sqrt(lower * max(self.upper, 1))), self.lower), self.upper)


Symbols: TypeAlias = Mapping[str, SymbolRange]
