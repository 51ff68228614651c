"""Runs GPU kernels on the processor, through OpenCL, and compares what they give with the interpreter."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyopencl as cl
from check import random_inputs

from mlc.codegen.gpu.source import opencl_source
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Numerics, Task
from mlc.codegen.template import LoweredKernel, Template
from mlc.ir import Graph, interpret

GPU = Target.parse("cuda -arch=sm_80")


@functools.cache
def queue() -> cl.CommandQueue:
    """A queue of the first OpenCL device, which is PoCL's processor on a machine without a GPU."""
    return cl.CommandQueue(cl.Context([cl.get_platforms()[0].get_devices()[0]]))


class Launcher:
    """A kernel compiled for the processor."""

    def __init__(self, kernel: LoweredKernel) -> None:
        assert kernel.launch is not None
        self.launch = kernel.launch
        program = cl.Program(queue().context, opencl_source(kernel.function, "kernel_under_test")).build()
        self._kernel = cl.Kernel(program, "kernel_under_test")

    def __call__(self, arguments: Sequence[np.ndarray], outputs: int) -> None:
        """Runs the kernel on arrays, of which it writes to the last ``outputs``."""
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        buffers = [cl.Buffer(queue().context, flags, hostbuf=array if array.size else np.zeros(1)) for array in arguments]
        threads = self.launch.threads
        self._kernel(queue(), (self.launch.blocks * threads,), (threads,), *buffers)
        for array, buffer in list(zip(arguments, buffers, strict=True))[len(arguments) - outputs :]:
            if array.size:
                cl.enqueue_copy(queue(), array, buffer)


def run(
    template: Template,
    graph: Graph,
    inputs: Sequence[np.ndarray],
    config: Config | None = None,
    constants: frozenset[int] = frozenset(),
    numerics: Numerics = Numerics.FAST,
) -> list[np.ndarray]:
    """The outputs of the kernel that ``template`` makes of ``graph``, as logical arrays; buffers are poisoned before."""
    assert template.takes(graph)
    task = Task(graph, constants, GPU, GPU.threads, numerics)
    kernel = template.lower(task, config or template.space(task).default)
    arguments: list[Any] = [
        kernel.constant_layouts.get(position, value.tensor.layout).pack(array)
        for position, (value, array) in enumerate(zip(graph.inputs, inputs, strict=True))
    ]
    updated = template.in_place(graph)
    outputs = [
        np.array(arguments[updated])
        if updated is not None
        else np.frombuffer(b"\xff" * value.tensor.nbytes, value.tensor.dtype.numpy).reshape(value.tensor.physical_shape).copy()
        for value in graph.outputs
    ]
    Launcher(kernel)([*arguments, *outputs], len(outputs))
    return [value.tensor.layout.unpack(array, value.tensor.static_shape) for value, array in zip(graph.outputs, outputs, strict=True)]


def check(
    template: Template,
    graph: Graph,
    *,
    tolerance: float = 2e-6,
    inputs: Sequence[np.ndarray] | None = None,
    configs: int = 1,
    constants: frozenset[int] = frozenset(),
    numerics: Numerics = Numerics.FAST,
) -> None:
    """Asserts that the kernel computes what the interpreter does, within ``tolerance`` of each output's largest magnitude.

    The default config is looked at, and others of the space up to ``configs`` in all.
    """
    arrays = list(inputs) if inputs is not None else random_inputs(graph)
    expected = interpret(graph, arrays, wide=True)
    space = template.space(Task(graph, constants, GPU, GPU.threads, numerics))
    others = [config for config in space.sample(len(space), 0) if config != space.default]
    for config in [space.default, *others[: configs - 1]]:
        results = run(template, graph, arrays, config, constants, numerics)
        for value, result, reference in zip(graph.outputs, results, expected, strict=True):
            if not value.tensor.dtype.is_float:
                np.testing.assert_array_equal(result, reference.astype(result.dtype), err_msg=f"{config}\n{graph}")
                continue
            scale = max(float(np.max(np.abs(reference[np.isfinite(reference)]), initial=0)), 1e-30)
            np.testing.assert_allclose(result, reference, rtol=0, atol=tolerance * scale, err_msg=f"{config}\n{graph}")
