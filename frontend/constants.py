"""Parameters, buffers and lifted tensors as constants that share the model's memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from threading import Thread

import ml_dtypes
import numpy as np
import torch

from ..ir import ArrayConstant
from .dtypes import from_torch
from .unsupported import Unsupported

_LARGE = 1 << 16
"""Bytes of a tensor that takes longer to hash than to look up."""


class ConstantPool:
    """Turns tensors into constants; tied weights (views of the same memory) become one constant, which is hashed once.

    Those that another pool ``knows`` are taken from there.
    """

    def __init__(self, knows: ConstantPool | None = None) -> None:
        self._known: dict[tuple[object, ...], ArrayConstant] = dict(knows._known) if knows is not None else {}

    def constant(self, tensor: torch.Tensor) -> ArrayConstant:
        """The constant of ``tensor``, without copying a contiguous one: it must not change while the constant lives.

        :class:`Unsupported` for what is not a dense tensor of a known element type.
        """
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise Unsupported(f"the constant has the layout {tensor.layout} and dtype {tensor.dtype}: make it dense")
        version = 0 if tensor.is_inference() else tensor._version
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride(), version)
        if key not in self._known:
            self._known[key] = ArrayConstant(to_numpy(tensor))
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def hash(self) -> None:
        """Computes the hashes of the constants so far."""
        for constant in list(self._known.values()):
            _ = constant.digest


def hashed_meanwhile(tensors: Iterable[torch.Tensor]) -> ConstantPool:
    """A pool of the large ones of ``tensors`` that are constants without a copy. A thread hashes them while the caller does something else,
    for which it holds no lock of the interpreter."""
    pool = ConstantPool()
    for tensor in tensors:
        ordinary = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided and tensor.device.type == "cpu"
        if ordinary and tensor.nbytes >= _LARGE and tensor.is_contiguous() and not tensor.is_neg() and not tensor.is_complex():
            with contextlib.suppress(Unsupported):
                pool.constant(tensor)
    Thread(target=pool.hash, name="mlc-hash").start()
    return pool


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's data as a C-contiguous array; shares memory where the tensor is contiguous and on the CPU."""
    dtype = from_torch(tensor.dtype)
    plain = tensor.detach().resolve_neg().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        return plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    array = plain.numpy()
    assert array.dtype == dtype.numpy
    return array
