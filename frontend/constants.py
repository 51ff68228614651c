"""Parameters, buffers and lifted tensors as constants that share the model's memory."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

from ..ir import ArrayConstant
from .dtypes import from_torch
from .unsupported import Unsupported


class ConstantPool:
    """Turns tensors into constants; tied weights (views of the same memory) become one constant, which is hashed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], ArrayConstant] = {}

    def constant(self, tensor: torch.Tensor) -> ArrayConstant:
        """The constant of ``tensor``, without copying a contiguous one: it must not change while the constant lives.

        :class:`Unsupported` for what is not a dense tensor of a known element type.
        """
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise Unsupported(f"the constant has the layout {tensor.layout} and dtype {tensor.dtype}: make it dense")
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())
        if key not in self._known:
            self._known[key] = ArrayConstant(to_numpy(tensor))
        return self._known[key]


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's data as a C-contiguous array; shares memory where the tensor is contiguous and on the CPU."""
    dtype = from_torch(tensor.dtype)
    plain = tensor.detach().resolve_neg().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        return plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    array = plain.numpy()
    assert array.dtype == dtype.numpy
    return array
