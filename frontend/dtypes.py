"""Element types of PyTorch and of the IR."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..ir import DType
from .unsupported import Unsupported

_BY_TORCH = {
    torch.bool: DType.BOOL,
    torch.uint8: DType.UINT8,
    torch.int8: DType.INT8,
    torch.int16: DType.INT16,
    torch.int32: DType.INT32,
    torch.int64: DType.INT64,
    torch.float16: DType.FLOAT16,
    torch.bfloat16: DType.BFLOAT16,
    torch.float32: DType.FLOAT32,
    torch.float64: DType.FLOAT64,
}


def from_torch(dtype: torch.dtype) -> DType:
    """The IR's dtype; :class:`Unsupported` when mlc does not compute with it."""
    try:
        return _BY_TORCH[dtype]
    except KeyError:
        if dtype.is_complex:
            raise Unsupported(f"{dtype} is complex: express it by real and imaginary parts in separate tensors") from None
        raise Unsupported(f"mlc has no element type for {dtype}: convert it to one of {', '.join(map(str, _BY_TORCH))}") from None


def promote(tensors: Iterable[tuple[torch.dtype, int]], numbers: Iterable[bool | int | float]) -> torch.dtype:
    """The dtype in which PyTorch computes on ``tensors`` (their dtype and rank) and Python ``numbers``.

    Tensors with axes outrank 0-d tensors, which outrank numbers: the lower only raise the kind (bool, integer, float) of the result.
    Source: c10's ``ResultTypeState`` and ``at::result_type``.
    """
    with_axes: torch.dtype | None = None
    without_axes: torch.dtype | None = None
    of_numbers: torch.dtype | None = None
    for dtype, rank in tensors:
        if rank > 0:
            with_axes = _widen(with_axes, dtype)
        else:
            without_axes = _widen(without_axes, dtype)
    for number in numbers:
        if isinstance(number, bool):
            of_numbers = _widen(of_numbers, torch.bool)
        else:
            of_numbers = _widen(of_numbers, torch.int64 if isinstance(number, int) else torch.get_default_dtype())
    result = _outrank(with_axes, _outrank(without_axes, of_numbers))
    assert result is not None, "an operation has at least one operand"
    return result


def _widen(first: torch.dtype | None, second: torch.dtype) -> torch.dtype:
    return second if first is None else torch.promote_types(first, second)


def _outrank(higher: torch.dtype | None, lower: torch.dtype | None) -> torch.dtype | None:
    """``higher``, unless ``lower`` is of a greater kind."""
    if higher is None or lower is None:
        return higher if lower is None else lower
    if higher.is_complex or (higher.is_floating_point and not lower.is_complex):
        return higher
    if higher is torch.bool or lower.is_floating_point or lower.is_complex:
        return torch.promote_types(higher, lower)
    return higher
