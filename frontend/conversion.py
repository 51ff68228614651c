"""What a converter works with: the operation being converted, and small steps that most converters need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx

from ..ir import ArrayConstant, Dim, DType, GraphBuilder, TensorType, Value
from .dimensions import dims
from .dtypes import from_torch, promote
from .unsupported import Unsupported

Number: TypeAlias = "bool | int | float"
Operand: TypeAlias = "Value | Number"

_TO_TORCH = {from_torch(dtype): dtype for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)} | {
    from_torch(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """The IR type of a (fake) tensor; :class:`Unsupported` for other element types, layouts and data-dependent shapes."""
    if tensor.layout is not torch.strided:
        raise Unsupported(f"a tensor has the layout {tensor.layout}: use dense tensors")
    return TensorType(from_torch(tensor.dtype), dims(tensor.shape))


@dataclass(frozen=True)
class Conversion:
    """The conversion of one operation. ``results`` are PyTorch's (fake) results: they say shapes and dtypes after promotion."""

    builder: GraphBuilder
    node: fx.Node
    results: tuple[torch.Tensor | None, ...]
    scalars: dict[tuple[str, DType], Value] = field(default_factory=dict)
    overwrites: bool = False
    """Whether the result replaces the content of a buffer of which the first operand is the last version."""

    @property
    def type(self) -> TensorType:
        """Type of the (first) result."""
        return self.type_of(0)

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    def type_of(self, index: int) -> TensorType:
        """Type of result number ``index``."""
        result = self.results[index]
        assert result is not None
        return tensor_type(result)

    def example(self, position: int) -> torch.Tensor:
        """PyTorch's (fake) tensor for the argument at ``position``: its strides and storage offset, which values do not have."""
        argument = self.node.args[position]
        assert isinstance(argument, fx.Node)
        tensor: torch.Tensor = argument.meta["val"]
        return tensor

    def call(self, op: str, *inputs: Value, **attributes: Any) -> Value:
        """Adds an operation of the IR and returns its only result."""
        return self.builder.call(op, *inputs, **attributes)

    def scalar(self, value: Number, dtype: DType) -> Value:
        """A 0-d tensor of one number; equal ones are shared."""
        if not isinstance(value, bool | int | float):
            raise Unsupported("the size of a symbolic dimension is used as data: compile with static shapes")
        number = representable(value, dtype)
        key = (repr(number), dtype)
        if key not in self.scalars:
            self.scalars[key] = self.call("full", shape=(), value=number, dtype=dtype)
        return self.scalars[key]

    def constant(self, array: np.ndarray) -> Value:
        """A tensor known now."""
        return self.builder.constant(ArrayConstant(array))

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.tensor.dtype is dtype else self.call("cast", x, dtype=dtype)

    def operand(self, x: Operand, dtype: DType) -> Value:
        """A tensor or a number as a tensor of ``dtype``."""
        return self.cast(x, dtype) if isinstance(x, Value) else self.scalar(x, dtype)

    def common_dtype(self, *operands: Operand) -> DType:
        """The dtype in which PyTorch computes on ``operands``."""
        tensors = [(_TO_TORCH[x.tensor.dtype], x.tensor.rank) for x in operands if isinstance(x, Value)]
        return from_torch(promote(tensors, [x for x in operands if not isinstance(x, Value)]))

    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value:
        return x if x.tensor.shape == tuple(shape) else self.call("reshape", x, shape=tuple(shape))

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        return x if list(order) == list(range(x.tensor.rank)) else self.call("permute", x, order=tuple(order))

    def broadcast(self, x: Value, shape: Sequence[Dim]) -> Value:
        return x if x.tensor.shape == tuple(shape) else self.call("broadcast_to", x, shape=tuple(shape))

    def slice(self, x: Value, axis: int, start: Dim, stop: Dim, step: int = 1) -> Value:
        """Elements start, start + step, ... below stop; bounds must lie within the axis."""
        if start == 0 and stop == x.tensor.shape[axis] and step == 1:
            return x
        return self.call("slice", x, axis=axis, start=start, stop=stop, step=step)

    def flatten(self, x: Value) -> Value:
        return x if x.tensor.rank == 1 else self.reshape(x, (elements(x.tensor.shape),))

    def reduce(self, kind: str, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
        return self.call("reduce", x, kind=kind, axes=tuple(axes), keepdims=keepdims)


def elements(shape: Sequence[Dim]) -> Dim:
    """Number of elements of a shape."""
    product: Dim = 1
    for extent in shape:
        product = product * extent
    return product


def representable(value: Number, dtype: DType) -> Number:
    """``value`` as PyTorch stores it in ``dtype``; integers wrap."""
    if dtype.is_float:
        return float(value)
    if dtype is DType.BOOL:
        return bool(value)
    limits = np.iinfo(dtype.numpy)
    return (int(value) - limits.min) % (limits.max - limits.min + 1) + limits.min


def axis_of(axis: int, rank: int) -> int:
    """``axis`` counted from the front. A 0-d tensor counts as having one axis, as in PyTorch."""
    return axis % max(rank, 1)


def axes_of(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in order; None or no axes mean all of them."""
    if axes is None or (not isinstance(axes, int) and len(axes) == 0):
        return tuple(range(rank))
    return tuple(sorted({axis_of(axis, rank) for axis in ([axes] if isinstance(axes, int) else axes)})) if rank else ()


def static(extent: Dim, what: str) -> int:
    """``extent`` as a number; :class:`Unsupported` when it is symbolic."""
    if not isinstance(extent, int):
        raise Unsupported(f"{what} is the symbolic dimension {extent}: compile with a static shape")
    return extent
