"""Compares what a template generates with the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from harness import HOST, NativeKernel, aligned

from mlc.codegen.constant_layout import stored
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Numerics, Task
from mlc.codegen.template import Template
from mlc.ir import DType, Graph, GraphBuilder, Layout, TensorType, Value, constant_of, interpret


def tensor(shape: Sequence[int], dtype: DType = DType.FLOAT32, order: Sequence[int] | None = None) -> TensorType:
    """A tensor type; ``order`` is the physical order of its axes."""
    return TensorType(dtype, tuple(shape), Layout(tuple(order)) if order else None)  # type: ignore[arg-type]


def region(inputs: Sequence[TensorType], build: Callable[..., Value | Sequence[Value]], orders: Sequence[Sequence[int]] = ()) -> Graph:
    """The graph that ``build(builder, *inputs)`` makes; ``orders`` gives outputs another physical order."""
    builder = GraphBuilder()
    result = build(builder, *(builder.input(type) for type in inputs))
    outputs = [result] if isinstance(result, Value) else list(result)
    for value, order in zip(outputs, orders, strict=False):
        value.type = value.tensor.with_layout(Layout(tuple(order)))
    return builder.finish(outputs)


def random_inputs(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Random logical arrays: floats around 1 in size, small integers, either boolean."""
    generator = np.random.default_rng(seed)
    arrays = []
    for value in graph.inputs:
        type = value.tensor
        if type.dtype is DType.BOOL:
            arrays.append(generator.random(type.static_shape) < 0.5)
        elif type.dtype.is_integer:
            arrays.append(generator.integers(0, 3, type.static_shape).astype(type.dtype.numpy))
        else:
            arrays.append(generator.standard_normal(type.static_shape).astype(type.dtype.numpy))
    return arrays


def run(
    template: Template,
    graph: Graph,
    inputs: Sequence[np.ndarray],
    config: Config | None = None,
    target: Target = HOST,
    threads: int = 1,
    constants: frozenset[int] = frozenset(),
    numerics: Numerics = Numerics.FAST,
) -> list[np.ndarray]:
    """The outputs of the kernel that ``template`` makes of ``graph``, as logical arrays; buffers are poisoned before."""
    assert template.takes(graph)
    task = Task(graph, constants, target, threads, numerics)
    space = template.space(task)
    kernel = template.lower(task, config or space.default)
    arguments = []
    for position, (value, array) in enumerate(zip(graph.inputs, inputs, strict=True)):
        packed = stored(constant_of(array, value.tensor), kernel.constant_layouts.get(position, value.tensor.layout))
        buffer = aligned(packed.shape, packed.dtype)
        buffer[...] = packed
        arguments.append(buffer)
    outputs = [aligned(value.tensor.physical_shape, value.tensor.dtype.numpy, 0xFF) for value in graph.outputs]
    workspace = [aligned((kernel.workspace_bytes,), np.uint8, 0xFF)] if kernel.workspace_bytes else []
    NativeKernel(kernel.function, target)(*arguments, *outputs, *workspace)
    return [value.tensor.layout.unpack(array, value.tensor.static_shape) for value, array in zip(graph.outputs, outputs, strict=True)]


def check(
    template: Template,
    graph: Graph,
    *,
    tolerance: float = 2e-6,
    inputs: Sequence[np.ndarray] | None = None,
    all_configs: bool = False,
    threads: int = 1,
    target: Target = HOST,
    constants: frozenset[int] = frozenset(),
    numerics: Numerics = Numerics.FAST,
) -> None:
    """Asserts that the kernel computes what the interpreter does, within ``tolerance`` of each output's largest magnitude."""
    arrays = list(inputs) if inputs is not None else random_inputs(graph)
    expected = interpret(graph, arrays, wide=True)
    configs = template.space(Task(graph, constants, target, threads, numerics)).configs if all_configs else (None,)
    for config in configs:
        results = run(template, graph, arrays, config, target, threads, constants, numerics)
        for value, result, reference in zip(graph.outputs, results, expected, strict=True):
            if not value.tensor.dtype.is_float:
                np.testing.assert_array_equal(result, reference.astype(result.dtype), err_msg=f"{config}\n{graph}")
                continue
            scale = max(float(np.max(np.abs(reference[np.isfinite(reference)]), initial=0)), 1e-30)
            np.testing.assert_allclose(result, reference, rtol=0, atol=tolerance * scale, err_msg=f"{config}\n{graph}")
