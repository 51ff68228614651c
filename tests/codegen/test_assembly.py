"""Assembly: programs that are right whatever their outputs are, and errors that lead to the user's line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from programs import HOST, assembled

from mlc import LoweringError
from mlc.codegen.assembly import Assembled, assemble
from mlc.codegen.entry import entry_source
from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, Layout, Location, TensorType, Value, interpret, symbol
from mlc.ir.program import BufferRef, KernelCall, Signature, Space
from mlc.ir.types import SymbolRange
from mlc.runtime import Executable

F32 = DType.FLOAT32


def f32(*shape: int, layout: Layout | None = None) -> TensorType:
    return TensorType(F32, shape, layout)  # type: ignore[arg-type]


def weight(builder: GraphBuilder, *shape: int) -> Value:
    data = np.random.default_rng(len(shape)).standard_normal(shape) / np.sqrt(shape[-1])
    return builder.constant(ArrayConstant(data.astype(np.float32)))


def check(graph: Graph) -> Assembled:
    """The program of ``graph``, after comparing it with the interpreter."""
    program = assembled(graph)
    random = np.random.default_rng(0)
    arrays: Sequence[np.ndarray] = [random.standard_normal(value.tensor.static_shape).astype(np.float32) for value in graph.inputs]
    expected = interpret(graph, arrays, wide=True)
    actual = Executable(program.program, program.library, program.weights)(*arrays)
    actual = actual if isinstance(actual, tuple) else (actual,)
    for got, want in zip(actual, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return program


def test_outputs_that_no_kernel_writes_are_copied() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(3, 5), "x")
    sum_ = builder.call("add", x, x)
    turned = builder.call("permute", sum_, order=(1, 0))
    check(builder.finish([x, sum_, sum_, weight(builder, 4), turned, builder.call("reshape", sum_, shape=(15,))]))


def test_an_output_that_other_kernels_read_is_written_once() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(8, 16))
    first = builder.call("linear", x, weight(builder, 16, 16))
    program = check(builder.finish([builder.call("softmax", first, axis=1), first])).program
    assert len(program.calls) == 2
    assert program.arena_bytes == 0


def test_a_constant_is_stored_once_per_layout() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(8, 64))
    shared = weight(builder, 64, 64)
    y = builder.call("linear", builder.call("relu", builder.call("linear", x, shared)), shared)
    program = check(builder.finish([builder.call("add", y, builder.call("reduce", shared, kind="sum", axes=(0,)))])).program
    assert len(program.constants) == 2, "packed for the layers, plain for the sum"


def test_a_view_of_a_constant_is_a_constant() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(4, 6))
    turned = builder.call("permute", weight(builder, 6, 10), order=(1, 0))
    program = check(builder.finish([builder.call("linear", x, turned)])).program
    assert len(program.calls) == 1


def test_identical_kernels_are_compiled_once() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(4, 32))
    for _ in range(3):
        x = builder.call("relu", builder.call("linear", x, weight(builder, 32, 32)))
    program = check(builder.finish([x])).program
    assert len(program.calls) == 6
    assert len({call.symbol for call in program.calls}) == 2


def test_results_without_elements_need_no_kernel() -> None:
    builder = GraphBuilder()
    x = builder.input(f32(0, 5))
    assert not check(builder.finish([builder.call("exp", x)])).program.calls


def test_what_no_template_takes_is_listed_with_the_users_line() -> None:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.COMPLEX64, (4, 4)))
    builder.location = Location("net.head", "model.py:7: torch.cat([x, x])", "aten.cat.default")
    with pytest.raises(LoweringError, match=r"concat .*net\.head.*model\.py:7.*c64\[4,4\]"):
        assembled(builder.finish([builder.call("concat", x, x, axis=0)]))


def test_a_size_that_no_input_tells_is_refused() -> None:
    builder = GraphBuilder(symbols={"s0": SymbolRange(1, 8)})
    x = builder.input(TensorType(F32, (symbol("s0"), 4)), "x")
    graph = builder.finish([builder.call("relu", x)])
    with pytest.raises(LoweringError, match="no input of the signature tells"):
        assemble(graph, HOST, Signature((), ()), lambda task, template, space: space.default)


def test_an_operation_with_several_results_may_be_all_that_reads_an_input() -> None:
    builder = GraphBuilder()
    node = builder.add("sort", builder.input(TensorType(F32, (4, 6))), attributes={"axis": 1, "count": 2})
    assert len(assembled(builder.finish(node.outputs)).program.calls) == 1


def test_the_entry_calls_kernels_in_order_on_their_buffers() -> None:
    arguments = (
        BufferRef(Space.INPUT, 1, 4),
        BufferRef(Space.CONSTANT, 64, 4),
        BufferRef(Space.ARENA, 128, 4),
        BufferRef(Space.OUTPUT, 0, 4),
    )
    source = entry_source([KernelCall("k0", arguments, "a*/b", "t", "c", "", 0, 0)], inputs=2, outputs=1)
    assert "k0(io[1], constants + 64, scratch + 128, io[2])" in source
    assert "a* /b" in source
