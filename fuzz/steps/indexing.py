"""Steps that sort, or read and write at drawn indices."""

from __future__ import annotations

import numpy as np

from ...errors import Error
from ...ir import ArrayConstant, DType, Value
from .drawing import EXTENTS, Drawing


class IndexingSteps(Drawing):
    """Sorting, gathers and scatters."""

    def _indices(self, shape: tuple[int, ...], extent: int) -> Value:
        if extent == 0:
            raise Error("nothing to index")
        return self.builder.constant(ArrayConstant(np.asarray(self.generator.integers(-extent, extent, shape)).astype(np.int64)))

    def sort(self) -> list[Value]:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        extent = x.tensor.static_shape[axis]
        count = int(self.generator.integers(0, extent + 1)) if self.chance(0.4) else None
        return list(self.builder.add("sort", x, attributes={"axis": axis, "descending": self.chance(0.5), "count": count}).outputs)

    def take(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        shape = x.tensor.static_shape
        kind = self.choice(("take", "take_along", "take_nd"))
        if kind == "take":
            return self.builder.call("take", x, self._indices(self.shape(int(self.generator.integers(0, 3))), shape[axis]), axis=axis)
        if kind == "take_along":
            along = (*shape[:axis], self.choice(EXTENTS), *shape[axis + 1 :])
            return self.builder.call("take_along", x, self._indices(along, shape[axis]), axis=axis)
        depth = int(self.generator.integers(1, len(shape) + 1))
        return self.builder.call("take_nd", x, self._indices((self.choice(EXTENTS), depth), min(shape[:depth])))

    def scatter(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1 and type.dtype is not DType.BOOL)
        axis, shape, dtype = self.axis(x), x.tensor.static_shape, x.tensor.dtype
        reduction = self.choice(("assign", "add", "mul", "max", "min"))
        if self.chance(0.5):
            along = (*shape[:axis], self.choice(EXTENTS), *shape[axis + 1 :])
            indices = self._indices(along, shape[axis])
            return self.builder.call("scatter_along", x, indices, self.array(along, dtype), axis=axis, reduction=reduction)
        depth = int(self.generator.integers(1, len(shape) + 1))
        count = self.choice(EXTENTS)
        indices = self._indices((count, depth), min(shape[:depth]))
        return self.builder.call("scatter_nd", x, indices, self.array((count, *shape[depth:]), dtype), reduction=reduction)
