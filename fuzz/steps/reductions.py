"""Steps that combine elements along axes."""

from __future__ import annotations

import numpy as np

from ...errors import Error
from ...ir import ArrayConstant, Value
from .drawing import F32, Drawing


class ReductionSteps(Drawing):
    """Reductions, scans, softmax and normalisation."""

    def reduce(self) -> Value:
        x = self.pick()
        kind = self.choice(("sum", "mean", "prod", "max", "min", "any", "all", "argmax", "argmin"))
        axes = tuple(axis for axis in range(x.tensor.rank) if self.chance(0.5))
        if kind.startswith("arg"):
            axes = (self.axis(x),)
        if kind in ("max", "min", "argmax", "argmin") and any(x.tensor.static_shape[axis] == 0 for axis in axes):
            raise Error("nothing to choose from")
        if kind == "prod" and x.tensor.dtype.is_float:
            x = self.limited(x, -1.25, 1.25)
        return self.builder.call("reduce", x, kind=kind, axes=axes, keepdims=self.chance(0.4))

    def scan(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        kind = self.choice(("sum", "prod"))
        if kind == "prod" and x.tensor.dtype.is_float:
            x = self.limited(x, -1.25, 1.25)
        return self.builder.call("scan", x, kind=kind, axis=self.axis(x))

    def softmax(self) -> Value:
        x = self.floating(1)
        return self.builder.call(self.choice(("softmax", "log_softmax")), x, axis=self.axis(x))

    def norm(self) -> Value:
        kind = self.choice(("layer_norm", "rms_norm", "group_norm", "batch_norm"))
        x = self.floating(1 if kind in ("layer_norm", "rms_norm") else 2, F32)
        shape = x.tensor.static_shape
        if kind == "layer_norm":
            axes = int(self.generator.integers(1, min(len(shape), 2) + 1))
            operands = [self.array(shape[-axes:]) for _ in range(int(self.generator.integers(0, 3)))]
            return self.builder.call("layer_norm", x, *operands, axes=axes)
        if kind == "rms_norm":
            return self.builder.call("rms_norm", x, *([self.array(shape[-1:])] if self.chance(0.6) else []))
        channels = shape[1:2]
        operands = [self.array(channels) for _ in range(int(self.generator.integers(0, 3)))]
        if kind == "group_norm":
            groups = self.choice([n for n in range(1, shape[1] + 1) if shape[1] % n == 0] or [1])
            return self.builder.call("group_norm", x, *operands, groups=groups)
        variance = np.abs(self.generator.standard_normal(channels)) + 0.3
        mean, spread = self.array(channels), self.builder.constant(ArrayConstant(variance.astype(np.float32)))
        return self.builder.call("batch_norm", x, mean, spread, *operands)
