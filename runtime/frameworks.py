"""The two kinds of tensors callers bring, NumPy's and torch's: checking them, copying what does not fit, making new ones.

torch is never imported here unless the process already has: a caller who passes a torch tensor has imported it.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..errors import SignatureError
from ..ir.program import ALIGNMENT, Signature, SymbolSpec, TensorSpec
from ..ir.types import DType, Kind
from . import _native
from .sizes import concrete, native_size, typical_values

_DLPACK_CODES = {Kind.BOOL: 6, Kind.INTEGER: 0, Kind.FLOAT: 2, Kind.COMPLEX: 5}


def native_spec(spec: TensorSpec, symbols: Sequence[SymbolSpec] = ()) -> _native.SpecTuple:
    """A spec as the native extension wants it: name, DLPack code, bits, shape."""
    dtype = DType.parse(spec.dtype)
    code = {DType.BFLOAT16: 4, DType.UINT8: 1}.get(dtype, _DLPACK_CODES[dtype.kind])
    shape = tuple(extent if isinstance(extent, int) else native_size(extent, symbols) for extent in spec.shape)
    return spec.name, code, dtype.bits, shape


def nbytes(spec: TensorSpec) -> int:
    """Bytes of a tensor of the spec."""
    return int(np.prod(spec.static_shape, dtype=np.int64)) * DType.parse(spec.dtype).numpy.itemsize


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a dense row-major tensor."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


class Framework(ABC):
    """One kind of tensor. Specs are those of a call: their extents are numbers."""

    @abstractmethod
    def check(self, spec: TensorSpec, value: Any) -> Any:
        """``value`` as a tensor of this kind; SignatureError when dtype, shape or device are not the spec's."""

    @abstractmethod
    def prepare(self, spec: TensorSpec, value: Any) -> tuple[Any, int]:
        """A tensor with the content of ``value`` as a program can read it, and its address; the same tensor when it fits.

        SignatureError as :meth:`check`.
        """

    @abstractmethod
    def empty(self, spec: TensorSpec) -> tuple[Any, int]:
        """A new tensor and its address."""

    @abstractmethod
    def assign(self, tensor: Any, value: Any) -> None:
        """Copies ``value`` into ``tensor``, both of this kind."""

    @abstractmethod
    def require_writable(self, spec: TensorSpec, value: Any) -> None:
        """SignatureError when ``value``, given for an input that the program changes, cannot be written."""

    @abstractmethod
    def from_array(self, array: np.ndarray, spec: TensorSpec) -> Any:
        """A tensor of this kind with the content of ``array``."""

    @abstractmethod
    def note_mutation(self, tensors: Sequence[Any]) -> None:
        """Tells the framework that a program changed ``tensors`` in place."""

    @abstractmethod
    def random(self, spec: TensorSpec, seed: int) -> Any:
        """A tensor to time a program with: normally distributed floats, zeros elsewhere (valid indices and masks)."""

    @staticmethod
    def numpy_dtype(spec: TensorSpec) -> np.dtype[Any]:
        """NumPy's dtype of a spec."""
        return DType.parse(spec.dtype).numpy


