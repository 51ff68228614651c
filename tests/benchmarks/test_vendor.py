"""Sampled tasks in PyTorch compute what the interpreter computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlc.benchmarks.vendor import vendor_call
from mlc.codegen.target import Target
from mlc.costmodel.sampling import Family, sample_tasks
from mlc.errors import UnsupportedOpError
from mlc.ir import DType, GraphBuilder, TensorType, interpret

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")
LARGEST = 300_000
"""Elements of inputs that the interpreter takes quickly."""


@pytest.mark.parametrize("family", Family)
def test_a_task_of_each_family(family: Family) -> None:
    tasks = sample_tasks(40, 3, TARGET, 2, [family])
    small = [task for task in tasks if sum(value.tensor.elements for value in task.graph.inputs) <= LARGEST][:3]
    assert small
    for task in small:
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randn(value.tensor.static_shape, generator=generator).numpy() for value in task.graph.inputs]
        for found, expected in zip(vendor_call(task.graph)(), interpret(task.graph, inputs), strict=True):
            assert found.shape == expected.shape
            assert np.linalg.norm(found.numpy() - expected) <= 1e-5 * np.linalg.norm(expected)


def test_an_operation_without_counterpart_is_named() -> None:
    builder = GraphBuilder()
    graph = builder.finish([builder.call("erf", builder.input(TensorType(DType.FLOAT32, (4,))))])
    with pytest.raises(UnsupportedOpError, match="erf"):
        vendor_call(graph)
