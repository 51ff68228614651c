"""Steps that make new values or move the elements of old ones."""

from __future__ import annotations

import math

from ...ir import DType, Layout, Value
from .drawing import EXTENTS, F32, Drawing


class MovementSteps(Drawing):
    """Constants and sequences; views, concatenation, padding, slices and layouts."""

    def constant(self) -> Value:
        return self.array(self.shape(int(self.generator.integers(0, 4))), self.dtype())

    def full(self) -> Value:
        dtype = self.dtype()
        value = self.choice((0.0, -0.0, 1.0, 0.5, -2.0)) if dtype.is_float else True if dtype is DType.BOOL else 3
        return self.builder.call("full", shape=self.shape(int(self.generator.integers(0, 3))), value=value, dtype=dtype)

    def iota(self) -> Value:
        dtype = self.choice((DType.INT64, DType.INT32, F32))
        return self.builder.call("iota", size=self.choice(EXTENTS), start=self.choice((0, 3)), step=self.choice((1, 2)), dtype=dtype)

    def reshape(self) -> Value:
        x = self.pick()
        shape = list(x.tensor.static_shape)
        kind = int(self.generator.integers(4))
        if kind == 0:
            shape = [math.prod(shape)]
        elif kind == 1 and len(shape) >= 2:
            at = int(self.generator.integers(len(shape) - 1))
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif kind == 2 and shape:
            at = self.axis(x)
            divisors = [n for n in range(1, shape[at] + 1) if shape[at] % n == 0] or [1]
            part = self.choice(divisors)
            shape[at : at + 1] = [part, shape[at] // part] if shape[at] else [0, 1]
        else:
            shape.insert(int(self.generator.integers(len(shape) + 1)), 1)
        return self.builder.call("reshape", x, shape=tuple(shape))

    def permute(self) -> Value:
        x = self.pick(lambda type: type.rank >= 2)
        return self.builder.call("permute", x, order=tuple(int(axis) for axis in self.generator.permutation(x.tensor.rank)))

    def broadcast(self) -> Value:
        x = self.pick()
        shape = [self.choice(EXTENTS) if extent == 1 and self.chance(0.7) else extent for extent in x.tensor.static_shape]
        return self.builder.call("broadcast_to", x, shape=(*self.shape(int(self.generator.integers(0, 2))), *shape))

    def concat(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        parts = [x]
        for _ in range(int(self.generator.integers(1, 3))):
            shape = list(x.tensor.static_shape)
            same = [v for v in self.pool if v.tensor.rank == len(shape) and v.tensor.dtype is x.tensor.dtype and _alike(v, x, axis)]
            shape[axis] = self.choice(EXTENTS)
            parts.append(self.choice(same) if same and self.chance(0.7) else self.array(tuple(shape), x.tensor.dtype))
        return self.builder.call("concat", *parts, axis=axis)

    def flip(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        return self.builder.call("flip", x, axes=(self.axis(x),))

    def pad(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        pads = tuple((int(self.generator.integers(0, 3)), int(self.generator.integers(0, 3))) for _ in range(x.tensor.rank))
        return self.builder.call("pad", x, pads=pads, value=self.choice((0.0, 1.5)) if x.tensor.dtype.is_float else 0)

    def slice(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        extent = x.tensor.static_shape[axis]
        start = int(self.generator.integers(0, max(extent, 1)))
        stop = int(self.generator.integers(min(start + 1, extent), extent + 1))
        return self.builder.call("slice", x, axis=axis, start=min(start, stop), stop=stop, step=self.choice((1, 1, 1, 2, 3)))

    def relayout(self) -> Value:
        x = self.pick(lambda type: type.rank >= 2)
        layout = Layout(tuple(int(axis) for axis in self.generator.permutation(x.tensor.rank)))
        return self.builder.add("relayout", x, types=[x.tensor.with_layout(layout)]).output


def _alike(value: Value, like: Value, axis: int) -> bool:
    shapes = [list(each.tensor.static_shape) for each in (value, like)]
    for shape in shapes:
        del shape[axis]
    return shapes[0] == shapes[1]