class NumpyFramework(Framework):
    """NumPy arrays, and whatever else converts to one: array scalars, objects with DLPack or the array interface."""

    def __init__(self) -> None:
        _native.adopt_numpy(np.ndarray, {dtype.numpy.name: dtype.numpy for dtype in DType})

    def check(self, spec: TensorSpec, value: Any) -> np.ndarray:
        array = _as_array(spec, value)
        expected = DType.parse(spec.dtype).numpy
        _check(spec, array.dtype == expected, f"dtype {array.dtype}", f"dtype {expected}", f"{spec.name}.astype('{expected}')")
        _check_shape(spec, array.shape)
        return array

    def prepare(self, spec: TensorSpec, value: Any) -> tuple[Any, int]:
        array = self.check(spec, value)
        address = array.__array_interface__["data"][0]
        if array.flags.c_contiguous and (address % ALIGNMENT == 0 or array.nbytes == 0):
            return array, address
        copy, address = self.empty(spec)
        np.copyto(copy, array)
        return copy, address

    def empty(self, spec: TensorSpec) -> tuple[Any, int]:
        dtype = DType.parse(spec.dtype).numpy
        nbytes = int(np.prod(spec.static_shape, dtype=np.int64)) * dtype.itemsize
        array: np.ndarray = np.ndarray(spec.static_shape, dtype, buffer=memoryview(_native.Buffer(nbytes)))
        return array, array.__array_interface__["data"][0]

    def assign(self, tensor: Any, value: Any) -> None:
        np.copyto(tensor, value)

    def require_writable(self, spec: TensorSpec, value: Any) -> None:
        if self.check(spec, value) is not value:
            raise SignatureError(f"input '{spec.name}' is changed in place; pass an array, not a {type(value).__name__}")
        if not value.flags.writeable:
            raise SignatureError(f"input '{spec.name}', which the model changes in place, is read-only; pass a copy of it")

    def from_array(self, array: np.ndarray, spec: TensorSpec) -> Any:
        return array

    def note_mutation(self, tensors: Sequence[Any]) -> None:
        pass

    def random(self, spec: TensorSpec, seed: int) -> Any:
        dtype = DType.parse(spec.dtype)
        array, _ = self.empty(spec)
        array[...] = np.random.default_rng(seed).standard_normal(spec.static_shape).astype(dtype.numpy) if dtype.is_float else 0
        return array


class TorchFramework(Framework):
    """torch tensors, on the CPU unless said otherwise."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        names = {"b1": "bool", "c64": "complex64"}
        self.dtypes = {dtype.text: getattr(torch, names.get(dtype.text, dtype.numpy.name)) for dtype in DType}
        _native.adopt_torch(
            torch.Tensor,
            torch.nn.Parameter,
            torch.empty_strided,
            torch.is_grad_enabled,
            {str(dtype).removeprefix("torch."): dtype for dtype in self.dtypes.values()},
            torch.Tensor.__dlpack_c_exchange_api__,
        )

    def check(self, spec: TensorSpec, value: Any) -> Any:
        value = self.check_anywhere(spec, value)
        _check(spec, value.device.type == "cpu", f"device {value.device}", "device cpu", f"{spec.name}.cpu()")
        return value

    def check_anywhere(self, spec: TensorSpec, value: Any) -> Any:
        """Like :meth:`check`, on whatever device the tensor is."""
        torch = self.torch
        if not isinstance(value, torch.Tensor):
            value = torch.from_numpy(np.array(_as_array(spec, value)))
        expected = self.dtypes[spec.dtype]
        _check(spec, value.dtype == expected, f"dtype {value.dtype}", f"dtype {expected}", f"{spec.name}.to({expected})")
        _check_shape(spec, tuple(value.shape))
        _check(spec, value.layout == torch.strided, f"layout {value.layout}", "a dense layout", f"{spec.name}.to_dense()")
        return value

    def prepare(self, spec: TensorSpec, value: Any) -> tuple[Any, int]:
        torch = self.torch
        value = self.check(spec, value)
        plain = not (value.is_conj() or value.is_neg()) and type(value) in (torch.Tensor, torch.nn.Parameter)
        if plain and value.is_contiguous() and (value.data_ptr() % ALIGNMENT == 0 or value.numel() == 0):
            return value, value.data_ptr()
        copy, address = self.empty(spec)
        with torch.no_grad():
            copy.copy_(value)
        return copy, address

    def empty(self, spec: TensorSpec) -> tuple[Any, int]:
        shape = spec.static_shape
        tensor = self.torch.empty_strided(shape, row_major_strides(shape), dtype=self.dtypes[spec.dtype], device="cpu")
        return tensor, tensor.data_ptr()

    def assign(self, tensor: Any, value: Any) -> None:
        with self.torch.no_grad():
            tensor.copy_(value)

    def require_writable(self, spec: TensorSpec, value: Any) -> None:
        if self.check(spec, value) is not value:
            raise SignatureError(f"input '{spec.name}' is changed in place; pass a tensor, not a {type(value).__name__}")

    def from_array(self, array: np.ndarray, spec: TensorSpec) -> Any:
        torch = self.torch
        # NumPy has no bfloat16 that torch knows.
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return torch.from_numpy(bits.copy()).view(self.dtypes[spec.dtype]).reshape(spec.shape)

    def note_mutation(self, tensors: Sequence[Any]) -> None:
        self.torch.autograd.graph.increment_version(tensors)

    def random(self, spec: TensorSpec, seed: int) -> Any:
        tensor, _ = self.empty(spec)
        with self.torch.no_grad():
            if tensor.is_floating_point():
                return tensor.normal_(generator=self.torch.Generator().manual_seed(seed))
            return tensor.zero_()


@cache
def numpy_framework() -> NumpyFramework:
    return NumpyFramework()


@cache
def torch_framework() -> TorchFramework:
    return TorchFramework()


def is_torch_tensor(value: Any) -> bool:
    """Whether ``value`` is a torch tensor; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def needs_gradient(value: Any) -> bool:
    """Whether autograd, as it is set now, would record what is done with ``value``."""
    return is_torch_tensor(value) and value.requires_grad and sys.modules["torch"].is_grad_enabled()


