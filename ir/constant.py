"""Constants: content-addressed tensors whose data may be computed lazily from other constants."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

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


class ArrayConstant(Constant):
    """A constant held as an array. The array is not copied: it must not change afterwards."""

    def __init__(self, array: np.ndarray) -> None:
        view = np.ascontiguousarray(array).reshape(array.shape)
        if view is array:
            view = array.view()
        view.flags.writeable = False
        self._array = view
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

    Its digest hashes the expression, not the data, so that identical foldings are shared without evaluating them.
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
        text = f"{op}|{attributes!r}|{result}|{type}|" + "|".join(constant.digest for constant in inputs)
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def array(self) -> np.ndarray:
        if self._array is None:
            assert self._evaluate is not None
            array = np.ascontiguousarray(self._evaluate())
            array.flags.writeable = False
            self._array = array
            self._evaluate = None
        return self._array
