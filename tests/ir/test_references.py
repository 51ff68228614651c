"""The NumPy reference of every operation, and its type inference, against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
from op_case import Case, type_of
from op_cases import CASES

from mlc.ir import Cost, DType, Graph, GraphBuilder, TensorType, Trait, graph_cost, interpret, lookup, node_cost, registry, verify

WITH_REGIONS_OR_STATE = {"fusion", "cond", "while", "loop", "state_read", "state_write"}


def test_every_operation_is_in_the_table() -> None:
    assert {case.op for case in CASES} == set(registry()) - WITH_REGIONS_OR_STATE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_and_inference(case: Case) -> None:
    graph = case.graph()
    verify(graph)
    results, expected = interpret(graph, case.operands), case.expected()
    assert len(results) == len(expected)
    for result, wanted, value in zip(results, expected, graph.outputs, strict=True):
        assert value.tensor.static_shape == wanted.shape
        assert result.shape == wanted.shape
        rounded = value.tensor.dtype in (DType.BFLOAT16, DType.FLOAT16, DType.FLOAT8_E4M3, DType.FLOAT8_E5M2)
        assert rounded or value.tensor.dtype.numpy == wanted.dtype
        if case.exact or wanted.dtype.kind != "f":
            np.testing.assert_array_equal(result, wanted)
        else:
            rounding = 1e-6 if wanted.dtype == np.float32 else 1e-11
            np.testing.assert_allclose(result.astype(np.float64), wanted, rtol=rounding, atol=rounding)
            zeros = (wanted == 0) & (result == 0)
            if lookup(case.op).has(Trait.ELEMENTWISE):
                np.testing.assert_array_equal(np.signbit(result[zeros]), np.signbit(wanted[zeros]), "signs of zeros")


@pytest.mark.parametrize("case", [case for case in CASES if lookup(case.op).decompose is not None], ids=str)
def test_decomposition_computes_the_same(case: Case) -> None:
    whole = case.graph()
    decomposed = decompose(case)
    verify(decomposed)
    assert [value.type for value in decomposed.outputs] == [value.type for value in whole.outputs]
    assert all(node.op != case.op for node in decomposed.nodes)
    if not any(0 in array.shape for array in case.operands):
        for one, other in zip(interpret(decomposed, case.operands), interpret(whole, case.operands), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def decompose(case: Case) -> Graph:
    builder = GraphBuilder()
    inputs = [builder.input(type_of(array)) for array in case.operands]
    definition = lookup(case.op)
    assert definition.decompose is not None
    attributes = definition.normalise_axes(definition.complete_attributes(case.attributes), [value.type for value in inputs])
    return builder.finish([definition.decompose(builder, inputs, attributes)])


@pytest.mark.parametrize("case", [case for case in CASES if case.operands], ids=str)
def test_wide_is_float64_arithmetic_on_operands_of_float32(case: Case) -> None:
    single = narrowed(case, np.float32)
    exact = narrowed(single, np.float64)
    before = [array.copy() for array in single.operands]
    wide = interpret(single.graph(), single.operands, wide=True)
    for one, other in zip(wide, interpret(exact.graph(), exact.operands), strict=True):
        # A cast rounds to its own dtype even here.
        assert one.dtype == other.dtype or case.op == "cast"
        np.testing.assert_array_equal(one, other.astype(one.dtype))
    for array, copy in zip(single.operands, before, strict=True):
        np.testing.assert_array_equal(array, copy, "an operand was written to")


def narrow(array: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array.astype(dtype) if array.dtype.kind == "f" else array


def narrowed(case: Case, dtype: type[np.floating]) -> Case:
    operands = tuple(narrow(array, dtype) for array in case.operands)
    return Case(case.op, operands, case.torch, case.attributes)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cost_is_sane(case: Case) -> None:
    node = case.graph().nodes[0]
    cost = node_cost(node)
    # A put is done in place: it writes its values.
    results = sum(value.tensor.nbytes for value in (node.inputs[1:2] if node.op == "put" else node.outputs))
    assert cost.bytes_written == results
    assert 0 <= cost.bytes_read <= max(sum(array.nbytes for array in case.operands), 2 * results + sum(a.nbytes for a in case.operands[1:]))
    assert cost.flops >= 0
    if lookup(case.op).has(Trait.VIEW):
        assert cost.flops == 0


def test_costs_of_known_operations() -> None:
    def cost(op: str, *shapes: tuple[int, ...], **attributes: object) -> Cost:
        builder = GraphBuilder()
        inputs = [builder.input(TensorType(DType.FLOAT32, shape)) for shape in shapes]
        return node_cost(builder.add(op, *inputs, attributes=attributes))  # type: ignore[arg-type]

    assert cost("matmul", (2, 3), (3, 5)) == Cost(2 * 2 * 3 * 5, 4 * (6 + 15), 4 * 10)
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    assert cost("conv", (1, 4, 6, 6), (8, 2, 3, 3), **window, groups=2).flops == 2 * (8 * 36) * (2 * 9)
    assert cost("slice", (1000,), axis=0, stop=3).bytes_read == 12  # not the whole operand
    assert cost("add", (4, 1), (3,)) == Cost(12, 4 * 7, 4 * 12)


def test_cost_of_a_fusion_counts_operands_once() -> None:
    region = GraphBuilder("body")
    x = region.input(TensorType(DType.FLOAT32, (8,)))
    body = region.finish([region.call("mul", region.call("add", x, x), x)])
    builder = GraphBuilder()
    fused = builder.add("fusion", builder.input(TensorType(DType.FLOAT32, (8,))), regions=[body])
    assert graph_cost(builder.finish(fused.outputs)) == Cost(16, 32, 32)