def framework_of(values: Sequence[Any]) -> Framework:
    """What the outputs of a call on ``values`` shall be: torch's if any of them is."""
    return torch_framework() if any(is_torch_tensor(value) for value in values) else numpy_framework()


def _as_array(spec: TensorSpec, value: Any) -> np.ndarray:
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise SignatureError(
                f"input '{spec.name}' cannot be read as a CPU array: {error}; pass a NumPy array or torch tensor"
            ) from error
    if hasattr(value, "__array_interface__"):
        return np.asarray(value)
    raise SignatureError(
        f"input '{spec.name}' must be a tensor of {describe(spec)}, got a {type(value).__name__}; pass a NumPy array or a torch tensor"
    )


def describe(spec: TensorSpec) -> str:
    """A spec as IR text writes it: ``f32[1,3]``."""
    return f"{spec.dtype}[{','.join(map(str, spec.shape))}]"


def describe_signature(signature: Signature) -> str:
    """A signature on one line: ``(x: f32[1,3]) -> f32[1,2]``, with ``where s0 in 1..16`` behind it if sizes are symbolic."""
    inputs = ", ".join(f"{spec.name}: {describe(spec)}" for spec in signature.inputs)
    ranges = ", ".join(f"{each.name} in {each.lower}..{'' if each.upper is None else each.upper}" for each in signature.symbols)
    return f"({inputs}) -> {', '.join(describe(spec) for spec in signature.outputs)}{' where ' + ranges if ranges else ''}"


def random_inputs(signature: Signature, *, torch: bool = False, seed: int = 0) -> list[Any]:
    """Flat inputs to run a program with, of typical sizes: normally distributed floats, zeros elsewhere (valid as indices and masks)."""
    signature = concrete(signature, typical_values(signature))
    framework = torch_framework() if torch else numpy_framework()
    return [framework.random(spec, seed + index) for index, spec in enumerate(signature.inputs)]


def _check(spec: TensorSpec, holds: bool, got: str, expected: str, remedy: str) -> None:
    if not holds:
        raise SignatureError(f"input '{spec.name}' has {got}, the program was compiled for {expected}; pass {remedy}")


def _check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(spec.shape):
        raise SignatureError(
            f"input '{spec.name}' has shape {tuple(shape)}, the program was compiled for {tuple(spec.shape)}; "
            "pass that shape, or compile with example inputs of the other one"
        )
