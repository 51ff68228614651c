"""Steps that add control flow."""

from __future__ import annotations

from ...ir import GraphBuilder, TensorType, Value
from .drawing import F32, Drawing


class ControlSteps(Drawing):
    """Branches and loops over small bodies."""

    def cond(self) -> list[Value]:
        x, y = self.floating(), self.floating()
        positive = self.builder.call("gt", x, self.number(x, 0.0))
        predicate = self.builder.call("reduce", positive, kind="any", axes=tuple(range(x.tensor.rank)))
        branches = []
        for _ in range(2):
            inner = GraphBuilder("branch")
            a, b = inner.input(x.type), inner.input(y.type)
            branches.append(inner.finish([inner.call(self.choice(("tanh", "neg", "relu")), a), inner.call("square", inner.call("sin", b))]))
        return list(self.builder.add("cond", predicate, x, y, regions=branches).outputs)

    def loop(self) -> list[Value]:
        x = self.pick(lambda type: type.dtype is F32 and type.rank >= 1 and 0 < type.static_shape[0] <= 8)
        shape = x.tensor.static_shape
        inner = GraphBuilder("body")
        element = TensorType(F32, shape[1:])
        carried, part = inner.input(element), inner.input(element)
        total = inner.call("tanh", inner.call("add", inner.call(self.choice(("neg", "relu", "sin")), carried), part))
        body = inner.finish([total, inner.call("mul", total, part)])
        attributes = {"trips": shape[0], "carried": 1, "sliced": 1, "reverse": self.chance(0.5)}
        return list(self.builder.add("loop", self.array(shape[1:]), x, attributes=attributes, regions=[body]).outputs)
