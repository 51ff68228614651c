"""A graph under construction, and random choices over the values in it: what all steps draw with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ...errors import Error
from ...ir import ArrayConstant, DType, GraphBuilder, TensorType, Value

_Item = TypeVar("_Item")

EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 33)
MAX_ELEMENTS = 3000

F32 = DType.FLOAT32
INTEGERS = (DType.INT64, DType.INT32, DType.INT16, DType.INT8, DType.UINT8)
STORED = (F32, DType.FLOAT64, DType.BOOL, *INTEGERS)


def draw_array(generator: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """Floats of size 1 (some whole, some zero), small integers, or either boolean."""
    if dtype is DType.BOOL:
        return np.asarray(generator.random(shape) < 0.5)
    if dtype.is_integer:
        low = 0 if dtype is DType.UINT8 else -9
        return np.asarray(generator.integers(low, 10, shape)).astype(dtype.numpy)
    array = np.asarray(generator.standard_normal(shape))
    if generator.random() < 0.2:
        array = np.round(array * 2) / 2
    return array.astype(dtype.numpy)


class Drawing:
    """A graph under construction: ``pool`` holds the values made so far, at first one to three inputs."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.builder = GraphBuilder()
        self.pool: list[Value] = []
        rank = int(generator.integers(0, 5))
        shape = self.shape(rank)
        for number in range(int(generator.integers(1, 4))):
            own = shape if number == 0 or generator.random() < 0.6 else self.shape(int(generator.integers(0, 5)))
            self.pool.append(self.builder.input(TensorType(self.dtype(), own)))

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def choice(self, items: Sequence[_Item]) -> _Item:
        return items[int(self.generator.integers(len(items)))]

    def shape(self, rank: int) -> tuple[int, ...]:
        while True:
            shape = tuple(0 if self.chance(0.01) else self.choice(EXTENTS) for _ in range(rank))
            if math.prod(shape) <= MAX_ELEMENTS:
                return shape

    def dtype(self) -> DType:
        return F32 if self.chance(0.75) else self.choice(STORED)

    def pick(self, accept: Callable[[TensorType], bool] = lambda type: True) -> Value:
        """A value that ``accept`` takes, the latest more often; Error when there is none."""
        fitting = [value for value in self.pool if accept(value.tensor)]
        if not fitting:
            raise Error("no value fits")
        return fitting[-4:][int(self.generator.integers(len(fitting[-4:])))] if self.chance(0.7) else self.choice(fitting)

    def floating(self, rank: int = 0, dtype: DType | None = None) -> Value:
        """A float of at least that rank."""
        return self.pick(lambda type: type.dtype.is_float and type.rank >= rank and (dtype is None or type.dtype is dtype))

    def axis(self, value: Value) -> int:
        if value.tensor.rank == 0:
            raise Error("a scalar has no axes")
        return int(self.generator.integers(value.tensor.rank))

    def array(self, shape: tuple[int, ...], dtype: DType = F32, scale: float = 1.0) -> Value:
        """A constant or, now and then, a new input."""
        if self.chance(0.15):
            return self.builder.input(TensorType(dtype, shape))
        array = draw_array(self.generator, shape, dtype)
        return self.builder.constant(ArrayConstant(array if dtype is not F32 else (array * scale).astype(np.float32)))

    def limited(self, x: Value, low: float, high: float) -> Value:
        return self.builder.call("clamp", x, min=low, max=high)

    def number(self, like: Value, value: float) -> Value:
        dtype = like.tensor.dtype
        return self.builder.call("full", shape=(), value=value if dtype.is_float else int(value), dtype=dtype)

    def partner(self, x: Value) -> Value:
        """A value that broadcasts with ``x``: of the pool, a number, or a constant along some of its axes."""
        dtype, shape = x.tensor.dtype, x.tensor.static_shape
        if self.chance(0.5):
            return self.pick(lambda type: type.dtype is dtype)
        if self.chance(0.3):
            return self.number(x, self.choice((0.0, 1.0, -1.0, 2.0, 0.5, 3.0)))
        drop = int(self.generator.integers(len(shape) + 1))
        return self.array(tuple(1 if self.chance(0.3) else extent for extent in shape[drop:]), dtype)
