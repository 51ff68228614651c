"""Activations between convolutions in bfloat16: which are stored in bfloat16, and which stay as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from golden import CONTEXT, check_same

from mlc.codegen.precision import Precision
from mlc.codegen.target import Target
from mlc.codegen.task import Numerics
from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, TensorType, Value, interpret, verify
from mlc.passes import Context, Pipeline

ZEN4 = replace(CONTEXT, target=Target.parse("cpu -mcpu=znver4 -threads=1"), precision=Precision.of("bf16"))
CONV = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}


class Network:
    """Convolutions of 16 channels in the making."""

    def __init__(self) -> None:
        self.builder = GraphBuilder()
        self.x = self.builder.input(TensorType(DType.FLOAT32, (1, 16, 6, 5)))
        self._generator = np.random.default_rng(0)

    def conv(self, x: Value) -> Value:
        weight = ArrayConstant(self._generator.standard_normal((16, 16, 3, 3)).astype(np.float32) / 12)
        return self.builder.call("conv", x, self.builder.constant(weight), **CONV)

    def relu(self, x: Value) -> Value:
        return self.builder.call("relu", x)

    def add(self, x: Value, y: Value) -> Value:
        return self.builder.call("add", x, y)


def narrowed(network: Network, *results: Value, ctx: Context = ZEN4) -> Graph:
    before = network.builder.finish(list(results))
    after = Pipeline.parse("narrow-operands,narrow-activations,common-subexpressions").run(before, ctx)
    verify(after)
    check_same(before, after, tolerance=2e-2)
    return after


def widened(graph: Graph) -> list[list[bool]]:
    """For each sum, which of its operands come in bfloat16."""

    def comes_narrow(value: Value) -> bool:
        return value.op == "cast" and value.node is not None and value.node.inputs[0].tensor.dtype is DType.BFLOAT16

    return [[comes_narrow(value) for value in node.inputs] for node in graph.nodes if node.op == "add"]


def test_the_branch_around_a_residual_block_is_what_its_layers_multiply() -> None:
    network = Network()
    x = network.relu(network.conv(network.x))
    y = network.relu(network.add(network.conv(network.relu(network.conv(x))), x))
    graph = narrowed(network, network.conv(y))
    assert widened(graph) == [[False, True]]
    casts = [node for node in graph.nodes if node.op == "cast" and node.output.tensor.dtype is DType.BFLOAT16]
    (users,) = ([user.op for user in graph.users[node.output]] for node in casts if len(graph.users[node.output]) == 2)
    assert sorted(users) == ["cast", "conv"], "one number is rounded once, for both"


def test_of_two_branches_of_convolutions_one_is_stored() -> None:
    network = Network()
    x = network.relu(network.conv(network.x))
    assert widened(narrowed(network, network.add(network.conv(x), network.conv(x)))) == [[True, False]]


def test_what_no_convolution_multiplies_stays() -> None:
    network = Network()
    y = network.relu(network.conv(network.x))
    assert widened(narrowed(network, network.add(y, network.relu(y)))) == [[False, False]]


def test_nothing_changes_in_single_precision() -> None:
    network = Network()
    x = network.relu(network.conv(network.x))
    graph = narrowed(network, network.add(network.conv(x), x), ctx=replace(ZEN4, precision=Precision.of("fp32")))
    assert widened(graph) == [[False, False]]


def in_bytes(network: Network, *results: Value, ctx: Context = ZEN4) -> Graph:
    """After both passes in ``int8``, with the range of activations known from the calibration."""
    samples = [[np.random.default_rng(3).standard_normal((1, 16, 6, 5)).astype(np.float32)]]
    return narrowed(network, *results, ctx=replace(ctx, precision=Precision.of("int8"), calibration=samples, evaluator=interpret))


def test_sums_read_the_codes_that_convolutions_multiply() -> None:
    network = Network()
    x = network.relu(network.conv(network.x))
    y = network.relu(network.add(network.conv(network.relu(network.conv(x))), x))
    graph = in_bytes(network, network.conv(y))
    (total,) = [node for node in graph.nodes if node.op == "add"]
    assert total.inputs[1].op == "mul"
    shared = [node for node in graph.nodes if node.op == "quantise" and len(graph.users[node.output]) == 2]
    assert [sorted(user.op for user in graph.users[node.output]) for node in shared] == [["cast", "conv"]]
    strict = in_bytes(network, network.conv(y), ctx=replace(ZEN4, numerics=Numerics.STRICT))
    (total,) = [node for node in strict.nodes if node.op == "add"]
    assert total.inputs[1].op == "relu", "codes know neither NaN nor infinity"


def test_of_two_branches_in_bytes_one_is_stored_in_bfloat16() -> None:
    network = Network()
    x = network.relu(network.conv(network.x))
    total = network.add(network.conv(x), network.conv(x))
    assert widened(in_bytes(network, total)) == [[True, False]]
    without = replace(ZEN4, target=Target.parse("cpu -mcpu=x86-64-v3 -threads=1"))
    assert widened(in_bytes(network, total, ctx=without)) == [[False, False]], "rounding takes an instruction"


def test_maxima_over_windows_are_those_of_codes() -> None:
    network = Network()
    window = {"window": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "kind": "max"}
    pooled = network.builder.call("window_reduce", network.relu(network.conv(network.x)), **window)
    graph = in_bytes(network, network.conv(pooled))
    (pool,) = [node for node in graph.nodes if node.op == "window_reduce"]
    assert pool.output.tensor.dtype is DType.UINT8
    strict = in_bytes(network, network.conv(pooled), ctx=replace(ZEN4, numerics=Numerics.STRICT))
    (pool,) = [node for node in strict.nodes if node.op == "window_reduce"]
    assert pool.output.tensor.dtype is DType.FLOAT32, "the maximum of numbers with NaN is NaN"
