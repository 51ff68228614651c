"""Constants: content-addressed tensors whose data may be computed lazily from other constants."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import VerificationError
from .types import DType, TensorType

if TYPE_CHECKING:
    from .graph import Attribute


class Constant(ABC):
    """An immutable tensor, identified by ``digest`` (hexadecimal SHA-256 of its dtype, shape and content).

    ``type`` is the logical type; how a kernel stores the data (its layout) is decided where it is used.
    """

    type: TensorType
    digest: str

    @abstractmethod
    def array(self) -> np.ndarray:
        """The data in logical order; read-only, computed at most once."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.type}, #{self.digest[:12]})"


class ArrayConstant(Constant):
    """A constant held as an array. The array is not copied: it must not change afterwards."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = read_only(array)
        self.type = TensorType(DType.from_numpy(array.dtype), tuple(array.shape))

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        content = hashlib.sha256(str(self.type).encode())
        content.update(self._array.reshape(-1).view(np.uint8).data)
        return content.hexdigest()

    def array(self) -> np.ndarray:
        return self._array


class DerivedConstant(Constant):
    """The result of an operation over constants, evaluated when its data is first asked for.

    Its digest hashes the expression, not the data, so that identical foldings are shared without evaluating them. ``evaluate`` must
    yield an array of ``type``'s shape and dtype; it is called at most once, whichever thread asks first.
    """

    def __init__(
        self,
        op: str,
        inputs: tuple[Constant, ...],
        attributes: tuple[tuple[str, Attribute], ...],
        result: int,
        type: TensorType,
        evaluate: Callable[[], np.ndarray],
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.attributes = attributes
        self.type = type
        self._evaluate: Callable[[], np.ndarray] | None = evaluate
        self._array: np.ndarray | None = None
        self._lock = threading.Lock()
        text = f"{op}|{_attribute_text(attributes)}|{result}|{type}|" + "|".join(constant.digest for constant in inputs)
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def array(self) -> np.ndarray:
        with self._lock:
            if self._array is None:
                assert self._evaluate is not None
                array = np.asarray(self._evaluate())
                if array.shape != self.type.static_shape or array.dtype != self.type.dtype.numpy:
                    raise VerificationError(
                        f"the constant folded by {self.op} is {array.dtype}{list(array.shape)}, its type says {self.type}; "
                        "round and shape the result before it becomes a constant"
                    )
                self._array = read_only(array)
                self._evaluate = None
            return self._array


def read_only(array: np.ndarray) -> np.ndarray:
    """A contiguous view (a copy if ``array`` is strided) that cannot be written through; ``ascontiguousarray`` turns 0-d into 1-d."""
    view = np.ascontiguousarray(array).reshape(array.shape)
    view.flags.writeable = False
    return view


def _attribute_text(value: object) -> str:
    """Text that is equal for equal attributes only, in every process."""
    if isinstance(value, tuple):
        return "(" + ",".join(_attribute_text(item) for item in value) + ")"
    if isinstance(value, Constant):
        return f"#{value.digest}"
    return f"{type(value).__name__}:{value!r}"
