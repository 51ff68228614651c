"""Complex tensors as pairs of real ones: the pair, what its converters work with, and which function converts which operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch._ops import OpOverload

from ..ir import ArrayConstant, Dim, DType, GraphBuilder, TensorType, Value
from .constants import to_numpy
from .conversion import Conversion
from .dimensions import dims
from .registry import entering
from .unsupported import Unsupported

PARTS = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}
"""The dtype of the parts of each complex dtype."""


@dataclass(frozen=True)
class Complex:
    """A complex tensor: two real values of one type."""

    real: Value
    imag: Value

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.real.tensor.shape

    @property
    def dtype(self) -> DType:
        """The dtype of the parts."""
        return self.real.tensor.dtype

    @property
    def parts(self) -> tuple[Value, Value]:
        return self.real, self.imag

    def map(self, function: Callable[[Value], Value]) -> Complex:
        """``function`` of each part."""
        return Complex(function(self.real), function(self.imag))


ComplexOperand: TypeAlias = "Complex | Value | bool | int | float | complex"
ComplexResult: TypeAlias = "Complex | Value | Sequence[Complex | Value | None]"
ComplexConverter: TypeAlias = Callable[..., ComplexResult]
_AnyConverter = TypeVar("_AnyConverter", bound=ComplexConverter)

_CONVERTERS: dict[OpOverload, ComplexConverter] = {}


def converts_complex(*operations: OpOverload) -> Callable[[_AnyConverter], _AnyConverter]:
    """Registers the decorated function as the converter of ``operations`` where a complex tensor enters or leaves them.

    It gets a :class:`Conversion` in whose results complex dtypes are replaced by those of the parts.
    """

    return entering(_CONVERTERS, operations, " for complex numbers")


def complex_converter_of(target: Any) -> ComplexConverter | None:
    """The converter for complex numbers of what an fx node calls, if there is one."""
    return _CONVERTERS.get(target)


def is_complex(example: Any) -> bool:
    """Whether a (fake) tensor is complex."""
    return isinstance(example, torch.Tensor) and example.dtype.is_complex


def of_parts(result: torch.Tensor | None) -> torch.Tensor | None:
    """A (fake) complex tensor's counterpart with the dtype of its parts."""
    return torch.empty_like(result, dtype=PARTS[result.dtype]) if result is not None and result.dtype in PARTS else result


def constant(builder: GraphBuilder, tensor: torch.Tensor) -> Complex:
    """A complex parameter or buffer."""
    pair = torch.view_as_real(tensor.detach().resolve_conj().resolve_neg())
    real, imag = (builder.constant(ArrayConstant(np.array(to_numpy(part)))) for part in pair.unbind(-1))
    return Complex(real, imag)


def input_type(tensor: torch.Tensor) -> TensorType:
    """How a complex argument is passed: its parts interleaved, as PyTorch stores them. :class:`Unsupported` other than complex64."""
    if tensor.dtype is not torch.complex64:
        raise Unsupported(f"{tensor.dtype} is complex: pass torch.complex64, or real and imaginary parts in separate tensors")
    return TensorType(DType.FLOAT32, (*dims(tensor.shape), 2))


def parted(builder: GraphBuilder, pair: Value) -> Complex:
    """A value [..., 2] as a complex tensor [...]."""
    axis, shape = pair.tensor.rank - 1, pair.tensor.shape[:-1]

    def part(number: int) -> Value:
        return builder.call("reshape", builder.call("slice", pair, axis=axis, start=number, stop=number + 1), shape=shape)

    return Complex(part(0), part(1))


def paired(builder: GraphBuilder, z: Complex) -> Value:
    """A complex tensor [...] as a value [..., 2]."""
    columns = [builder.call("reshape", part, shape=(*z.shape, 1)) for part in z.parts]
    return builder.call("concat", *columns, axis=len(z.shape))


def as_complex(c: Conversion, x: ComplexOperand, dtype: DType) -> Complex:
    """A complex or real tensor or number as a complex tensor whose parts have ``dtype``."""
    if isinstance(x, Complex):
        return x.map(lambda part: c.cast(part, dtype))
    if isinstance(x, Value):
        return Complex(c.cast(x, dtype), c.broadcast(c.scalar(0, dtype), x.tensor.shape))
    number = complex(x)
    return Complex(c.scalar(number.real, dtype), c.scalar(number.imag, dtype))
