"""Sorting and top-k along an axis: the row's keys are staged and put in order (:mod:`.sorting`), then its elements are picked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ...ir import DType, Graph, Node, Value
from ..emit import SERIAL, VECTORIZED, Evaluator, Expr, Kernel, compute_dtype, computes, index, pulls
from ..emit.attributes import attributes_of
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .loops import LoopGroup, outer_loops, runs_parallel, worth_parallel
from .sorting import KeyRow, Method, key_dtype, key_of

_LONGEST = 1 << 24
"""Elements of a row: its keys and positions are held twice."""
_STACK_BYTES = 1 << 17
"""Rows that take more scratch memory than this are sorted one after the other in the workspace."""


class Sort(Template):
    """One ``sort`` with an elementwise prologue; the outputs are its values, its indices, or both.

    Knobs: ``lanes`` of a vector, ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "sort"
    revision: ClassVar[int] = 2

    def takes(self, graph: Graph) -> bool:
        node = _anchor(graph)
        if node is None or not graph.outputs or not all(value in node.outputs for value in graph.outputs):
            return False
        type = node.inputs[0].tensor
        length = type.shape[_axis(node)]
        if not computes(type.dtype) or type.dtype is DType.BOOL or type.is_empty or not isinstance(length, int):
            return False
        return length <= _LONGEST and not any(value.tensor.layout.is_blocked for value in graph.outputs)

    def space(self, task: Task) -> Space:
        lanes = task.target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        choices = (("lanes", (lanes,)), ("parallel", (0, 1) if task.threads > 1 else (0,)))
        return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "parallel": parallel}))

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        node = _anchor(task.graph)
        assert node is not None
        return _Computation(task, node, config).lower()


class _Computation:
    """The kernel of one sort."""

    def __init__(self, task: Task, node: Node, config: Config) -> None:
        self.task = task
        self.node = node
        self.config = config
        self.type = node.inputs[0].tensor
        self.axis = _axis(node)
        self.length = int(self.type.shape[self.axis])
        count = int(node.outputs[0].tensor.shape[self.axis])
        self.method = Method.choose(self.length, count, config["lanes"])
        dtype = self.type.dtype
        # Elements, their keys (unless they are their own), and what the method needs.
        self.buffers = [(self.method.padded, compute_dtype(key_dtype(dtype)), "keys"), *self.method.scratch(dtype)]
        if dtype.is_float:
            self.buffers.append((self.length, compute_dtype(dtype), "row"))
        sizes = [-(-extent * np.dtype(name).itemsize // 64) * 64 for extent, name, _ in self.buffers]
        self.workspace_bytes = sum(sizes) if sum(sizes) > _STACK_BYTES else 0
        self.offsets = [sum(sizes[:number]) for number in range(len(sizes))]

    def lower(self) -> LoweredKernel:
        task, node, type = self.task, self.node, self.type
        kernel = Kernel(task.graph, workspace_bytes=self.workspace_bytes)
        emitter = kernel.emitter
        evaluator = Evaluator(kernel)
        free = [LoopGroup((other,), (type.shape[other],)) for other in type.layout.order if other != self.axis]
        vectorised = all(vectorises(other) for other in task.graph.nodes if other is not node)
        parallel = runs_parallel(task, self.config) and not self.workspace_bytes
        with outer_loops(emitter, free, parallel, 4 * task.threads) as indices:
            keys, *scratch = self._allocate(kernel)
            # Integers are sorted by themselves, but merging overwrites them.
            values = scratch.pop() if type.dtype.is_float else None
            descending = bool(attributes_of(node)["descending"])
            row = KeyRow(emitter, keys, scratch, self.method, type.dtype, descending, self.config["lanes"])
            with emitter.loop(self.length, SERIAL if not vectorised or self.length > 64 else VECTORIZED) as position:
                value = emitter.bind(evaluator.value_at(node.inputs[0], self._at(position, indices)))
                if values is not None:
                    emitter.store(values, value, position)
                emitter.store(keys, key_of(emitter.bind, value, type.dtype), position)
            if self.method.padded > self.length:
                with emitter.loop(self.method.padded - self.length) as position:
                    emitter.store(keys, row.last(), position + self.length)

            def store(place: Expr, position: Expr) -> None:
                for number, output in enumerate(task.graph.outputs):
                    if output is not node.outputs[0]:
                        element = tirx.Cast("int64", position)
                    elif values is not None:
                        element = emitter.load(values, position)
                    else:
                        element = evaluator.value_at(node.inputs[0], self._at(position, indices))
                    kernel.store(number, self._at(place, indices), element)

            row.sort(store)
        return LoweredKernel(kernel.finish(), workspace_bytes=self.workspace_bytes)

    def _at(self, position: Expr, indices: Mapping[int, Expr]) -> list[Expr]:
        return [position if number == self.axis else indices.get(number, index(0)) for number in range(self.type.rank)]

    def _allocate(self, kernel: Kernel) -> list[Any]:
        if not self.workspace_bytes:
            return [kernel.emitter.allocate(*buffer) for buffer in self.buffers]
        return [
            kernel.workspace(extent, name, offset, label) for (extent, name, label), offset in zip(self.buffers, self.offsets, strict=True)
        ]


def _anchor(graph: Graph) -> Node | None:
    anchors = [node for node in graph.nodes if not pulls(node)]
    return anchors[0] if len(anchors) == 1 and anchors[0].op == "sort" else None


def _axis(node: Node) -> int:
    operand: Value = node.inputs[0]
    return int(attributes_of(node)["axis"]) % operand.tensor.rank
