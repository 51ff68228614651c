"""Runs a region through a template, at one config, and compares every output with the float64 reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from harness import HOST, NativeKernel, aligned

from mlc.codegen.constant_layout import stored
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.template import Template
from mlc.ir import ArrayConstant, Constant, DType, Graph, Layout, TensorType, interpret

F32 = DType.FLOAT32
NHWC = Layout((0, 2, 3, 1))


def f32(*shape: int, layout: Layout | None = None) -> TensorType:
    return TensorType(F32, shape, layout)  # type: ignore[arg-type]


def task_of(graph: Graph, constants: Collection[int] = (), target: Target = HOST, threads: int = 2) -> Task:
    return Task(graph, frozenset(constants), target, threads)


def random_inputs(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(value.tensor.static_shape).astype(np.float32) for value in graph.inputs]


def run(
    template: Template, task: Task, config: Config, inputs: Sequence[np.ndarray], encoded: Mapping[int, Constant] | None = None
) -> list[np.ndarray]:
    """The outputs, in logical order, of the kernel of ``config``; memory it must write is poisoned with NaN before.

    ``encoded`` are constants that take the place of inputs.
    """
    lowered = template.lower(task, config)
    kernel = NativeKernel(lowered.function, task.target)
    arrays = []
    for position, (value, array) in enumerate(zip(task.graph.inputs, inputs, strict=True)):
        layout = lowered.constant_layouts.get(position, value.tensor.layout)
        words = stored((encoded or {}).get(position) or ArrayConstant(array), layout)
        copy = aligned(words.shape, words.dtype)
        copy[...] = words
        arrays.append(copy)
    results = [aligned(value.tensor.physical_shape, np.float32, 0xFF) for value in task.graph.outputs]
    workspace = [aligned((lowered.workspace_bytes,), np.uint8, 0xFF)] if lowered.workspace_bytes else []
    kernel(*arrays, *results, *workspace)
    return [
        value.tensor.layout.unpack(result, value.tensor.static_shape) for value, result in zip(task.graph.outputs, results, strict=True)
    ]


def check(template: Template, task: Task, configs: Sequence[Config] | None = None, encoded: Mapping[int, Constant] | None = None) -> None:
    """Asserts that the kernels of ``configs`` (by default the default one) are right on random data, and on the ``encoded`` constants."""
    assert template.takes(task.graph)
    inputs = random_inputs(task.graph)
    for position, constant in (encoded or {}).items():
        inputs[position] = constant.array()
    expected = interpret(task.graph, inputs, wide=True)
    for config in configs or [template.space(task).default]:
        for got, want in zip(run(template, task, config, inputs, encoded), expected, strict=True):
            error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)
            assert error < 2e-6, f"{config}: relative error {error:.2e}"
