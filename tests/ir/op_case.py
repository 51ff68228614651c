"""One operation with operands and attributes, and what PyTorch computes for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mlc.ir import DType, Graph, GraphBuilder, TensorType

INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Case:
    """``op`` with attributes on arrays, and the same in PyTorch. ``exact``: equal bit for bit, signs of zeros included."""

    op: str
    operands: tuple[np.ndarray, ...]
    torch: Callable[..., Any]
    attributes: dict[str, Any]
    label: str = ""
    exact: bool = False

    def __str__(self) -> str:
        shapes = "x".join(f"{array.dtype}{list(array.shape)}" for array in self.operands).replace(" ", "")
        attributes = ",".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.op}-{self.label or f'{shapes}-{attributes}'}"

    def graph(self) -> Graph:
        builder = GraphBuilder()
        inputs = [builder.input(type_of(array)) for array in self.operands]
        return builder.finish(builder.add(self.op, *inputs, attributes=self.attributes).outputs)

    def expected(self) -> tuple[np.ndarray, ...]:
        result = self.torch(*(torch.from_numpy(np.array(array)) for array in self.operands))
        return tuple(tensor.numpy() for tensor in (result if isinstance(result, tuple | list) else (result,)))


def type_of(array: np.ndarray) -> TensorType:
    return TensorType(DType.from_numpy(array.dtype), array.shape)


def floats(*shape: int, seed: int = 0, positive: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed + sum(shape)).standard_normal(shape)
    return np.asarray(np.abs(values) + 0.1 if positive else values)


def integers(*shape: int, low: int = -9, high: int = 10, dtype: Any = np.int64, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed + sum(shape)).integers(low, high, shape)).astype(dtype)


def booleans(*shape: int, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed + sum(shape)).integers(0, 2, shape)).astype(bool)


def case(op: str, operands: Sequence[np.ndarray], function: Callable[..., Any], **attributes: Any) -> Case:
    return Case(op, tuple(operands), function, attributes)
