"""Elementwise operations, views and data movement: a thread for each element, or for some of them."""

from __future__ import annotations

from typing import ClassVar

from ...ir import Graph
from ..emit import Evaluator, Expr, pulls
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .elements import blocks_for, each_element, element_space, physical_indices
from .kernel import GpuKernel


class GpuElementwise(Template):
    """Any region of elementwise, view and data-movement operations; every output is computed from the inputs where it is stored.

    Knobs: ``threads`` of a block, elements ``per_thread``.
    """

    name: ClassVar[str] = "gpu_elementwise"

    def takes(self, graph: Graph) -> bool:
        return all(pulls(node) for node in graph.nodes) and not any(
            value.tensor.layout.is_blocked or not value.tensor.is_static for value in graph.outputs
        )

    def space(self, task: Task) -> Space:
        return element_space(self.name, task, _largest(task.graph), len(task.graph.inputs))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        graph = task.graph
        kernel = GpuKernel(graph, blocks=blocks_for(_largest(graph), config), threads=config["threads"])
        evaluator = Evaluator(kernel)
        alike: dict[object, list[int]] = {}
        for number, value in enumerate(graph.outputs):
            alike.setdefault((value.tensor.shape, value.tensor.layout), []).append(number)
        for outputs in alike.values():
            type = graph.outputs[outputs[0]].tensor
            if type.elements == 0:
                continue

            def store(position: Expr, outputs: list[int] = outputs) -> None:
                indices = physical_indices(kernel, graph.outputs[outputs[0]].tensor, position)
                for number in outputs:
                    evaluator.store_outputs(number, indices)

            with kernel.emitter.scope():
                each_element(kernel, type.elements, config["per_thread"], store)
        return kernel.lowered()


def _largest(graph: Graph) -> int:
    return max((value.tensor.elements for value in graph.outputs), default=1)
