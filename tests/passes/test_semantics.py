"""Random graphs compute the same after the default pipeline, and every pass keeps them valid."""

from __future__ import annotations

import numpy as np
from golden import CONTEXT, STRICT, TARGET
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, TensorType, Value
from mlc.passes import Compare, Context, Verify, default_pipeline

UNARY = ("neg", "abs", "square", "relu", "tanh", "sigmoid", "silu", "exp")
BINARY = ("add", "sub", "mul", "maximum")
STEPS = ("unary", "binary", "number", "parameter", "reshape", "permute", "slice", "norm", "reduce", "linear", "conv")


class Maker:
    """Draws a graph node by node: elementwise chains over shared values, views, reductions, norms, layers, convolutions."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.builder = GraphBuilder()
        self.generator = np.random.default_rng(draw(st.integers(0, 2**16)))
        rank = draw(st.sampled_from([2, 3, 4]))
        shape = tuple(draw(st.sampled_from([1, 2, 4, 8])) for _ in range(rank))
        self.values: list[Value] = [self.builder.input(TensorType(DType.FLOAT32, shape)) for _ in range(2)]

    def pick(self) -> Value:
        return self.draw(st.sampled_from(self.values[-4:]))

    def constant(self, *shape: int) -> Value:
        return self.builder.constant(ArrayConstant((self.generator.standard_normal(shape) / 2).astype(np.float32)))

    def number(self) -> Value:
        value = self.draw(st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.5, -1.0]))
        return self.builder.call("full", shape=(), value=value, dtype=DType.FLOAT32)

    def step(self) -> None:
        x = self.pick()
        shape = x.tensor.static_shape
        kind = self.draw(st.sampled_from(STEPS))
        call = self.builder.call
        if kind == "unary":
            # Bounded, so that chains of exponentials stay finite.
            result = call(self.draw(st.sampled_from(UNARY)), call("clamp", x, min=-3.0, max=3.0))
        elif kind == "binary":
            same = [value for value in self.values if value.tensor.shape == shape]
            result = call(self.draw(st.sampled_from(BINARY)), x, self.draw(st.sampled_from(same)))
        elif kind == "number":
            result = call(self.draw(st.sampled_from(BINARY)), x, self.number())
        elif kind == "parameter":
            result = call(self.draw(st.sampled_from(BINARY)), self.constant(shape[-1]), x)
        elif kind == "reshape":
            flat = self.draw(st.booleans())
            result = call("reshape", x, shape=(int(np.prod(shape)),) if flat else (*shape[:-1], 1, shape[-1]))
        elif kind == "permute":
            result = call("permute", x, order=tuple(self.draw(st.permutations(range(len(shape))))))
        elif kind == "slice":
            axis = self.draw(st.integers(0, len(shape) - 1))
            result = call("slice", x, axis=axis, start=0, stop=max(1, shape[axis] // 2))
        elif kind == "norm":
            whole = self.draw(st.booleans())
            result = call("layer_norm", x, self.constant(shape[-1])) if whole else call("softmax", x, axis=len(shape) - 1)
        elif kind == "reduce":
            result = call("reduce", x, kind="mean", axes=(self.draw(st.integers(0, len(shape) - 1)),), keepdims=self.draw(st.booleans()))
        elif kind == "linear":
            result = call("linear", x, self.constant(4, shape[-1]))
        elif len(shape) == 4:
            weight = self.constant(8, shape[1], 1, 1)
            result = call("conv", x, weight, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))
        else:
            return
        if result.tensor.rank > 0:
            self.values.append(result)

    def graph(self) -> Graph:
        for _ in range(self.draw(st.integers(1, 12))):
            self.step()
        outputs = [self.values[-1], *([self.pick()] if self.draw(st.booleans()) else [])]
        return self.builder.finish(outputs)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    return Maker(draw).graph()


def run(graph: Graph, ctx: Context) -> Graph:
    return default_pipeline(TARGET).run(graph, ctx, [Verify(), Compare(tolerance=1e-4)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_the_default_pipeline_keeps_what_a_graph_computes(graph: Graph) -> None:
    result = run(graph, CONTEXT)
    assert {node.op for node in result.nodes} <= {"fusion", "constant", "reshape", "permute", "relayout"}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_so_it_does_in_strict_numerics(graph: Graph) -> None:
    run(graph, STRICT)
